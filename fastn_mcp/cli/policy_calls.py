"""Calls on which a policy is evaluated without an account: calls of an audit log, and calls of a file of cases.

`fastn-mcp policy simulate` replays an audit log. `fastn-mcp policy test` compares decisions with the ones that a file
of cases expects, and `fastn-mcp policy explain --record` adds a case.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AwareDatetime, Field, ValidationError

from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.account.resolved_call import IDENTITY, KINDS, REFERENCE_NAMES, Record, Relation, Surroundings
from fastn_mcp.audit.files import parsed
from fastn_mcp.audit.log import AuditEvent
from fastn_mcp.config.model import Mode
from fastn_mcp.config.strict_toml import ONE_OR_MORE, ConfigError, TomlSource, load, read, validate
from fastn_mcp.errors import NotSent, nearest
from fastn_mcp.policy.asker import LOCAL, Asker, asker_of
from fastn_mcp.policy.decision import PolicyDecision, Situation, effects_below
from fastn_mcp.policy.plan import toml
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.schema import Count, Decided, Effects, PolicyTable, check_facts
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.catalog import parse
from fastn_mcp.records.rows import FastnObject, parse_timestamp, row_of
from fastn_mcp.tools.catalog import OPERATIONS, AnyOperation
from fastn_mcp.tools.operation import Call, plain
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
        return str(self.line), f"{self.time:%Y-%m-%d %H:%M}Z", described, self.recorded, now.decision.value, now.rule


class UnreadableEntry(Exception):
    """A recorded call cannot be evaluated. The message says why."""


def replay(lines: Iterable[bytes], policy: Policy) -> tuple[list[Replayed], list[tuple[int, str]]]:
    """Evaluate each call of an audit log once: sent, refused, or asked about and never sent. Return problems as well.

    The log holds ids, the effect, environment and customer, and not the state of a target. So names are not compared,
    and dependents count as unknown. Daily budgets and the circuit breaker follow the log, which does not tell where a
    run began.
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
                rows.append(
                    Replayed(
                        number,
                        situation.now,
                        call,
                        recorded=_recorded_decision(entry),
                        decision=policy.decide(situation),
                    )
                )
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
                periods = self.policy.rules.budgets(each, _time(entry))
                self._spent.update((period, each) for period in periods if period != "run")
            if entry.get("approved_by") != "policy":
                self._declines.pop(principal, None)  # a person approved

    def before(self, entry: Mapping[str, Any], call: Call) -> Situation:
        now = _time(entry)
        effect = _effect(entry)
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


UNDECIDED = "none"


def _recorded_decision(entry: Mapping[str, Any]) -> str:
    """Return the recorded decision; `UNDECIDED` if the call ended before one, for example with `not_found`."""
    is_denied = entry.get("outcome", "refused") == "refused" and "rule" in entry
    return str(entry.get("decision") or ("deny" if is_denied else UNDECIDED))


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
        raise UnreadableEntry(f"the tool no longer takes its arguments{named}") from None


def without_secrets(operation: AnyOperation, arguments: dict[str, Any]) -> dict[str, Any]:
    """Leave out redacted arguments. Where one is required, its mark stands in for it."""
    secrets = operation.secrets()
    fields = operation.model_fields
    return {name: each for name, each in arguments.items() if name not in secrets or fields[name].is_required()}


def _asker(entry: Mapping[str, Any]) -> Asker:
    """Return who asked, as far as it was recorded: groups and tenant count as unknown."""
    facts = ("principal", "principal_name", "client", "client_name", "machine")
    principal, name, client, called, machine = (str(entry.get(key) or "") for key in facts)
    names = (name,) if name and not machine else ()
    return Asker(principal or LOCAL, name, names, client=client, client_name=called, machine=machine)


def _time(entry: Mapping[str, Any]) -> datetime:
    time = parse_timestamp(entry.get("time"))
    if time is None:
        raise UnreadableEntry("it has no time")
    return time


def _effect(entry: Mapping[str, Any]) -> Effect:
    try:
        return Effect(entry.get("effect"))
    except ValueError:
        raise UnreadableEntry("it has no effect") from None


# --- cases -------------------------------------------------------------------------------------------------------

_DEFAULT_TIME = datetime(2026, 1, 5, 12, tzinfo=UTC)
"""A Monday: the time of cases that name none."""


class CaseForm(PolicyTable):
    """`[[case]]`: a call, what is known when it is made, and the decision expected on it."""

    tool: str
    arguments: dict[str, Any] = Field({})
    target: dict[str, Any] = Field({})
    records: list[dict[str, Any]] = Field([])
    dependents: Count | None = None
    environment: str | None = None
    effect: Effects | None = None
    key: Literal["live", "test"] = "live"
    mode: Mode | None = None
    time: AwareDatetime = _DEFAULT_TIME
    who: dict[str, Annotated[list[str], ONE_OR_MORE]] | None = None
    spent: Count = 0
    expect: Decided
    rule: str = ""


