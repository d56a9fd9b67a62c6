"""A channel of an extension, whose service delivers what people answer."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastn_mcp.guard.channel import Channel

Handle = Callable[[Any, Any], Awaitable[Any]]
"""Handles what a service delivers for one account. Returns what the service gets in answer."""


class ExternalChannel(Channel, Protocol):
    """Approval channel whose service delivers what people answer."""

    decisions: Handle | None
    """Handles what the receivers of its door get for this account; None if nothing comes that way."""

    def begin(self) -> None:
        """Receive answers for this account alone. A team's process receives for all, by the receivers of the door."""
        ...

    async def aclose(self) -> None: ...
