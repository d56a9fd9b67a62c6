"""The report as it is written: no name in it can be markup, and no half of it ever stands there."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fastn_mcp.errors import SettingsError
from fastn_mcp.report.collector import Attempt, Link, OutcomeGroup
from fastn_mcp.report.writer import About, check, code, document, markdown, write

NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
HOSTILE = (
    "` | </td> <img src=x onerror=alert(1)> [x](javascript:1) ![y](http://e) @octocat #1\r\n\n# Done\n\u202e\x1b[2K`"
)


def made(*attempts: Attempt) -> Any:
    return document(About("acme at live.fastn.ai", "guarded", "d1", "/s/audit.jsonl"), attempts, 3, None, NOW, NOW, 8)


def attempt(outcome: str = "done", **more: Any) -> Attempt:
    return Attempt("2026-11-25T09:00:00.000Z", "delete_customer", outcome, **more)


def html_of(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).render(text)


def test_calls_are_grouped_and_counted_by_outcome() -> None:
    outcomes = ["done", "refused", "declined", "approval_required", "not_found", "unknown_outcome", "left", "previewed"]
    report = made(*map(attempt, outcomes))
    assert {name: [c["outcome"] for c in calls] for name, calls in report["calls"].items()} == dict(
        zip((group.value for group in OutcomeGroup), ([outcome] for outcome in outcomes), strict=True)
    )
    assert report["counts"] == {**{group.value: 1 for group in OutcomeGroup}, "reads": 3, "requests": 8}
    assert (report["schema"], report["version"]) == ("fastn-mcp/report", 1)


def test_requests_are_shown_for_each_call_and_in_total() -> None:
    report = made(attempt(requests=5), attempt())
    assert [call["requests"] for call in report["calls"]["done"]] == [5, None]
    assert re.findall("requests `(.*?)`", markdown(report)) == ["5"]
    assert "\n- Reads: `3`\n- Requests to Fastn: `8`\n" in markdown(report)


def test_hostile_name_is_plain_text() -> None:
    fields = ("target", "name", "message", "rule", "principal", "principal_name")
    plain = html_of(markdown(made(attempt("refused", **dict.fromkeys(fields, "plain")))))
    html = html_of(markdown(made(attempt("refused", **dict.fromkeys(fields, HOSTILE)))))
    tags = r"<(/?[a-z0-9]+)[^>]*>"
    assert re.findall(tags, html) == re.findall(tags, plain)
    outside = re.sub(r"<code>.*?</code>", "", html, flags=re.DOTALL)
    for canary in ("onerror", "javascript", "octocat", "#1", "\u202e", "\x1b", "\\u{202e}"):
        assert canary not in outside
    assert "\\u{202e}" in html


def test_people_are_named_if_several_sign_in() -> None:
    """Beside their subject. A local server has one user, who is not named."""
    anna = attempt(principal="https://id.example|anna", principal_name="Anna <anna@example.com>")
    message = markdown(made(anna, attempt(principal="https://id.example|bob"), attempt(principal="local")))
    assert "  - for `Anna <anna@example.com> (https://id.example|anna)`\n" in message
    assert "  - for `https://id.example|bob`\n" in message
    assert message.count("for `") == 2


@given(st.text(max_size=60))
def test_text_never_leaves_its_code_span(text: str) -> None:
    html = html_of(f"- {code(text)}\n- end\n")
    assert html.count("<li>") == 2
    assert html.count("<code>") == (1 if code(text) else 0)
    assert "<li>end</li>" in html


def test_newest_entry_and_its_check_are_named() -> None:
    link = Link(7, "outcome", "ab" * 32)
    report = document(About("a", None, None, "/s/x y.jsonl"), [attempt(audit=(link,))], None, link, None, NOW)
    text = markdown(report)
    assert f"`fastn-mcp audit --file '/s/x y.jsonl' verify --head {link.hash}`" in text
    assert f"`7 {link.hash[:16]}`" in text
    assert "Reads" not in text
    assert "Requests to Fastn" not in text


def test_report_is_private_and_written_atomically(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    path.chmod(0o644)
    (tmp_path / "run.md").write_text("somebody's notes")
    write(path, made(attempt()))
    assert (tmp_path / "run.md").read_text() == "somebody's notes"
    (tmp_path / "run.md").unlink()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.json", "run.json.md"]
    assert json.loads(path.read_text())["counts"]["done"] == 1
    if os.name != "nt":
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.posix
def test_link_in_place_of_the_report_is_replaced(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "run.json").symlink_to(other)
    write(tmp_path / "run.json", made())
    assert other.read_text() == "mine"


def test_unwritable_path_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    check(tmp_path / "run.json")
    (tmp_path / "folder.json.md").mkdir()
    for wrong, message in (
        ("nowhere/run.json", "no folder"),
        ("run.md", "must not end in .md"),
        ("folder.json", "is a folder"),
    ):
        with pytest.raises(SettingsError, match=message):
            check(tmp_path / wrong)
