"""What is wrong with triggers: those that never fire, were switched off, fail, are open, or start a draft. Pure."""

from collections.abc import Sequence

from fastn_mcp.procedures.troubles import Finding, Severity, counted, examples, sentence
from fastn_mcp.procedures.troubles.rows import Row, inside, key_of, number, objects, text, word
from fastn_mcp.tools.triggers import GetTrigger, ListTriggers, is_disabled
from fastn_mcp.tools.workflows import GetWorkflow, ListWorkflows

_IN_A_ROW = 3
"""Failures after which a trigger is worth a word."""

_PLATFORM = ("platform", "system", "fastn", "auto")


def wrong_with(triggers: Sequence[Row], workflows: Sequence[Row]) -> list[Finding]:
    """All that is wrong with these triggers, as far as they and the workflows say."""
    active = [row for row in triggers if not is_disabled(text(row, "status"))]
    off = [row for row in triggers if is_disabled(text(row, "status"))]
    return [
        *_silent([row for row in active if _is_silent(row)]),
        *_switched_off([row for row in off if _is_switched_off(row)]),
        *_drafts(active, workflows),
        *_failing([row for row in active if (number(row, "consecutiveFailures") or 0) >= _IN_A_ROW]),
        *_public([row for row in active if _is_public(row)]),
    ]


def _shows(rows: Sequence[Row], wider: ListTriggers) -> GetTrigger | ListTriggers:
    return GetTrigger(trigger_id=key) if len(rows) == 1 and (key := key_of(rows[0])) else wider


def _is_silent(row: Row) -> bool:
    return word(row, "subscriptionStatus") not in ("", "active", "subscribed")


def _silent(rows: Sequence[Row]) -> list[Finding]:
    if not rows:
        return []
    states = ", ".join(sorted({text(row, "subscriptionStatus") or "" for row in rows}))
    verb = "is Active and never fires: its" if len(rows) == 1 else "are Active and never fire: their"
    what = f"{counted(len(rows), 'trigger')} {verb} subscription at the app is {states[:60]}."
    return [Finding(Severity.HIGH, what, _shows(rows, ListTriggers(type="app_event")), examples(rows))]


def _is_switched_off(row: Row) -> bool:
    """By the platform, and not by a person."""
    offs = [entry for entry in objects(row, "statusHistory") if is_disabled(text(entry, "status", "to"))]
    last: Row = max(offs, key=lambda entry: word(entry, "at", "timestamp")) if offs else {}
    if who := word(last, "by", "actor", "changedBy"):
        return who in _PLATFORM
    return (number(row, "consecutiveFailures") or 0) >= _IN_A_ROW


def _switched_off(rows: Sequence[Row]) -> list[Finding]:
    if not rows:
        return []
    failures = max(int(number(row, "consecutiveFailures") or 0) for row in rows)
    verb = "was" if len(rows) == 1 else "were"
    after = f" after {'' if len(rows) == 1 else 'up to '}{counted(failures, 'failure')} in a row" if failures else ""
    what = f"{counted(len(rows), 'trigger')} {verb} switched off by the platform{after}."
    return [Finding(Severity.HIGH, what, _shows(rows, ListTriggers(status="Disabled")), examples(rows))]


def _failing(rows: Sequence[Row]) -> list[Finding]:
    if not rows:
        return []
    worst = max(int(number(row, "consecutiveFailures") or 0) for row in rows)
    times = counted(worst, "time")
    what = f"{counted(len(rows), 'active trigger')} failed {'' if len(rows) == 1 else 'up to '}{times} in a row."
    return [Finding(Severity.MEDIUM, what, _shows(rows, ListTriggers(status="Active")), examples(rows))]


def _is_public(row: Row) -> bool:
    said = word(row, "authentication", "auth") or word(inside(row, "authentication"), "type")
    return "webhook" in (word(row, "type") or "webhook") and said in ("none", "public", "no_auth")


def _public(rows: Sequence[Row]) -> list[Finding]:
    if not rows:
        return []
    verb = "takes" if len(rows) == 1 else "take"
    what = f"{counted(len(rows), 'active webhook')} {verb} calls from anybody: authentication is NONE."
    return [Finding(Severity.MEDIUM, what, _shows(rows, ListTriggers(type="webhook")), examples(rows))]


def _drafts(active: Sequence[Row], workflows: Sequence[Row]) -> list[Finding]:
    """Workflows that triggers start, and that nobody ever published."""
    starts = {text(route, "routeId", "workflowId", "id") for row in active for route in objects(row, "routes")}
    drafts = [row for row in workflows if key_of(row) in starts and _is_draft(row)]
    if not drafts:
        return []
    what = f"active triggers start {counted(len(drafts), 'workflow')} that {'was' if len(drafts) == 1 else 'were'} "
    what += "never published, so that nothing runs."
    one = len(drafts) == 1
    shows = GetWorkflow(workflow_id=key_of(drafts[0])) if one else ListWorkflows(status="draft")
    return [Finding(Severity.HIGH, sentence(what), shows, examples(drafts))]


def _is_draft(row: Row) -> bool:
    published = word(row, "publishedVersion")
    return word(row, "status") in ("draft", "unpublished", "not published") and published in ("", "unpublished")
