"""Whether a client received the response to a tool call. The changes of the call are settled then, and not before."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio

from fastn_mcp.channels.elicitation import Context
from fastn_mcp.guard.journal import Delivery

DELIVERY = "fastn_mcp.delivery"
"""Scope key of the delivery of an HTTP request. Over stdio the lifespan context holds them, by id of the request."""

DELIVERY_GRACE = 0.25
"""Seconds after which a written response counts as received if no disconnect was noticed."""


class ResponseDelivery:
    """Delivery of one response. The transport reports that it was written, or sets `lost`."""

    def __init__(self, lost: asyncio.Event | None = None) -> None:
        self.lost = lost or asyncio.Event()
        """Set by the transport when it finds that the client did not receive the response."""
        self._decided = asyncio.Event()
        self._settle: list[Callable[[], Awaitable[None]]] = []

    def on_received(self, settle: Callable[[], Awaitable[None]]) -> None:
        self._settle.append(settle)

    async def decided(self) -> None:
        await self._decided.wait()

    async def written(self, is_unread: Callable[[], bool] = lambda: False, ended: asyncio.Event | None = None) -> None:
        """Settle the changes unless the response turns out to be lost or is left unread.

        `is_unread` tests whether part of the response is still unread by the client. `ended` is set when nothing
        more will come from the client.
        """
        if not self._settle:
            return
        ended = ended or asyncio.Event()
        try:
            while not self.lost.is_set():
                with anyio.move_on_after(DELIVERY_GRACE):
                    await _either(self.lost, ended)
                if not is_unread() or ended.is_set():
                    break
        finally:
            if not self.lost.is_set() and not is_unread():
                with anyio.CancelScope(shield=True):
                    for settle in self._settle:
                        await settle()
            self._decided.set()


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    async def wait(event: asyncio.Event) -> None:
        await event.wait()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, one)
        tasks.start_soon(wait, other)


def delivery_of(ctx: Context) -> Delivery | None:
    """Return the delivery of the response to a tool call; None if the transport cannot tell."""
    if ctx.request is not None:
        return ctx.request.scope.get(DELIVERY)
    return ctx.lifespan_context.get(ctx.request_id)
