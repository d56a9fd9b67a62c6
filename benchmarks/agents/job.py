"""A job: what a person says, the calls that a sensible agent makes, and how the outcome is judged."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

Rows = Callable[[str], list[dict[str, Any]]]
"""Rows of a collection of the sandbox's state, such as `customers`."""

Holds = Callable[[Rows], bool]


def any_row(collection: str, **values: object) -> Holds:
    """Return a condition: there is a row with these values."""
    return lambda rows: any(all(row.get(k) == v for k, v in values.items()) for row in rows(collection))


def no_row(collection: str, **values: object) -> Holds:
    """Return a condition: there is no row with these values."""
    return lambda rows: not any_row(collection, **values)(rows)


def all_of(*conditions: Holds) -> Holds:
    return lambda rows: all(condition(rows) for condition in conditions)


@dataclass(frozen=True, slots=True)
class Says:
    """Selects the first list entry that contains this."""

    words: str

    def among(self, entries: list[Any]) -> Any:
        return next(entry for entry in entries if self.words in json.dumps(entry))


@dataclass(frozen=True, slots=True)
class Captured:
    """Selects what the first group of a pattern captures in a text."""

    pattern: str

    def within(self, text: str) -> str:
        match = re.search(self.pattern, text)
        if match is None:
            raise LookupError(self.pattern)
        return match[1]


@dataclass(frozen=True, slots=True)
class From:
    """A value from an earlier answer: the call, counted from 0, and the path in its `data`.

    In the path a number is a list index, a text a field, `Says` selects a list entry, and `Captured` a part of a text.
    """

    call: int
    path: tuple["int | str | Says | Captured", ...]
    field: str = "data"

    def out_of(self, answers: Sequence[Mapping[str, Any]]) -> Any:
        value: Any = answers[self.call][self.field]
        for part in self.path:
            match part:
                case Says():
                    value = part.among(value)
                case Captured():
                    value = part.within(value)
                case _:
                    value = value[part]
        return value


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call, and what its answer must say for a sensible agent to continue."""

    tool: str
    arguments: "Mapping[str, Any] | From"
    says: tuple[str, ...] = ()
    is_refused: bool = False
    """Whether the answer is an error, which says how to continue."""

    def filled(self, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the arguments with values of earlier answers, or the whole call that an answer suggested."""
        return cast("dict[str, Any]", _filled(self.arguments, answers))


def _filled(value: Any, answers: Sequence[Mapping[str, Any]]) -> Any:
    if isinstance(value, From):
        return value.out_of(answers)
    if isinstance(value, Mapping):
        inner = cast("Mapping[str, Any]", value)
        return {name: _filled(item, answers) for name, item in inner.items()}
    return [_filled(item, answers) for item in cast("list[Any]", value)] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Job:
    """What the person says, the calls that do it, and what has to be so afterwards.

    `sends` are the changes that reach Fastn, as "POST customers"; nothing else may. `holds` looks at the rows
    of the account afterwards. `facts` must be among what was answered; a model has to say them in the end. `texts` are
    parts of answers that depend on the rows: they too must be among what was answered to a script.
    """

    number: int
    prompt: str
    calls: tuple[Call, ...]
    sends: tuple[str, ...] = ()
    holds: Holds = field(default=lambda _: True)
    facts: tuple[str, ...] = ()
    texts: Callable[[Rows], Sequence[str]] = field(default=lambda _: ())

    def __str__(self) -> str:
        return f"{self.number}"

    def problems(self, sent: Sequence[str], rows: Rows, answered: str) -> list[str]:
        """Return why the job was not done; empty if it was."""
        problems = [] if sorted(sent) == sorted(self.sends) else [f"sent {', '.join(sent) or 'nothing'}"]
        if not self.holds(rows):
            problems.append("the account is not as it should be")
        missing = [fact for fact in self.facts if fact.casefold() not in answered.casefold()]
        return problems + ([f"not answered: {', '.join(missing)}"] if missing else [])
