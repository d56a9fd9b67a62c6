"""Stands between a client and a Valkey server, and loses answers: the server has done what nobody hears of."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
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
    _open: list[asyncio.StreamWriter] = field(default_factory=list[asyncio.StreamWriter])

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._open += [writer, up_writer]
        try:
            while sent := await reader.read(1 << 16):
                self.seen.append(sent)
                if self.latency:
                    await asyncio.sleep(self.latency)
                up_writer.write(sent)
                answer = await up_reader.read(1 << 16)
                if self.lose is not None and self.lose in sent:
                    self.lost += 1
                    if self.hang_up:
                        return
                    continue
                writer.write(answer)
        except OSError:
            return
        finally:
            writer.close()
            up_writer.close()

    def close(self) -> None:
        for writer in self._open:
            writer.close()


@asynccontextmanager
async def proxied(target: int, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Proxy]:
    """A proxy, until the block ends. With `tls` it speaks that to whoever comes."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.close()
        await server.wait_closed()
