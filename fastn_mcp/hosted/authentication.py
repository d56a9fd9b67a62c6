"""Authentication of MCP over HTTP: a bearer token on this machine, or a sign-in with scopes and a tenant.

A rejected request never reaches a handler. Every call of an accepted request still passes the guard.
"""

import hmac
import logging
from collections.abc import Collection, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.transport_security import DEFAULT_MAX_REQUEST_BODY_SIZE
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST
from pydantic import JsonValue
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastn_mcp.channels.http_server import read_body
from fastn_mcp.config.keys import HttpToken
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.guard.caller import READ, Caller, InsufficientScope
from fastn_mcp.hosted.claim_match import MachineIdentity, WrongMachine, machine_of
from fastn_mcp.hosted.oidc import RETRY_AFTER, NoKeys
from fastn_mcp.hosted.team_config import Team, Tenant
from fastn_mcp.hosted.tenants import Busy, CallerAccount, RequestLimit, Tenants
from fastn_mcp.hosted.tokens import TokenRefused, Tokens, VerifiedToken, client_of, login_names, person_name
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.server.context import AccountContext, RequestContext
from fastn_mcp.server.pipes import id_in
from fastn_mcp.tools.bounds import MAX_SIZE, message_problem, size_problem
from fastn_mcp.tools.tool import Effect

log = logging.getLogger(__name__)

OWN_KEY = "x-fastn-api-key"

FORBIDDEN = -32003
"""JSON-RPC error code from the range that the specification leaves to servers."""

MAX_HEADERS = 100

_CONTEXT = "fastn_mcp.context"
_SCOPE_PREFIX = "fastn:"

_UNAUTHENTICATED_BYTES = 65_536
"""Bytes that are read of an unauthenticated request, to find its id for the error."""


