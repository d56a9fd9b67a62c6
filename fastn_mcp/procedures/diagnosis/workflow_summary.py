"""One-sentence summary of a workflow: whether it fails or runs, since when and for whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fastn_mcp.fastn.names import counted, sentence
from fastn_mcp.fastn.states import State
from fastn_mcp.procedures.diagnosis.account_parts import PartState, WorkflowSetup
from fastn_mcp.procedures.diagnosis.failures import EndedRun, Period
from fastn_mcp.procedures.tables import age


@dataclass(frozen=True, slots=True)
class WorkflowFacts:
    """Runs, configuration and triggers of a workflow. None if something could not be read."""

    period: Period
    failures: Sequence[EndedRun] | None
    """Failures in the period."""
    more_failures: bool
    successes: Sequence[EndedRun] | None
    """Newest successes, also from before the period."""
    more_successes: bool
    setup: WorkflowSetup
    triggers: Sequence[PartState] | None
    more_triggers: bool

    @property
    def completed(self) -> list[EndedRun]:
        """Successes in the period."""
        begin = self.period.begin
        return [success for success in self.successes or () if success.at is None or success.at >= begin]

    @property
    def more_completed(self) -> bool:
        """Whether more runs may have completed in the period than were read."""
        return self.more_successes and len(self.completed) == len(self.successes or ())

    @property
    def last_success(self) -> datetime | None:
        return max((success.at for success in self.successes or () if success.at), default=None)


def verdict(facts: WorkflowFacts, why: str, customers: Mapping[str, str]) -> str:
    """Return the summary. `why` is a clause about the most frequent cause; `customers` maps ids to names."""
    if facts.failures:
        return f"{_failing(facts, facts.failures, customers)}: {why}.{_not_started(facts)}"
    if not facts.completed and facts.failures is not None:
        return _idle(facts)
    hours, last = facts.period.hours, _last_success(facts)
    runs = counted(len(facts.completed), "run", at_least=facts.more_completed)
    if facts.failures is None:
        return f"Whether it failed could not be read. {runs} completed in {hours} hours, {last}."
    return f"No failures in {hours} hours: {runs} completed, {last}."


def _failing(facts: WorkflowFacts, failures: Sequence[EndedRun], customers: Mapping[str, str]) -> str:
    period, last = facts.period, facts.last_success
    many = f"{'at least ' if facts.more_failures else ''}{len(failures)}"
    all_runs = f"{len(failures) + len(facts.completed)}{'+' if facts.more_completed else ''}"
    since = [run for run in failures if last is None or run.at is None or run.at > last]
    if len(since) == len(failures) and not facts.more_failures:
        longer = "" if last is not None and last >= period.begin else "at least "
        return f"Failing{_length(since, period.now, longer)} ({many} of {many} runs; {_last_success(facts)})"
    if facts.completed and (always := _always_failing(facts, failures)):
        named = [key for key in always if key in customers] or always[:1]
        who = ", ".join(customers.get(key, key)[:60] for key in named[:3])
        more = f" and {rest} more" if (rest := len(always) - len(named[:3])) else ""
        return f"Failing each time for {who}{more}, and not for others ({many} of {all_runs} runs)"
    if since:
        length, hours = _length(since, period.now), period.hours
        return f"Failing{length} ({len(since)} runs since the last success; {many} of {all_runs} in {hours} h)"
    return f"It worked the last time ({_last_success(facts)}), but {many} of {all_runs} runs failed"


def _length(failures: Sequence[EndedRun], now: datetime, longer: str = "") -> str:
    """Return how long these have been failing: in days from two on, as weeks are too coarse."""
    first = min((run.at for run in failures if run.at), default=None)
    if first is None:
        return ""
    days = (now - first).days
    return f" for {longer}{f'{days} days' if days >= 2 else age(first, now).removesuffix(' ago')}"


def _always_failing(facts: WorkflowFacts, failures: Sequence[EndedRun]) -> list[str]:
    """Return the customers for whom every run failed, if others had none that failed."""
    worked = {success.customer for success in facts.completed}
    failed = dict.fromkeys(run.customer for run in failures)
    always = [key for key in failed if key is not None and key not in worked]
    return always if worked and None not in worked and len(always) == len(failed) else []


def _idle(facts: WorkflowFacts) -> str:
    reasons = [facts.setup.cannot_run] if facts.setup.cannot_run else []
    if facts.triggers is None:
        reasons.append("its triggers could not be read")
    elif not facts.triggers:
        reasons.append("no trigger that was read starts it" if facts.more_triggers else "no trigger starts it")
    else:
        with_problem = [trigger for trigger in facts.triggers if trigger.problem]
        reasons += [f"trigger {trigger.label or trigger.id}: {trigger.problem}" for trigger in with_problem[:2]]
        if any(trigger.state is State.LIVE for trigger in facts.triggers):
            reasons.append("a trigger is active and may not have been due")
    done = "completed or " if facts.successes is not None else ""
    why, last = "; ".join(reasons), sentence(_last_success(facts))
    return f"No runs {done}failed in {facts.period.hours} hours: {why}. {last}."


def _not_started(facts: WorkflowFacts) -> str:
    """Return what prevents a failing workflow from being started."""
    if facts.setup.cannot_run:
        return f" Besides, {facts.setup.cannot_run}."
    triggers = facts.triggers or ()
    if triggers and all(trigger.state in (State.OFF, State.BROKEN) for trigger in triggers):
        return f" Nothing starts it now: trigger {triggers[0].label or triggers[0].id}: {triggers[0].problem}."
    return ""


def _last_success(facts: WorkflowFacts) -> str:
    if facts.successes is None:
        return "successes could not be read"
    if facts.last_success is None:
        return "last success unknown" if facts.successes else "no success found"
    return f"last success {age(facts.last_success, facts.period.now)}"
