"""Checks of a team's server: its file, tenants, secrets, ledger and clocks, its identity provider and a token."""

import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2
import jwt

from fastn_mcp.build.check import CLOSE, Check, CheckGroup, check_clock, seconds_ahead
from fastn_mcp.build.composition import exchange_of
from fastn_mcp.build.extensions import TeamChecks
from fastn_mcp.build.startup import Process, Sandboxed
from fastn_mcp.channels.page.view import ago, left
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import headers
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError, Forbidden, SettingsError, Unauthorized
from fastn_mcp.extensions.team.builder import TenantBuilder, process_settings
from fastn_mcp.extensions.team.claim_match import MachineIdentity, WrongMachine, claim_values, machine_of
from fastn_mcp.extensions.team.oidc import IssuerKeys, NoKeys
from fastn_mcp.extensions.team.public_checks import PROVIDER_DOWN, PublicAddress, check_public
from fastn_mcp.extensions.team.sign_in import NotSignedIn
from fastn_mcp.extensions.team.team_config import OWN_EFFECTS, Team, Tenant, load_team
from fastn_mcp.extensions.team.tokens import TokenRefused, is_machines, name_subject, scopes
from fastn_mcp.guard.caller import ALL_SCOPES, READ
from fastn_mcp.policy.decision import StepUp
from fastn_mcp.policy.policy import Policy
from fastn_mcp.redaction import quote
from fastn_mcp.runtime import System
from fastn_mcp.server.log import JsonLines
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.workflows import ListWorkflows

_KEY_DEADLINE = 10.0
"""Seconds for the read with the key of a tenant."""


class TeamServerChecks(TeamChecks):
    """Checks of a team's server."""

    def __init__(self, builder: TenantBuilder, token: str | None, url: str | None) -> None:
        team = builder.team
        self._builder = builder
        self._keys = IssuerKeys(team.issuer, builder.system)
        self._token = token
        self._address = PublicAddress(
            team, url or team.url, builder.system, token=token, secrets=builder.shared.state_secrets
        )
        self._keys_tried = 0
        self.host = urlsplit(url or team.url).netloc
        self.issuer = team.issuer
        self.shared = builder.shared

    @property
    def sent(self) -> int:
        return self._address.sent + self._keys_tried

    def check_settings(self) -> Iterator[Check]:
        return check_settings(self._builder)

    def accounts(self) -> Iterator[tuple[str, Settings]]:
        for tenant, settings in self._builder.checks():
            if isinstance(settings, Settings):
                yield tenant.name, settings

    async def check_keys(self) -> AsyncIterator[Check]:
        async for check in check_keys(self._builder):
            self._keys_tried += 1
            yield check

    async def check_provider(self) -> AsyncIterator[Check]:
        async for check in check_provider(self._builder, self._keys):
            self._address.is_provider_down |= check.finding == PROVIDER_DOWN
            yield check
        async for check in check_token(self._builder, self._keys, self._token):
            yield check

    def check_public(self) -> AsyncIterator[Check]:
        return check_public(self._address)

    async def aclose(self) -> None:
        await self._builder.ledger.aclose()
        await self._builder.tokens(self._keys).aclose()


def open_checks(
    file: Path, config: Path | None, state: Path, *, token: str | None, url: str | None, sandboxed: bool
) -> TeamServerChecks:
    team = load_team(file)
    process = Process(os.environ, Sandboxed() if sandboxed else None)
    shared = process_settings({}, process.environment, config)
    lines = JsonLines(shared.secrets)
    builder = TenantBuilder(team, shared, process, config=config, state=state, log=lines, system=System())
    return TeamServerChecks(builder, token, url)


# --- settings: the team file, tenants, the state secret -----------------------------------------------------------