class _CasesForm(PolicyTable):
    case: Annotated[list[CaseForm], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """A case of a file, whose place is `FILE line N`."""

    place: str
    call: Call
    form: CaseForm

    def difference(self, policy: Policy) -> str | None:
        """Return how the policy's decision differs from the expected one, on one line; None if it does not."""
        form = self.form
        policy = replace(policy, live=form.key == "live", mode=form.mode or policy.mode)
        situation = self._situation(policy)
        verdict = policy.decide(situation)
        if verdict.decision is form.expect and form.rule in ("", verdict.rule, without_place(verdict.rule)):
            return None
        matches = [f"{each.rule}: {each.decision.value}" for each in policy.matches(situation)]
        also = f" Every rule that matches: {'; '.join(matches)}." if len(matches) > 1 else ""
        expected = f"{form.expect.value} by {form.rule or 'any rule'}"
        got = f"{verdict.decision.value} by {verdict.rule}"
        where = f"{self.place}, {self.call.tool_name()} {self.call.target or ''}".rstrip()
        return f"{where}: expected {expected}, got {got}.{also}"

    def _situation(self, policy: Policy) -> Situation:
        """Return what the policy judges: the call with the records, the effect and the amounts of the case."""
        form = self.form
        call = self.call
        target = None if call.target is None else FastnObject.model_validate({"id": call.target} | form.target)
        resolved = by_arguments(call, Surroundings(form.environment), target, form.dependents, trusts_ids=True)
        known = {(each.kind, each.id): each for each in resolved.records}
        for row in form.records:
            key = row["kind"], row["id"]
            known[key] = replace(known.get(key) or Record(*key, Relation.OWNER), row=row)
        resolved = replace(resolved, records=tuple(known.values()))
        effect = form.effect[0] if form.effect else resolved.effect
        spent = {effect: dict.fromkeys(policy.rules.budgets(effect, form.time), form.spent)}
        return Situation(resolved, effect, form.time, asker_of(form.who or {}), spent=spent)


def without_place(rule: str) -> str:
    """Return the name of a rule without the file and the line, which an edit moves."""
    return re.sub(r"\A\S+ line \d+: ", "", rule)


def load_cases(path: Path) -> list[PolicyCase]:
    """Load a file of cases. Raises `SettingsError` with the file, the line and the nearest known key."""
    return _loaded(path, read(path, "file of cases", "Correct the path.")[0])


def record_case(path: Path, text: str, policy: Policy) -> str | None:
    """Append a case to a file, unless `policy test` would decide it otherwise: then return how it differs."""
    data = (read(path, "file of cases", "Correct the path.")[0] if path.exists() else b"") + text.encode()
    difference = _loaded(path, data)[-1].difference(policy)
    if difference is None:
        path.touch(0o600)
        path.write_bytes(data)
    return difference


def _loaded(path: Path, data: bytes) -> list[PolicyCase]:
    return load(data, path, "file of cases", _build, hint="See docs/policy-cookbook.md.")


def _build(table: Mapping[str, Any], source: TomlSource) -> list[PolicyCase]:
    return [_case(number, form, source) for number, form in enumerate(validate(_CasesForm, table, source).case)]


def _case(number: int, form: CaseForm, source: TomlSource) -> PolicyCase:
    at = ("case", number)
    if form.tool not in OPERATIONS:
        raise ConfigError((*at, "tool"), f"tool: there is no {form.tool!r}{nearest(form.tool, OPERATIONS)}")
    check_facts((*at, "who"), form.who)
    for index, row in enumerate(form.records):
        if row.get("kind") not in KINDS or not isinstance(row.get("id"), str):
            raise ConfigError((*at, "records", index), f"records: each needs a kind ({', '.join(KINDS)}) and an id")
    try:
        call = cast("Call", parse(OPERATIONS, form.tool, form.arguments).call)
    except NotSent as error:
        raise ConfigError((*at, "arguments"), f"arguments: {error.what.rstrip('.')}") from None
    return PolicyCase(f"{source.file} line {source.line(at)}", call, form)


def written_case(
    situation: Situation, policy: Policy, who: Mapping[str, Sequence[str]], verdict: PolicyDecision
) -> str:
    """Return the text of a case for a decision that was explained."""
    resolved = situation.resolved
    call = situation.resolved.call
    row = {
        n: v
        for n, v in row_of(resolved.target).items()
        if n in (*IDENTITY, "environment") or plain(n) in REFERENCE_NAMES
    }
    values: dict[str, Any] = {
        "tool": call.tool_name(),
        "arguments": without_secrets(type(call), call.shown()),
        "target": row,
        "records": [{"kind": each.kind} | each.identity() for each in resolved.records],
        "dependents": resolved.dependents,
        "environment": resolved.environment.values[0] if len(resolved.environment.values) == 1 else None,
        "effect": situation.effect.value,
        "key": policy.key,
        "mode": policy.mode,
        "who": {fact: list(names) for fact, names in who.items()},
        "spent": max(situation.spent.get(situation.effect, {}).values(), default=0),
        "expect": verdict.decision.value,
        "rule": without_place(verdict.rule),
    }
    lines = [f"{name} = {toml(value)}" for name, value in values.items() if value not in (None, {}, [], 0)]
    return "\n".join(["", "[[case]]", *lines, f"time = {situation.now.isoformat(timespec='seconds')}", ""])
