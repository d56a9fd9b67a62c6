"""How an answer goes out over ASGI. The only module of the sandbox that waits, and that knows what a socket is.

ASGI has no word for breaking a connection. Served by uvicorn, whose object for the request holds the transport, the
socket is closed or reset; in process there is no socket, and an exception says the same.
"""

import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from fastn_mcp.sandbox.reply import Broken, Dropwise, Late, Never, Prompt, Reply, Short

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Delivery:
    """One request's way back."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        broken: Callable[[str], Exception],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._receive = receive
        self._send = send
        self._broken = broken
        self._sleep = sleep

    async def __call__(self, reply: Reply) -> None:
        """Raises what `broken` gives, where the connection is to break and there is none."""
        match reply.delivery:
            case Prompt():
                await self._whole(reply)
            case Late(seconds):
                await self._sleep(seconds)
                await self._whole(reply)
            case Never():
                await self._gone()
            case Dropwise(seconds):
                await self._dropwise(reply, seconds)
            case Short(kept):
                await self._short(reply, kept)
            case Broken(sent):
                await self._break(reply, sent)

    async def _whole(self, reply: Reply) -> None:
        await self._head(reply)
        await self._part(reply.body, more=False)

    async def _dropwise(self, reply: Reply, seconds: float) -> None:
        await self._head(reply)
        for number in range(len(reply.body)):
            await self._sleep(seconds)
            await self._part(reply.body[number : number + 1], more=True)
        await self._part(b"", more=False)

    async def _short(self, reply: Reply, kept: int) -> None:
        await self._head(reply)
        await self._part(reply.body[:kept], more=True)
        transport = self._transport()
        if transport is None:
            # In process nobody counts the bytes: the body simply ends.
            await self._part(b"", more=False)
        else:
            transport.close()
            await self._gone()

    async def _break(self, reply: Reply, sent: int | None) -> None:
        if sent is not None:
            await self._head(reply)
            await self._part(reply.body[:sent], more=True)
        transport = self._transport()
        if transport is None:
            raise self._broken("the connection was reset")
        with suppress(OSError):
            # Not to linger makes the system say RST rather than FIN.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
        await self._gone()

    async def _head(self, reply: Reply) -> None:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})

    async def _part(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _gone(self) -> None:
        """Wait until the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _transport(self) -> Any:
        return getattr(getattr(self._receive, "__self__", None), "transport", None)
