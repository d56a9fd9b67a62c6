"""The benchmarks that CI does not run still run. Their figures are not judged here."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMANDS = {
    "load": ("load.py", "--calls", "200"),
    "growth": ("growth.py", "--rounds", "1", "--only", "account", "--only", "kept", "--only", "in_flight"),
    "profiling": ("profiling.py", "--rounds", "1"),
    "guard": ("guard.py",),
    "ledger_size": ("ledger_size.py", "--count", "1"),
    "harness": (
        *("harness.py", "--fastmcp", sys.executable, "--rounds", "1", "--calls", "3"),
        *("--only", "fastn-mcp", "--only", "sdk-static"),
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_benchmark_ends_with_figures(name: str, tmp_path: Path) -> None:
    script, *arguments = COMMANDS[name]
    if name == "harness":
        arguments += ["--work", str(tmp_path)]
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    path = {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT / 'tests' / 'end_to_end'}"}

    ended = subprocess.run(command, env=path, capture_output=True, text=True, check=False)

    assert "Traceback" not in ended.stderr
    assert any(character.isdigit() for character in ended.stdout)