def check_settings(builder: TenantBuilder) -> Iterator[Check]:
    """Check what the team file says, and the secrets of the process."""
    team = builder.team
    group = CheckGroup.SETTINGS
    listed = f"{len(team.tenant)} for tenants, {len(team.approver_rules)} for approvers"
    yield group.ok("team file", f"It can be used. Rules: {listed}.", here=f"url {team.url}; issuer {team.issuer}")
    yield _own_calls(team)
    for tenant, result in builder.checks():
        yield _tenant(tenant, result)
        lack = None if isinstance(result, SettingsError) else _lack_of_approvers(team, tenant, result)
        if lack is not None:
            yield lack
    for machine, policy in builder.machine_checks():
        yield _machine(builder, machine, policy)
    yield _state_secret(builder)


def _tenant(tenant: Tenant, loaded: Settings | SettingsError) -> Check:
    group = CheckGroup.SETTINGS
    name = f"tenant {tenant.name}"
    if isinstance(loaded, SettingsError):
        finding = "It cannot be served: the reason is beside it." if "/" in loaded.what else loaded.what
        return group.failed(name, finding, loaded.next_step or "Correct the team file.", loaded.what)
    for file in tenant.secret_files:
        if file is not None and _others_can_read(Path(file)):
            finding = "Other users of this machine can read a file with its secret."
            return group.differs(
                name, finding, "Run chmod 600 on it, or chmod 700 on a folder above it.", f"It is {file}."
            )
    key = "each caller's own" if tenant.caller_keys else "readable"
    return group.ok(name, f"Mode {loaded.mode}; key: {key}.")


async def check_keys(builder: TenantBuilder) -> AsyncIterator[Check]:
    """Make one read with the key of each tenant, unless its callers bring their own."""
    for tenant, loaded in builder.checks():
        if isinstance(loaded, Settings) and not tenant.caller_keys:
            yield await _key(builder, tenant, loaded)


async def _key(builder: TenantBuilder, tenant: Tenant, settings: Settings) -> Check:
    group = CheckGroup.SETTINGS
    name = f"key of {tenant.name}"
    exchange = exchange_of(settings, builder.process.sandbox, builder.system)(headers(settings))
    client = FastnClient(settings.model_copy(update={"deadline": _KEY_DEADLINE}), exchange, builder.system)
    try:
        await client.send(ListWorkflows(limit=1))
    except Unauthorized as error:
        hint = f"Put a key of this account into its {tenant.key_source}, or correct base_url or auth of the tenant."
        return group.failed(name, f"{error.what} Every call of this tenant fails.", hint)
    except Forbidden:
        return group.ok(name, "Fastn accepts it. It may not list workflows.", here=settings.host)
    except FastnError as error:
        hint = "See whether this machine reaches that host, and correct base_url of the tenant."
        return group.failed(name, f"It could not be checked. {error.what}", error.next_step or hint)
    finally:
        await client.aclose()
    return group.ok(name, "Fastn accepts it.", here=settings.host)


def _own_calls(team: Team) -> Check:
    """Say which calls of their own people approve."""
    group = CheckGroup.SETTINGS
    name = "own calls"
    own = OWN_EFFECTS if team.approvals is None else team.approvals.own
    by_others = [effect.value for effect in Effect if effect not in (Effect.READ, *own)]
    if not by_others:
        return group.ok(name, "People approve each call of their own that needs one approval (own = true).")
    them = "a call that they asked for" if not own else f"a call of their own that is {' or '.join(by_others)}"
    return group.ok(name, f"Nobody approves {them}: somebody else has to.", here="`own` in [approvals].")


def _lack_of_approvers(team: Team, tenant: Tenant, settings: Settings) -> Check | None:
    """Say which calls of a tenant's callers nobody may approve; None if there are none."""
    is_decided_elsewhere = settings.webhook_url is not None or bool(settings.external_channels)
    if team.page is None or tenant.caller_keys or settings.reads_only or is_decided_elsewhere:
        return None
    own = team.own_effects(tenant)
    effects = [effect.value for effect in Effect if effect not in (Effect.READ, *own)]
    covers = [rule.covers for rule in team.approver_rules]
    lacking = [each for each in effects if not any(covered(tenant.name, frozenset({each})) for covered in covers)]
    if not lacking:
        return None
    hint = "Add an [[approvals.approver]] that covers them, or name them in `own` of [approvals] (true: all)."
    finding = f"Nobody may approve its calls that are {' or '.join(lacking)}: they are refused."
    return CheckGroup.SETTINGS.differs(f"approvers of {tenant.name}", finding, hint)


