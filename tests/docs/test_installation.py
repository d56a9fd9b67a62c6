"""The README's prompt for agents and docs/start.md, followed from a clean clone in an empty home folder."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from support.client_programs import ClientPrograms
from support.ports import free_port, listening

from fastn_mcp.extensions.sandbox.auth import KEY

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32" or shutil.which("bash") is None, reason="the lines are for bash"),
]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


PROMPT = next(block for block in blocks("README.md", "text") if block.startswith("Install fastn-mcp for me"))


class Newcomer:
    """A person, or their agent, at a shell in a clean clone, with an empty home folder and no registry.

    Dependencies come from the environment of the tests; `pip` builds and installs the clone itself.
    """

    def __init__(self, folder: Path) -> None:
        self.home, self.clone, programs = folder / "home", folder / "clone", folder / "programs"
        self.home.mkdir()
        programs.mkdir()
        self.programs = ClientPrograms(programs)
        (programs / "python3").symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
            if (ROOT / name).is_file():  # also not committed yet
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.clone / name)
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        self.environment = {
            "HOME": str(self.home), "PATH": f"{programs}:/usr/bin:/bin", "SHELL": "/bin/bash", "PYTHONPATH": packages,
            "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_IGNORE_INSTALLED": "1",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        }  # fmt: skip

    def runs(self, line: str, given: str | None = None) -> str:
        """Run a line in a new terminal, and return what it prints."""
        done = subprocess.run(
            ["bash", "-i", "-c", line],
            cwd=self.clone,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


def test_prompt_for_agents_installs_connects_and_checks(newcomer: Newcomer) -> None:
    newcomer.programs.create("claude", "codex")
    first, *commands, last = PROMPT.splitlines()
    assert first.endswith("run these, and show me what they change:")
    assert last == "Never ask me for an API key."
    *_, setup, answer = [newcomer.runs(command) for command in commands]
    program = str(newcomer.home / ".local/share/fastn-mcp/bin/fastn-mcp")
    _, claude, codex = newcomer.programs.calls
    entry = json.loads(claude[-1])
    assert (entry["command"], entry["args"]) == (program, ["--sandbox"])
    assert codex == ["codex", "mcp", "add", "fastn", "--", program, "--sandbox"]
    assert f"  codex mcp add fastn -- {program} --sandbox\n" in setup
    assert f"Check that it works:\n  {program} --sandbox call get-overview\n" in setup
    assert json.loads(answer)["data"]["account"]["profile"] == "sandbox"


@pytest.fixture
def sandbox(newcomer: Newcomer) -> Generator[tuple[str, str]]:
    """The page's sandbox, served for as long as the test takes. Its address as printed on the page, and here."""
    (line,) = [line for block in blocks("docs/start.md", "bash") for line in block.splitlines() if "--port" in line]
    port = free_port()
    program = newcomer.home / ".local/bin/fastn-mcp"
    _install(newcomer)
    assert line == "fastn-mcp sandbox --port 8765"
    command = [str(program), "sandbox", "--port", str(port)]
    with subprocess.Popen(command, env=newcomer.environment, stdout=subprocess.DEVNULL) as process:
        try:
            listening(port, process)
            yield "8765", str(port)
        finally:
            process.terminate()


def _install(newcomer: Newcomer) -> None:
    """Follow the page to a program that the next terminal finds by its name."""
    (lines,) = [block for block in blocks("docs/start.md", "bash") if block.startswith("python3 -m venv")]
    for line in lines.splitlines():
        newcomer.runs(line)
    newcomer.programs.create("claude")
    hint = newcomer.runs("~/.local/bin/fastn-mcp setup --sandbox --yes").partition("for good:\n")[2].splitlines()[0]
    newcomer.runs(hint)


def test_start_page_lasts_from_one_terminal_to_the_next(newcomer: Newcomer, sandbox: tuple[str, str]) -> None:
    lines = [line.partition("   ")[0] for block in blocks("docs/start.md", "bash") for line in block.splitlines()]
    lines = [line for line in lines if line.startswith("fastn-mcp ") and "--port" not in line]
    assert len(lines) >= 12
    rows = json.loads(newcomer.runs("fastn-mcp --sandbox call list-customers"))["data"]
    for line in lines:
        command = line.replace(" ID ", f" {rows[0]['id']} ").replace(*sandbox)
        # Nobody is at a terminal: what asks there is told the answer, and the first account is that of the rehearsal.
        if " install " in command or " uninstall " in command:
            command += " --yes"
        if command == "fastn-mcp setup":
            command += " --sandbox --yes"
        if command.startswith("fastn-mcp login"):
            command += " --stdin" if "--file" in command else " --file --stdin --no-check"
        if command == "fastn-mcp whoami":
            command = f"FASTN_BASE_URL=http://127.0.0.1:{sandbox[1]} FASTN_API_KEY={KEY} {command}"
        newcomer.runs(command, KEY)
    *_, installed, removed = newcomer.programs.calls
    assert json.loads(installed[-1])["args"] == ["--profile", "rehearsal", "--mode", "read-only"]
    assert removed == ["claude", "mcp", "remove", "--scope", "user", "fastn"]
