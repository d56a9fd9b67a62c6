"""How Fastn answers: replies and refusals, and, as choices, what is not known of it: envelopes, paging, limits.

Everything that a client has to tolerate is one value here, so that a test can try each.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

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
    """Fastn does not do it. Becomes an error response."""

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
    """There is such a path, but not by `method`."""
    headers = {"allow": ", ".join(sorted(set(allowed)))}
    return SandboxRefusal(405, "METHOD_NOT_ALLOWED", f"{method} is not allowed here", headers=headers)


def invalid(field: str, problem: str) -> SandboxRefusal:
    """A value that Fastn does not accept, by its name on the wire."""
    return SandboxRefusal(422, "VALIDATION_ERROR", f"{field}: {problem}", [{"field": field, "problem": problem}])


def conflict(message: str, details: JsonValue = None) -> SandboxRefusal:
    return SandboxRefusal(409, "CONFLICT", message, details)


def not_found() -> SandboxRefusal:
    return SandboxRefusal(404, "NOT_FOUND", "The resource does not exist, or you do not have access.")


def forbidden(message: str) -> SandboxRefusal:
    return SandboxRefusal(403, "FORBIDDEN", message)


class Envelope(Enum):
    """What an answer is wrapped in."""

    DATA = "data"
    DATA_DATA = "data.data"
    ITEMS = "items"
    RESULTS = "results"
    BARE = "bare"


class Paging(Enum):
    """What a list says of its other pages."""

    TOTAL_AND_CURSOR = "total_and_cursor"
    TOTAL = "total"
    CURSOR = "cursor"
    SILENT = "silent"
    IGNORED = "ignored"
    """Answers everything at once, whatever was asked for."""


class Filtering(Enum):
    """Whether lists heed their filters. Nobody knows which of them Fastn does."""

    HEEDED = "heeded"
    IGNORED = "ignored"


class Accepts(Enum):
    """How the key may come. Fastn's pages disagree."""

    EITHER = "either"
    HEADER = "header"
    BEARER = "bearer"


class ModeHeader(Enum):
    """What becomes of a test key that comes with X-fastn-Test-Mode, or without it."""

    WANTED = "wanted"
    REFUSED = "refused"


class RetryAfter(Enum):
    """How a 429 says when to come back. Third parties saw it say nothing."""

    SECONDS = "seconds"
    DATE = "date"
    ABSENT = "absent"


class Behaviour(BaseModel):
    """One way in which Fastn may behave."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    envelope: Envelope = Envelope.DATA
    paging: Paging = Paging.TOTAL_AND_CURSOR
    filtering: Filtering = Filtering.HEEDED
    retry_after: RetryAfter = RetryAfter.SECONDS
    rate_limit: int = Field(default=100_000, ge=1)
    """Requests in a minute for each key."""
    accepts: Accepts = Accepts.EITHER
    test_mode: ModeHeader = ModeHeader.WANTED
    fields: dict[str, str] = Field(default={})
    """What a row's own fields are called instead."""


def wrapped(envelope: Envelope, value: JsonValue, around: dict[str, JsonValue]) -> JsonValue:
    """`value` in its envelope. `around` is what stands beside the rows of a list."""
    match envelope:
        case Envelope.BARE:
            return value
        case Envelope.DATA:
            return {"data": value, **around}
        case Envelope.DATA_DATA:
            return {"data": {"data": value, **around}}
        case Envelope.ITEMS | Envelope.RESULTS:
            name = envelope.value
            return {name if isinstance(value, list) else name.removesuffix("s"): value, **around}
