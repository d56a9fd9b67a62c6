"""A TCP proxy between a client and a server of this machine: it loses answers, delays, or leads elsewhere."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """A proxy at a port of this machine."""

    target: int
    port: int = 0
    lose: bytes | None = None
    """A command that holds this is passed on, and its answer is not; what follows on its connection is silence."""
    hang_up: bool = False
    """Whether the connection is closed instead of being silent."""
    latency: float = 0.0
    """Seconds by which each command arrives later."""
    lost: int = 0
    seen: list[bytes] = field(default_factory=list[bytes])
    answers: bytearray = field(default_factory=bytearray)
    _open: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])
    _silent: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    def switch(self, target: int) -> None:
        """Forward to another server from now on. Open connections end."""
        self.target = target
        for writer in self._open:
            writer.close()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        both = {writer, back}
        self._open |= both
        with suppress(asyncio.CancelledError):  # the loop ends
            await asyncio.gather(self._commands(reader, back, writer), self._answers(there, writer))
        for each in both:
            each.close()
        self._open -= both

    async def _commands(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while sent := await reader.read(1 << 16):
                self.seen.append(sent)
                await asyncio.sleep(self.latency)
                if self.lose is not None and self.lose in sent:
                    self.lost += 1
                    self._silent.add(client)
                server.write(sent)
                await server.drain()
        server.close()

    async def _answers(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while answer := await reader.read(1 << 16):
                self.answers += answer
                if client not in self._silent:
                    client.write(answer)
                    await client.drain()
                elif self.hang_up:
                    break
        client.close()


@asynccontextmanager
async def proxied(target: int, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Proxy]:
    """Run a proxy until the block ends. With `tls` it speaks that to its clients."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy, "127.0.0.1", port, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.switch(target)
        await server.wait_closed()
