"""A TCP balancer for tests: one address, with a replica that the test selects."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Switchboard:
    """Forwards bytes in both directions."""

    to: int
    """The port of who answers."""
    _open: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    def switch(self, to: int) -> None:
        """Forward to another replica from now on. Open connections end."""
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
    """Run one at this port until the block ends."""
    made = Switchboard(to)
    server = await asyncio.start_server(made, "127.0.0.1", port)
    try:
        yield made
    finally:
        server.close()
        made.switch(to)
        await server.wait_closed()
