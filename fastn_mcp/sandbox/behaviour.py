"""Replies and refusals of the sandbox, and options for what is unknown of Fastn: envelopes, paging, limits.

Each behaviour that a client has to tolerate is one value, so that tests can try all of them.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import to_json

JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class SandboxReply:
    """An HTTP response. Header names are lower-case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


class SandboxRefusal(Exception):
    """Refusal of a request, sent as an error response."""

    def __init__(
        self, status: int, code: str, message: str, details: JsonValue = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers or {}

    def reply(self) -> SandboxReply:
        error: dict[str, JsonValue] = {"code": self.code, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        if (seconds := self.headers.get("retry-after", "")).isdigit():
            error["retryAfter"] = int(seconds)
        return SandboxReply(self.status, self.headers | JSON, to_json({"error": error}))


def not_allowed(method: str, allowed: Iterable[str]) -> SandboxRefusal:
    """Return the refusal for a path that exists, but not with this method."""
    headers = {"allow": ", ".join(sorted(set(allowed)))}
    return SandboxRefusal(405, "METHOD_NOT_ALLOWED", f"{method} is not allowed here", headers=headers)


def invalid(field: str, problem: str) -> SandboxRefusal:
    """Return the refusal of a field's value; `field` is its name on the wire."""
    return SandboxRefusal(422, "VALIDATION_ERROR", f"{field}: {problem}", [{"field": field, "problem": problem}])


def check_choice(field: str, value: object, choices: Collection[str]) -> None:
    """Raise the refusal of a value that is not one of the choices."""
    if value not in choices:
        raise invalid(field, f"one of {', '.join(choices)}")


def conflict(message: str, details: JsonValue = None) -> SandboxRefusal:
    return SandboxRefusal(409, "CONFLICT", message, details)


def not_found() -> SandboxRefusal:
    return SandboxRefusal(404, "NOT_FOUND", "The resource does not exist, or you do not have access.")


def forbidden(message: str) -> SandboxRefusal:
    return SandboxRefusal(403, "FORBIDDEN", message)


class Envelope(Enum):
    """JSON structure around the data of a response."""

    DATA = "data"
    DATA_DATA = "data.data"
    ITEMS = "items"
    RESULTS = "results"
    BARE = "bare"


class Paging(Enum):
    TOTAL_AND_CURSOR = "total_and_cursor"
    TOTAL = "total"
    CURSOR = "cursor"
    SILENT = "silent"
    IGNORED = "ignored"
    """Return all rows at once and ignore the parameters."""


class Filtering(Enum):
    """Whether lists apply their filters. It is not known which of them Fastn applies."""

    HEEDED = "heeded"
    IGNORED = "ignored"


class Accepts(Enum):
    """Headers accepted for the key. Fastn's pages disagree."""

    EITHER = "either"
    HEADER = "header"
    BEARER = "bearer"


class Behaviour(BaseModel):
    """One possible behaviour of Fastn."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    envelope: Envelope = Envelope.DATA
    paging: Paging = Paging.TOTAL_AND_CURSOR
    filtering: Filtering = Filtering.HEEDED
    rate_limit: int = Field(default=100_000, ge=1)
    """Maximum number of requests per minute and key."""
    accepts: Accepts = Accepts.EITHER
    refuses_test_mode: bool = False
    """Whether a test key is refused with the header X-fastn-Test-Mode, which it needs otherwise."""
    fields: dict[str, str] = Field(default={})
    """Other names for top-level fields of rows."""


def wrapped(envelope: Envelope, value: Any, pagination: dict[str, JsonValue]) -> Any:
    """Return a row or a generator of rows in its envelope, with the pagination fields of a list beside it."""
    is_row = isinstance(value, dict)
    match envelope:
        case Envelope.BARE:
            return value
        case Envelope.DATA:
            return {"data": value, **pagination}
        case Envelope.DATA_DATA:
            return {"data": {"data": value, **pagination}}
        case Envelope.ITEMS | Envelope.RESULTS:
            name = envelope.value
            return {name.removesuffix("s") if is_row else name: value, **pagination}