def _machine(builder: TenantBuilder, machine: MachineIdentity, loaded: Policy | SettingsError) -> Check:
    group = CheckGroup.SETTINGS
    name = f"machine {machine.name}"
    if isinstance(loaded, SettingsError):
        finding = "It is refused: its plan or its tenant cannot be used. The reason is beside it."
        return group.failed(name, finding, "Correct it, and check it: fastn-mcp plan verify.", str(loaded))
    plan = loaded.plan
    if plan is None:
        return group.ok(name, "It has no plan: it only reads.")
    if loaded.mode == "read-only":
        hint = "Give its tenant another mode, or remove its plan."
        return group.differs(name, "Its tenant is read-only, so its plan allows nothing.", hint)
    valid = f"Its plan is signed, and valid for {left(plan.until.timestamp() - builder.system.timestamp())} more."
    return group.ok(name, plan.out_of_time(builder.system.now()) or valid, here=f"By {', '.join(plan.signers)}.")


def _others_can_read(file: Path) -> bool:
    """Whether other users can read a file of this user's, whose mode they could therefore change."""
    if os.name == "nt":
        return False
    with suppress(OSError):
        path = file.resolve()
        return (
            path.stat().st_uid == os.getuid()
            and bool(path.stat().st_mode & 0o004)
            and all(folder.stat().st_mode & 0o001 for folder in path.parents)
        )
    return False


def _state_secret(builder: TenantBuilder) -> Check:
    group = CheckGroup.SETTINGS
    name = "state secret"
    secrets = builder.state_secrets
    if not secrets:
        if builder.team.page is not None:
            finding = "FASTN_STATE_SECRET is not set, and [approvals] needs it."
            return group.failed(name, finding, "Set it to the same 32 characters or more on each replica.")
        return group.ok(name, "Not set. One process alone needs none.")
    # Of the secret only this digest is ever shown, by which people compare replicas.
    digest = hashlib.sha256(f"fastn-mcp state secret {secrets[0]}".encode()).hexdigest()[:8]
    finding = "Set. It has to be the same on each replica."
    if len(set(secrets[0])) < 8:
        return group.differs(name, "It repeats a few characters, and could be guessed.", "Use: openssl rand -hex 32")
    return group.ok(name, finding, here=f"Compare on each replica: {digest}.")


# --- the identity provider -------------------------------------------------------------------------------------------


async def check_provider(builder: TenantBuilder, keys: IssuerKeys) -> AsyncIterator[Check]:
    """Check the issuer's discovery document, keys, clock and registration, and the client of the approval page."""
    group = CheckGroup.PROVIDER
    team = builder.team
    provider = keys.provider
    for issuer, of_workload in builder.workload_keys.items():
        await of_workload.refresh()
        yield _signing_keys(of_workload, team, f"keys of {urlsplit(issuer).netloc}")
    sent = builder.system.timestamp()
    try:
        metadata = await provider.metadata()
    except (OSError, httpx2.TransportError) as error:
        hint = "See whether it runs, and this machine reaches it. If it has moved, correct `issuer` in the team file."
        yield group.failed("issuer", PROVIDER_DOWN, hint, f"{type(error).__name__}: {quote(str(error) or 'no answer')}")
        return
    except (ValueError, TypeError) as error:
        finding = "Its discovery document cannot be read: no token can be verified."
        hint = "Check each letter of `issuer` in the team file, and the network of this machine."
        yield group.failed("issuer", finding, hint, f"{type(error).__name__}: {quote(str(error))}")
        return
    yield group.ok("issuer", "It names this issuer.", here=team.issuer)
    if provider.date is not None:
        yield _issuer_clock(builder, provider.date, sent)
    await keys.refresh()
    yield _signing_keys(keys, team)
    yield _registration(metadata)
    methods = metadata.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        finding = "It does not publish S256 in code_challenge_methods_supported: MCP clients have to refuse it."
        yield group.differs("PKCE", finding, "Enable PKCE with S256 at the provider, and publish it.")
    else:
        yield group.ok("PKCE", "S256.")
    if team.page is not None:
        yield await _page_client(builder, keys)
    if team.step_up is not None:
        yield _step_up(team.step_up, metadata)


