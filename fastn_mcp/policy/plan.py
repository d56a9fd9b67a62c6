"""Run plan: the calls allowed while nobody is present, and their maximum number."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from pydantic import JsonValue

from fastn_mcp.account.resolved_call import Record, ResolvedCall, ValueSource
from fastn_mcp.policy.conditions import DERIVED, Choice, is_host
from fastn_mcp.redaction import quote
from fastn_mcp.tools.operation import Call


@dataclass(frozen=True, slots=True)
class PlannedCalls:
    """An `[[allow]]` entry: calls of one tool, with their maximum number."""

    name: str
    """Plan name and line of the entry, for people."""
    budget: str
    """Ledger key under which calls are counted: this entry with exactly this text."""
    tool: str
    targets: tuple[str, ...]
    """Ids, or case-sensitive patterns of ids."""
    arguments: Mapping[str, JsonValue] | None
    """Exact arguments, besides the target; None if `conditions` or nothing restricts them."""
    conditions: Mapping[str, Choice] | None
    """Condition for each argument; other arguments are not allowed. None if any are."""
    count: int
    signers: int
    """Number of people who signed the plan."""

    def concerns(self, call: Call) -> bool:
        """Return whether the entry is for the tool and the target of a call."""
        is_target = call.target is None or any(fnmatchcase(call.target, pattern) for pattern in self.targets)
        return is_target and call.tool_name() == self.tool

    def covers(self, resolved: ResolvedCall) -> bool:
        """Return whether the entry covers this call, with the arguments that the server's settings fill in."""
        call = resolved.call
        if not self.concerns(call) or (call.needs_person and self.arguments is None):
            return False
        arguments = call.arguments()
        for name in type(call).route.parameters:
            arguments.pop(name, None)
        if self.arguments is not None:
            return _canonical(arguments) == _canonical(self.arguments)
        if resolved.tools - {self.tool}:
            return False  # patterns of what is created do not let it overwrite what exists
        if self.conditions is None:
            return True
        if not arguments.keys() <= self.conditions.keys() or not is_host(arguments.get("domain")):
            return False
        sent = {**_filled_in(resolved), **arguments}
        return all(choice(sent.get(name), exact=True) for name, choice in self.conditions.items())

    def words(self) -> str:
        """Describe the entry in words."""
        where = f" on {' or '.join(self.targets)}" if self.targets else ""
        if self.arguments is not None:
            how = f" with exactly {json.dumps(dict(self.arguments), ensure_ascii=False)}" if self.arguments else ""
        elif self.conditions is None:
            how = " with any arguments"
        else:
            bounds = ", ".join(f"{name} {choice}" for name, choice in self.conditions.items())
            how = f" with no other arguments than {bounds}"
        return f"{self.count} x {self.tool}{where}{how}"


@dataclass(frozen=True, slots=True)
class PlanAccount:
    """The account that a plan is signed for. Fastn does not tell whose a key is, so it is the account of one key."""

    name: str
    digest: str
    """Digest of the key and of where it is sent."""

    def __str__(self) -> str:
        return f"{self.name} (key {self.digest[:8]})"


@dataclass(frozen=True, slots=True)
class Plan:
    """A signed plan."""

    name: str
    account: str
    begins: datetime | None
    until: datetime
    digest: str
    signers: tuple[str, ...]
    permits: tuple[PlannedCalls, ...]
    records: tuple[Mapping[str, str], ...] = ()
    """Of each signature: the fingerprints of the records that its exact calls name, by `Record.key`."""

    def covering(self, resolved: ResolvedCall, now: datetime) -> Iterator[PlannedCalls]:
        """Yield the entries that cover this call, while the plan is valid."""
        if not self.out_of_time(now):
            yield from (
                permit for permit in self.permits if permit.covers(resolved) and not self._differing(permit, resolved)
            )

    def out_of_time(self, now: datetime) -> str:
        """Return why the plan is not valid at a time, in words; empty if it is."""
        if now >= self.until:
            return f"The plan {quote(self.name)} expired at {_minute(self.until)}. Make and sign a new one."
        if self.begins is not None and now < self.begins:
            return f"The plan {quote(self.name)} begins at {_minute(self.begins)}."
        return ""

    def differing(self, resolved: ResolvedCall) -> str:
        """Return the record of a covered call that changed since the plan was signed, in words; else empty."""
        records = (self._differing(permit, resolved) for permit in self.permits if permit.covers(resolved))
        return next(filter(None, records), "")

    def bound(self, permit: PlannedCalls, resolved: ResolvedCall) -> list[Record]:
        """Return the records of a call that a signature of an entry holds for, without what entries for them change."""
        call = resolved.call
        if permit.arguments is None or call.target not in (None, *permit.targets):
            return resolved.named
        alike = (each for each in self.permits if each.concerns(call))
        return resolved.signed({call.wire(name) for each in alike for name in each.arguments or each.conditions or ()})

    def _differing(self, permit: PlannedCalls, resolved: ResolvedCall) -> str:
        for record in self.bound(permit, resolved):
            known = [records.get(record.key) for records in self.records]
            # An entry of exact arguments names its records; of patterns, only those that were signed are compared.
            if permit.arguments is None:
                known = [each for each in known if each is not None]
            if any(each != record.fingerprint() for each in known):
                return f"{record.kind} {quote(record.name)}"
        return ""

    def words(self) -> Iterator[str]:
        """Describe the plan, a line for each part."""
        signed = ", ".join(self.signers) or "nobody"
        begins = f"from {_minute(self.begins)} " if self.begins else ""
        yield f"Plan {self.name}, for {self.account}, {begins}until {_minute(self.until)}, signed by {signed}."
        for permit in self.permits:
            yield f"{permit.name}: {permit.words()}."

    def summary(self) -> str:
        """Return how many calls it allows, by what they do."""
        counts = Counter[str]()
        for permit in self.permits:
            verb = permit.tool.partition("_")[0]
            counts["ask Fastn's AI" if verb == "ai" else verb] += permit.count
        return f"In all at most {', '.join(f'{count} to {verb}' for verb, count in counts.most_common())}."


def _filled_in(resolved: ResolvedCall) -> dict[str, JsonValue]:
    """Return the arguments that the server's settings give to the request."""
    values = {name: of(resolved) for name, of in DERIVED.items() if name in type(resolved.call).model_fields}
    return {name: each.values[0] for name, each in values.items() if each.source is ValueSource.SETTING}


def would_allow(call: Call) -> str:
    """Return the plan entry that would allow exactly this call, once. Plans never contain secrets."""
    arguments = {name: value for name, value in call.shown().items() if name not in type(call).route.parameters}
    lines = ["[[allow]]", f'tool = "{call.tool_name()}"']
    if call.target is not None:
        lines.append(f"target = {toml(call.target)}")
    # TOML has no null, which clears a field: arguments with one are JSON text.
    lines.append(f"arguments = {toml(json.dumps(arguments) if _has_null(arguments) else arguments)}")
    return "\n".join([*lines, "count = 1"])


def _has_null(value: JsonValue) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(_has_null, items))


def toml(value: JsonValue) -> str:
    """Format a value as TOML on one line, without the nulls of its tables."""
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(name)} = {toml(item)}" for name, item in value.items() if item is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _canonical(value: Mapping[str, JsonValue]) -> str:
    """Serialize JSON so that only equal JSON gives equal text: in Python, `1 == True`."""
    return json.dumps(dict(value), sort_keys=True)


def _minute(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
