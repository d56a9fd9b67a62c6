"""`fastn-mcp demo`: it tells what happened, and fails if that is not so."""

import json
import os
import shlex
import shutil
import sys
import sysconfig
import venv
from dataclasses import dataclass
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
REAL_UVX = ROOT / ".cache" / "uv" / "bin" / "uvx"
ACCOUNT = {"FASTN_API_KEY": "fsk_C4N4RY", "FASTN_BASE_URL": "https://fastn.invalid", "FASTN_MODE": "auto"}


def uvx_environment(folder: Path, source: Path) -> Path:
    """Make an environment in uv's cache, with the program as `uvx --from SOURCE` installs it, and a `uvx` beside it.

    This uvx knows no registry: it takes a folder that is a project, and starts the program of the environment.
    """
    prefix = folder / "uv" / "archive-v0" / "demo"
    venv.create(prefix, symlinks=True)
    (folder / "uv" / "CACHEDIR.TAG").touch()
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(prefix)}))
    site_packages = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"  # what measures coverage too
    (packages / "installed.pth").write_text(f"{site_packages}\n{source}\n")
    about = packages / f"fastn_mcp-{fastn_mcp.__version__}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fastn-mcp\nVersion: {fastn_mcp.__version__}\n")
    (about / "direct_url.json").write_text(json.dumps({"url": source.as_uri(), "dir_info": {}}))
    program = prefix / "bin" / "fastn-mcp"
    program.write_text(f"#!{prefix}/bin/python\nfrom fastn_mcp.cli.program import main\nmain()\n")
    uvx = folder / "bin" / "uvx"
    uvx.parent.mkdir()
    uvx.write_text(
        '#!/bin/sh\n[ "$1 $3" = "--from fastn-mcp" ] && [ -f "$2/pyproject.toml" ] || '
        '{ echo "No solution found: fastn-mcp was not found in the package registry" >&2; exit 1; }\n'
        f'shift 3\nexec {shlex.quote(str(program))} "$@"\n'
    )
    for script in (program, uvx):
        script.chmod(0o755)
    return uvx


@dataclass(frozen=True)
class Played:
    """A demo that succeeded, in the environment of a person with an account of their own."""

    home: Path
    environment: dict[str, str]
    shown: str


def play(folder: Path, uvx: Path) -> Played:
    (home := folder / "home").mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("FASTN_", "CLAUDE_", "CI"))
    }
    environment |= {"HOME": str(home), "UV_CACHE_DIR": str(folder / "uv"), "PATH": f"{uvx.parent}:/usr/bin:/bin"}
    played = run_process([str(uvx), "--from", str(ROOT), "fastn-mcp", "demo"], environment | ACCOUNT)
    assert played.returncode == 0, played.stderr
    assert uvx is REAL_UVX or played.stderr == ""
    return Played(home, environment, played.stdout)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("demo")
    return play(folder, uvx_environment(folder, ROOT))


def test_demo_shows_neither_the_account_nor_colours(played: Played) -> None:
    assert "\x1b" not in played.shown
    assert "C4N4RY" not in played.shown
    assert "fastn.invalid" not in played.shown
    assert max(map(len, played.shown.splitlines()[:-1])) <= 100


def test_transcript_contains_each_step_once(played: Played) -> None:
    transcript = " ".join(played.shown.split())
    place = 0
    for sentence in (
        f"{len(ALL_TOOLS)} tools: ",
        "Why did the nightly contact sync stop?",
        'agent: find query="nightly contact sync"',
        "agent: diagnose",
        "there is no working connection to cin7Core",
        "What will not help: A rerun",
        "agent: create_connection",
        "person: types the apiKey. Approved.",
        "agent: run_workflow",
        "person: accept decision=approve",
        "the run is completed",
        "agent: update_trigger",
        "person: accept decision=approve",
        "agent: get_overview It no longer lists the trigger.",
        "The agent tries to delete a customer, and the person declines.",
        'Delete customer "Globex Exports"',
        'Type "Globex Exports" to approve this one call',
        "person: decline",
        "Nothing was sent. (deletions that reached Fastn: 0)",
        "It tries again, and the person types the name.",
        "person: accept name=Globex Exports",
        "done, once; get_customer now says not_found",
        "It was the wrong one.",
        "Globex Exports is there again, as ",
        "Its connections, credentials and secrets are lost.",
    ):
        assert sentence in transcript[place:], sentence
        place = transcript.index(sentence, place) + len(sentence)
    assert "the same approval used three times: done, refused, refused" in transcript[place:]
    assert "The same in protocol 2025-11-25: declined, nothing sent; approved, sent once." in transcript[place:]
    assert transcript.count("Why did the nightly contact sync stop?") == 1


def test_last_line_of_the_demo_installs_a_server_that_starts(played: Played, tmp_path: Path) -> None:
    installs(played, tmp_path)


@pytest.mark.long
def test_last_line_of_the_demo_works_with_the_real_uvx(tmp_path: Path) -> None:
    installs(play(tmp_path, REAL_UVX), tmp_path)


def installs(played: Played, folder: Path) -> None:
    """Run the last line of the demo in an empty folder, and check that what it installs starts there."""
    (empty := folder / "empty").mkdir()
    (played.home / ".claude.json").write_text("{}")
    message, command = played.shown.splitlines()[-2:]
    assert message == "Everything worked. Try it in your own client:"
    assert command.strip() == f"uvx --from {ROOT} fastn-mcp install claude-code --sandbox"
    code = f"import os; os.chdir({str(empty)!r}); os.execv('/bin/sh', ['sh', '-c', {command!r}])"
    with sitting(["-c", code], played.environment) as person:
        person.answers("Apply this change? [y/N]:", "y")
        ended, shown = person.leaves()
    assert (ended, "Done." in shown) == (0, True), shown
    entry = json.loads((played.home / ".claude.json").read_bytes())["mcpServers"]["fastn"]
    assert (entry["command"], entry["args"][:2]) == ("uvx", ["--from", str(ROOT)])
    server = StdioServerParameters(command=entry["command"], args=entry["args"], env=played.environment, cwd=empty)
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
    "a sandbox that does not start": ("sandbox/app.py", "def create_app(_): raise OSError('no sandbox')", "no sandbox"),
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