def _issuer_clock(builder: TenantBuilder, date: str, sent: float) -> Check:
    group = CheckGroup.PROVIDER
    ahead = seconds_ahead(date, sent, builder.system.timestamp())
    if ahead is None:
        return group.skipped("issuer clock", "Its Date header cannot be read.", "Compare the clocks by hand.")
    most = max(CLOSE, builder.team.leeway_seconds / 2)
    return check_clock(group, "issuer clock", ahead, most=most, why="Beyond leeway_seconds its tokens are refused.")


def _signing_keys(keys: IssuerKeys, team: Team, name: str = "signing keys") -> Check:
    group = CheckGroup.PROVIDER
    if not keys.has_keys:
        finding = "Its keys cannot be read: no token can be verified."
        hint = "Open its jwks_uri from this machine."
        return group.failed(name, finding, hint, keys.provider.issuer)
    usable = keys.usable(team.algorithms)
    if not usable:
        finding = "It publishes no key for an algorithm that the team file accepts."
        return group.failed(name, finding, "Sign with RS256 or ES256, or add the algorithm to `algorithms`.")
    return group.ok(name, f"Keys for {', '.join(usable)}.")


def _registration(metadata: Mapping[str, Any]) -> Check:
    """Say how MCP clients get a client id. docs/sign-in.md says it for each client."""
    offered: list[str] = []
    if metadata.get("client_id_metadata_document_supported") is True:
        offered.append("Client ID metadata documents (CIMD): clients that publish one need nothing else")
    if metadata.get("registration_endpoint"):
        offered.append("Dynamic registration (DCR): MCP clients register themselves")
    if offered:
        return CheckGroup.PROVIDER.ok("client registration", f"{'; '.join(offered)}.")
    finding = "Neither CIMD nor DCR: only clients that take a client id from their settings can sign in."
    hint = "Create a client with the redirect addresses of each MCP client: docs/sign-in.md."
    return CheckGroup.PROVIDER.differs("client registration", finding, hint)


async def _page_client(builder: TenantBuilder, keys: IssuerKeys) -> Check:
    group = CheckGroup.PROVIDER
    name = "approval client"
    here = f"Its redirect address is {builder.team.page_url}/callback."
    try:
        sign_in = builder.sign_in(keys)
        wrong = await sign_in.rejection() if sign_in else None
    except SettingsError as error:
        finding = "The secret of its client cannot be read."
        return group.failed(name, finding, error.next_step or "Correct client_secret_file.", error.what)
    except NotSignedIn as error:
        return group.failed(name, str(error), "Correct [approvals] in the team file; see docs/team-page.md.", here)
    if wrong is not None:
        hint = "Compare client_id, client_secret_file and the registered redirect address with the provider's."
        return group.failed(name, "The provider does not accept its client.", hint, f"{wrong} {here}")
    return group.ok(name, "Its client, secret and redirect address are accepted.", here=here)


