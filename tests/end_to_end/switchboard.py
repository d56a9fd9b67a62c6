"""A balancer in the hands of a test: one address, behind which it says which server answers."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Switchboard:
    """Passes bytes on, to and fro."""

    to: int
    """The port of who answers."""
    _open: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    def switch(self, to: int) -> None:
        """From now on another answers. What is open ends, as where a server has left."""
        self.to = to
        for writer in self._open:
            writer.close()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.to)
        both = {writer, back}
        self._open |= both
        try:
            await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
        finally:
            self._open -= both


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(1 << 16):
            writer.write(some)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def switchboard(port: int, to: int) -> AsyncGenerator[Switchboard]:
    """One at this port, until the block ends."""
    made = Switchboard(to)
    server = await asyncio.start_server(made, "127.0.0.1", port)
    try:
        yield made
    finally:
        server.close()
        made.switch(to)
        await server.wait_closed()
