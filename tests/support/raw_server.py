"""A server of raw bytes on the loopback address, which records the requests."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Reply = Callable[["Wire"], bytes]


@dataclass
class Wire:
    """Recorded heads and bodies, and the number of connections: of all, and of those that are open."""

    port: int = 0
    heads: list[str] = field(default_factory=list[str])
    bodies: list[bytes] = field(default_factory=list[bytes])
    connections: int = 0
    open: int = 0
    keep_open: bool = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def headers(self, number: int = -1) -> dict[str, str]:
        """Return the lower-cased headers of a request."""
        lines = self.heads[number].split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}

    def line(self, number: int = -1) -> str:
        return self.heads[number].split("\r\n")[0]


@asynccontextmanager
async def serving(reply: Reply | bytes, *, keep_open: bool = True) -> AsyncGenerator[Wire]:
    """Answer each request with `reply`; without `keep_open`, close after each answer."""
    wire = Wire(keep_open=keep_open)
    busy: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.connections += 1
        wire.open += 1
        busy.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                wire.heads.append(head)
                length = int(wire.headers().get("content-length", "0"))
                wire.bodies.append(await reader.readexactly(length))
                writer.write(reply if isinstance(reply, bytes) else reply(wire))
                await writer.drain()
                if not wire.keep_open:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            wire.open -= 1
            busy.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        for writer in list(busy):
            writer.close()
        await server.wait_closed()


def answer(status: int = 200, body: bytes = b"{}", *headers: str) -> bytes:
    """Return an HTTP response as bytes."""
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body