class RequestRejected(Exception):
    """Request rejected before it reached a handler. Nothing was sent."""

    def __init__(
        self,
        status: int,
        message: str,
        code: int = INVALID_REQUEST,
        headers: dict[str, str] | None = None,
        facts: dict[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(message)
        self._status = status
        self._error: dict[str, JsonValue] = {"code": code, "message": f"{message} Nothing was sent."}
        if facts:
            self._error["data"] = {"outcome": "refused", **facts}
        self._headers = {"Cache-Control": "no-store"} | (headers or {})

    def response(self, id_: str | int | None) -> JSONResponse:
        """Return the JSON-RPC error for the request of this id, since clients show its message."""
        body = {"jsonrpc": "2.0", "id": id_, "error": self._error}
        return JSONResponse(body, self._status, self._headers)


def unavailable(message: str, seconds: int) -> RequestRejected:
    """Return a 503 rejection that allows a retry after `seconds`."""
    return RequestRejected(503, message, INTERNAL_ERROR, {"Retry-After": str(seconds)})


async def read(request: Request, largest: int) -> bytes:
    """Return the body of a request. Raises `RequestRejected` if it is too large."""
    body = await read_body(request, largest)
    if body is None:
        raise RequestRejected(413, f"The request is larger than {largest} bytes.")
    return body


def body_message(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": False}


def replay(first: Message, receive: Receive) -> Receive:
    """Return a `receive` that replays `first` and then receives as before."""
    is_replayed = False

    async def receive_again() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return first

    return receive_again


@dataclass(frozen=True, slots=True)
class Summary:
    """Id and tool call of a request, as far as they can be parsed. The request itself is not validated."""

    id: str | int | None = None
    tool: str | None = None
    arguments: dict[str, Any] | None = None


def summarize(body: bytes) -> Summary:
    """Parse the id and the tool call of any body. Invalid parts are None."""
    try:
        message: object = from_json(body)
    except (ValueError, RecursionError):
        return Summary()
    if not isinstance(message, dict):
        return Summary()
    fields = cast("dict[str, object]", message)
    id_ = fields.get("id")
    request_id = id_ if isinstance(id_, (str, int)) and not isinstance(id_, bool) else None
    params = fields.get("params")
    if fields.get("method") != "tools/call" or not isinstance(params, dict):
        return Summary(request_id)
    call = cast("dict[str, object]", params)
    name = call.get("name")
    values = call.get("arguments")
    arguments = cast("dict[str, Any]", values) if isinstance(values, dict) else None
    return Summary(request_id, name if isinstance(name, str) else None, arguments)


class OversizedMessage(RequestRejected):
    """A message that is not passed on, with the id to answer."""

    def __init__(self, status: int, message: str, code: int, id_: str | int | None) -> None:
        super().__init__(status, message, code)
        self.id = id_


def check_size(body: bytes) -> None:
    """Reject a body that the SDK, which parses it several times, would need long for.

    Raises `OversizedMessage`, which names the oversized argument of a tool.
    """
    problem = message_problem(body)
    if problem is not None:
        raise OversizedMessage(413, problem, INVALID_REQUEST, id_in(body))
    if len(body) <= MAX_SIZE:
        return
    summary = summarize(body)
    if summary.tool not in TOOLS:
        problem = f"The message has {len(body) // 1000:,} kB; at most {MAX_SIZE // 1000} kB are accepted."
        raise OversizedMessage(413, problem, INVALID_REQUEST, summary.id)
    problem = size_problem(TOOLS[summary.tool], summary.arguments or {})
    if problem is not None:
        raise OversizedMessage(200, f"{problem}.", INVALID_PARAMS, summary.id)


class HostCheck:
    """Reject a foreign Host or Origin and oversized headers before the body is read.

    Hosts and origins must match exactly, including the port. The Host is not checked for `open_paths`: probes call by
    IP address.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str], origins: Collection[str], head: int, open_paths: Sequence[str]
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().encode() for host in hosts)
        self._origins = frozenset(origin.encode() for origin in origins)
        self._head = head
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rejection = self._rejection(scope) if scope["type"] == "http" else None
        if rejection is not None:
            return await rejection(scope, receive, send)
        return await self._app(scope, receive, send)

    def _rejection(self, scope: Scope) -> PlainTextResponse | None:
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        if scope["http_version"] not in ("1.0", "1.1"):
            return PlainTextResponse("This version of HTTP is not supported.", 505)
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
            # A proxy may frame such a request otherwise (RFC 9112, 6.3).
            return PlainTextResponse("The length of the request is ambiguous.", 400, {"Connection": "close"})
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > self._head:
            return PlainTextResponse("The headers are too large.", 431)
        if scope["path"] in self._open:
            return None
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse("This host is not served here.", 421)
        if any(value not in self._origins for name, value in headers if name == b"origin"):
            return PlainTextResponse("This origin is not allowed here.", 403)
        return None


def request_context(request: Request) -> RequestContext:
    """Return the account and caller that `TeamAccess` stored in the request's scope."""
    return request.scope[_CONTEXT]


class TeamAccess:
    """MCP endpoint that serves each signed-in caller from the account of their tenant.

    `app` is the SDK's. `metadata` is the address of the protected resource metadata, which
    names the issuer (RFC 9728).
    """

    def __init__(self, app: ASGIApp, team: Team, tokens: Tokens, tenants: Tenants, metadata: str) -> None:
        self._app = app
        self._team = team
        self._tokens = tokens
        self._tenants = tenants
        self._metadata = metadata
        self._requests = RequestLimit(team.limits.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        summary = Summary()
        machine = None
        async with AsyncExitStack() as stack:
            try:
                caller, tenant, own = await self._authenticate(scope)
                machine = tenant.machine
                # A caller with a key of their own has a request limit of their own.
                owner = tenant.name if own is None else f"{tenant.name} {own.principal}"
                stack.enter_context(self._requests(owner))
                body = await read(Request(scope, receive), self._team.limits.body_bytes)
                check_size(body)
                summary = summarize(body)
                account = await stack.enter_async_context(self._tenants.lease(tenant, own))
                self._check_scope(caller, account.context, summary)
            except OversizedMessage as rejected:
                return await rejected.response(rejected.id)(scope, receive, send)
            except RequestRejected as rejected:
                return await rejected.response(summary.id)(scope, receive, send)
            except (Busy, SettingsError) as error:
                return await _unavailable(error, machine).response(summary.id)(scope, receive, send)
            caller = replace(caller, waiting=account.limit.released)
            inner = {**scope, _CONTEXT: RequestContext(account.context, caller, account.limit)}
            return await self._app(inner, replay(body_message(body), receive), send)

    async def _authenticate(self, scope: Scope) -> tuple[Caller, Tenant, CallerAccount | None]:
        request = Request(scope)
        sent = request.headers.getlist("authorization")
        keys = request.headers.getlist(OWN_KEY)
        if len(sent) > 1 or len(keys) > 1:
            raise RequestRejected(400, "An authentication header was sent twice.")
        token = await self._verified(sent[0] if sent else "")
        if request.method != "POST":
            raise RequestRejected(405, "This server keeps no sessions: requests are POST.", headers={"Allow": "POST"})
        token, machine = self._who(token)
        scope["user"] = AuthenticatedUser(token)  # to whom the SDK binds the state of a call that is repeated
        claims = token.claims or {}
        principal = f"{claims['iss']}|{token.subject}"
        scopes = frozenset(token.scopes) if machine is None else machine.narrowed(token.scopes)
        if READ not in scopes:
            raise self._insufficient_scope(scopes, READ, f"It needs the scope {READ}.")
        tenant = self._team.tenant_of(claims) if machine is None else self._team.tenant_for(machine)
        if tenant is None:
            log.warning("no tenant of the team file matches %s", principal)
            raise RequestRejected(403, "You are signed in, but no account here is assigned to you. Ask the operator.")
        asker = Asker(
            principal,
            person_name(claims),
            login_names(claims),
            groups=self._team.groups_of(claims),
            tenant=tenant.name,
            client=client_of(claims),
        )
        if machine is not None:
            # Groups of another issuer are not groups of the team's people.
            own = asker.groups if claims["iss"] == self._team.issuer else ()
            asker = replace(asker, person=machine.name, login_names=(), groups=own, machine=machine.name)
        caller = Caller(asker, None, scopes, own_effects=self._team.own_effects(tenant))
        return caller, tenant, _caller_account(tenant, principal, keys)

    def _who(self, token: VerifiedToken) -> tuple[VerifiedToken, MachineIdentity | None]:
        """Return a token and the machine that it is of, which is matched before a person's token gets its subject."""
        claims = token.claims or {}
        machines = self._team.machines_of(claims["iss"])
        try:
            machine = machine_of(machines, claims, self._team.groups_claim, is_machine=token.is_machine)
            return (token.of_person(self._team.subject_claim) if machine is None else token), machine
        except WrongMachine as wrong:
            raise RequestRejected(403, str(wrong)) from None
        except TokenRefused as refused:
            raise self._refused(refused) from None

    async def _verified(self, sent: str) -> VerifiedToken:
        """Return the verified token of an authentication header. The challenge of the 401 says why it is refused."""
        scheme, _, token = sent.partition(" ")
        if scheme.lower() != "bearer" or not token:
            challenge = self._challenge(self._team.initial_scopes)
            raise RequestRejected(401, "Sign in first.", headers={"WWW-Authenticate": challenge})
        try:
            return await self._tokens.verify(token)
        except TokenRefused as refused:
            raise self._refused(refused) from None
        except NoKeys:
            log.warning("no token can be verified: the keys of the issuer are not known")
            problem = "The identity provider cannot be reached, so no token can be verified."
            raise unavailable(problem, int(RETRY_AFTER)) from None

    def _refused(self, refused: TokenRefused) -> RequestRejected:
        log.info("a token was refused: %s", refused)
        challenge = self._challenge(self._team.initial_scopes, "invalid_token", str(refused))
        return RequestRejected(401, f"The token was refused. {refused}", headers={"WWW-Authenticate": challenge})

    def _insufficient_scope(self, scopes: Iterable[str], needed: str, message: str) -> RequestRejected:
        """Return the 403 rejection. It names the scopes already held too, so that a new token has both."""
        held = [scope for scope in scopes if scope.startswith(_SCOPE_PREFIX)]
        challenge = self._challenge(sorted({*held, needed}), "insufficient_scope", f"It needs {needed}.")
        return RequestRejected(
            403, message, FORBIDDEN, headers={"WWW-Authenticate": challenge}, facts={"scope": needed}
        )

    def _challenge(self, scopes: Iterable[str], error: str | None = None, description: str = "") -> str:
        requested = " ".join(self._team.requested_scopes(scopes))
        parts = [f'resource_metadata="{self._metadata}"', f'scope="{requested}"']
        if error is not None:
            parts = [f'error="{error}"', f'error_description="{description}"', *parts]
        return "Bearer " + ", ".join(parts)

    def _check_scope(self, caller: Caller, account: AccountContext, summary: Summary) -> None:
        """Raise `RequestRejected` if the call certainly needs a scope that the token lacks."""
        if summary.tool is None:
            return
        try:
            parsed = parse(account.by_name, summary.tool, summary.arguments or {})
        except FastnError:
            return  # the MCP handler reports the error
        try:
            caller.check(summary.tool, Effect.READ if parsed.dry_run else parsed.call.effective)
        except InsufficientScope as error:
            message = f"{error.what} {error.next_step}"
            raise self._insufficient_scope(caller.scopes or (), error.scope, message) from None


def _unavailable(error: Busy | SettingsError, machine: MachineIdentity | None) -> RequestRejected:
    if isinstance(error, Busy):
        return unavailable(f"{error.what} {error.next_step}", 1)
    log.error("%s", error)
    if machine is not None and machine.plan is not None and machine.plan in error.what:
        why = error.what.replace(machine.plan, Path(machine.plan).name)
        message = (
            f"The plan of the machine {machine.name} cannot be used, and nothing was sent. {why} Ask the operator."
        )
        return RequestRejected(403, message)
    return unavailable("Your account cannot be opened now. Tell the operator; the server log has the details.", 30)


def _caller_account(tenant: Tenant, principal: str, keys: list[str]) -> CallerAccount | None:
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


class LocalAccess:
    """MCP endpoint for callers with the token of this machine."""

    def __init__(self, app: ASGIApp, token: HttpToken) -> None:
        self._app = app
        self._token = token.value.encode()
        self._place = token.place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = sent[0].partition(b" ") if len(sent) == 1 else (b"", b"", b"")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            return await self._checked(scope, receive, send)
        id_ = None
        if scope["method"] == "POST":
            with suppress(RequestRejected):  # too large: rejected without an id
                id_ = summarize(await read(Request(scope, receive), _UNAUTHENTICATED_BYTES)).id
        problem = "The bearer token is not this server's." if sent else "A bearer token is required."
        message = f"{problem} Send 'Authorization: Bearer TOKEN'. TOKEN is in {self._place}."
        error = ', error="invalid_token", error_description="Not the token of this server."' if sent else ""
        headers = {"WWW-Authenticate": f'Bearer realm="fastn-mcp"{error}'}
        return await RequestRejected(401, message, headers=headers).response(id_)(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            return await self._app(scope, receive, send)
        try:
            body = await read(Request(scope, receive), DEFAULT_MAX_REQUEST_BODY_SIZE)
            check_size(body)
        except OversizedMessage as rejected:
            return await rejected.response(rejected.id)(scope, receive, send)
        except RequestRejected as rejected:
            return await rejected.response(None)(scope, receive, send)
        return await self._app(scope, replay(body_message(body), receive), send)
