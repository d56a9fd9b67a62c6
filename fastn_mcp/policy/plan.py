"""Run plan: the calls allowed while nobody is present, and their maximum number."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from fastn_mcp.account.resolved_call import Record, ResolvedCall
from fastn_mcp.policy.permit import Permit
from fastn_mcp.redaction import quote
from fastn_mcp.tools.operation import Call


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
    permits: tuple[Permit, ...]
    records: tuple[Mapping[str, str], ...] = ()
    """Of each signature: the fingerprints of the records that its exact calls name, by `Record.key`."""

    def covering(self, resolved: ResolvedCall, now: datetime) -> Iterator[Permit]:
        """Yield the entries that cover this call, while the plan is valid."""
        if not self.out_of_time(now):
            yield from (
                permit for permit in self.permits if permit.covers(resolved) and not self._differing(permit, resolved)
            )

    def out_of_time(self, now: datetime) -> str:
        """Return why the plan is not valid at a time, in words; empty if it is."""
        if now >= self.until:
            return f"The plan {quote(self.name)} expired at {_minute(self.until)}. Write and sign a new one."
        if self.begins is not None and now < self.begins:
            return f"The plan {quote(self.name)} begins at {_minute(self.begins)}."
        return ""

    def differing(self, resolved: ResolvedCall) -> str:
        """Return the record of a covered call that changed since the plan was signed, in words; else empty."""
        records = (self._differing(permit, resolved) for permit in self.permits if permit.covers(resolved))
        return next(filter(None, records), "")

    def bound(self, permit: Permit, resolved: ResolvedCall) -> list[Record]:
        """Return the records of a call that a signature of an entry holds for, without what entries for them change."""
        call = resolved.call
        if permit.arguments is None or call.target not in (None, *permit.targets):
            return resolved.named
        alike = (each for each in self.permits if each.concerns(call))
        return resolved.signed({call.wire(name) for each in alike for name in each.arguments or each.conditions or ()})

    def _differing(self, permit: Permit, resolved: ResolvedCall) -> str:
        for record in self.bound(permit, resolved):
            known = [records.get(record.key) for records in self.records]
            # An entry of exact arguments names its records; a pattern is compared with the signed records only.
            if permit.arguments is None:
                known = [each for each in known if each is not None]
            if any(each != record.fingerprint() for each in known):
                return f"{record.kind} {quote(record.name)}"
        return ""

    def words(self) -> Iterator[str]:
        """Describe the plan, a line for each part."""
        signed = f"signed by {', '.join(self.signers)}" if self.signers else "unsigned"
        begins = f"from {_minute(self.begins)} " if self.begins else ""
        yield f"Plan {self.name}, for {self.account}, valid {begins}until {_minute(self.until)}, {signed}."
        for permit in self.permits:
            yield f"{permit.name}: {permit.words()}."

    def summary(self) -> str:
        """Return how many calls it allows, by what they do."""
        counts = Counter[str]()
        for permit in self.permits:
            verb = permit.tool.partition("_")[0]
            counts["ask Fastn's AI" if verb == "ai" else verb] += permit.count
        return f"In total, at most: {', '.join(f'{verb} {count}' for verb, count in counts.most_common())}."


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
    items: Iterable[JsonValue] = ()
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, list):
        items = value
    return value is None or any(map(_has_null, items))


def toml(value: JsonValue) -> str:
    """Format a value as TOML on one line, without the nulls of its tables."""
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(name)} = {toml(item)}" for name, item in value.items() if item is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _minute(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
