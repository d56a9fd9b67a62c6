"""What several calls would do, as one list. Pure: the same card serves the question, the page and `dry_run`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from fastn_mcp.fastn.names import counted
from fastn_mcp.guard.preview import Preview
from fastn_mcp.offer import Effect

_GROUPS = 3
"""Kinds of calls that have to be typed by name; the rest is counted."""

_OF_THE_LIST = ("account", "does")
"""What is said once for all."""


@dataclass(frozen=True, slots=True)
class ListPreview:
    """The previews of calls by their numbers in the batch, in order."""

    tool: str
    does: str
    of: Mapping[int, Preview]
    refused: Mapping[int, str]
    """Why the policy refuses some of them. Nothing is made while there are any."""

    name = None

    @property
    def effect(self) -> Effect:
        """The one that wants the most care."""
        return max((shown.effect for shown in self.of.values()), key=lambda effect: effect.rank)

    @property
    def expected(self) -> str:
        """What is to be typed."""
        return phrase((shown.tool, shown.effect) for shown in self.of.values())

    @property
    def fits_form(self) -> bool:
        return all(shown.fits_form for shown in self.of.values())

    def dependents(self) -> dict[str, float | None]:
        """Those of each call, with its number before the kind."""
        return {f"{n} {kind}": count for n, shown in self.of.items() for kind, count in shown.dependents().items()}

    def lines(self) -> list[str]:
        """In words, a line for each call; ours first."""
        account = next(iter(self.of.values())).account
        first = f"{self.expected}: {len(self.of)} calls in order, each once. Account: {account}."
        return [first, *(f"{number}. {shown.line()}" for number, shown in self.of.items())]

    def data(self) -> dict[str, JsonValue]:
        """As data."""
        calls = [self._row(number, shown) for number, shown in self.of.items()]
        effects = sorted({shown.effect for shown in self.of.values()}, key=lambda effect: effect.rank)
        return {
            "call": self.tool,
            "sum": self.expected,
            "account": next(iter(self.of.values())).account,
            "effect": self.effect.value,
            "effects": [effect.value for effect in effects],
            "calls": [*calls],
            "does": self.does,
        }

    def _row(self, number: int, shown: Preview) -> JsonValue:
        row = {name: value for name, value in shown.data().items() if name not in _OF_THE_LIST}
        said: dict[str, JsonValue] = {"refused": self.refused[number]} if number in self.refused else {}
        return {"number": number} | row | said


def phrase(calls: Iterable[tuple[str, Effect]]) -> str:
    """What is done how often, as DELETE 3 CUSTOMERS: what matters most first."""
    counted = Counter(calls)
    kinds = sorted(counted, key=lambda kind: -kind[1].rank)
    named = kinds if len(kinds) <= _GROUPS else kinds[: _GROUPS - 1]
    said = [_counted(tool, counted[tool, effect]) for tool, effect in named]
    if others := sum(counted[kind] for kind in kinds[len(named) :]):
        said.append(f"MAKE {others} OTHER {'CHANGE' if others == 1 else 'CHANGES'}")
    return ", ".join(said[:-1]) + (" AND " if len(said) > 1 else "") + said[-1]


def _counted(tool: str, count: int) -> str:
    verb, _, noun = tool.upper().partition("_")
    return f"{verb} {counted(count, noun.replace('_', ' ').lower())}".upper()
