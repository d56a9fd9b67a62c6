"""Access control for the approval page: who may open it, and which requests they may decide.

A way in says who is let in; what lies there is then theirs to decide about, as far as it says so.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from fastn_mcp.channels.page.sessions import FlashMessage
from fastn_mcp.guard.audit.log import AuditEvent
from fastn_mcp.guard.ledger.ledger import Grant, Scope

S = TypeVar("S")

Render = Callable[..., Response]
"""Makes an answer of a template: `render(request, template, status, **content)`."""


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A question, as one person has it before them."""

    grant: Grant
    barred: str | None = None
    """Why they cannot approve it, in a sentence; None where they can."""
    so_far: str | None = None
    """What others have said of it already, in a sentence."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A grant that was decided, and by whom, where people are told apart."""

    grant: Grant
    who: str | None = None


class Inbox(Protocol):
    """What lies before one person. What is not theirs is not there."""

    async def revision(self) -> str:
        """A text that differs after any change, by whatever process."""
        ...

    async def waiting(self, now: float) -> Sequence[PendingRequest]:
        """What waits, the oldest first."""
        ...

    async def scopes(self, now: float) -> Sequence[Scope]:
        """The temporary approvals that hold."""
        ...

    async def decided(self, limit: int) -> Sequence[Decided]:
        """What was decided, the newest first."""
        ...

    async def find(self, grant: str) -> PendingRequest | None:
        """The question of this id, whatever became of it."""
        ...

    async def approve(self, lying: PendingRequest, now: float) -> str | None:
        """Approve it: what follows, in a sentence; None where it was not open to them any more."""
        ...

    async def scope(self, lying: PendingRequest, now: float) -> None:
        """Approve such calls on its target for a while. It is approved already."""
        ...

    async def decline(self, lying: PendingRequest, now: float, note: str | None) -> bool:
        """Decline it; False where it was not open to them any more."""
        ...

    async def revoke(self, scope: str, now: float) -> bool:
        """End a temporary approval; False where there is none of theirs."""
        ...


class PageAccess(Protocol[S]):
    """Who is let in. `S` is what is known of a browser that was."""

    room: str
    """The path under which everything lies, as a route has it: it may hold a parameter."""
    looks: dict[str, Any]
    """What the templates have to know: `team`, whether people sign in; where none does, `commands` for a shell."""

    @property
    def entrance(self) -> str | None:
        """The path to which a file of the person posts a key, where that is how they are let in."""
        ...

    def routes(self, render: Render) -> Sequence[BaseRoute]:
        """How to be let in, and out."""
        ...

    async def session(self, request: Request) -> S | None:
        """Whose request it is; None for whom is not let in, whatever the reason."""
        ...

    def root(self, request: Request, session: S) -> str:
        """The path under which everything lies for them, with a slash at its end."""
        ...

    def person(self, session: S) -> str | None:
        """Who they are, where that is known."""
        ...

    def inbox(self, session: S) -> Inbox:
        """What lies before them."""
        ...

    def token(self, session: S, form: str) -> str:
        """What a form of theirs carries, so that it was ours and is sent once."""
        ...

    async def spend(self, session: S, form: str, token: str) -> bool:
        """Whether a token is of this form and theirs, and was not used before; from now on it was."""
        ...

    def tell(self, answer: Response, session: S, said: FlashMessage) -> None:
        """Keep what is to be said on the page that follows `answer`."""
        ...

    def told(self, request: Request, answer: Response | None, session: S) -> FlashMessage | None:
        """What was kept. With an `answer`, it is kept no longer."""
        ...

    def watched(self) -> AbstractContextManager[Callable[[], bool]]:
        """While a browser has the page in view; what it gives says whether it may go on."""
        ...


Record = Callable[[AuditEvent, Grant, str | None], None]
"""Called with what was decided, about which grant, and the note to the agent."""


def unrecorded(_: AuditEvent, __: Grant, ___: str | None) -> None:
    """Nobody is told."""
