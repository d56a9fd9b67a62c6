"""What is unknown of Fastn and a client has to tolerate: envelopes, paging, filters, headers, limits, names of fields.

Each is one value, so that tests can try all of them.
"""

from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from fastn_mcp.extensions.sandbox.server import RATE_LIMIT


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

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields beside the rows."""
        totals, cursors = ("total", "limit", "offset"), ("nextCursor",)
        return {
            Paging.TOTAL_AND_CURSOR: totals + cursors,
            Paging.TOTAL: totals,
            Paging.CURSOR: cursors,
        }.get(self, ())


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
    rate_limit: int = Field(default=RATE_LIMIT, ge=1)
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
