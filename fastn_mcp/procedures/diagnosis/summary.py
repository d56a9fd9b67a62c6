"""A diagnosis in one sentence: whether the workflow fails, since when and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastn_mcp.fastn.names import counted
from fastn_mcp.fastn.states import State
from fastn_mcp.procedures.diagnosis.failure_groups import Failure
from fastn_mcp.procedures.diagnosis.workflow_state import Setup, TriggerState
from fastn_mcp.procedures.tables import age


@dataclass(frozen=True, slots=True)
class Success:
    """A run that completed."""

    at: datetime | None
    customer: str | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What was read of a workflow's runs, and of what starts it."""

    now: datetime
    hours: int
    failures: Sequence[Failure] | None
    """Those of the period; None where they could not be read."""
    more_failures: bool
    successes: Sequence[Success] | None
    """The newest, also from before the period; None where they could not be read."""
    more_successes: bool
    setup: Setup
    starters: Sequence[TriggerState] | None
    more_starters: bool
    """Whether there are triggers that were not read."""

    @property
    def completed(self) -> list[Success]:
        """Those of the period."""
        since = self.now - timedelta(hours=self.hours)
        return [success for success in self.successes or () if success.at is None or success.at >= since]

    @property
    def more_completed(self) -> bool:
        """Whether more may have completed in the period than were read."""
        return self.more_successes and len(self.completed) == len(self.successes or ())

    @property
    def last_success(self) -> datetime | None:
        return max((success.at for success in self.successes or () if success.at), default=None)


def verdict(standing: RunSummary, why: str, names: dict[str, str]) -> str:
    """The sentence. `why` is a clause on the most frequent cause; `names` are of customers, by id."""
    if standing.failures is None:
        return f"Whether it failed could not be read. {_completed(standing)}"
    if not standing.failures:
        return _completed(standing) if standing.completed else _idle(standing)
    return f"{_failing(standing, names)}: {why}.{_stopped(standing)}"


def _failing(standing: RunSummary, names: dict[str, str]) -> str:
    failures = standing.failures or ()
    many = f"{'at least ' if standing.more_failures else ''}{len(failures)}"
    all_runs = f"{len(failures) + len(standing.completed)}{'+' if standing.more_completed else ''}"
    last = standing.last_success
    since = [f for f in failures if last is None or f.at is None or f.at > last]
    if len(since) == len(failures) and not standing.more_failures:
        first = min((f.at for f in failures if f.at), default=None)
        began = standing.now - timedelta(hours=standing.hours)
        longer = "" if last is not None and last >= began else "at least "
        length = "" if first is None else f" for {longer}{_length(first, standing.now)}"
        return f"Failing{length} ({many} of {many} runs; {_last_success(standing)})"
    if standing.completed and (always := _always_failing(standing)):
        named = [key for key in always if key in names] or always[:1]
        who = ", ".join(names.get(key, key)[:60] for key in named[:3])
        more = f" and {rest} more" if (rest := len(always) - len(named[:3])) else ""
        return f"Failing each time for {who}{more}, and not for others ({many} of {all_runs} runs)"
    if since:
        first = min((f.at for f in since if f.at), default=None)
        length = "" if first is None else f" for {_length(first, standing.now)}"
        return f"Failing{length} ({len(since)} runs since the last success; {many} of {all_runs} in {standing.hours} h)"
    return f"It worked the last time ({_last_success(standing)}), but {many} of {all_runs} runs failed"


def _always_failing(standing: RunSummary) -> list[str]:
    """Customers for whom nothing worked, where it worked for others."""
    worked = {success.customer for success in standing.completed}
    failed = dict.fromkeys(failure.customer for failure in standing.failures or ())
    always = [key for key in failed if key is not None and key not in worked]
    return always if worked and None not in worked and len(always) == len(failed) else []


def _completed(standing: RunSummary) -> str:
    count = len(standing.completed)
    runs = counted(count, "run", at_least=standing.more_completed)
    if standing.failures is None:
        return f"{runs} completed in {standing.hours} hours, {_last_success(standing)}."
    return f"No failures in {standing.hours} hours: {runs} completed, {_last_success(standing)}."


def _idle(standing: RunSummary) -> str:
    reasons: list[str] = []
    if standing.setup.cannot_run:
        reasons.append(standing.setup.cannot_run)
    if standing.starters is None:
        reasons.append("its triggers could not be read")
    elif not standing.starters:
        reasons.append("no trigger that was read starts it" if standing.more_starters else "no trigger starts it")
    else:
        ailing = [starter for starter in standing.starters if starter.problem]
        reasons += [f"trigger {starter.name or starter.id}: {starter.problem}" for starter in ailing[:2]]
        if any(starter.state is State.LIVE for starter in standing.starters):
            reasons.append("a trigger is active and may not have been due")
    done = "completed or " if standing.successes is not None else ""
    return f"No runs {done}failed in {standing.hours} hours: {'; '.join(reasons)}. {_capital(_last_success(standing))}."


def _stopped(standing: RunSummary) -> str:
    """What keeps it from being started, though it also fails."""
    if standing.setup.cannot_run:
        return f" Besides, {standing.setup.cannot_run}."
    starters = standing.starters or ()
    if starters and all(starter.state in (State.OFF, State.BROKEN) for starter in starters):
        return f" Nothing starts it now: trigger {starters[0].name or starters[0].id}: {starters[0].problem}."
    return ""


def _last_success(standing: RunSummary) -> str:
    if standing.successes is None:
        return "successes could not be read"
    if standing.last_success is None:
        return "last success unknown" if standing.successes else "no success found"
    return f"last success {age(standing.last_success, standing.now)}"


def _length(first: datetime, now: datetime) -> str:
    """In days where there are some: weeks would round too much away."""
    days = (now - first).days
    return f"{days} days" if days >= 2 else age(first, now).removesuffix(" ago")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
