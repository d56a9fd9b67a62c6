"""Who may use MCP over HTTP: a bearer token on this machine, or a sign-in with scopes and a tenant.

What is refused here never reaches a handler. Whatever is let in is looked at again by the guard, call by call.
"""

import hmac
import logging
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.types import INVALID_REQUEST
from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.config.keys import HttpToken
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.approval.flow import Caller
from fastn_mcp.guard.approval.quorum import READ, InsufficientScope, Rights
from fastn_mcp.hosted.oidc import AGAIN, NoKeys
from fastn_mcp.hosted.rejection import Challenger, Edge, RequestRejected, unavailable
from fastn_mcp.hosted.request_limits import RequestLine, again, asked, read, whole
from fastn_mcp.hosted.team_config import Team, Tenant
from fastn_mcp.hosted.tenants import Busy, CallerAccount, Opened, Shares, TenantAccount, Tenants
from fastn_mcp.hosted.tokens import Tokens

log = logging.getLogger(__name__)

T = TypeVar("T", bound=TenantAccount)

OWN_KEY = "x-fastn-api-key"
_ADMITTED = "fastn_mcp.admitted"


@dataclass(frozen=True, slots=True)
class Admitted(Generic[T]):
    """A request that was let in: who makes it, and the account that serves it."""

    caller: Caller
    account: Opened[T]


def admitted(request: Request) -> Admitted[Any]:
    """Whose a request is. It stands with the request itself: nothing else is there to be mixed up."""
    found: Admitted[Any] = request.scope[_ADMITTED]
    return found


@dataclass(frozen=True, slots=True)
class _SignedIn:
    principal: str
    rights: Rights
    tenant: Tenant
    own: CallerAccount | None

    @property
    def whose(self) -> str:
        """Whose share of the connections it takes: the tenant's, or that of a caller who is one alone."""
        return self.tenant.name if self.own is None else f"{self.tenant.name} {self.principal}"