def _step_up(step_up: StepUp, metadata: Mapping[str, Any]) -> Check:
    """Compare what the provider publishes with what its ID tokens have to say of a fresh sign-in."""
    claims, values = (claim_values(metadata.get(f"{name}_supported")) for name in ("claims", "acr_values"))
    lacks = [] if "auth_time" in claims else ["auth_time in claims_supported"]
    if step_up.acr_values and not any(value in values for value in step_up.acr_values):
        lacks.append(f"{step_up.values} in acr_values_supported")
    if not lacks:
        return CheckGroup.PROVIDER.ok("step-up", f"It publishes what an approval needs: {step_up.needs}.")
    finding = f"It does not publish {', nor '.join(lacks)}. If ID tokens lack it, such calls cannot be approved."
    return CheckGroup.PROVIDER.differs("step-up", finding, "Approve one to see; docs/sign-in.md has each provider.")


# --- a token ---------------------------------------------------------------------------------------------------------


async def check_token(builder: TenantBuilder, keys: IssuerKeys, token: str | None) -> AsyncIterator[Check]:
    """Verify the token as the server does, and compare what it holds with what is needed."""
    group = CheckGroup.CALLER
    team = builder.team
    if token is None:
        hint = "Pass a token of one of your clients: --token-file FILE, or - for stdin."
        yield group.skipped("token", "No token was passed.", hint)
        return
    reason = None
    try:
        await builder.tokens(keys).verify(token)
    except TokenRefused as refused:
        reason = str(refused)
    except NoKeys:
        yield group.failed("token", "It cannot be verified without the issuer's keys.", "See the checks above.")
        return
    claims = _claims(token)
    if claims is None:
        hint = "The provider issues opaque tokens: register url as a resource (an API) there, and request it."
        yield group.failed("token", f"Refused: {reason}", hint)
        return
    if reason is None:
        valid = left(claims["exp"] - builder.system.timestamp())
        yield group.ok("token", f"Its signature is right, and it is for this server, for {valid} more.")
    else:
        yield group.failed("token", f"Refused: {reason}", "The rows below say what it holds; none of it is trusted.")
        for check in _wrong_claims(builder, claims):
            yield check
    is_machine = claims.get("iss") in team.workloads or is_machines(claims)
    machine = _machine_of(team, claims, is_machine=is_machine)
    if machine is not None:
        yield machine
        return
    try:
        name_subject(claims, team.subject_claim)
    except TokenRefused as refused:
        hint = f"Let the provider put {team.subject_claim} into access tokens, or correct `subject_claim`."
        yield group.failed("token subject", f"Refused: {refused}", hint)
    yield _scopes(team, claims)
    yield _tenant_of(team, claims, "is" if reason is None else "would be")


def _claims(token: str) -> dict[str, Any] | None:
    """Return the claims of a token without verifying it, for display only. None if it is not a JWT."""
    with suppress(jwt.PyJWTError, ValueError, RecursionError):
        return jwt.decode(token, options={"verify_signature": False})
    return None


def _machine_of(team: Team, claims: Mapping[str, Any], *, is_machine: bool) -> Check | None:
    """Say which machine a token is of; None if it is a person's."""
    group = CheckGroup.CALLER
    name = "token machine"
    machines = team.machines_of(str(claims.get("iss")))
    try:
        machine = machine_of(machines, claims, team.groups_claim, is_machine=is_machine)
    except WrongMachine as wrong:
        hint = "Compare [[machine]] in the team file with the claims of the token: docs/machines.md."
        return group.failed(name, "Its kind or its claims match no [[machine]].", hint, str(wrong))
    return machine and group.ok(name, "A [[machine]] of the team file matches it.", here=machine.name)


