"""One-sentence summary of a diagnosis: whether runs fail or come, since when and for whom."""

from collections.abc import Iterator, Sequence

from fastn_mcp.procedures.checks.parts import PartState, listed
from fastn_mcp.procedures.checks.run_counts import RunCounts, RunRecord
from fastn_mcp.procedures.checks.runs import stuck_in_words
from fastn_mcp.procedures.diagnosis.evidence import Evidence
from fastn_mcp.records.formats import age, counted, dated, quoted, sentence
from fastn_mcp.records.labels import ACCOUNT
from fastn_mcp.records.rows import key_of
from fastn_mcp.records.states import State

_RUNS_UNREAD = "Failed runs could not be read"


def verdict(evidence: Evidence, reasons: Sequence[str], whys: Sequence[tuple[int, str]]) -> str:
    """Return the summary.

    `reasons` keep runs from happening at all. `whys` are the most frequent causes as number of runs and clause.
    """
    blocked = "".join(f" {sentence(reason)}." for reason in reasons) + _stuck(evidence)
    counts = evidence.counts
    period = counts.period
    completed = counts.completed
    last = counts.last_success_at
    if counts.failures:
        least = "at least " if counts.is_lower_bound else ""
        each = (f"{least}{count:,} because {clause}" for count, clause in whys)
        why = whys[0][1] if len(whys) == 1 else "; ".join(each)
        return f"{_failing(evidence, why)}{blocked}{_not_started(evidence)}"
    if not counts.knows_failures or counts.has_failures_unread:
        done = "" if completed is None else f" {counted(completed, 'run')} completed in {period}."
        unread = "No failed run was found, but not all runs could be read" if counts.knows_failures else _RUNS_UNREAD
        return f"{unread}.{done} {sentence(counts.last_success_in_words)}.{blocked}"
    if not completed and (last is None or last < period.begin):
        return _idle(evidence, reasons, whys) + _stuck(evidence)
    done = "" if completed is None else f" {completed:,} of {counts.runs:,} runs completed,"
    nothing = "No run has failed" if evidence.stuck or not counts.knows_under_way else "No failures"
    return f"{nothing} in {period}:{done} {counts.last_success_in_words}.{blocked}{_not_started(evidence)}"


def _stuck(evidence: Evidence) -> str:
    """Return which runs hang, or that it is not known."""
    runs = [run.in_words(evidence.names) for run in evidence.stuck]
    is_known = evidence.counts.knows_under_way
    if not runs:
        return "" if is_known else " It is not known whether runs hang, since not all runs under way were read."
    more = f" and {len(runs) - 2} more" if len(runs) > 2 else ""
    stuck = stuck_in_words(evidence.stuck, at_least=not is_known)
    return f" But {stuck}: {'; '.join(runs[:2])}{more}."


def _failing(evidence: Evidence, why: str) -> str:
    """Return how many runs failed and why, and since when and for whom each of them does."""
    counts = evidence.counts
    failures = counts.failures
    last = counts.last_success_at
    more = counts.is_lower_bound
    always = [record for record in evidence.run_records.values() if record.is_failing]
    later = [run for run in failures if last is None or run.at is None or run.at > last]
    if counts.knows_success and len(later) == len(failures):
        failed = f"{counts.failures_of_runs}; {counts.last_success_in_words}"
        return f"Failing{_since(evidence, always)} ({failed}){_of_those_read(counts, '; of')}: {why}."
    workflows = {run.workflow for run in failures}
    affected = {run.customer for run in failures} - {None}
    of_them = f", of {counted(len(workflows), 'workflow', at_least=more)}" if len(workflows) > 1 else ""
    for_ = f", for {counted(len(affected), 'customer', at_least=more)}" if len(affected) > 1 else ""
    success = counts.last_success_in_words + ("" if last is None or always else f", {len(later):,} failed since")
    names = listed([" for ".join(map(quoted, evidence.names_of(record.which))) for record in always])
    each = f" These have failed every time{_since(evidence, always)}: {names}." if always else ""
    failed = f"{counts.failures_of_runs} failed in {counts.period}"
    read = _of_those_read(counts, ". Of")
    if read:
        return f"{failed} ({success}){read}{of_them}{for_}: {why}.{each}"
    return f"{failed}{of_them}{for_} ({success}): {why}.{each}"


