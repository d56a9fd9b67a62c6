"""Decisions of a policy on the calls of an audit log, for `fastn-mcp policy simulate`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from pydantic import ValidationError

from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.account.resolved_call import Surroundings
from fastn_mcp.audit.files import parsed
from fastn_mcp.audit.log import AuditEvent
from fastn_mcp.policy.asker import LOCAL, Asker
from fastn_mcp.policy.decision import PolicyDecision, Situation, effects_below
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.records.rows import FastnObject, parse_timestamp
from fastn_mcp.tools.catalog import OPERATIONS, AnyOperation
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.tool import Effect


@dataclass(frozen=True, slots=True)
class Replayed:
    """A recorded call, the decision then, and the policy's decision now."""

    line: int
    time: datetime
    call: Call
    recorded: str
    decision: PolicyDecision

    def cells(self) -> tuple[str, ...]:
        described = f"{self.call.tool_name()} {self.call.target or ''}".strip()
        now = self.decision
        return str(self.line), f"{self.time:%Y-%m-%d %H:%M}Z", described, self.recorded, now.label, now.rule


class UnreadableEntry(Exception):
    """A recorded call cannot be evaluated. The message says why."""


def replay(lines: Iterable[bytes], policy: Policy) -> tuple[list[Replayed], list[tuple[int, str]]]:
    """Evaluate each call of an audit log once: sent, refused, or asked about and never sent. Return problems as well.

    The log holds ids, the effect, environment and customer, and not the state of a target. So names are not compared,
    and dependents count as unknown. The budget and the circuit breaker follow the log.
    """
    numbered = [(number, parsed(line)) for number, line in enumerate(lines, 1)]
    problems = [(number, "it is not an audit entry") for number, entry in numbered if entry is None]
    entries = [(number, entry) for number, entry in numbered if entry is not None]
    rows: list[Replayed] = []
    sent = {str(entry.get("grant", "")) for _, entry in entries if entry["event"] == AuditEvent.INTENT.value}
    history = _History(policy)
    for number, entry in entries:
        try:
            call = None
            was_sent = entry["event"] == AuditEvent.ASKED.value and str(entry.get("grant")) in sent
            is_batch = entry.get("tool") == ApplyChanges.tool_name()  # its calls have entries of their own
            if entry["event"] in _REPLAYED_EVENTS and not was_sent and not is_batch:
                call = recorded_call(entry)
                situation = history.before(entry, call)
                rows.append(Replayed(number, situation.now, call, _recorded_decision(entry), policy.decide(situation)))
            history.add(entry, call)
        except UnreadableEntry as error:
            problems.append((number, str(error)))
    return rows, problems


_REPLAYED_EVENTS = (AuditEvent.INTENT.value, AuditEvent.REFUSED.value, AuditEvent.ASKED.value)


class _History:
    """Calls sent and declined before an entry."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._spent: Counter[tuple[str, Effect]] = Counter()
        self._declines: dict[str, list[datetime]] = {}

    def add(self, entry: Mapping[str, Any], call: Call | None) -> None:
        principal = str(entry.get("principal"))
        if entry["event"] == AuditEvent.DECLINED.value:
            self._declines.setdefault(principal, []).append(_time(entry))
        elif entry["event"] == AuditEvent.INTENT.value:
            effect = _effect(entry)
            for each in (effect, *(effects_below(call, effect) if call else ())):
                self._spent.update((period, each) for period in self.policy.rules.budgets(each, _time(entry)))
            if entry.get("approved_by") != "policy":
                self._declines.pop(principal, None)  # a person approved

    def before(self, entry: Mapping[str, Any], call: Call) -> Situation:
        now, effect = _time(entry), _effect(entry)
        declines = self._declines.get(str(entry.get("principal")), [])
        _, rest = self.policy.rules.breaker
        last = declines[-1] if declines else None
        resting = last is not None and (now - last).total_seconds() < rest
        target = None if call.target is None else FastnObject.model_validate({"id": call.target})
        return Situation(
            by_arguments(call, _surroundings(entry), target, trusts_ids=True),
            effect,
            now,
            spent={
                each: {period: self._spent[period, each] for period in self.policy.rules.budgets(each, now)}
                for each in (effect, *effects_below(call, effect))
            },
            declines=len(declines) if resting else 0,
            declined_at=last if resting else None,
            asker=_asker(entry),
        )


def _surroundings(entry: Mapping[str, Any]) -> Surroundings:
    """Return the values that the request had, as if the server's settings had given them."""
    values = (entry.get(name) for name in ("environment", "customer"))
    environment, customer = (value if isinstance(value, str) else None for value in values)
    return Surroundings(environment, customer=customer)


def _recorded_decision(entry: Mapping[str, Any]) -> str:
    """Return the recorded decision, or the outcome that came before one, such as `not_found`."""
    outcome = entry.get("outcome", "refused")
    return str(entry.get("decision") or ("deny" if outcome == "refused" and "rule" in entry else outcome))


def recorded_call(entry: Mapping[str, Any]) -> Call:
    """Return the call of an audit entry, without its secrets. Raises `UnreadableEntry`."""
    tool = str(entry.get("tool"))
    operation = OPERATIONS.get(tool)
    if operation is None:
        raise UnreadableEntry(f"there is no tool {tool[:64]!r}")
    arguments = entry.get("arguments")
    if not isinstance(arguments, dict) or "[left out]" in arguments:
        raise UnreadableEntry("its arguments were not recorded")
    try:
        return operation.model_validate(without_secrets(operation, cast("dict[str, Any]", arguments)))
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors(include_input=False, include_url=False)[0]["loc"])
        named = f" ({field})" if field else ""
        raise UnreadableEntry(f"its arguments are no longer those of the tool{named}") from None


def without_secrets(operation: AnyOperation, arguments: dict[str, Any]) -> dict[str, Any]:
    """Leave out redacted arguments. Where one is required, its mark stands in for it."""
    secrets, fields = operation.secrets(), operation.model_fields
    return {name: each for name, each in arguments.items() if name not in secrets or fields[name].is_required()}


def _asker(entry: Mapping[str, Any]) -> Asker:
    """Return who asked, as far as it was recorded: groups and tenant count as unknown."""
    facts = ("principal", "principal_name", "client", "client_name", "machine")
    principal, name, client, called, machine = (str(entry.get(key) or "") for key in facts)
    names = (name,) if name and not machine else ()
    return Asker(principal or LOCAL, name, names, client=client, client_name=called, machine=machine)


def _time(entry: Mapping[str, Any]) -> datetime:
    if (time := parse_timestamp(entry.get("time"))) is None:
        raise UnreadableEntry("it has no time")
    return time


def _effect(entry: Mapping[str, Any]) -> Effect:
    try:
        return Effect(entry.get("effect"))
    except ValueError:
        raise UnreadableEntry("it has no effect") from None
