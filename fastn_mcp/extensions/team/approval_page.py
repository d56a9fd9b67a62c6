"""The approval page of a team: approvers sign in and decide the requests assigned to them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode, urlsplit

from pydantic import ConfigDict, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from fastn_mcp.channels.page.access import BadForm, Render, Session, form
from fastn_mcp.channels.page.app import page
from fastn_mcp.channels.page.decisions import redeem
from fastn_mcp.extensions.team.approvers import SignedInPerson, TeamInbox, person
from fastn_mcp.extensions.team.sign_in import (
    SIGN_IN_HOLDS,
    NotAnApprover,
    NotSignedIn,
    NotSteppedUp,
    PendingSignIn,
    SignIn,
)
from fastn_mcp.extensions.team.team_config import Team, origin_of
from fastn_mcp.extensions.team.tenants import Tenants
from fastn_mcp.guard.seal import Seal
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.runtime import System


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """Signed-in browser session, as stored in its sealed cookie."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: str
    ends: float
    person: SignedInPerson


_Content = TypeVar("_Content", BrowserSession, PendingSignIn)


class SealedCookie(Generic[_Content]):
    """Cookie of the page at `url`, which every replica can open for `seconds`. One of another version is none."""

    def __init__(self, content: type[_Content], name: str, url: str, seal: Seal, seconds: float) -> None:
        self._adapter: TypeAdapter[_Content] = TypeAdapter(content)
        self._secure = url.startswith("https://")
        # The prefix stops other hosts of the domain, and plain HTTP, from setting the cookie.
        self.name = f"{'__Host-' if self._secure else ''}fastn_{name}"
        self._purpose = name.replace("_", "-")
        self._seal = seal
        self._seconds = seconds

    def read(self, cookies: Mapping[str, str]) -> _Content | None:
        with suppress(ValidationError):
            return self._adapter.validate_python(self._seal.open(self._purpose, cookies.get(self.name), self._seconds))
        return None

    def set(self, response: Response, content: _Content) -> None:
        sealed = self._seal.close(self._purpose, asdict(content))
        seconds = int(self._seconds)
        # Lax, because the browser returns from another site, the provider's.
        response.set_cookie(self.name, sealed, seconds, secure=self._secure, httponly=True, samesite="lax")

    def delete(self, response: Response) -> None:
        response.delete_cookie(self.name, secure=self._secure, httponly=True, samesite="lax")


def pending_cookie(url: str, seal: Seal) -> SealedCookie[PendingSignIn]:
    """Return the cookie of a sign-in at the page at `url` that has not come back yet."""
    return SealedCookie(PendingSignIn, "sign_in", url, seal=seal, seconds=SIGN_IN_HOLDS)


def _ended(session: BrowserSession) -> str:
    """Return the mark that a session has ended."""
    return f"ended session {session.id}"