def _of_those_read(counts: RunCounts, of: str) -> str:
    """Return which failures are looked at, with their window, if older ones were not read; empty if all were."""
    return "" if counts.counted_since is None else f"{of} the {len(counts.failures):,} {counts.window}"


def _since(evidence: Evidence, records: Sequence[RunRecord]) -> str:
    """Return how long the runs of these records have been failing."""
    first = min((record.since for record in records if record.since), default=None)
    if first is None:
        return ""
    now = evidence.counts.period.now
    length = age(first, now).removesuffix(" ago")
    if not all(record.knows_since for record in records):
        return f" for at least {length}"
    return f" for {length}, since {dated(first, now).partition(' ')[0]}"


def _idle(evidence: Evidence, blocked: Sequence[str], whys: Sequence[tuple[int, str]]) -> str:
    """Return why nothing has run in the period, as far as it is known."""
    counts = evidence.counts
    reasons = [*blocked, *_last_failure(evidence), *_idle_triggers(evidence), *_last_causes(evidence, whys)]
    if any(trigger.state.is_usable for trigger in evidence.triggers or ()):
        reasons.append("a trigger is active, but may not have been due yet")
    why = ". ".join(map(sentence, reasons))
    lately = f"in the last {str(counts.period).removeprefix('the last ')}"
    others = f" ({counted(counts.runs, 'run')} under way or cancelled)" if counts.runs else ""
    nothing = "Nothing has run" if counts.runs == 0 else "No run has completed or failed"
    return f"{nothing} {lately}{others}. {why}. {sentence(counts.last_success_in_words)}."


def _last_failure(evidence: Evidence) -> Iterator[str]:
    """Yield why the last run before the period failed, if it did."""
    counts = evidence.counts
    before = counts.last_before
    if before is not None and before.at is not None and before.has_failed and not counts.runs:
        why = quoted(before.reason) or "it does not say why"
        yield f"the last run, {age(before.at, counts.period.now)}, failed: {why}"


def _idle_triggers(evidence: Evidence) -> Iterator[str]:
    """Yield what is wrong with the triggers that would start runs."""
    triggers = evidence.triggers
    if triggers is None:
        yield "triggers could not be read"
    elif not triggers:
        read = " that was read" if evidence.has_more_triggers else ""
        yield f"no trigger{read} starts {'it' if evidence.subject.resources else 'anything'}"
    else:
        with_problem = [trigger for trigger in triggers if trigger.problem]
        yield from (_trouble(evidence, trigger) for trigger in with_problem[:2])


def _last_causes(evidence: Evidence, whys: Sequence[tuple[int, str]]) -> Iterator[str]:
    """Yield why the last runs failed, if their causes are known."""
    if whys:
        runs = counted(sum(len(cause.runs) for cause in evidence.causes), "run")
        each = (f"{count:,} because {clause}" for count, clause in whys)
        causes = f"because {whys[0][1]}" if len(whys) == 1 else "; ".join(each)
        yield f"the last {runs} failed, {causes}"


def _not_started(evidence: Evidence) -> str:
    """Return what prevents runs from being started."""
    triggers = evidence.triggers or ()
    if not triggers or not all(trigger.state.is_broken for trigger in triggers):
        return ""
    runs = evidence.starters
    others = ", ".join(f"{count:,} by {quoted(name)}" for name, count in runs.most_common())
    yet = f" Yet there were {counted(sum(runs.values()), 'run')}: {others}; see list_executions." if runs else ""
    return f" Nothing starts it now: {_trouble(evidence, triggers[0])}.{yet}"


def _trouble(evidence: Evidence, trigger: PartState) -> str:
    """Return what is wrong with a trigger, with its name unless the diagnosis is about it."""
    was = "was " if trigger.state is State.OFF else ""
    if evidence.subject.trigger is not None and trigger.id == key_of(evidence.subject.trigger):
        return f"it {was}{trigger.problem}" if was else trigger.problem
    of = "" if trigger.owner == ACCOUNT else f" of {quoted(trigger.owner)}"
    name = f"trigger {quoted(trigger.label)}{of}"
    return f"{name} {was}{trigger.problem}" if was else f"{name}: {trigger.problem}"
