"""Recorded calls, evaluated again under another policy.

Of what was there when a call was made the audit knows the target's id and the effect. So names are not compared, and
dependents count as unknown; the budget and the breaker follow the record.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import ValidationError

from fastn_mcp.fastn.targets import Call
from fastn_mcp.guard.audit.log import AuditEvent
from fastn_mcp.guard.policy import Policy, PolicyDecision, Situation
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.tools.catalog import BY_NAME, AnyOperation
from fastn_mcp.tools.parsing import current
from fastn_mcp.tools.tool import Effect, FastnObject

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A recorded call, what was decided then, and what the policy says now."""

    line: int
    time: datetime
    call: Call
    recorded: str
    verdict: PolicyDecision

    @property
    def differs(self) -> bool:
        return self.recorded != self.verdict.decision.value


@dataclass(frozen=True, slots=True)
class UnreadableLine:
    """A line that could not be judged, and why."""

    line: int
    problem: str


class _Problem(Exception):
    """Why a line cannot be judged."""


def replayed(lines: Iterable[bytes], policy: Policy) -> Iterator[Replayed | UnreadableLine]:
    """Each call of an audit once: as it was sent, refused, or asked about and never sent."""
    entries: list[tuple[int, Entry]] = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append((number, _entry(line)))
        except _Problem as problem:
            yield UnreadableLine(number, str(problem))
    sent = {entry["grant"] for _, entry in entries if entry["event"] == AuditEvent.INTENT.value and "grant" in entry}
    history = _History(policy)
    for number, entry in entries:
        try:
            asked = entry["event"] == AuditEvent.ASKED.value and entry.get("grant") in sent
            together = entry.get("tool") == ApplyChanges.tool_name()  # its calls have entries of their own
            if entry["event"] in _JUDGED and not asked and not together:
                yield _judged(number, entry, history)
            history.add(entry)
        except _Problem as problem:
            yield UnreadableLine(number, str(problem))


_JUDGED = (AuditEvent.INTENT.value, AuditEvent.REFUSED.value, AuditEvent.ASKED.value)


def _entry(line: bytes) -> Entry:
    try:
        entry: object = json.loads(line)
    except (ValueError, RecursionError):
        raise _Problem("it is not JSON") from None
    if not isinstance(entry, dict) or "event" not in entry:
        raise _Problem("it is not an audit entry")
    return cast("Entry", entry)


class _History:
    """What was sent and declined before a moment."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._spent: Counter[tuple[str, Effect]] = Counter()
        self._declines: dict[str, list[datetime]] = {}

    def add(self, entry: Entry) -> None:
        who = str(entry.get("principal"))
        if entry["event"] == AuditEvent.DECLINED.value:
            self._declines.setdefault(who, []).append(_time(entry))
        elif entry["event"] == AuditEvent.INTENT.value:
            self._spent[self.policy.period(_time(entry)), _effect(entry)] += 1
            if entry.get("consent") != "policy":
                self._declines.pop(who, None)  # a person approved

    def before(self, entry: Entry, call: Call, effect: Effect) -> Situation:
        now = _time(entry)
        declines = self._declines.get(str(entry.get("principal")), [])
        _, rest = self.policy.breaker
        last = declines[-1] if declines else None
        resting = last is not None and (now - last).total_seconds() < rest
        return Situation(
            call,
            effect,
            now,
            target=None if call.target is None else FastnObject.model_validate({"id": call.target}),
            spent={effect: self._spent[self.policy.period(now), effect]},
            declines=len(declines) if resting else 0,
            declined_at=last if resting else None,
        )


def _judged(number: int, entry: Entry, history: _History) -> Replayed:
    call = _call(entry)
    situation = history.before(entry, call, _effect(entry))
    verdict = history.policy.decide(situation)
    recorded = str(entry.get("decision") or _of_a_refusal(entry))
    return Replayed(number, situation.now, call, recorded, verdict)


def _of_a_refusal(entry: Entry) -> str:
    """By the policy, or by what went wrong on the way, as `not_found`."""
    outcome = entry.get("outcome", "refused")
    return "deny" if outcome == "refused" and "rule" in entry else str(outcome)


def _call(entry: Entry) -> Call:
    operation = BY_NAME.get(current(str(entry.get("tool"))))
    if operation is None:
        raise _Problem(f"there is no tool {str(entry.get('tool'))[:64]!r}")
    arguments = entry.get("arguments")
    if not isinstance(arguments, dict) or "[left out]" in arguments:
        raise _Problem("its arguments were not recorded")
    try:
        return operation.model_validate(_without_secrets(operation, cast("dict[str, Any]", arguments)))
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors(include_input=False, include_url=False)[0]["loc"])
        raise _Problem(f"its arguments are no longer those of the tool{f' ({field})' if field else ''}") from None


def _without_secrets(operation: AnyOperation, arguments: dict[str, Any]) -> dict[str, Any]:
    """What is hidden is no value; where one is required, its mark does as well as any."""
    hidden = operation.secrets()
    return {
        name: value
        for name, value in arguments.items()
        if name not in hidden or operation.model_fields[name].is_required()
    }


def _time(entry: Entry) -> datetime:
    try:
        time = datetime.fromisoformat(str(entry.get("time")))
    except ValueError:
        raise _Problem("it has no time") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _effect(entry: Entry) -> Effect:
    try:
        return Effect(entry.get("effect"))
    except ValueError:
        raise _Problem("it has no effect") from None
