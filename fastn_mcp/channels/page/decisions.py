"""Forms of the approval page: each decides something, or says why not. Each token works once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.access import SESSION_HOLDS, BadForm, NoSession, PageAccess, Session, form
from fastn_mcp.channels.page.inbox import PendingRequest
from fastn_mcp.guard.approval.votes import NotCounted, why_closed
from fastn_mcp.guard.approval_form import MAX_NOTE, is_typed, sent_words
from fastn_mcp.guard.seal import Seal
from fastn_mcp.guard.stops import in_words
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, ApprovalRequest
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.runtime import System

FLASH_COOKIE = "fastn_said"
FLASH_HOLDS = 60.0
"""Seconds for which the message about a decision is kept."""

MAX_LISTED = 100
"""Requests that the page lists, the oldest first."""

_MAX_BRIEF = 300

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""Compiled once in a process: a template takes longer than the rest of a page."""


class NotDecided(Exception):
    """A form decided nothing. The reason is shown on top of the page or, with `request`, beside that request."""

    def __init__(self, status: int, why: str, request: str | None = None, **draft: str) -> None:
        super().__init__(why)
        self.status = status
        self.draft = None if request is None else {"grant": request, "problem": why, "name": "", "note": ""} | draft


@dataclass(frozen=True, slots=True)
class Decisions:
    """Routes that decide something. Each needs a session."""

    access: PageAccess
    seal: Seal
    ledger: Ledger
    """Stores stops, and which form tokens were used."""
    system: System

    def render(self, request: Request, template: str, status: int = 200, **content: Any) -> Response:
        base = request.scope.get("root_path", "")
        text = _TEMPLATES.get_template(template).render(base=base, **self.access.context, **content)
        return HTMLResponse(text, status)

    async def frame(self, session: Session, place: str) -> view.View:
        """Return the template variables that every place of the page shows."""

        def token(action: str, about: str) -> str:
            return self.seal.token(session.id, f"{action} {about}")

        now = self.system.now()
        stops = [view.parts(in_words(stop, now)) for stop in await self.holding(session)]
        return {"root": session.root, "person": session.person, "place": place, "token": token, "stops": stops}

    async def holding(self, session: Session) -> list[Stop]:
        """Return the stops that hold and are about accounts that a person sees."""
        tenants = ("", *session.inbox.tenants)
        return [stop for stop in await self.ledger.holding() if stop.tenant in tenants]

    async def approve(self, request: Request) -> Response:
        session, fields, pending, now = await self._decision(request, "approve")
        approval_request = pending.request
        extent = fields.get("extent")
        if extent not in ("once", "while") or (extent == "while" and not approval_request.can_be_temporary):
            raise NotDecided(400, "This request cannot be approved this way. Nothing was decided.")
        if pending.barred is not None:
            raise NotDecided(403, f"{pending.barred} Nothing was decided.")
        if pending.needs_sign_in:
            problem = "Nothing was approved: your sign-in is too old or too weak. Sign in again, and confirm then."
            raise NotDecided(403, problem, approval_request.id)
        id_ = approval_request.id
        typed = fields.get("name", "")
        if not is_typed(approval_request.expected, typed):
            problem = "Nothing was approved: the text you typed does not match exactly."
            raise NotDecided(422, problem, id_, name=typed)
        try:
            secret = _typed_secret(approval_request, fields)
        except ValueError as problem:
            raise NotDecided(422, f"Nothing was approved: {problem}", id_, name=typed) from None
        follows = await session.inbox.approve(pending, now, secret, is_temporary=extent == "while")
        if isinstance(follows, NotCounted):
            raise NotDecided(409, follows.why)
        recorded = await session.inbox.find(id_)
        request_now = approval_request if recorded is None else recorded.request
        done = "Approved"
        if not request_now.is_approved_enough:
            done = f"Approval recorded ({len(request_now.approvers)} of {request_now.needed})"
        more = f" Matching calls need no approval for {TEMPORARY_MINUTES} minutes." if extent == "while" else ""
        return self._back(request, session, f"{done}: {_brief(approval_request)}.{more} {follows}")

    async def decline(self, request: Request) -> Response:
        session, fields, pending, now = await self._decision(request, "decline")
        approval_request = pending.request
        note = self._note(fields, approval_request.id)
        counted = await session.inbox.decline(pending, now, note)
        if isinstance(counted, NotCounted):
            raise NotDecided(409, counted.why)
        noted = " The agent gets your note." if note else ""
        holds = f"The same call stays declined for {view.left(approval_request.expires - now)}."
        return self._back(request, session, f"Declined: {_brief(approval_request)}. Nothing is sent.{noted} {holds}")

    async def decline_several(self, request: Request) -> Response:
        """Decline the selected requests with one note. Each carries the token of its own form, so only shown ones."""
        session, fields = await self._fields(request, 3 * MAX_LISTED)
        values = [value for name, value in fields.items() if name.startswith("pick")]
        selected = dict(pick.split("|", 1) for value in values for pick in value.split() if "|" in pick)
        note = self._note(fields)
        now = self.system.timestamp()
        if not selected:
            raise NotDecided(422, "Nothing was declined: no request is selected.")
        declined = await self._decline_open(session, selected, note, now)
        left = f" {len(selected) - declined} could not be declined: already decided, expired or not from this page."
        if not declined:
            raise NotDecided(409, f"Nothing was declined.{left}")
        noted = " The agents get your note." if note else ""
        message = f"Declined {view.counted(declined, 'request')}. Nothing is sent.{noted}"
        return self._back(request, session, message + (left if declined < len(selected) else ""))

    async def _decline_open(self, session: Session, selected: Mapping[str, str], note: str | None, now: float) -> int:
        """Decline the open ones of some requests, by id and token. Return how many were declined."""
        declined = 0
        for id_, token in selected.items():
            if await self._redeems(session, f"decline {id_}", token):
                pending = await session.inbox.find(id_)
                if pending and pending.request.is_open(now):
                    answer = await session.inbox.decline(pending, now, note)
                    declined += not isinstance(answer, NotCounted)
        return declined

    async def withdraw(self, request: Request) -> Response:
        session, fields = await self._form(request, "withdraw", "grant")
        note = self._note(fields)
        pending = await session.inbox.find(fields["grant"])
        if pending is None or not pending.request.out_of_band:
            raise NotDecided(409, why_closed(None))
        counted = await session.inbox.withdraw(pending.request, self.system.timestamp(), note)
        if isinstance(counted, NotCounted):
            raise NotDecided(409, counted.why)
        return self._back(request, session, f"Withdrawn: {_brief(counted)}. {sent_words(counted)}")

    async def show_undo(self, request: Request) -> Response:
        """Show what an undo would do. Its form makes it."""
        session = await self.session(request)
        asked = request.query_params
        about = asked.get("request", "")
        change = asked.get("change", "")
        earlier, preview = await session.inbox.undo_preview(about, change)
        receipt = view.change(earlier, self.system.timestamp(), may_undo=True)
        says = {
            "first": view.parts(preview.title),
            "lost": view.parts(preview.lost),
            "then": view.parts(preview.then),
            "unchecked": view.parts(preview.unchecked),
        }
        token = self.seal.token(session.id, f"undo {change}")
        return self.render(request, "undo.html", root=session.root, token=token, grant=about, change=receipt, says=says)

    async def undo(self, request: Request) -> Response:
        session, fields = await self._form(request, "undo", "change")
        follows = await session.inbox.undo(fields.get("grant", ""), fields["change"])
        return self._back(request, session, follows)

    async def revoke(self, request: Request) -> Response:
        session, fields = await self._form(request, "revoke", "approval")
        if not await session.inbox.revoke(fields["approval"], self.system.timestamp()):
            raise NotDecided(409, "This temporary approval has already ended.")
        return self._back(request, session, "Revoked. Such calls need approval again.")

    async def session(self, request: Request) -> Session:
        """Return the session. Raises `NoSession` if access is denied."""
        session = await self.access.session(request)
        if session is None:
            raise NoSession
        request.state.session = session  # for what follows if the handler raises
        return session

    async def _fields(self, request: Request, most: int) -> tuple[Session, dict[str, str]]:
        session = await self.session(request)
        try:
            return session, await form(request, most)
        except BadForm as problem:
            raise NotDecided(problem.status, "Nothing was decided: the form is not from this page.") from None

    async def _form(self, request: Request, action: str, about: str) -> tuple[Session, dict[str, str]]:
        """Read a form of this session and use its token. Raises `NotDecided` if it is invalid or was sent before."""
        session, fields = await self._fields(request, 16)
        if not await self._redeems(session, f"{action} {fields.get(about, '')}", fields.get("token", "")):
            why = "Nothing was decided: this form was already submitted, or is not from this page."
            raise NotDecided(403, why)
        return session, fields

    async def _redeems(self, session: Session, about: str, token: str) -> bool:
        now = self.system.timestamp()
        return await redeem(self.seal, self.ledger, session.id, form=about, token=token, now=now)

    async def _decision(self, request: Request, action: str) -> tuple[Session, dict[str, str], PendingRequest, float]:
        """Read a form about an open out-of-band request. Raises `NotDecided` if it cannot be decided here."""
        session, fields = await self._form(request, action, "grant")
        pending = await session.inbox.find(fields["grant"])
        now = self.system.timestamp()
        if pending is None or not pending.request.is_open(now):
            raise NotDecided(409, why_closed(None if pending is None else pending.request))
        return session, fields, pending, now

    def _note(self, fields: Mapping[str, str], request: str | None = None) -> str | None:
        """Return the note to the agent. Raises `NotDecided` if it is too long."""
        note = fields.get("note", "").replace("\r\n", "\n").strip()
        if len(note) > MAX_NOTE:
            problem = f"Nothing was decided: the note has {len(note)} characters, and {MAX_NOTE} is the limit."
            raise NotDecided(422, problem, request, note=note)
        return note or None

    def _back(self, request: Request, session: Session, flash: str) -> Response:
        response = RedirectResponse(session.root, 303)
        response.set_cookie(
            FLASH_COOKIE,
            self.seal.close(f"said {session.id}", flash),
            max_age=int(FLASH_HOLDS),
            path=session.root,
            secure=request.headers.get("origin", "").startswith("https:"),
            httponly=True,
            samesite="lax",
        )
        return response


async def redeem(seal: Seal, ledger: Ledger, session: str, form: str, token: str, now: float) -> bool:
    """Use a token. Return False if it is not of this form and session, or was used before."""
    nonce = seal.nonce(session, form, token)
    return nonce is not None and await ledger.use_nonce(f"form {nonce}", now + SESSION_HOLDS + 60, now)


def _typed_secret(request: ApprovalRequest, fields: Mapping[str, str]) -> JsonValue:
    """Return the argument that was typed. Raises `ValueError` if it is missing or invalid."""
    typed = request.typed
    return typed and typed.value({each.name: fields.get(f"secret.{each.name}", "") for each in typed.fields})


def _brief(request: ApprovalRequest) -> str:
    """Return what a request is about, for a message that fits into a cookie."""
    brief = request.question.brief
    return brief if len(brief) <= _MAX_BRIEF else view.title(request.tool)
