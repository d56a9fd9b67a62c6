"""What is not known of Fastn, as choices: envelopes, error shapes, paging, rate limits.

Everything that a client has to tolerate is one value here, so that a test can try each.
"""

from enum import Enum

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Envelope(Enum):
    """What an answer is wrapped in."""

    DATA = "data"
    DATA_DATA = "data.data"
    ITEMS = "items"
    RESULTS = "results"
    BARE = "bare"


class ErrorShape(Enum):
    """What an error looks like. The first is the documented one; the others were seen."""

    CODED = "coded"
    TEXT = "text"
    MESSAGE = "message"
    CLASSIC = "classic"
    HTML = "html"
    EMPTY = "empty"


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
    errors: ErrorShape = ErrorShape.CODED
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


def error_body(
    shape: ErrorShape, status: int, code: str, message: str, details: JsonValue = None, retry_after: int | None = None
) -> JsonValue | bytes:
    """An error in one of the shapes that were seen; bytes where it is no JSON."""
    match shape:
        case ErrorShape.CODED:
            error: dict[str, JsonValue] = {"code": code, "message": message}
            if details is not None:
                error["details"] = details
            if retry_after is not None:
                error["retryAfter"] = retry_after
            return {"error": error}
        case ErrorShape.TEXT:
            return {"error": message}
        case ErrorShape.MESSAGE:
            return {"message": message}
        case ErrorShape.CLASSIC:
            debug: JsonValue = {"name": code, "jsonObject": {"message": message, "details": details}}
            return {
                "code": "DATASOURCE_CONNECTION_ERROR" if status >= 500 else code,
                "statusCode": status,
                "isCustomAuthError": False,
                "step": "request",
                "datasourceDebug": debug,
            }
        case ErrorShape.HTML:
            return f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>".encode()
        case ErrorShape.EMPTY:
            return b""
