"""What the journal has to know of a response's way to the client. `server.delivery` implements it for transports."""

from collections.abc import Awaitable, Callable
from typing import Protocol


class Delivery(Protocol):
    """Delivery of the response to one request, over a transport that can tell whether it was received."""

    def on_received(self, settle: Callable[[], Awaitable[None]]) -> None:
        """Have `settle` called once the client has received the response."""
        ...

    async def decided(self) -> None:
        """Wait until it is known whether the client received the response."""
        ...
