"""Says why a call waits before it is sent, or sent again: to the operator's log, and to whoever listens to the call.

Our own words only: what Fastn said of an error stays in the result, where it is marked.
"""

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

log = logging.getLogger("fastn_mcp.client")

listener: ContextVar[Callable[[str], Awaitable[None]] | None] = ContextVar("listener", default=None)
"""Who is told of the waits of the calls that are made from here on."""


async def tell(why: str) -> None:
    """A call waits."""
    log.info(why)
    if (hears := listener.get()) is not None:
        await hears(why)
