"""A job: what a person says, the calls that a sensible agent makes, and how the outcome is judged."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

Rows = Callable[[str], list[dict[str, Any]]]
"""Rows of a collection of the sandbox's state, such as `customers`."""


@dataclass(frozen=True, slots=True)
class Says:
    """Selects the first list entry that contains this."""

    words: str

    def among(self, entries: list[Any]) -> Any:
        return next(entry for entry in entries if self.words in json.dumps(entry))


@dataclass(frozen=True, slots=True)
class From:
    """A value from an earlier answer: the call, counted from 0, and the path in its `data`.

    In the path a number is a list index, a text a field, and `Says` selects a list entry.
    """

    call: int
    path: tuple["int | str | Says", ...]
    field: str = "data"

    def out_of(self, answers: Sequence[Mapping[str, Any]]) -> Any:
        value: Any = answers[self.call][self.field]
        for part in self.path:
            value = part.among(value) if isinstance(part, Says) else value[part]
        return value


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call, and what its answer must say for a sensible agent to continue."""

    tool: str
    arguments: "Mapping[str, Any] | From"
    says: tuple[str, ...] = ()

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
    of the account afterwards. `facts` must be among what was answered; a model has to say them in the end.
    """

    number: int
    said: str
    calls: tuple[Call, ...]
    sends: tuple[str, ...] = ()
    holds: Callable[[Rows], bool] = field(default=lambda _: True)
    facts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.number}"

    def problems(self, sent: Sequence[str], rows: Rows, answered: str) -> list[str]:
        """Return why the job was not done; empty if it was."""
        found = [] if sorted(sent) == sorted(self.sends) else [f"sent {', '.join(sent) or 'nothing'}"]
        if not self.holds(rows):
            found.append("the account is not as it should be")
        missing = [fact for fact in self.facts if fact.casefold() not in answered.casefold()]
        return found + ([f"not said: {', '.join(missing)}"] if missing else [])
