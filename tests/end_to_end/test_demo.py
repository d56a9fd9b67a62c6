"""`fastn-mcp demo`: it tells what happened, and fails if that is not so."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters
from support.terminal import sitting

import fastn_mcp
from fastn_mcp.procedures.catalog import ALL_TOOLS

pytestmark = pytest.mark.measured
ROOT = Path(__file__).parents[2]


def demo(more: dict[str, str], cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fastn_mcp", "demo"],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **more},
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture(scope="module")
def played() -> "subprocess.CompletedProcess[str]":
    account = {"FASTN_API_KEY": "fsk_C4N4RY", "FASTN_BASE_URL": "https://fastn.invalid", "FASTN_MODE": "auto"}
    return demo(account)


def test_demo_succeeds_silently(played: "subprocess.CompletedProcess[str]") -> None:
    assert (played.returncode, played.stderr) == (0, "")
    assert "\x1b" not in played.stdout
    assert "C4N4RY" not in played.stdout
    assert "fastn.invalid" not in played.stdout
    assert max(map(len, played.stdout.splitlines()[:-1])) <= 100


def test_transcript_contains_each_step_once(played: "subprocess.CompletedProcess[str]") -> None:
    transcript = " ".join(played.stdout.split())
    place = 0
    for sentence in (
        f"{len(ALL_TOOLS)} tools: ",
        "Why did last night's TikTok sync fail?",
        'agent: find query="the tiktok orders sync"',
        "agent: diagnose",
        "connection TikTok Shop of Katana is FAILED",
        "What will not help: A rerun",
        "The agent tries to delete a customer, and the person declines.",
        'Delete customer "Globex Exports"',
        'To approve this one call, type the name between the quotes: "Globex Exports"',
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
    assert transcript.count("Why did last night's TikTok sync fail?") == 1


def test_demo_ends_with_the_next_steps(played: "subprocess.CompletedProcess[str]") -> None:
    message, command = played.stdout.splitlines()[-2:]
    assert message == "Everything worked. Try it in your own client:"
    assert re.fullmatch(r"  .+ install claude-code --sandbox", command)


def uvx_environment(folder: Path, source: Path) -> Path:
    """Make an environment in uv's cache, with the program as `uvx --from SOURCE` installs it, and a `uvx` beside it.

    This uvx knows no registry: it takes a folder that is a project, and starts the program of the environment.
    """
    prefix = folder / "uv" / "archive-v0" / "demo"
    venv.create(prefix, symlinks=True)
    (folder / "uv" / "CACHEDIR.TAG").touch()
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(prefix)}))
    (packages / "installed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{source}\n")
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


REAL_UVX = ROOT / ".cache" / "uv" / "bin" / "uvx"


@pytest.mark.posix
@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.long)])
def test_last_line_of_the_demo_installs_a_server_that_starts(real: bool, tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    (home := tmp_path / "home").mkdir()
    (home / ".claude.json").write_text("{}")
    uvx = REAL_UVX if real else uvx_environment(tmp_path, ROOT)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("FASTN_", "CLAUDE_", "CI"))
    }
    environment |= {"HOME": str(home), "UV_CACHE_DIR": str(tmp_path / "uv")}
    environment |= {"PATH": f"{uvx.parent}:/usr/bin:/bin"}
    played = subprocess.run(
        [str(uvx), "--from", str(ROOT), "fastn-mcp", "demo"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert played.returncode == 0, played.stderr
    command = played.stdout.splitlines()[-1].strip()
    assert command == f"uvx --from {ROOT} fastn-mcp install claude-code --sandbox"
    code = f"import os; os.chdir({str(empty)!r}); os.execv('/bin/sh', ['sh', '-c', {command!r}])"
    with sitting(["-c", code], environment) as person:
        person.sees("Apply this change? [y/N]:")
        person.types("y\r")
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
    "a decline that is taken for consent": (
        "guard/approval/request.py",
        "Submitted.answer = lambda self, question: Yes('Globex Exports')",
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
    with (tmp_path / "fastn_mcp" / module).open("a") as file:
        file.write(f"\n\n{added}\n")
    played = demo({"PYTHONPATH": str(tmp_path)}, tmp_path)
    assert played.returncode == 1
    assert "Everything worked" not in played.stdout
    assert message in " ".join(played.stdout.split()).partition("The demo failed: ")[2]
    assert "Traceback" not in played.stderr