class Admission(Generic[T]):
    """Stands between the SDK's authentication and its MCP endpoint, at `path`."""

    def __init__(
        self, app: ASGIApp, path: str, team: Team, tokens: Tokens, tenants: Tenants[T], challenger: Challenger
    ) -> None:
        self._app = app
        self._path = path
        self._team = team
        self._tokens = tokens
        self._tenants = tenants
        self._challenger = challenger
        self._shares = Shares(team.bounds.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path:
            return await self._app(scope, receive, send)
        wanted = RequestLine()
        async with AsyncExitStack() as stack:
            try:
                signed_in = await self._signed_in(scope)
                stack.enter_context(self._shares(signed_in.whose))
                body = await read(receive, self._team.bounds.body)
                wanted = asked(body)
                account = await stack.enter_async_context(self._tenants.lease(signed_in.tenant, signed_in.own))
                self._check(signed_in.rights, account.served, wanted)
            except RequestRejected as turned:
                return await turned.response(wanted.id)(scope, receive, send)
            except (Busy, SettingsError) as error:
                return await _closed(error).response(wanted.id)(scope, receive, send)
            caller = Caller(signed_in.principal, None, signed_in.rights)
            inner = {**scope, _ADMITTED: Admitted(caller, account)}
            return await self._app(inner, again(whole(body), receive), send)

    async def _signed_in(self, scope: Scope) -> _SignedIn:
        request = Request(scope)
        sent = request.headers.getlist("authorization")
        keys = request.headers.getlist(OWN_KEY)
        if len(sent) > 1 or len(keys) > 1:
            raise RequestRejected(400, "An authentication header was sent twice.")
        user = scope.get("user")
        if not isinstance(user, AuthenticatedUser):
            raise await self._unknown(sent[0] if sent else "")
        if request.method != "POST":
            raise RequestRejected(405, "This server keeps no sessions: requests are POST.", headers={"Allow": "POST"})
        token = user.access_token
        rights = Rights(frozenset(token.scopes))
        if READ not in rights.scopes:
            raise self._challenger.insufficient(_ours(rights), READ, f"It needs the scope {READ}.")
        claims = token.claims or {}
        principal = f"{claims['iss']}|{token.subject}"
        tenant = self._team.tenant_of(claims)
        if tenant is None:
            log.warning("no tenant of the team file matches %s", principal)
            raise RequestRejected(403, "You are signed in, but no account here is assigned to you. Ask the operator.")
        return _SignedIn(principal, rights, tenant, _own(tenant, principal, keys))

    async def _unknown(self, sent: str) -> RequestRejected:
        scheme, _, token = sent.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return self._challenger.unknown([READ], None)
        try:
            return self._challenger.unknown([READ], await self._tokens.reason(token))
        except NoKeys:
            return unavailable("The identity provider cannot be reached, so no token can be verified.", int(AGAIN))

    def _check(self, rights: Rights, account: TenantAccount, wanted: RequestLine) -> None:
        """Raises `RequestRejected` where the call surely needs more than the token holds."""
        if wanted.tool is None:
            return
        effect = account.effect_of(wanted.tool, wanted.arguments or {})
        if effect is None:
            return  # whatever it is, MCP has an answer for it
        try:
            rights.check(wanted.tool, effect)
        except InsufficientScope as error:
            said = f"{error.what} {error.next_step}"
            raise self._challenger.insufficient(_ours(rights), error.scope, said) from None


def _closed(error: Busy | SettingsError) -> RequestRejected:
    if isinstance(error, Busy):
        return unavailable(f"{error.what} {error.next_step}", 1)
    log.error("%s", error)
    return unavailable("Your account cannot be opened now. Tell the operator; the server log has the details.", 30)


def _ours(rights: Rights) -> list[str]:
    return [scope for scope in rights.scopes if scope.startswith("fastn:")]


def _own(tenant: Tenant, principal: str, keys: list[str]) -> CallerAccount | None:
    if not tenant.caller_keys:
        if keys:
            raise RequestRejected(
                400, f"{OWN_KEY} is not accepted here: your account was chosen by the operator. Leave it out."
            )
        return None
    if not keys or not keys[0]:
        raise RequestRejected(400, f"Your own Fastn API key is needed, in the header {OWN_KEY}.")
    if not all("!" <= letter <= "~" for letter in keys[0]):
        raise RequestRejected(400, f"{OWN_KEY} holds a character that no key has.")
    return CallerAccount(principal, keys[0])


_LARGEST = 65_536
"""Bytes of a request without a token that are read, for the id that the error answers."""

_REALM = 'Bearer realm="fastn-mcp"'


class LocalAccess:
    """Serve requests for exactly our hosts and origins that carry the token. Everything but `open_routes` needs it."""

    def __init__(
        self,
        app: ASGIApp,
        token: HttpToken,
        hosts: Collection[str],
        origins: Collection[str],
        head: int,
        open_routes: Sequence[BaseRoute],
    ) -> None:
        self._app = app
        self._token = token.value.encode()
        self._place = token.place
        self._open = tuple(open_routes)
        self._closed = Edge(self._with_token, hosts, origins, head, ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = scope["type"] == "lifespan" or any(route.matches(scope)[0] is not Match.NONE for route in self._open)
        await (self._app if is_open else self._closed)(scope, receive, send)

    async def _with_token(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = sent[0].partition(b" ") if len(sent) == 1 else (b"", b"", b"")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            await self._app(scope, receive, send)
            return
        id_ = None
        if scope["method"] == "POST":
            with suppress(RequestRejected):  # too large or too slow: refused all the same
                id_ = asked(await read(receive, _LARGEST)).id
        await self._refusal(is_sent=bool(sent)).response(id_)(scope, receive, send)

    def _refusal(self, *, is_sent: bool) -> RequestRejected:
        what = "The bearer token is not this server's." if is_sent else "A bearer token is required."
        error = ', error="invalid_token", error_description="Not the token of this server."' if is_sent else ""
        return RequestRejected(
            401,
            f"{what} Send 'Authorization: Bearer TOKEN'. TOKEN is in {self._place}.",
            INVALID_REQUEST,
            {"WWW-Authenticate": _REALM + error},
        )
