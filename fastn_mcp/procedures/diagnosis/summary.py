"""One-sentence summary of a diagnosis: whether runs fail or come, since when and for whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fastn_mcp.fastn.ages import age, dated
from fastn_mcp.fastn.names import counted, sentence
from fastn_mcp.fastn.states import State
from fastn_mcp.procedures.diagnosis.account_parts import PartState, listed
from fastn_mcp.procedures.diagnosis.failures import EndedRun, Period
from fastn_mcp.procedures.diagnosis.run_counts import RunRecord


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Runs of a diagnosis, and what starts or blocks them. None if something could not be read."""

    period: Period
    failures: Sequence[EndedRun] | None
    """Failures in the period, newest first."""
    more_failures: bool
    runs: int | None
    completed: int | None
    last_success: EndedRun | None
    knows_success: bool
    last_before: EndedRun | None
    """The newest run from before the period."""
    records: Sequence[RunRecord]
    """How the runs ended of the workflows and customers with most failures."""
    scopes: int
    """Number of workflows and customers with failures."""
    of_customer: bool
    """Whether the runs are those of one customer, of any workflow."""
    blocked: Sequence[str]
    triggers: Sequence[PartState] | None
    more_triggers: bool

    @property
    def last(self) -> datetime | None:
        return self.last_success and self.last_success.at

    @property
    def last_success_in_words(self) -> str:
        if self.last is not None:
            return f"last success {age(self.last, self.period.now)}"
        if self.last_success:
            return "last success unknown"
        return "no success found" if self.knows_success else "successes could not be read"

    @property
    def of_runs(self) -> str:
        """The failures of all runs: `9 of 12 runs`."""
        count = len(self.failures or ())
        many = f"at least {count:,}" if self.more_failures else f"{count:,}"
        return (
            counted(count, "run", at_least=self.more_failures) if self.runs is None else f"{many} of {self.runs:,} runs"
        )


def verdict(facts: RunFacts, whys: Sequence[tuple[int, str]], names: Mapping[str, str]) -> str:
    """Return the summary.

    `whys` are the most frequent causes as number of runs and clause; `names` maps ids of customers and workflows to
    names.
    """
    blocked = "".join(f" {sentence(reason)}." for reason in facts.blocked)
    if facts.failures:
        failing = _failing(facts, facts.failures, names, of_one_cause=len(whys) == 1)
        why = whys[0][1] if len(whys) == 1 else "; ".join(f"{count:,} because {clause}" for count, clause in whys)
        return f"{failing}: {why}.{blocked}{_not_started(facts)}"
    if facts.failures is None:
        completed = (
            "" if facts.completed is None else f" {counted(facts.completed, 'run')} completed in {facts.period}."
        )
        return f"Whether runs failed could not be read.{completed} {sentence(facts.last_success_in_words)}.{blocked}"
    if not facts.completed and (facts.last is None or facts.last < facts.period.begin):
        return _idle(facts)
    done = "" if facts.completed is None else f" {facts.completed:,} of {facts.runs:,} runs completed,"
    return f"No failures in {facts.period}:{done} {facts.last_success_in_words}.{blocked}{_not_started(facts)}"


def _failing(facts: RunFacts, failures: Sequence[EndedRun], names: Mapping[str, str], *, of_one_cause: bool) -> str:
    of, last = facts.of_runs, facts.last
    always = [record for record in facts.records if record.is_failing]
    if facts.knows_success and (last is None or all(run.at is None or run.at > last for run in failures)):
        return f"Failing{_since(facts, always)} ({of}; {facts.last_success_in_words})"
    workflows, affected = ({getattr(run, name) for run in failures} for name in ("workflow", "customer"))
    if len(workflows) > 1 or not of_one_cause:
        of_them = f", of {len(workflows):,} workflows" if len(workflows) > 1 else ""
        for_ = f", for {len(affected):,} customers" if len(affected) > 1 else ""
        return f"{of} failed in {facts.period}{of_them}{for_} ({facts.last_success_in_words})"
    if always and facts.of_customer:
        workflow = always[0].scope.workflow or ""
        return f"{names.get(workflow, workflow)} has failed each time{_since(facts, always)} ({of} in {facts.period})"
    customers = [names.get(key, key) for record in always if (key := record.scope.customer)]
    if customers:
        only = ", and not for others" if len(always) == facts.scopes else ""
        return f"Failing each time for {listed(customers)}{_since(facts, always)}{only} ({of} in {facts.period})"
    since = [run for run in failures if last is not None and run.at is not None and run.at > last]
    if since:
        length = age(since[-1].at or facts.period.now, facts.period.now).removesuffix(" ago")
        runs = counted(len(since), "run")
        return f"Failing for {length} ({runs} since the last success; {of} in {facts.period})"
    return f"It worked the last time ({facts.last_success_in_words}), but {of} failed in {facts.period}"


def _since(facts: RunFacts, records: Sequence[RunRecord]) -> str:
    """Return how long the runs of these records have been failing: in days from two on, as weeks are too coarse."""
    first = min((record.since for record in records if record.since), default=None)
    if first is None:
        return ""
    now, longer = facts.period.now, "" if all(record.knows_since for record in records) else "at least "
    days = (now - first).days
    length = f"{days} days" if days >= 2 else age(first, now).removesuffix(" ago")
    return f" for {longer}{length}, since {dated(first, now).partition(' ')[0]}"


def _idle(facts: RunFacts) -> str:
    reasons = [*facts.blocked]
    before = facts.last_before
    if before is not None and before.at is not None and before.has_failed and not facts.runs:
        reasons.append(
            f"the last run, {age(before.at, facts.period.now)}, failed: {before.reason or 'it does not say why'}"
        )
    if facts.triggers is None:
        reasons.append("triggers could not be read")
    elif not facts.triggers:
        reasons.append("no trigger that was read starts it" if facts.more_triggers else "no trigger starts it")
    else:
        with_problem = [trigger for trigger in facts.triggers if trigger.problem]
        reasons += [f"trigger {trigger.label}: {trigger.problem}" for trigger in with_problem[:2]]
        if any(trigger.state is State.LIVE for trigger in facts.triggers):
            reasons.append("a trigger is active and may not have been due")
    why, last = "; ".join(reasons), sentence(facts.last_success_in_words)
    others = f" ({counted(facts.runs, 'run')} under way or cancelled)" if facts.runs else ""
    return f"No runs completed or failed in {facts.period}{others}: {why}. {last}."


def _not_started(facts: RunFacts) -> str:
    """Return what prevents runs from being started."""
    triggers = facts.triggers or ()
    if triggers and all(trigger.state in (State.OFF, State.BROKEN) for trigger in triggers):
        return f" Nothing starts it now: trigger {triggers[0].label}: {triggers[0].problem}."
    return ""