def _wrong_claims(builder: TenantBuilder, claims: Mapping[str, Any]) -> Iterator[Check]:
    """Yield what is wrong with the issuer, the audience and the times of a token."""
    team = builder.team
    group = CheckGroup.CALLER
    name = "token expiry"
    now = builder.system.timestamp()
    issuer = claims.get("iss")
    audience = claims.get("aud")
    wanted = team.trust.audience
    if issuer != team.issuer and issuer not in team.workloads:
        finding = "Its iss differs from `issuer` of the team file."
        hint = "If this is the right provider, copy iss into the team file."
        yield group.failed("token issuer", finding, hint, f"It has {quote(issuer)}; {quote(team.issuer)} is needed.")
    if wanted not in claim_values(audience):
        finding = "It has no aud." if audience is None else "Its aud is not this server's."
        hint = "Let the provider add it (`resource`, or an audience of the API), or set `audience` in the team file."
        yield group.failed("token audience", finding, hint, f"It has {quote(audience)}; {quote(wanted)} is needed.")
    expires = claims.get("exp")
    since = claims.get("nbf", claims.get("iat"))
    if not isinstance(expires, (int, float)):
        yield group.failed(name, "It has no exp.", "Let the provider issue tokens that expire.")
    elif now >= expires + team.leeway_seconds:
        at = f"{datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M:%S} UTC" if expires >= 0 else quote(expires)
        hint = "Give a new token, and compare the issuer's clock above."
        yield group.failed(name, f"It expired {ago(now - expires)}.", hint, f"exp is {at}.")
    elif isinstance(since, (int, float)) and since > now + team.leeway_seconds:
        yield group.failed(
            name, f"It is not valid yet; it will be in {left(since - now)}.", "Synchronize both clocks (NTP)."
        )


def _scopes(team: Team, claims: Mapping[str, Any]) -> Check:
    held = scopes(claims, team.scope_prefix)
    here = f"It has {quote(' '.join(held))}."
    if READ not in held:
        finding = f"It lacks {READ}: every call is refused."
        named = ", ".join(team.scope_prefix + scope for scope in ALL_SCOPES)
        prefixed = next((scope.removesuffix(READ) for scope in held if scope.endswith(READ)), None)
        hint = f"Create {named} at the provider, and let the client have them."
        if prefixed is not None:
            hint = f"Set scope_prefix = {quote(prefixed)} in the team file."
        return CheckGroup.CALLER.failed("token scopes", finding, hint, here)
    lacking = ", ".join(scope for scope in ALL_SCOPES if scope not in held)
    finding = f"{READ}. Requested when a call needs it: {lacking}." if lacking else "All four."
    return CheckGroup.CALLER.ok("token scopes", finding, here=here)


def _tenant_of(team: Team, claims: Mapping[str, Any], served: str) -> Check:
    group = CheckGroup.CALLER
    tenant = team.tenant_of(claims)
    others = [_not_served(team, each, claims, tenant) for each in team.tenant if each is not tenant]
    here = " ".join(others)
    if tenant is not None:
        return group.ok("token tenant", f"It {served} served by the tenant {tenant.name}.", here=here)
    if "_claim_names" in claims and team.groups_claim in cast("Mapping[str, Any]", claims["_claim_names"]):
        finding = "No tenant serves it: the person is in more groups than the provider puts into a token."
        return group.failed(
            "token tenant", finding, "Let it emit only groups that are assigned to the application.", here
        )
    wanted = {name for each in team.tenant for name, _ in each.mismatches(claims, team.groups_claim)}
    absent = sorted(name for name in wanted if name not in claims)
    lacks = f" It has no claim {', '.join(absent)}." if absent else ""
    hint = "Let the provider put that claim into access tokens, or correct [[tenant]] in the team file."
    return group.failed("token tenant", f"No tenant serves it.{lacks}", hint, here)


def _not_served(team: Team, tenant: Tenant, claims: Mapping[str, Any], chosen: Tenant | None) -> str:
    """Say why a tenant does not serve a token."""
    missing = next(tenant.mismatches(claims, team.groups_claim), None)
    if missing is None:
        return f"{tenant.name} would serve it too, but comes after {chosen.name if chosen else ''} in the file."
    claim, wanted = missing
    held = f"is {quote(claims[claim])}" if claim in claims else "is not there"
    return f"Not {tenant.name}: {claim} {held}, and has to be one of {quote(wanted)}."
