"""Who is told what was decided on the page."""

from collections.abc import Callable

from fastn_mcp.guard.audit import Event
from fastn_mcp.guard.ledger import Grant

Record = Callable[[Event, Grant, str | None], None]
"""Called with what was decided, about which grant, and the note to the agent."""


def unrecorded(_: Event, __: Grant, ___: str | None) -> None:
    """Nobody is told."""
