"""The approval page of a team: people sign in and see what they may decide."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from fastn_mcp.channels.page.access import Inbox, Render
from fastn_mcp.channels.page.app import page
from fastn_mcp.channels.page.security import BadForm, form
from fastn_mcp.channels.page.sessions import FlashMessage
from fastn_mcp.guard.ledger.ledger import Ledger
from fastn_mcp.hosted.app import Health
from fastn_mcp.hosted.inbox import Approvals, ApproverRights, TeamInbox, person
from fastn_mcp.hosted.sign_in import HOLDS, Begun, BrowserSession, NotAnApprover, NotSignedIn, Seal, SignIn
from fastn_mcp.hosted.team_config import Team, origin_of
from fastn_mcp.hosted.tenants import Tenants
from fastn_mcp.runtime import System

_SAID = 60.0
"""Seconds in which what is said of a decision is shown."""

_ENDED = "approvals_session"


def mounted(
    team: Team, approvals: Approvals, sign_in: SignIn, seal: Seal, tenants: Tenants[Any], ledger: Ledger,
    health: Health, system: System, *, shares: bool,
) -> Mount:  # fmt: skip
    """The page, for the application. `ledger` is of the process: what was used once is noted there."""

    def inbox(session: BrowserSession) -> TeamInbox:
        revision = ledger.revision if shares else None
        return TeamInbox(ApproverRights(approvals, session.person), team, tenants, revision, system)

    way = _PageSignIn(approvals, sign_in, seal, inbox, lambda claims: person(team, approvals, claims), ledger, health,
                    system, urlsplit(team.trust.issuer).netloc)  # fmt: skip
    return Mount(urlsplit(approvals.url).path, page(way, system, [origin_of(approvals.url)]))


class _PageSignIn:
    room = ""
    entrance = None

    def __init__(
        self, approvals: Approvals, sign_in: SignIn, seal: Seal, inbox: Callable[[BrowserSession], Inbox],
        who: Callable[[dict[str, Any]], Any], ledger: Ledger, health: Health, system: System, provider: str,
    ) -> None:  # fmt: skip
        self.looks: dict[str, Any] = {"team": True, "provider": provider}
        self._approvals = approvals
        self._sign_in = sign_in
        self._seal = seal
        self._inbox = inbox
        self._who = who
        self._ledger = ledger
        self._health = health
        self._system = system
        self._path = urlsplit(approvals.url).path
        self._secure = approvals.url.startswith("https://")

    def routes(self, render: Render) -> Sequence[Route]:
        async def login(request: Request) -> Response:
            try:
                to, begun = await self._sign_in.begin()
            except NotSignedIn as why:
                return _refused(render, request, 503, why)
            answer = RedirectResponse(to, 303)
            self._keep(answer, "sign_in", self._seal.close("sign-in", asdict(begun)), HOLDS)
            return answer

        async def callback(request: Request) -> Response:
            try:
                session = await self._signed_in(request)
            except NotSignedIn as why:
                answer = _refused(render, request, 403, why)
            else:
                # Only ever there: nothing that was sent says where to go.
                answer = RedirectResponse(f"{self._path}/", 303)
                self._keep(answer, "session", self._seal.close("session", asdict(session)), self._approvals.session)
            self._drop(answer, "sign_in")
            return answer

        async def logout(request: Request) -> Response:
            session = await self.session(request)
            try:
                fields = await form(request)
            except BadForm as problem:
                return _refused(render, request, problem.status, NotSignedIn("The form is not from this page."))
            if session is not None:
                if not await self.spend(session, "logout me", fields.get("token", "")):
                    return RedirectResponse(f"{self._path}/", 303)
                # A copy of the cookie, wherever it is, ends as well.
                await self._ledger.distrust(session.id, _ENDED, session.ends)
            answer = render(
                request, "refused.html", heading="You are signed out",
                why="At the identity provider you may still be signed in: other people at this computer could use it.",
                again="Sign in again",
            )  # fmt: skip
            self._drop(answer, "session")
            self._drop(answer, "said")
            return answer

        return [
            Route("/login", login, methods=["GET"]),
            Route("/callback", callback, methods=["GET"]),
            Route("/logout", logout, methods=["POST"]),
        ]

    async def _signed_in(self, request: Request) -> BrowserSession:
        kept = self._seal.open("sign-in", self._kept(request, "sign_in"), HOLDS)
        if kept is None:
            raise NotSignedIn("No sign-in was begun in this browser, or too long ago.")
        sent = request.query_params.multi_items()
        if len(dict(sent)) != len(sent):
            raise NotSignedIn("This is not a response from the identity provider.")
        begun, now = Begun(**kept), self._system.now().timestamp()
        code = self._sign_in.code(begun, dict(sent))
        # First: nobody makes us ask the provider more than once for each sign-in that was begun.
        if not await self._ledger.use_nonce(f"sign-in {begun.state}", now + HOLDS + 60, now):
            raise NotSignedIn("This sign-in was already used.")
        who = self._who(await self._sign_in.finish(begun, code))
        if not ApproverRights(self._approvals, who).tenants:
            raise NotAnApprover(f"No rule for approvers names {who.name}. Ask the operator of this server.")
        return BrowserSession(self._system.token(), now + self._approvals.session, who)

    async def session(self, request: Request) -> BrowserSession | None:
        session = self._seal.session(self._kept(request, "session"), self._approvals.session)
        if session is None or await self._ledger.distrusted(session.id, _ENDED, self._system.now().timestamp()):
            return None
        return session

    def root(self, request: Request, session: BrowserSession) -> str:  # noqa: ARG002 - the same for all
        return f"{self._path}/"

    def person(self, session: BrowserSession) -> str | None:
        return session.person.name

    def inbox(self, session: BrowserSession) -> Inbox:
        return self._inbox(session)

    def token(self, session: BrowserSession, form: str) -> str:
        return self._seal.token(session, form, self._system.token())

    async def spend(self, session: BrowserSession, form: str, token: str) -> bool:
        nonce, now = self._seal.nonce(session, form, token), self._system.now().timestamp()
        return nonce is not None and await self._ledger.use_nonce(f"form {nonce}", session.ends + 60, now)

    def tell(self, answer: Response, session: BrowserSession, said: FlashMessage) -> None:
        self._keep(answer, "said", self._seal.close(f"said {session.id}", asdict(said)), _SAID)

    def told(self, request: Request, answer: Response | None, session: BrowserSession) -> FlashMessage | None:
        kept = self._kept(request, "said")
        if answer is not None and kept is not None:
            self._drop(answer, "said")
        found = self._seal.open(f"said {session.id}", kept, _SAID)
        return None if found is None else FlashMessage(**found)

    @contextmanager
    def watched(self) -> Generator[Callable[[], bool]]:
        # Once this replica is to end, the browser goes on with another.
        yield lambda: not self._health.leaving

    def _name(self, what: str) -> str:
        # The prefix keeps other hosts of the domain, and plain HTTP, from setting it.
        return f"{'__Host-' if self._secure else ''}fastn_{what}"

    def _kept(self, request: Request, what: str) -> str | None:
        return request.cookies.get(self._name(what))

    def _keep(self, answer: Response, what: str, value: str, seconds: float) -> None:
        # Not strict: the browser comes back from another site, the provider's.
        answer.set_cookie(
            self._name(what), value, max_age=int(seconds), path="/", secure=self._secure, httponly=True, samesite="lax"
        )

    def _drop(self, answer: Response, what: str) -> None:
        answer.delete_cookie(self._name(what), path="/", secure=self._secure, httponly=True, samesite="lax")


def _refused(render: Render, request: Request, status: int, why: NotSignedIn) -> Response:
    return render(request, "refused.html", status, heading=why.heading, why=str(why), again="Sign in again")
