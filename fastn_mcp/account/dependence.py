"""Dependents of a resource: how many there are of each kind, the first of them, and what could not be checked."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from fastn_mcp.records.formats import counted

OWNED_KINDS = frozenset({"connections", "secrets", "triggers"})
"""Kinds whose rows belong to a customer. Runs do too, but only a customer's runs depend on it."""

_MAX_NAMES = 3
"""Maximum number of dependents of one kind that sentences name."""


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Something that could not be checked, and the reason. `kind` is the kind of the rows, if `what` says more."""

    what: str
    why: str
    kind: str = ""

    def data(self) -> dict[str, JsonValue]:
        return {"what": self.what, "why": self.why}


def by_reason(gaps: Iterable[Unchecked]) -> list[Unchecked]:
    """Return one gap for each reason, with what could not be checked for it, separated by commas."""
    grouped: dict[str, list[str]] = {}
    for gap in gaps:
        grouped.setdefault(gap.why, []).append(gap.what)
    return [Unchecked(", ".join(what), why) for why, what in grouped.items()]


@dataclass(frozen=True, slots=True)
class Dependents:
    """Dependents of one kind. `count` is exact, or a lower bound if `more`."""

    kind: str
    count: int
    rows: tuple[Mapping[str, JsonValue], ...]
    """Id, name and state of the first dependents. Workflows also have their triggers and last run; triggers of a
    workflow have the other workflows that they start."""
    more: bool = False
    states: Mapping[str, int] | None = None
    """Number of dependents by state, if all were read and there are more than `rows`."""
    rest: JsonValue = None
    """Call that lists them all, if there are more than `rows`."""
    owners: frozenset[str] = frozenset()
    """Ids of the customers that own the dependents that were read."""
    hides_owners: bool = False
    """Whether there may be other owners: not all were read, or a trigger does not tell whose its connection is."""

    @property
    def examples(self) -> tuple[str, ...]:
        """Names of the first dependents, for sentences."""
        return tuple(str(row.get("name", row.get("id"))) for row in self.rows[:_MAX_NAMES])

    @property
    def is_one(self) -> bool:
        """Whether there is exactly one."""
        return self.count == 1 and not self.more

    def counted(self) -> "Dependents":
        """Return the dependents by number and state only, for an agent that may not read them."""
        states = Counter(str(row["state"]) for row in self.rows if "state" in row)
        known = self.states or (dict(states) if states.total() == self.count else None)
        return replace(self, rows=(), states=known, rest=None)

    def words(self) -> str:
        """Return the count and the kind, such as `1 connection`."""
        return counted(self.count, self.kind.removesuffix("s"), at_least=self.more)

    def brief(self) -> str:
        """Return the count and the kind, with the states or the last run: `2 triggers (1 live, 1 broken)`."""
        states = self.states or Counter(str(row["state"]) for row in self.rows if "state" in row)
        facts = [f"{count} {state}" for state, count in states.items() if sum(states.values()) == self.count]
        facts += [f"last {self.rows[0]['last_run']}"] if self.kind == "executions" and self.rows else []
        return self.words() + (f" ({', '.join(facts)})" if facts else "")

    def data(self, most: int | None = None) -> dict[str, JsonValue]:
        """Return an entry of `used_by`, with `most` examples, or under `all` if those are all."""
        entry: dict[str, JsonValue] = {"kind": self.kind, "count": self.count}
        entry |= {"at_least": True} if self.more else {}
        entry |= {"states": dict(self.states)} if self.states else {}
        rows = self.rows[:most]
        is_all = not self.more and self.count == sum(int(str(row.get("runs", 1))) for row in rows)
        if rows:
            entry["all" if is_all else "examples"] = [dict(row) for row in rows]
        if self.rest:
            entry["more"] = self.rest
        return entry


@dataclass(frozen=True, slots=True)
class Dependence:
    """Certain and possible dependents of all kinds, and the kinds that could not be checked."""

    certain: tuple[Dependents, ...] = ()
    gaps: tuple[Unchecked, ...] = ()
    """What could not be checked, with the reasons."""
    possible: tuple[Dependents, ...] = ()
    none: tuple[str, ...] = ()
    """Kinds that were read in full and have no dependent, or what of a kind was looked for."""

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The kinds that could not be checked."""
        return tuple(gap.kind or gap.what for gap in self.gaps)

    def counted(self) -> "Dependence":
        """Return the dependents by number and state only."""
        certain, possible = (tuple(each.counted() for each in group) for group in (self.certain, self.possible))
        return replace(self, certain=certain, possible=possible)

    def shown_as(self, readable: "Dependence", hides: Callable[[str], bool]) -> "Dependence":
        """Return these dependents with the rows of `readable`, and by number where `hides` says so of their kind."""

        def shown(own: Iterable[Dependents], others: Iterable[Dependents]) -> tuple[Dependents, ...]:
            by_kind = {each.kind: each for each in others if not hides(each.kind)}
            return tuple(by_kind.get(each.kind) or each.counted() for each in own)

        certain = shown(self.certain, readable.certain)
        possible = shown(self.possible, readable.possible)
        return replace(self, certain=certain, possible=possible)

    @property
    def count(self) -> int:
        return sum(dependents.count for dependents in self.certain)

    @property
    def hides_owners(self) -> bool:
        """Whether there are dependents, or may be, whose owners were not read."""
        unread = {each.kind for each in self.certain if each.hides_owners} | {gap.kind for gap in self.gaps}
        return not unread.isdisjoint(OWNED_KINDS)

    def counts(self) -> dict[str, float | None]:
        """Return the count by kind: plus 0.5 if it is a lower bound, None if the kind could not be checked."""
        numbers: dict[str, float | None] = {d.kind: d.count + (0.5 if d.more else 0) for d in self.certain}
        return numbers | dict.fromkeys(self.unchecked)

    def has_more(self, most: int) -> bool:
        """Whether there are more than `most` examples of a kind."""
        return any(len(each.rows) > most for each in (*self.certain, *self.possible))

    def data(self, most: int | None = None) -> dict[str, JsonValue]:
        """Return the dependents as JSON, for previews and for `find_dependents`, with `most` examples of each kind."""
        body: dict[str, JsonValue] = {"used_by": [each.data(most) for each in self.certain]} if self.certain else {}
        if self.possible:
            body["may_be_used_by"] = [each.data(most) for each in self.possible]
        if self.gaps:
            body["not_checked"] = [gap.data() for gap in self.gaps]
        return body
