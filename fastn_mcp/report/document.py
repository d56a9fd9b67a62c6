"""A report as JSON. Pure. Version 1 of a schema of our own; a reader passes over what it does not know.

    schema, version, program   "fastn-mcp/report", 1, "fastn-mcp 0.1.0"
    account, mode              where it was sent, and what was asked first
    policy, plan               digests of the policy file and of the signed plan, where there was one
    script                     of which calls, where they came from a script
    began, ended               UTC, ISO 8601
    audit                      file, and the newest entry of it that this report knows: n, hash
    counts                     calls in each group, and reads
    calls                      by group: done refused declined waiting failed unknown left previewed

Each call: number, step (in the script), time, settled, tool, target {id, name}, effect, rule, decision, consent,
principal, account, outcome, message, duration_ms, change_id, and audit: its entries as {n, event, hash}.
What is not known is null. Names, messages and ids can come from Fastn: they are data.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import cast

from pydantic import JsonValue

from fastn_mcp import __version__
from fastn_mcp.redaction import safe_text
from fastn_mcp.report.attempt import Attempt, Group, Link

SCHEMA = "fastn-mcp/report"
VERSION = 1

Document = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class About:
    """What a report is of. `policy` and `plan` are digests of the files."""

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
) -> Document:
    """The report on these attempts. `reads` is None where they were not counted."""
    calls: dict[str, list[JsonValue]] = {group.value: [] for group in Group}
    for number, attempt in enumerate(attempts, 1):
        calls[attempt.group.value].append(_call(number, attempt))
    counts: dict[str, JsonValue] = {name: len(found) for name, found in calls.items()}
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "program": f"fastn-mcp {__version__}",
        "account": about.account,
        "mode": about.mode,
        "policy": about.policy,
        "plan": about.plan,
        "script": about.script,
        "began": None if began is None else moment(began),
        "ended": moment(ended),
        "audit": {
            "file": about.audit,
            "n": None if head is None else head.n,
            "hash": None if head is None else head.hash,
        },
        "counts": counts | {"reads": reads},
        "calls": cast(JsonValue, calls),
    }


def moment(time: datetime) -> str:
    """As the audit writes it."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _call(number: int, attempt: Attempt) -> JsonValue:
    return {
        "number": number,
        "step": attempt.step,
        "time": attempt.time,
        "settled": attempt.settled,
        "tool": attempt.tool,
        "target": {"id": _seen(attempt.target), "name": _seen(attempt.name)},
        "effect": attempt.effect,
        "rule": _seen(attempt.rule),
        "decision": attempt.decision,
        "consent": attempt.consent,
        "principal": _seen(attempt.principal),
        "account": _seen(attempt.account),
        "outcome": attempt.outcome,
        "message": _seen(attempt.message),
        "duration_ms": attempt.duration_ms,
        "change_id": attempt.change,
        "audit": [asdict(link) for link in attempt.audit],
    }


def _seen(text: str | None) -> str | None:
    return None if text is None else safe_text(text)
