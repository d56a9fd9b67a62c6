"""Authentication of a team's callers: a sign-in with scopes and a tenant.

A rejected request never reaches a handler. Every call of an accepted request still passes the guard.
"""

import logging
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.extensions.team.claim_match import MachineIdentity, WrongMachine, machine_of
from fastn_mcp.extensions.team.oidc import RETRY_AFTER, NoKeys
from fastn_mcp.extensions.team.team_config import Team, Tenant
from fastn_mcp.extensions.team.tenants import Busy, CallerAccount, RequestLimit, Tenants
from fastn_mcp.extensions.team.tokens import TokenRefused, Tokens, VerifiedToken, client_of, login_names, person_name
from fastn_mcp.guard.caller import READ, Caller, InsufficientScope
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.catalog import parse
from fastn_mcp.server.context import AccountContext, RequestContext
from fastn_mcp.server.http.requests import (
    OversizedMessage,
    RequestRejected,
    Summary,
    body_message,
    check_size,
    read,
    replay,
    summarize,
    unavailable,
)
from fastn_mcp.tools.tool import Effect

log = logging.getLogger(__name__)

OWN_KEY = "x-fastn-api-key"

FORBIDDEN = -32003
"""JSON-RPC error code from the range that the specification leaves to servers."""

_CONTEXT = "fastn_mcp.context"
_SCOPE_PREFIX = "fastn:"


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
