"""Access to the local page: one person, let in by a key, decides about everything in the ledger."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fastn_mcp.channels.page.access import Decided, Inbox, PendingRequest, Record, Render, unrecorded
from fastn_mcp.channels.page.app import page
from fastn_mcp.channels.page.security import BadForm, form
from fastn_mcp.channels.page.sessions import FlashMessage, PageSession, PageSessions
from fastn_mcp.config.command_line import PROGRAM, CommandLine
from fastn_mcp.guard.approval import quorum
from fastn_mcp.guard.approval.request import for_a_while
from fastn_mcp.guard.audit.log import AuditEvent
from fastn_mcp.guard.audit.recorder import record_expired
from fastn_mcp.guard.ledger.ledger import Grant, GrantState, Ledger, Scope
from fastn_mcp.runtime import System

NAME = "local_page"
COOKIE = "fastn_approvals"

_TWO = "Two different people have to approve this call, and this page cannot tell people apart."


def application(
    ledger: Ledger,
    system: System,
    entry: PageSessions,
    origins: Sequence[str],
    record: Record = unrecorded,
    account: str | None = None,
    program: CommandLine = PROGRAM,
) -> ASGIApp:
    """The page, for browsers that call it by one of `origins` and that `entry` lets in.

    `record` is told what is decided, once it is. Without `account` it shows every account in the ledger.
    `program` is what a person starts at a shell to decide, or to be let in anew.
    """
    return page(_ByKey(entry, _All(ledger, system, record, account), program), system, origins)


class _ByKey:
    """Let in by a key that works once, and kept in by a cookie."""

    room = "/{room}"
    entrance = "/enter"

    def __init__(self, entry: PageSessions, inbox: Inbox, program: CommandLine) -> None:
        commands = {"decide": program.to("approvals"), "open": program.to("approvals", "--open")}
        self.looks: dict[str, Any] = {"team": False, "commands": commands}
        self._entry = entry
        self._inbox = inbox

    def routes(self, render: Render) -> Sequence[Route]:
        async def enter(request: Request) -> Response:
            try:
                entered = self._entry.enter((await form(request)).get("key", ""))
            except BadForm:
                entered = None
            if entered is None:
                answer = render(request, "closed.html", 403)
                answer.headers["Connection"] = "close"  # each guess costs a new connection
                return answer
            session, cookie = entered
            root = self.root(request, session)
            secure = request.url.scheme == "https"
            # Not a redirect: a browser that came from a file sends a strict cookie only with what this page asks for.
            answer = render(request, "entered.html", root=root)
            answer.set_cookie(COOKIE, cookie, path=root, httponly=True, samesite="strict", secure=secure)
            return answer

        return [Route(self.entrance, enter, methods=["POST"])]

    async def session(self, request: Request) -> PageSession | None:
        room = request.path_params.get("room") or request.path_params["path"].partition("/")[0]
        return self._entry.session(room, request.cookies.get(COOKIE))

    def root(self, request: Request, session: PageSession) -> str:
        return f"{request.scope.get('root_path', '')}/{session.room}/"

    def person(self, session: PageSession) -> str | None:  # noqa: ARG002 - whoever has the key
        return None

    def inbox(self, session: PageSession) -> Inbox:  # noqa: ARG002 - one person, one inbox
        return self._inbox

    def token(self, session: PageSession, form: str) -> str:
        return self._entry.token(session, form)

    async def spend(self, session: PageSession, form: str, token: str) -> bool:
        return self._entry.spend(session, form, token)

    def tell(self, answer: Response, session: PageSession, said: FlashMessage) -> None:  # noqa: ARG002 - kept in this process
        session.said = said

    def told(self, request: Request, answer: Response | None, session: PageSession) -> FlashMessage | None:  # noqa: ARG002
        said, session.said = session.said, None
        return said

    @contextmanager
    def watched(self) -> Generator[Callable[[], bool]]:
        with self._entry.watched():
            yield lambda: not self._entry.closed


class _All:
    """Access to every request of one account. Whoever holds the page decides."""

    def __init__(self, ledger: Ledger, system: System, record: Record, account: str | None) -> None:
        self._ledger = ledger
        self._system = system
        self._record = record
        self._account = account

    async def revision(self) -> str:
        return str(await self._ledger.revision())

    async def waiting(self, now: float) -> list[PendingRequest]:
        if self._account is not None:
            await record_expired(self._ledger, self._account, now, self._record)
        return [_lying(grant) for grant in await self._ledger.waiting(now) if self._is_ours(grant)]

    async def scopes(self, now: float) -> list[Scope]:
        return [scope for scope in await self._ledger.scopes(now) if self._is_ours(scope)]

    async def decided(self, limit: int) -> list[Decided]:
        decided = [grant for grant in await self._ledger.decided(limit * 4) if self._is_ours(grant)]
        return [Decided(grant) for grant in decided[:limit]]

    async def find(self, grant: str) -> PendingRequest | None:
        found = await self._ledger.find(grant)
        return None if found is None or not self._is_ours(found) else _lying(found)

    async def approve(self, lying: PendingRequest, now: float) -> str | None:
        grant = lying.grant
        if not await self._ledger.move(grant.id, [GrantState.OPEN], GrantState.APPROVED, now, by=NAME):
            return None
        self._record(AuditEvent.APPROVED, grant, None)
        await self._ledger.note_answer(grant.holder, declined=False, now=now)
        return "It is sent when the agent makes the call again."

    async def scope(self, lying: PendingRequest, now: float) -> None:
        await self._ledger.grant_scope(for_a_while(lying.grant, self._system.token(), now, NAME))

    async def decline(self, lying: PendingRequest, now: float, note: str | None) -> bool:
        grant = lying.grant
        if not await self._ledger.move(grant.id, [GrantState.OPEN], GrantState.DECLINED, now, by=NAME, note=note):
            return False
        self._record(AuditEvent.DECLINED, grant, note)
        await self._ledger.note_answer(grant.holder, declined=True, now=now)
        return True

    async def revoke(self, scope: str, now: float) -> bool:
        ours = {found.id for found in await self.scopes(now)}
        return scope in ours and await self._ledger.revoke_scope(scope)

    def _is_ours(self, found: Grant | Scope) -> bool:
        return self._account in (None, found.account)


def _lying(grant: Grant) -> PendingRequest:
    return PendingRequest(grant, _TWO if quorum.needed(grant) > 1 else None)
