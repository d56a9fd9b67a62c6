"""What is wrong with triggers: those that never fire, were switched off, fail, are open, or start a draft. Pure."""

from collections.abc import Sequence

from fastn_mcp.fastn.names import counted
from fastn_mcp.fastn.rows import Row, key_of, number, objects, text, word
from fastn_mcp.fastn.states import MANY_FAILURES, State, switched_off, trigger_state, workflow_state
from fastn_mcp.procedures.troubles import Finding, Severity, examples, sentence
from fastn_mcp.tools.triggers import GetTrigger, ListTriggers
from fastn_mcp.tools.workflows import GetWorkflow, ListWorkflows


def wrong_with(triggers: Sequence[Row], workflows: Sequence[Row]) -> list[Finding]:
    """All that is wrong with these triggers, as far as they and the workflows say. One that is off starts nothing."""
    on = [row for row in triggers if trigger_state(row) is not State.OFF]
    off = [row for row in triggers if trigger_state(row) is State.OFF]
    return [
        *_silent([row for row in triggers if trigger_state(row) is State.BROKEN]),
        *_switched_off([row for row in off if switched_off(row).is_platform]),
        *_drafts(on, workflows),
        *_failing([row for row in on if _failures(row) >= MANY_FAILURES]),
        *_public([row for row in on if _is_public(row)]),
    ]


def _failures(row: Row) -> int:
    """How often it failed in a row."""
    return int(number(row, "consecutiveFailures") or 0)


def _shows(rows: Sequence[Row], wider: ListTriggers) -> GetTrigger | ListTriggers:
    return GetTrigger(trigger_id=key) if len(rows) == 1 and (key := key_of(rows[0])) else wider


def _silent(rows: Sequence[Row]) -> list[Finding]:
    if not rows:
        return []
    states = ", ".join(sorted({text(row, "subscriptionStatus") for row in rows}))
    verb = "is not disabled and never fires: its" if len(rows) == 1 else "are not disabled and never fire: their"
    what = f"{counted(len(rows), 'trigger')} {verb} subscription at the app is {states[:60]}."
    return [Finding(Severity.HIGH, what, _shows(rows, ListTriggers(type="app_event")), examples(rows))]


def _switched_off(rows: Sequence[Row]) -> list[Finding]:
    if not rows:
        return []
    failures = max(map(_failures, rows))
    verb = f"{'was' if len(rows) == 1 else 'were'}{' probably' if switched_off(rows[0]).is_presumed else ''}"
    after = f" after {'' if len(rows) == 1 else 'up to '}{counted(failures, 'failure')} in a row" if failures else ""
    what = f"{counted(len(rows), 'trigger')} {verb} switched off by the platform{after}."
    return [Finding(Severity.HIGH, what, _shows(rows, ListTriggers(status="Disabled")), examples(rows))]


def _failing(rows: Sequence[Row]) -> list[Finding]:
    if not rows:
        return []
    times = counted(max(map(_failures, rows)), "time")
    what = f"{counted(len(rows), 'trigger')} failed {'' if len(rows) == 1 else 'up to '}{times} in a row."
    return [Finding(Severity.MEDIUM, what, _shows(rows, ListTriggers(status="Active")), examples(rows))]


def _is_public(row: Row) -> bool:
    said = word(row, "authentication.type", "authentication", "auth")
    return "webhook" in (word(row, "type") or "webhook") and said in ("none", "public", "no auth")


def _public(rows: Sequence[Row]) -> list[Finding]:
    if not rows:
        return []
    verb = "takes" if len(rows) == 1 else "take"
    what = f"{counted(len(rows), 'webhook')} {verb} calls from anybody: authentication is NONE."
    return [Finding(Severity.MEDIUM, what, _shows(rows, ListTriggers(type="webhook")), examples(rows))]


def _drafts(on: Sequence[Row], workflows: Sequence[Row]) -> list[Finding]:
    """Workflows that triggers start, and that nobody ever published."""
    starts = {text(route, "routeId", "workflowId", "id") for row in on for route in objects(row, "routes")}
    drafts = [row for row in workflows if key_of(row) in starts and workflow_state(row) is State.DRAFT]
    if not drafts:
        return []
    what = f"triggers start {counted(len(drafts), 'workflow')} that {'was' if len(drafts) == 1 else 'were'} "
    what += "never published, so that nothing runs."
    one = len(drafts) == 1
    shows = GetWorkflow(workflow_id=key_of(drafts[0])) if one else ListWorkflows(status="draft")
    return [Finding(Severity.HIGH, sentence(what), shows, examples(drafts))]
