"""`fastn-mcp demo`: it tells what happened, and fails if that is not so."""

import json
import os
import shutil
import sys
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters
from support.command_line import run_process
from support.terminal import sitting

import fastn_mcp
from fastn_mcp.procedures.catalog import ALL_TOOLS

pytestmark = [pytest.mark.measured, pytest.mark.posix]
ROOT = Path(__file__).parents[2]
UVX = ROOT / ".cache" / "uv" / "bin" / "uvx"


@pytest.mark.long
def test_last_line_of_the_demo_installs_a_server_that_starts(tmp_path: Path) -> None:
    """Also in an empty folder. What the demo shows before: `tests/golden/test_command_texts.py`."""
    home = tmp_path / "home"
    empty = tmp_path / "empty"
    for folder in (home, empty):
        folder.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("FASTN_", "CLAUDE_", "CI"))
    }
    environment |= {"HOME": str(home), "UV_CACHE_DIR": str(tmp_path / "uv"), "PATH": f"{UVX.parent}:/usr/bin:/bin"}
    played = run_process([str(UVX), "--from", str(ROOT), "fastn-mcp", "demo"], environment)
    assert played.returncode == 0, played.stderr
    (home / ".claude.json").write_text("{}")
    message, command = played.stdout.splitlines()[-2:]
    assert message == "Everything worked. Try it in your own client:"
    assert command.strip() == f"uvx --from {ROOT} fastn-mcp install claude-code --sandbox"
    code = f"import os; os.chdir({str(empty)!r}); os.execv('/bin/sh', ['sh', '-c', {command!r}])"
    with sitting(["-c", code], environment) as person:
        person.answers("Apply this change? [y/N]:", "y")
        ended, shown = person.leaves()
    assert (ended, "Done." in shown) == (0, True), shown
    entry = json.loads((home / ".claude.json").read_bytes())["mcpServers"]["fastn"]
    assert (entry["command"], entry["args"][:2]) == ("uvx", ["--from", str(ROOT)])
    server = StdioServerParameters(command=entry["command"], args=entry["args"], env=environment, cwd=empty)
    for version in ("2026-07-28", "legacy"):
        assert anyio.run(count_tools, server, version) == len(ALL_TOOLS)


async def count_tools(server: StdioServerParameters, version: str) -> int:
    async with Client(server, mode=version) as client:
        return len((await client.list_tools()).tools)


# With any of these parts removed, the demo must not claim that it works.
BROKEN = {
    "a decline that is taken for approval": (
        "guard/approval_form.py",
        "read_answer = lambda *_: Approve('Globex Exports')",
        "check failed",
    ),
    "answers without what they are about": ("server/rendering.py", "def render(*_): return {}", "KeyError: 'data'"),
    "a sandbox that does not start": (
        "extensions/sandbox/app.py",
        "def create_app(_): raise OSError('no sandbox')",
        "no sandbox",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("what", BROKEN)
def test_demo_fails_if_a_claim_is_false(what: str, tmp_path: Path) -> None:
    module, added, message = BROKEN[what]
    (source,) = fastn_mcp.__path__
    shutil.copytree(source, tmp_path / "fastn_mcp", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "fastn_mcp" / module
    file.write_text(f"{file.read_text()}\n\n{added}\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    played = run_process([sys.executable, "-m", "fastn_mcp", "demo"], env, tmp_path)
    assert played.returncode == 1
    assert "Everything worked" not in played.stdout
    assert message in " ".join(played.stdout.split()).partition("The demo failed: ")[2]
    assert "Traceback" not in played.stderr