class TeamPageAccess:
    """Page access by sign-in at the identity provider, then by a sealed cookie that every replica can open."""

    prefix = ""
    entrance: str | None = None
    watching = 0

    def __init__(
        self,
        team: Team,
        sign_in: SignIn,
        seal: Seal,
        tenants: Tenants,
        ledger: Ledger,
        shared: Ledger | None,
        system: System,
    ) -> None:
        """`ledger` is the ledger of the process, for single-use tokens; `shared` the same if all tenants share it."""
        self.context: dict[str, Any] = {"team": True, "provider": urlsplit(team.issuer).netloc}
        self._team = team
        self._sign_in = sign_in
        self.seal = seal
        self._tenants = tenants
        self._ledger = ledger
        self._system = system
        self._shared = shared
        self._url = team.page_url or ""
        self._root = f"{urlsplit(self._url).path}/"
        self._session_seconds = (team.approvals.session_minutes if team.approvals else 0.0) * 60
        self._session = SealedCookie(BrowserSession, "session", self._url, seal=seal, seconds=self._session_seconds)
        self._pending = pending_cookie(self._url, seal)

    def mounted(self, is_leaving: Callable[[], bool]) -> Mount:
        """Return the page at its address."""
        application = page(self, [origin_of(self._url)], self._ledger, self._system, is_leaving=is_leaving)
        return Mount(urlsplit(self._url).path, application)

    def routes(self, render: Render) -> Sequence[Route]:
        return [
            Route("/login", partial(self._login, render), methods=["GET"]),
            Route("/callback", partial(self._callback, render), methods=["GET"]),
            Route("/logout", partial(self._logout, render), methods=["POST"]),
        ]

    async def _login(self, render: Render, request: Request) -> Response:
        about = request.query_params.get("request")
        before = await self._browser_session(request) if about else None
        try:
            address, pending = await self._sign_in.begin(self._team.step_up if before else None)
        except NotSignedIn as why:
            return _rejected(render, request, 503, why)
        if about and before:
            pending = replace(pending, session=before.id, request=about)
        response = RedirectResponse(address, 303)
        self._pending.set(response, pending)
        return response

    async def _callback(self, render: Render, request: Request) -> Response:
        try:
            session, about = await self._complete_sign_in(request)
        except NotSignedIn as why:
            response = _rejected(render, request, 403, why)
        else:
            # A fixed target: the request cannot choose where to redirect.
            response = RedirectResponse(f"{self._root}?{urlencode({'request': about})}" if about else self._root, 303)
            self._session.set(response, session)
        self._pending.delete(response)
        return response

    async def _logout(self, render: Render, request: Request) -> Response:
        session = await self._browser_session(request)
        try:
            fields = await form(request)
        except BadForm as problem:
            return _rejected(render, request, problem.status, NotSignedIn("The form is not from this page."))
        if session is not None:
            token = fields.get("token", "")
            now = self._system.timestamp()
            if not await redeem(self.seal, self._ledger, session.id, form="logout me", token=token, now=now):
                return RedirectResponse(self._root, 303)
            # Revoke the session itself, so that a copy of the cookie stops working too.
            await self._ledger.mark(_ended(session), session.ends, now)
        response = render(
            request,
            "refused.html",
            heading="You are signed out",
            why="You may still be signed in at the identity provider. If others use this computer, sign out there too.",
            again="Sign in again",
            way="/login",
        )
        self._session.delete(response)
        return response

    async def session(self, request: Request) -> Session | None:
        session = await self._browser_session(request)
        if session is None:
            return None
        return Session(session.id, self._root, self._inbox(session.person), session.person.name)

    async def _browser_session(self, request: Request) -> BrowserSession | None:
        session = self._session.read(request.cookies)
        if session is None or session.ends <= self._system.timestamp():
            return None
        return None if await self._ledger.marked(_ended(session)) > self._system.timestamp() else session

    async def _complete_sign_in(self, request: Request) -> tuple[BrowserSession, str]:
        """Return the session, and the approval request to which the person comes back. Raises `NotSignedIn`."""
        pending = self._pending.read(request.cookies)
        if pending is None:
            raise NotSignedIn("No sign-in was started in this browser, or it took too long.")
        sent = request.query_params.multi_items()
        if len(dict(sent)) != len(sent):
            raise NotSignedIn("This is not a response from the identity provider.")
        now = self._system.timestamp()
        try:
            code = self._sign_in.code(pending, dict(sent))
        except NotSignedIn as why:
            raise NotSteppedUp(str(why)) if pending.session else why from None
        before = await self._browser_session(request) if pending.session else None
        if pending.session and (before is None or before.id != pending.session):
            raise NotSignedIn("Your session on this page has ended. Nothing was approved.")
        # Before the exchange, so that each sign-in causes at most one request to the provider.
        if not await self._ledger.use_nonce(f"sign-in {pending.state}", now + SIGN_IN_HOLDS + 60, now):
            raise NotSignedIn("This sign-in was already used.")
        approver = person(self._team, await self._sign_in.finish(pending, code))
        if not self._inbox(approver).tenants:
            if before is not None and approver.principal == before.person.principal:
                await self._ledger.mark(_ended(before), before.ends, now)  # the rules they had are gone
            raise NotAnApprover(f"No approver rule applies to {approver.name}. Ask the operator of this server.")
        if before is None:
            return BrowserSession(self._system.token(), now + self._session_seconds, approver), ""
        self._check_step_up(before.person, approver)
        # The same session, so that forms in other tabs stay valid and signing out ends them all.
        return replace(before, person=approver), pending.request

    def _check_step_up(self, before: SignedInPerson, approver: SignedInPerson) -> None:
        """Raise `NotSteppedUp` unless the same person signed in again, recently and strongly enough."""
        if approver.principal != before.principal:
            whom = f"You signed in as {approver.name}, but this page is signed in as {before.name}."
            raise NotSteppedUp(f"{whom} Sign in as {before.name}, or sign out here first.")
        step_up = self._team.step_up
        why = step_up and step_up.problem(approver.auth_time, approver.acr, self._system.timestamp())
        if why:
            raise NotSteppedUp(why)

    def _inbox(self, person: SignedInPerson) -> TeamInbox:
        return TeamInbox(self._team, person, self._tenants, system=self._system, shared=self._shared)


def _rejected(render: Render, request: Request, status: int, why: NotSignedIn) -> Response:
    again, way = ("Back to the page", "/") if isinstance(why, NotSteppedUp) else ("Sign in again", "/login")
    return render(request, "refused.html", status, heading=why.heading, why=str(why), again=again, way=way)
