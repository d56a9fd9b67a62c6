"""`fastn-mcp demo`: it tells what happened, and fails if that is not so."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastn_mcp
from fastn_mcp.procedures.catalog import ALL_TOOLS

pytestmark = pytest.mark.measured


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
    """Run the demo, with an unrelated account in the environment."""
    account = {"FASTN_API_KEY": "fsk_C4N4RY", "FASTN_BASE_URL": "https://fastn.invalid", "FASTN_MODE": "auto"}
    return demo(account)


def test_demo_succeeds_silently(played: "subprocess.CompletedProcess[str]") -> None:
    """Ours: exit code 0, an empty stderr, no escape codes in a pipe, and no trace of a real account."""
    assert (played.returncode, played.stderr) == (0, "")
    assert "\x1b" not in played.stdout
    assert "C4N4RY" not in played.stdout
    assert "fastn.invalid" not in played.stdout
    assert max(map(len, played.stdout.splitlines()[:-1])) <= 100


def test_transcript_tells_the_story_once(played: "subprocess.CompletedProcess[str]") -> None:
    """Ours: tools, the failed sync, a declined deletion that was not sent, and an approved one, sent once."""
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
    assert "the same sealed answer, three times: done, refused, refused" in transcript[place:]
    assert "The same in protocol 2025-11-25: declined, nothing sent; approved, sent once." in transcript[place:]
    assert transcript.count("Why did last night's TikTok sync fail?") == 1


def test_demo_ends_with_the_next_steps(played: "subprocess.CompletedProcess[str]") -> None:
    """Ours."""
    message, command = played.stdout.splitlines()[-2:]
    assert message == "All as it says. Next, in your own client:"
    assert re.fullmatch(r"  .+ install claude-code --sandbox", command)


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
    """Ours: run with a copy of the program from which something was removed."""
    module, added, message = BROKEN[what]
    (source,) = fastn_mcp.__path__
    shutil.copytree(source, tmp_path / "fastn_mcp", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "fastn_mcp" / module).open("a") as file:
        file.write(f"\n\n{added}\n")
    played = demo({"PYTHONPATH": str(tmp_path)}, tmp_path)
    assert played.returncode == 1
    assert "All as it says" not in played.stdout
    assert message in " ".join(played.stdout.split()).partition("The demo failed: ")[2]
    assert "Traceback" not in played.stderr
