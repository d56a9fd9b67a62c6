"""A response of the sandbox, and how it is delivered."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Protocol

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.sandbox.behaviour import Envelope, wrapped
from fastn_mcp.sandbox.state import Row


class Rows(Protocol):
    """All rows of a list. A place is counted from 0."""

    def __len__(self) -> int: ...

    def cut(self, start: int, end: int) -> Iterator[Row]:
        """The rows from `start` until before `end`, as far as there are any."""
        ...

    def place(self, key: str) -> int | None:
        """Where the row with this id stands; None where the list does not have it."""
        ...


def _as_it_is(row: Row) -> Row:
    return row


class StoredRows:
    """Rows that the state keeps. `shown` is how a list shows one."""

    def __init__(self, rows: list[Row], shown: Callable[[Row], Row] = _as_it_is) -> None:
        self._rows = rows
        self._shown = shown

    def __len__(self) -> int:
        return len(self._rows)

    def cut(self, start: int, end: int) -> Iterator[Row]:
        return map(self._shown, self._rows[start:end])

    def place(self, key: str) -> int | None:
        return next((place for place, row in enumerate(self._rows) if str(row["id"]) == key), None)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The whole answer at once."""


@dataclass(frozen=True, slots=True)
class Late:
    """The whole answer, after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NoReply:
    """No answer; the connection stays open until the client gives up."""


@dataclass(frozen=True, slots=True)
class Dropwise:
    """A byte at a time, with `seconds` before each."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Short:
    """The head promises the whole body, and the connection ends in order after `kept` bytes of it."""

    kept: int


@dataclass(frozen=True, slots=True)
class BrokenReply:
    """The connection is reset after `sent` bytes of the body; before the head where `sent` is None."""

    sent: int | None = None


Delivery = Prompt | Late | NoReply | Dropwise | Short | BrokenReply


@dataclass(frozen=True, slots=True)
class SandboxReply:
    """An HTTP answer. Header names are lower-case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    delivery: Delivery = field(default_factory=Prompt)


class SandboxRefusal(Exception):
    """Fastn does not do it. Becomes an error answer in the shape that the sandbox is set to."""

    def __init__(self, status: int, code: str, message: str, details: JsonValue = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.retry_after: int | None = None
        self.headers: dict[str, str] = {}


def not_allowed(method: str, allowed: Iterable[str]) -> SandboxRefusal:
    """There is such a path, but not by `method`."""
    refusal = SandboxRefusal(405, "METHOD_NOT_ALLOWED", f"{method} is not allowed here")
    refusal.headers["allow"] = ", ".join(sorted(set(allowed)))
    return refusal


def invalid(field: str, problem: str) -> SandboxRefusal:
    """A value that Fastn does not accept, by the name that it has on the wire."""
    return SandboxRefusal(422, "VALIDATION_ERROR", f"{field}: {problem}", [{"field": field, "problem": problem}])


def conflict(message: str, details: JsonValue = None) -> SandboxRefusal:
    return SandboxRefusal(409, "CONFLICT", message, details)


def not_found() -> SandboxRefusal:
    return SandboxRefusal(404, "NOT_FOUND", "The resource does not exist, or you do not have access.")


def forbidden(message: str) -> SandboxRefusal:
    return SandboxRefusal(403, "FORBIDDEN", message)


@dataclass(frozen=True, slots=True)
class One:
    """One resource."""

    row: dict[str, JsonValue]
    status: int = 200


@dataclass(frozen=True, slots=True)
class Many:
    """All rows that match, newest first; the page is cut from them when the answer is made."""

    rows: Rows


@dataclass(frozen=True, slots=True)
class Nothing:
    """Done, and nothing to say: 204."""


Outcome = One | Many | Nothing


def list_body(envelope: Envelope, rows: Iterable[Row], around: Row) -> bytes:
    """The rows in their envelope, with what stands beside them."""
    # An envelope begins with the rows, so that the first empty list is where they go.
    head, tail = to_json(wrapped(envelope, [], around)).split(b"[]", 1)
    body = BytesIO()
    body.write(head)
    separator = b"["
    for row in rows:
        body.write(separator)
        body.write(to_json(row))
        separator = b","
    body.write(b"[]" if separator == b"[" else b"]")
    body.write(tail)
    return body.getvalue()
