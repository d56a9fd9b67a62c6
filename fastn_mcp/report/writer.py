"""Write a report as JSON and as Markdown, whole or not at all.

    schema, version, program   "fastn-mcp/report", 1, "fastn-mcp 0.1.0"
    account, mode              the account, and the policy mode
    policy, plan               digests of the policy file and of the signed plan, if any
    script                     the script that the calls came from, if any
    began, ended               UTC, ISO 8601
    audit                      file, and its newest entry known to this report: n, hash
    counts                     calls in each group, reads, and requests to Fastn of all calls and reads
    calls                      by group: done refused declined waiting failed unknown left previewed

Each call: number, step (in the script), time, settled, tool, target {id, name}, effect, rule, decision, approved_by,
principal, principal_name, account, outcome, message, duration_ms, requests, change_id, and audit: its entries as {n,
event, hash}.
Unknown values are null. Names, messages and ids can come from Fastn: they are data.

Text that is not ours is in a code span that it cannot close, so it is never markup, a link, a mention or another cell.
"""

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp import __version__
from fastn_mcp.audit.log import recorded_time
from fastn_mcp.config.paths import write_private
from fastn_mcp.errors import SettingsError
from fastn_mcp.ledger.identity import who
from fastn_mcp.redaction import quote, safe_text, sanitize, shorten
from fastn_mcp.report.collector import OUTCOMES, Attempt, Link, OutcomeGroup

SCHEMA = "fastn-mcp/report"
VERSION = 1

Document = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class About:
    """Subject of a report. `policy` and `plan` are digests of the files."""

    account: str
    mode: str | None
    policy: str | None
    audit: str
    plan: str | None = None
    script: str | None = None


def document(
    about: About,
    attempts: Sequence[Attempt],
    reads: int | None,
    head: Link | None,
    began: datetime | None,
    ended: datetime,
    requests: int | None = None,
) -> Document:
    """Build the report on these attempts. `reads` and `requests` are None if they were not counted."""
    calls: dict[str, list[JsonValue]] = {group.value: [] for group in OutcomeGroup}
    for number, attempt in enumerate(attempts, 1):
        calls[attempt.group.value].append(_call(number, attempt))
    counts: dict[str, JsonValue] = {name: len(group) for name, group in calls.items()}
    facts = asdict(about)
    file = facts.pop("audit")
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "program": f"fastn-mcp {__version__}",
        **facts,
        "began": began and recorded_time(began),
        "ended": recorded_time(ended),
        "audit": {"file": file, "n": head and head.n, "hash": head and head.hash},
        "counts": counts | {"reads": reads, "requests": requests},
        "calls": cast(JsonValue, calls),
    }


_NOT_REPORTED = ("grant", "is_split", "name", "change")
"""Fields of an attempt that no call of a report has, or only under another name."""


def _call(number: int, attempt: Attempt) -> JsonValue:
    facts = {name: safe_text(each) if isinstance(each, str) else each for name, each in asdict(attempt).items()}
    reported = {name: each for name, each in facts.items() if name not in _NOT_REPORTED}
    target = {"id": facts["target"], "name": facts["name"]}
    return {"number": number, **reported, "target": target, "change_id": attempt.change}


_MAX_TEXT = 300


def markdown(report: Document) -> str:
    """Render a report as Markdown."""
    return "\n".join((*lines(report, code), ""))


def code(value: object) -> str:
    """Format a value as a code span, which a backtick would end. Quote text of others first."""
    text = shorten(sanitize(str(value)), _MAX_TEXT).replace("`", "\\u{60}")
    return f"`{text}`" if text.strip() else ""


def lines(document: Document, span: Callable[[object], str] = str) -> Iterator[str]:
    """Render a report for people. `span` formats values, which can come from Fastn."""
    report = cast("dict[str, Any]", document)
    counts = report["counts"]
    audit = report["audit"]
    yield from ("# Run report", "")
    for label, value in (
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
        ("Reads", counts["reads"]),
        ("Requests to Fastn", counts["requests"]),
    ):
        if value is not None:
            yield f"- {label}: {span(value)}"
    yield ""
    counted = [f"{counts[group.value]} {group.value}" for group in OUTCOMES if counts[group.value]]
    yield ", ".join(counted) or "No calls."
    for group, words in OUTCOMES.items():
        calls = report["calls"][group.value]
        if calls:
            yield from ("", f"## {words.heading} ({len(calls)})", "")
        for call in calls:
            yield from _call_lines(call, span)
    if audit["n"] is not None:
        yield ""
        yield (
            "Each call names its newest entry in the audit log and the beginning of the entry's hash; the JSON holds"
            " all entries."
        )
        checking = f"fastn-mcp audit --file {shlex.quote(audit['file'])} verify --head {audit['hash']}"
        yield f"To check that these entries are unchanged: {span(checking)}"


def _call_lines(call: dict[str, Any], span: Callable[[object], str]) -> Iterator[str]:
    step = "" if call["step"] is None else f" (step {call['step']})"
    target = call["target"]
    newest = call["audit"][-1] if call["audit"] else None
    about = [call["tool"], target["name"] and quote(target["name"], _MAX_TEXT), target["id"]]
    time = f"{str(call['time']).replace('T', ' ')[:19]}Z"
    yield f"- Call {call['number']}{step}: {' '.join(span(part) for part in about if part)}, {span(time)}"
    yield f"  - {': '.join(span(part) for part in (call['outcome'], call['message']) if part)}"
    facts = (
        ("for", "" if call["principal"] in (None, "local") else who(call["principal"], call["principal_name"])),
        ("effect", call["effect"]),
        ("rule", call["rule"]),
        ("approved by", call["approved_by"]),
        ("took", None if call["duration_ms"] is None else f"{call['duration_ms']:.0f} ms"),
        ("requests", call["requests"]),
        ("change", call["change_id"]),
        ("audit", newest and f"{newest['n']} {newest['hash'][:16]}"),
    )
    yield f"  - {'; '.join(f'{label} {span(value)}' for label, value in facts if value not in (None, ''))}"


def readable(path: Path) -> Path:
    """Return the path of the Markdown file, which no other file has by chance."""
    return path.with_name(f"{path.name}.md")


def check(path: Path) -> None:
    """Check that a report can be written to `path`, before anything is sent. Raises `SettingsError`."""
    if path.suffix == ".md":
        raise SettingsError("FILE must not end in .md: the readable copy is FILE.md.", "For example: --report run.json")
    if path.name.startswith("-"):
        raise SettingsError(
            f"The report needs a FILE; {path.name} looks like an option.", "For example: --report run.json"
        )
    for file in (path, readable(path)):
        if file.is_dir():
            raise SettingsError(f"The report cannot be written: {file} is a folder.", "Name a file in it.")
    if not path.parent.is_dir():
        raise SettingsError(f"The report cannot be written: there is no folder {path.parent}.", "Create it first.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SettingsError(
            f"The report cannot be written: you may not write to {path.parent}.", "Name another folder."
        )


def write(path: Path, report: Document) -> None:
    """Write both files, and overwrite existing ones. Raises `OSError`."""
    write_private(path, json.dumps(report, indent=2) + "\n")
    write_private(readable(path), markdown(report))
