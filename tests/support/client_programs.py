"""Programs under the names of MCP clients, which record how they are called."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PROGRAM = """#!{python}
import json, os, sys
with open({calls!r}, "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
answers = json.load(open({answers!r})) if os.path.exists({answers!r}) else {{}}
code, text = answers.get(" ".join(sys.argv[2:3]), [0, "as you wish"])
print(text, file=sys.stderr if code else sys.stdout)
sys.exit(code)
"""


@dataclass
class ClientPrograms:
    """The programs of a folder. `answers` has the exit code and the text of a command, such as `add`."""

    folder: Path
    answers: Mapping[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])

    def create(self, *names: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "answers.json").write_text(json.dumps(self.answers))
        for name in names:
            program = self.folder / name
            paths = {"calls": str(self._calls), "answers": str(self.folder / "answers.json")}
            program.write_text(_PROGRAM.format(python=sys.executable, **paths))
            program.chmod(0o755)

    @property
    def calls(self) -> Sequence[Sequence[str]]:
        """Return how they were called, each with its name and its arguments."""
        return [json.loads(line) for line in self._calls.read_text().splitlines()] if self._calls.exists() else []

    @property
    def path(self) -> str:
        return os.pathsep.join((str(self.folder), "/usr/bin", "/bin"))

    @property
    def _calls(self) -> Path:
        return self.folder / "calls.jsonl"
