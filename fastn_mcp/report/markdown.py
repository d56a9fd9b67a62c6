"""A report as Markdown, for people. Pure.

Whatever was not written by us stands in a code span that nothing in it can close: it is no markup, no link, no mention
of somebody and no other cell.
"""

import shlex
from collections.abc import Iterator
from typing import Any, cast

from fastn_mcp.redaction import sanitize
from fastn_mcp.report.attempt import Group
from fastn_mcp.report.document import Document

_LONGEST = 300

HEADINGS = {
    Group.UNKNOWN: "Unknown: it may or may not have happened. Look in Fastn before anything is repeated",
    Group.FAILED: "Failed",
    Group.REFUSED: "Refused",
    Group.DECLINED: "Declined by a person",
    Group.WAITING: "Waiting for a person",
    Group.LEFT: "Left: not tried",
    Group.DONE: "Done",
    Group.PREVIEWED: "Previewed: nothing was sent",
}
"""In the order in which somebody wants to know."""


def markdown(report: Document) -> str:
    """The report in words and tables."""
    return "\n".join(_lines(cast("dict[str, Any]", report)))


def code(value: object) -> str:
    """A value as a code span; texts of others are to be `quoted` first."""
    text = sanitize(str(value))
    text = f"{text[:_LONGEST]} [{len(text) - _LONGEST} more characters]" if len(text) > _LONGEST else text
    # A span ends at a backtick, a cell at a bar, whatever stands before them.
    text = text.replace("`", "\\u{60}").replace("|", "\\u{7c}")
    return f"`{text}`" if text.strip() else ""


def quoted(text: str) -> str:
    """A name, which cannot pass for one of our own words."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _lines(report: dict[str, Any]) -> Iterator[str]:
    counts, audit = report["counts"], report["audit"]
    yield "# Run report"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for said, value in (
        ("Account", report["account"]),
        ("Mode", report["mode"]),
        ("Policy file (digest)", report["policy"]),
        ("Run plan (digest)", report["plan"]),
        ("Script", report["script"]),
        ("Began", report["began"]),
        ("Ended", report["ended"]),
        ("Program", report["program"]),
        ("Audit", audit["file"]),
        ("Newest entry", audit["n"] and f"{audit['n']} {audit['hash']}"),
    ):
        if value is not None:
            yield f"| {said} | {code(value)} |"
    yield ""
    yield (
        ", ".join(f"**{counts[group.value]}** {group.value}" for group in HEADINGS if counts[group.value])
        or "No calls."
    )
    if counts["reads"] is not None:
        yield f"Reads: {counts['reads']}."
    for group, said in HEADINGS.items():
        if calls := report["calls"][group.value]:
            yield from ("", f"## {said} ({len(calls)})", "")
            yield "| # | time | tool | target | effect | rule, consent | outcome | ms | change | audit |"
            yield "|---:|---|---|---|---|---|---|---:|---|---|"
            yield from map(_row, calls)
    if audit["n"] is not None:
        yield ""
        yield "Each call names its newest entry in the audit, and the beginning of its hash; the JSON holds all."
        checking = f"fastn-mcp audit --file {shlex.quote(audit['file'])} verify --head {audit['hash']}"
        yield f"To check that they still stand: {code(checking)}"
    yield ""


def _row(call: dict[str, Any]) -> str:
    outcome = code(call["outcome"]) + (f" {code(call['message'])}" if call["message"] else "")
    newest = call["audit"][-1] if call["audit"] else None
    cells = (
        call["number"] if call["step"] is None else f"{call['number']} (step {call['step']})",
        code(str(call["time"]).replace("T", " ")[:19]),
        code(call["tool"]),
        _target(call["target"]),
        code(call["effect"] or ""),
        " ".join(code(part) for part in (call["rule"], call["consent"]) if part),
        outcome,
        "" if call["duration_ms"] is None else f"{call['duration_ms']:.0f}",
        code(call["change_id"] or ""),
        "" if newest is None else code(f"{newest['n']} {newest['hash'][:16]}"),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _target(target: dict[str, Any]) -> str:
    name = "" if target["name"] is None else code(quoted(target["name"]))
    return " ".join(part for part in (name, code(target["id"] or "")) if part)
