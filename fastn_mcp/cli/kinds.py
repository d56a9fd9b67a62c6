"""Of which kinds the parts of an account are: those that nobody observes, unless a start says otherwise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastn_mcp.client import Client
from fastn_mcp.dispatch import Dispatcher
from fastn_mcp.guard import Guard
from fastn_mcp.guard.recording import Watch
from fastn_mcp.system import untraced

if TYPE_CHECKING:
    from mcp.server import Server


def _itself(watch: Watch | None) -> Watch | None:
    return watch


def _as_it_is(_: "Server[Any]") -> None:
    pass


@dataclass(frozen=True, slots=True)
class Kinds:
    """What makes each part, and is done to a server before it serves."""

    client: Callable[..., Client] = Client
    guard: Callable[..., Guard] = Guard
    dispatcher: Callable[..., Dispatcher] = Dispatcher
    watch: Callable[[Watch | None], Watch | None] = _itself
    trace: Callable[[], str | None] = untraced
    observe: "Callable[[Server[Any]], None]" = _as_it_is


def unobserved(_: str) -> Kinds:
    """Those of a profile, where nobody is told of it."""
    return Kinds()
