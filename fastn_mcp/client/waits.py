"""Says why a call waits before it is sent, or sent again: to the operator's log, and to whoever listens to the call.

Our own words only: what Fastn said of an error stays in the result, where it is marked.
"""

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from enum import Enum

log = logging.getLogger("fastn_mcp.client")


class Cause(Enum):
    """Why a call waits."""

    RETRY = "retry"
    RATE_LIMIT = "rate_limit"


listener: ContextVar[Callable[[str], Awaitable[None]] | None] = ContextVar("listener", default=None)
"""Who is told of the waits of the calls that are made from here on."""

counter: ContextVar[Callable[[Cause, float], None] | None] = ContextVar("counter", default=None)
"""Who counts them, and their seconds."""


async def tell(why: str, cause: Cause, seconds: float) -> None:
    """A call waits."""
    log.info(why)
    if (counts := counter.get()) is not None:
        counts(cause, seconds)
    if (hears := listener.get()) is not None:
        await hears(why)
