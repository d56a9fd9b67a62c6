"""Checks of triggers: those that never fire, were switched off, fail or can be called by anybody."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from fastn_mcp.procedures.checks.check import Problem, Reading, RowCheck, first_problem
from fastn_mcp.procedures.checks.finding import Cells, Severity, unread_names
from fastn_mcp.procedures.checks.parts import PartState, listed
from fastn_mcp.records.formats import age, counted, quoted
from fastn_mcp.records.labels import name_of, owner_name
from fastn_mcp.records.platform import PUBLIC, webhook_authentication
from fastn_mcp.records.rows import Row, key_of, number, owner_of, short, started_workflows, text, value, word
from fastn_mcp.records.states import State, switched_off, trigger_state
from fastn_mcp.tools.triggers import PROBLEMS


def failures_in_a_row(trigger: Row) -> int:
    return int(number(trigger, "consecutiveFailures") or 0)


def is_public(trigger: Row) -> bool:
    """Whether the trigger is a webhook without authentication."""
    return "webhook" in (word(trigger, "type") or "webhook") and webhook_authentication(trigger) in PUBLIC


def _most_failures(triggers: Sequence[Row], _: datetime) -> str:
    """Return the most consecutive failures of a trigger; empty if there are none."""
    failures = max(map(failures_in_a_row, triggers))
    return f"{'' if len(triggers) == 1 else 'up to '}{counted(failures, 'failure')} in a row" if failures else ""


def _by_fastn(triggers: Sequence[Row], now: datetime) -> str:
    probably = "probably " if switched_off(triggers[0]).is_presumed else ""
    failures = _most_failures(triggers, now)
    return f"{probably}{State.OFF.value} by Fastn{failures and f' after {failures}'}"


def _subscriptions(triggers: Sequence[Row], _: datetime) -> str:
    statuses = ", ".join(sorted({text(row, "subscriptionStatus").upper() for row in triggers}))[:60]
    is_one = len(triggers) == 1
    if statuses == "FAILED":
        return "subscription at the app has failed" if is_one else "subscriptions at the apps have failed"
    named = quoted(short(statuses))
    return f"subscription at the app is {named}" if is_one else f"subscriptions at the apps are {named}"


def _never_fires(trigger: Row, now: datetime) -> str:
    return f"on, but it never fires, since its {_subscriptions([trigger], now)}"


def _disabled(row: Row, now: datetime) -> str:
    """Describe who disabled a trigger, when and why, as far as its history says."""
    off = switched_off(row)
    by = "Fastn" if off.is_platform else off.by and quoted(off.by)
    who = f" {'probably ' if off.is_presumed else ''}by {by}" if by else ""
    ago = "" if off.at is None else f" {age(min(off.at, now), now)}"
    failures = failures_in_a_row(row)
    if off.is_platform and failures and (not off.reason or "consecutive failures" in off.reason):
        return f"{State.OFF.value}{who}{ago}, after {counted(failures, 'failure')} in a row"
    reason = off.reason.rstrip(".") if off.is_platform and off.by else quoted(off.reason)
    return f"{State.OFF.value}{who}{ago}" + (f": {reason}" if reason else "")


def _is_off_by_people(trigger: Row, _: datetime) -> bool:
    return trigger_state(trigger) is State.OFF and not switched_off(trigger).is_platform


def _is_unregistered(trigger: Row, _: datetime) -> bool:
    return trigger_state(trigger) is State.LIVE and value(trigger, "manualRegistrationRequired") is True


def _is_open(trigger: Row, _: datetime) -> bool:
    return trigger_state(trigger) is not State.OFF and is_public(trigger)


def _cells(row: Row, reading: Reading) -> Cells:
    """Return whose trigger it is, what it starts, and why it does not."""
    names = {key_of(workflow): name_of(workflow) for workflow in reading.of("workflows").rows}
    started = started_workflows(row)
    problem = first_problem(TRIGGER_CHECKS, row, reading.now).what
    return {
        "customer": owner_name(row, unread_names([row])) if owner_of(row) else "",
        "starts": listed([names.get(key, key) for key in started], 2),
        "why": "" if trigger_state(row) is State.BROKEN else problem,  # the finding itself says it
    }


def _cells_with_cause(row: Row, reading: Reading) -> Cells:
    """Add why the runs fail that it starts."""
    causes = (reading.causes.get((key, owner_of(row)), "") for key in started_workflows(row))
    return {**_cells(row, reading), "runs_fail_because": next(filter(None, causes), "")}


TRIGGER_CHECKS = (
    RowCheck(
        "triggers that never fire",
        "triggers",
        Severity.HIGH,
        "trigger",
        lambda row, _: PROBLEMS["broken"](row),
        sentence="{rows} {is_} on but never fire{s}: {its} {detail}.",
        fix="Repair {its} connection, then retry the subscription in the dashboard.",
        detail=_subscriptions,
        problem=_never_fires,
        cells=_cells,
    ),
    RowCheck(
        "triggers switched off by Fastn",
        "triggers",
        Severity.HIGH,
        "trigger",
        lambda row, _: PROBLEMS["stopped"](row),
        sentence="{rows} {was} {detail}.",
        fix="Fix the cause first, then switch {it} on.",
        detail=_by_fastn,
        problem=_disabled,
        cells=_cells_with_cause,
    ),
    RowCheck(
        "triggers to register by hand",
        "triggers",
        Severity.HIGH,
        "webhook",
        _is_unregistered,
        sentence="{rows} {has} to be registered at the app by hand.",
        fix="Enter {its} address at the app.",
        problem=lambda _, __: "its webhook has to be registered at the app by hand",
        cells=_cells,
    ),
    RowCheck(
        "triggers that fail",
        "triggers",
        Severity.MEDIUM,
        "trigger",
        lambda row, _: PROBLEMS["failing"](row),
        sentence="{rows} {has} had {detail}.",
        fix="Fix the cause before Fastn switches {it} off.",
        detail=_most_failures,
        problem=lambda row, now: _most_failures([row], now),
        cells=_cells_with_cause,
    ),
    RowCheck(
        "webhooks that anybody can call",
        "triggers",
        Severity.MEDIUM,
        "webhook",
        _is_open,
        sentence="Anybody can call {rows}: {its} authentication is NONE.",
        fix="Set authentication API_KEY, unless that is intended.",
        cells=_cells,
    ),
    RowCheck(
        "triggers switched off by people",
        "triggers",
        Severity.LOW,
        "trigger",
        _is_off_by_people,
        sentence="{rows} {is_} switched off.",
        fix="Switch {it} on if {they} should run.",
        problem=_disabled,
        cells=_cells,
    ),
)


def trigger_states(rows: Iterable[Row], now: datetime, customers: Mapping[str, str]) -> list[PartState]:
    """Return the triggers, the ones with a problem first. `customers` maps ids to names."""
    states = [_trigger_state(row, now, customers) for row in rows]
    return sorted(states, key=lambda trigger: not trigger.problem)


def _trigger_state(row: Row, now: datetime, customers: Mapping[str, str]) -> PartState:
    status = short(text(row, "status"))
    state = trigger_state(row)
    problem = first_problem(TRIGGER_CHECKS, row, now)
    if state is State.UNKNOWN:
        subscription = short(text(row, "subscriptionStatus").upper())
        known = filter(
            None, (status and f"status {quoted(status)}", subscription and f"subscription {quoted(subscription)}")
        )
        problem = Problem(f"whether it fires is not known ({', '.join(known) or 'it has no status'})")
    return PartState(
        row,
        name_of(row),
        owner_name(row, customers),
        status=status or "unknown",
        state=state,
        problem=problem.what,
        fix=problem.fix,
    )
