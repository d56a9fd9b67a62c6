"""The team file: accepted sign-ins, tenants and approvers. Strict TOML.

A sign-in is served by the first tenant whose conditions all match. Without a match it is rejected. Any error in the
file stops the start.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from fastn_mcp.build.extensions import TENANT_SECTIONS
from fastn_mcp.config.addresses import is_loopback, plain_address
from fastn_mcp.config.keys import key_in_text
from fastn_mcp.config.load import load as load_settings
from fastn_mcp.config.model import MOVED, REMOVED, SOURCES, Settings, Trait, settings_with
from fastn_mcp.config.sections import EXTENSIONS, read_secret
from fastn_mcp.config.strict_toml import ONE_OR_MORE, STRICT, ConfigError, Key, TomlSource, load, read, validate
from fastn_mcp.errors import SettingsError, nearest
from fastn_mcp.extensions.team.claim_match import (
    NOT_EMPTY,
    IndexKey,
    MachineIdentity,
    Match,
    Scopes,
    Text,
    Texts,
    claim_text,
    claim_values,
    machine_errors,
    one_of,
    require,
)
from fastn_mcp.extensions.team.tokens import ALGORITHMS, Trust
from fastn_mcp.guard.caller import READ
from fastn_mcp.policy.decision import StepUp
from fastn_mcp.policy.schema import AnyEffects, Effects
from fastn_mcp.redaction import quote
from fastn_mcp.tools.tool import Effect

_SECRETS = ("api_key", "webhook_secret", "notify")
"""Settings that the team file only refers to, as in `api_key_file` or `api_key_env`."""

SETTINGS = sorted(Settings.model_fields.keys() - {*_SECRETS, EXTENSIONS, *settings_with(Trait.PROCESS)})
"""Settings of a tenant. The log, the ledger and the address of webhook answers are of the whole process."""

_FILE_SETTINGS = {*settings_with(Trait.FILE), *(f"{name}_file" for name in (*_SECRETS, "client_secret"))}
_NO_SOURCE = (None, None)
_RESERVED_PATHS = ("/healthz", "/readyz", "/tenants", "/.well-known")
_WITH_OPENID = require(lambda scopes: "openid" in scopes, "must include openid, which identifies the person")
_EFFECTS = [effect for effect in Effect if effect is not Effect.READ]
_NOT_OWN = (Effect.ACCESS, Effect.DESTROY)
"""Effects of calls that nobody approves for themselves unless the team file says so."""

OWN_EFFECTS = [effect for effect in _EFFECTS if effect not in _NOT_OWN]
"""Default of `ApprovalsSection.own`."""

_OF_ONE_ACCOUNT = "approvers belong to one account: leave out this or caller_keys"
_PLACEHOLDER = "brought-by-the-caller"


def origin_of(url: str) -> str:
    """Return the origin of an address, as in a browser's Origin header: in small letters, without a default port."""
    parts = urlsplit(url)
    default_port = ":443" if parts.scheme == "https" else ":80"
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(default_port)}"


def _resource(url: str) -> str:
    if not urlsplit(plain_address(url)).path.strip("/") or url.endswith("/"):
        raise ValueError("must have a path, and no slash at its end, for example https://fastn-mcp.example.com/mcp")
    if not url.startswith(f"{origin_of(url)}/"):
        raise ValueError(f"must begin with {origin_of(url)}, as clients send it")
    return url


def _is_origin(origin: str) -> bool:
    return urlsplit(origin).scheme in ("http", "https") and origin == origin_of(origin) and "*" not in origin


def _own_effects(value: object) -> object:
    """Return the effects that `own` stands for: all if it is true, none if it is false."""
    if isinstance(value, bool):
        return [effect.value for effect in _EFFECTS] if value else []
    if isinstance(value, (str, list)):
        return cast("object", value)
    raise ValueError("must be true, false or a list of effects")


def _matching(pattern: str, problem: str) -> AfterValidator:
    """Return a validator of texts that the whole pattern has to match."""
    return require(re.compile(pattern).fullmatch, problem)


_Resource = Annotated[str, AfterValidator(_resource)]
_Origin = Annotated[str, require(_is_origin, "must be an exact origin, for example https://app.example.com")]
_HOSTS = r"([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d{1,5})?"
_Host = Annotated[str, _matching(_HOSTS, "must be an exact host, for example fastn-mcp.example.com or 10.0.0.7:8080")]
_SCOPE = r"[\x21\x23-\x5B\x5D-\x7E]*"  # RFC 6749, 3.3
_ScopePrefix = Annotated[str, _matching(_SCOPE, "must be the beginning of a scope, for example api://fastn-mcp/")]
_Algorithm = Annotated[str, one_of("algorithm", ALGORITHMS)]
_Name = Annotated[
    str, _matching(r"[a-z0-9][a-z0-9-]{0,31}", "must be at most 32 small letters, digits and -, as it names a folder")
]
_Acr = Annotated[str, _matching(r"[\x21-\x7E]+", "must be a value of acr or amr, which has no space")]


class _Table(BaseModel):
    model_config = STRICT


class Tenant(Match):
    """One account and the sign-ins it serves. With `caller_keys` each caller brings the API key of their own account.

    All other keys of the table are settings of the account.
    """

    model_config = ConfigDict(extra="allow")

    name: _Name
    caller_keys: bool = False
    extensions: dict[str, dict[str, Any]] = Field(default_factory=dict[str, dict[str, Any]])
    """Tables of extensions, without secrets: these are referred to, as in `app_token_file`."""
    profile: str | None = None
    api_key_file: str | None = None
    api_key_env: str | None = None
    webhook_secret_file: str | None = None
    webhook_secret_env: str | None = None
    notify_file: str | None = None
    notify_env: str | None = None
    _machine: MachineIdentity | None = PrivateAttr(None)

    @property
    def machine(self) -> MachineIdentity | None:
        """The machine that these settings are for; None if they are for people."""
        return self._machine

    def for_machine(self, machine: MachineIdentity) -> "Tenant":
        """Return this tenant for a machine, which shares its account, ledger and audit log but not its policy mode."""
        copy = self.model_copy()
        copy._machine = machine
        return copy

    @property
    def secret_files(self) -> list[str | None]:
        return [getattr(self, f"{name}_file") for name in _SECRETS]

    @property
    def key_source(self) -> str:
        """Where its key comes from, in the words of the team file. Callers read it: of a path it has the name only."""
        if self.api_key_file is not None:
            return f"api_key_file {quote(Path(self.api_key_file).name)}"
        if self.api_key_env is not None:
            return f"api_key_env {quote(self.api_key_env)}"
        return f"profile {quote(self.profile)}"

    @property
    def key_hint(self) -> str:
        """What a caller does if Fastn does not accept the key."""
        if self.caller_keys:
            return "Send a key of your account that Fastn accepts, in the header x-fastn-api-key."
        return f"Tell the operator: Fastn refuses the key of the tenant {self.name}, from its {self.key_source}."

    def settings(self, environment: Mapping[str, str], file: Path | None, key: str | None = None) -> Settings:
        """Load its settings and secrets; `key` is the API key of the caller. Raises `SettingsError` if invalid.

        Variables of settings are ignored, since one variable cannot be meant for every tenant. The default mode is
        read-only.
        """
        own = {source.variable for source in SOURCES}
        rest = {name: value for name, value in environment.items() if name not in own}
        values: dict[str, object] = dict(self.model_extra or {})
        try:
            values[EXTENSIONS] = TENANT_SECTIONS.read(self.extensions, environment, _place_in_extension)
            for name in _SECRETS:
                source = _secret_source(self, name)
                if source != _NO_SOURCE:
                    secret = read_secret(*source, environment)
                    values[name] = key_in_text(secret) if name == "api_key" else secret
            if self.caller_keys:
                values["api_key"] = key or _PLACEHOLDER
            if self.profile is not None:
                values["profile"] = self.profile
            settings = load_settings(values, rest, None if self.profile is None else file, flag_names={})
        except SettingsError as error:
            raise SettingsError(f"The tenant {self.name} cannot be served. {error.what}", error.next_step) from None
        if self._machine is not None:
            settings = self._machine.settings(settings)
        elif "mode" not in settings.model_fields_set:
            settings = settings.model_copy(update={"mode": "read-only"})
        return settings if self.profile is not None else settings.model_copy(update={"profile": self.name})


class ApproverRule(Match):
    """Rule that lets matching people decide calls of `tenants` (default: all with an API key) with these `effects`."""

    tenants: Texts | None = None
    effects: Effects = _EFFECTS
    stop: bool = True
    """Whether they may stop the changes of these tenants, and allow them again."""
    lift_operator_stops: bool = False
    """Whether they may also allow again what an operator stopped for one of these tenants."""

    def covers(self, tenant: str, effects: frozenset[str]) -> bool:
        """Whether the rule covers calls of a tenant with these effects."""
        is_named = self.tenants is None or tenant in self.tenants
        return is_named and effects.issubset(effect.value for effect in self.effects)

    def may_stop(self, tenant: str) -> bool:
        return self.stop and (self.tenants is None or tenant in self.tenants)


class StepUpSection(_Table):
    """Effects whose approval needs a recent and strong sign-in."""

    effects: Effects
    max_age_minutes: Annotated[int, Field(ge=1, le=720)] = 5
    acr_values: Annotated[list[_Acr], ONE_OR_MORE] = []


class ApprovalsSection(_Table):
    """The approval page, its OpenID Connect client and the approver rules.

    Without a client there is no page, and `own` stands alone.
    """

    client_id: Text | None = None
    client_secret_file: str | None = None
    client_secret_env: str | None = None
    url: _Resource | None = None
    scopes: Annotated[Texts, _WITH_OPENID] = ["openid", "profile", "email"]
    subject_claim: Text | None = None
    """Claim of ID tokens that names the person, if it is not the claim of access tokens."""
    own: Annotated[AnyEffects, BeforeValidator(_own_effects)] = OWN_EFFECTS
    """Effects of calls that a requester may approve for themselves, on the page or in their client's form."""
    session_minutes: Annotated[float, Field(ge=1, le=720)] = 60.0
    approver: list[ApproverRule] = []
    step_up: StepUpSection | None = None

    def secret(self, environment: Mapping[str, str]) -> str:
        """Read the client secret. Raises `SettingsError` if it is missing."""
        return read_secret(self.client_secret_file, self.client_secret_env, environment)


class TeamLimits(_Table):
    body_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = 1024 * 1024
    header_bytes: Annotated[int, Field(ge=1024, le=65_536)] = 16 * 1024
    connections: Annotated[int, Field(ge=1, le=100_000)] = 1000
    calls: Annotated[int, Field(ge=1, le=1000)] = 8
    """Concurrent calls of one tenant."""
    queue: Annotated[int, Field(ge=0, le=10_000)] = 32
    """Calls of one tenant that wait for a slot, for at most `queue_seconds`."""
    queue_seconds: Annotated[float, Field(ge=0, le=300)] = 30.0
    tenants: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Concurrently open accounts."""
    idle_seconds: Annotated[float, Field(ge=1, le=86_400)] = 900.0
    """Idle time after which an account is closed."""
    drain_seconds: Annotated[float, Field(ge=0, le=300)] = 0.0
    """Time between the stop signal, when the process reports not ready, and refusing new requests."""
    grace_seconds: Annotated[float, Field(ge=0, le=600)] = 20.0
    """Time for calls in flight after that."""

    @property
    def requests(self) -> int:
        """Concurrent requests of one tenant: twice its calls and queue, to leave room for other requests."""
        return 2 * (self.calls + self.queue)


class Team(_Table):
    url: _Resource
    """Public address of the MCP endpoint, which is the resource of tokens."""
    issuer: Annotated[str, AfterValidator(plain_address)]
    audience: str | None = None
    hosts: Annotated[list[_Host], ONE_OR_MORE, NOT_EMPTY] | None = None
    origins: Annotated[list[_Origin], ONE_OR_MORE] = []
    algorithms: Annotated[list[_Algorithm], ONE_OR_MORE, NOT_EMPTY] = list(ALGORITHMS)
    scope_prefix: _ScopePrefix = ""
    initial_scopes: Scopes = [READ]
    groups_claim: str = "groups"
    subject_claim: Text = "sub"
    leeway_seconds: Annotated[float, Field(ge=0, le=120)] = 30.0
    limits: TeamLimits = TeamLimits()
    approvals: ApprovalsSection | None = None
    tenant: list[Tenant]
    machine: list[MachineIdentity] = []

    @property
    def trust(self) -> Trust:
        """Requirements for accepted tokens."""
        return Trust(
            self.issuer,
            self.audience or self.url,
            tuple(self.algorithms),
            leeway=self.leeway_seconds,
            scope_prefix=self.scope_prefix,
            subject_claim=self.subject_claim,
        )

    @property
    def workloads(self) -> dict[str, Trust]:
        """Requirements for the tokens of the other issuers that machines have."""
        issuers = {machine.issuer for machine in self.machine if machine.issuer} - {self.issuer}
        return {each: replace(self.trust, issuer=each, is_workload=True) for each in sorted(issuers)}

    def machines_of(self, issuer: str) -> list[MachineIdentity]:
        return [machine for machine in self.machine if (machine.issuer or self.issuer) == issuer]

    def requested_scopes(self, scopes: Iterable[str]) -> list[str]:
        """Return scopes as clients have to request them."""
        return [self.scope_prefix + scope for scope in scopes]

    def groups_of(self, claims: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Return the groups of a sign-in; None if the claim is neither a list of texts nor the text of one group.

        Microsoft Entra puts the name of a claim that is too large for a token into `_claim_names`.
        """
        claimed = claims.get(self.groups_claim)
        elsewhere = claims.get("_claim_names")
        is_cut = isinstance(elsewhere, dict) and self.groups_claim in elsewhere
        if is_cut or not (isinstance(claimed, list) or re.fullmatch(r"""[^\s,;|"'\[\]{}]+""", str(claimed))):
            return None
        values = claim_values(cast("object", claimed))
        return tuple(map(str, values)) if all(isinstance(each, str) for each in values) else None

    @property
    def page(self) -> ApprovalsSection | None:
        """The approval page; None if there is none."""
        return self.approvals if self.approvals is not None and self.approvals.client_id is not None else None

    def own_effects(self, tenant: Tenant) -> frozenset[Effect]:
        """Return the effects of calls that callers of a tenant may approve for themselves.

        With `caller_keys`, the account is the caller's own, and nobody else decides about it.
        """
        if tenant.caller_keys:
            return frozenset(_EFFECTS)
        return frozenset(OWN_EFFECTS if self.approvals is None else self.approvals.own)

    @property
    def approver_rules(self) -> list[ApproverRule]:
        """Rules of the approvers; empty without an approval page."""
        return self.approvals.approver if self.approvals else []

    @property
    def page_url(self) -> str | None:
        """Public address of the approval page, which may have its own host."""
        if self.page is None:
            return None
        return self.page.url or f"{origin_of(self.url)}/approvals"

    @property
    def step_up(self) -> StepUp | None:
        """What the approval of calls with some effects requires of the approver's sign-in."""
        step_up = self.page.step_up if self.page else None
        if step_up is None:
            return None
        effects = tuple(each.value for each in step_up.effects)
        seconds = step_up.max_age_minutes * 60.0
        return StepUp(
            f"{self.page_url}/", effects, seconds, acr_values=tuple(step_up.acr_values), leeway=self.leeway_seconds
        )

    @property
    def served_hosts(self) -> list[str]:
        urls = (self.url, self.page_url or self.url)
        return self.hosts or list(dict.fromkeys(urlsplit(url).netloc for url in urls))

    def unserved_by_issuer(self, *hosts: str) -> str | None:
        """Say why the issuer is not for a server with these hosts: it is on this machine, as one for trying is."""
        public = next((host for host in hosts if not is_loopback(urlsplit(f"//{host}").hostname or "")), None)
        local = next(
            (each for each in (self.issuer, *self.workloads) if is_loopback(urlsplit(each).hostname or "")), None
        )
        if public is None or local is None:
            return None
        return (
            f"issuer: {local} is on this machine, and this server is reached from others, at {public}. An issuer "
            "for trying (fastn-mcp sandbox --issuer) lets everybody sign in as anybody"
        )

    @cached_property
    def _index(self) -> Mapping[IndexKey | None, list[int]]:
        """Tenant numbers by index key, so that a lookup does not scan all tenants."""
        index: defaultdict[IndexKey | None, list[int]] = defaultdict(list)
        for number, tenant in enumerate(self.tenant):
            for key in tenant.index_keys():
                index[key].append(number)
        return dict(index)

    def tenant_of(self, claims: Mapping[str, Any]) -> Tenant | None:
        """Return the first tenant that matches the claims of a sign-in, or None."""
        keys: list[IndexKey | None] = [None, ("subject", str(claims.get("sub")))]
        keys += [("group", str(claim_text(group))) for group in claim_values(claims.get(self.groups_claim))]
        likely = sorted({number for key in keys for number in self._index.get(key, ())})
        tenants = (self.tenant[number] for number in likely)
        return next((tenant for tenant in tenants if tenant.holds(claims, self.groups_claim)), None)

    def tenant_for(self, machine: MachineIdentity) -> Tenant:
        """Return the tenant of a machine, with its settings."""
        tenant = next(tenant for tenant in self.tenant if tenant.name == machine.tenant)
        return tenant.for_machine(machine)

    def named(self, name: str) -> Tenant | None:
        return next((tenant for tenant in self.tenant if tenant.name == name), None)

    def with_keys(self) -> frozenset[str]:
        """Names of the tenants with an API key, whose calls approvers can decide: the tenants without `caller_keys`."""
        return frozenset(tenant.name for tenant in self.tenant if not tenant.caller_keys)


def load_team(path: Path) -> Team:
    """Load the team file. Raises `SettingsError` that names the file, line, key and nearest known key."""
    data, _ = read(path, "team file", "Correct --team.")
    build = partial(_build, path.absolute().parent)
    return load(data, path, "team file", build, hint="See docs/team-server.md.")


def _build(folder: Path, table: dict[str, Any], source: TomlSource) -> Team:
    team = validate(Team, _with_absolute_paths(table, folder), source)
    error = next(_errors(team), None)
    if error is not None:
        raise error
    for number, tenant in enumerate(team.tenant):
        values = {**(tenant.model_extra or {}), "api_key": _PLACEHOLDER}
        validate(Settings, values, source, ("tenant", number))
    return team


def _with_absolute_paths(value: Any, folder: Path) -> Any:
    """Resolve relative files against the team file's folder, not the working directory."""
    if isinstance(value, list):
        return [_with_absolute_paths(each, folder) for each in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    return {
        key: str(folder / each)
        if (key in _FILE_SETTINGS or key.endswith("_file")) and isinstance(each, str)
        else _with_absolute_paths(each, folder)
        for key, each in cast("dict[str, object]", value).items()
    }


def _errors(team: Team) -> Iterator[ConfigError]:
    """Yield the errors that concern several values together."""
    if not team.tenant:
        yield ConfigError(("tenant",), "it has no [[tenant]]")
    refusal = team.unserved_by_issuer(urlsplit(team.url).netloc, *team.served_hosts)
    if refusal is not None:
        yield ConfigError(("issuer",), refusal)
    for kind, named in (("tenant", team.tenant), ("machine", team.machine)):
        names = [each.name for each in named]
        for number, name in enumerate(names):
            if name in names[:number]:
                yield ConfigError((kind, number, "name"), f"there are two {kind}s named {name}")
    for number, tenant in enumerate(team.tenant):
        yield from _tenant_errors(("tenant", number), tenant)
    for number, machine in enumerate(team.machine):
        is_workload = machine.issuer not in (None, team.issuer)
        yield from machine_errors(("machine", number), machine, sorted(team.with_keys()), is_workload=is_workload)
    if team.approvals is not None:
        yield from _approvals_errors(team, team.approvals)


def _tenant_errors(at: Key, tenant: Tenant) -> Iterator[ConfigError]:
    name = tenant.name
    values = tenant.model_extra or {}
    for key in values:
        if (problem := _key_problem(key)) is not None:
            yield ConfigError((*at, key), problem)
    if tenant.is_empty:
        yield ConfigError(at, f"the tenant {name} needs subjects, groups or claims, which say whom it serves")
    for secret in _SECRETS:
        yield from _duplicate_source(at, tenant, secret)
    yield from _extension_errors(at, tenant)
    keys = [tenant.caller_keys, tenant.profile is not None, _secret_source(tenant, "api_key") != _NO_SOURCE]
    if not any(keys):
        needed = "api_key_file, api_key_env, profile or caller_keys = true"
        yield ConfigError(at, f"the tenant {name} needs a key: {needed}")
    if tenant.caller_keys and sum(keys) > 1:
        yield ConfigError(
            (*at, "caller_keys"), "with caller_keys, callers bring their own keys: leave the other setting out"
        )
    if tenant.caller_keys and "webhook_url" in values:
        yield ConfigError((*at, "webhook_url"), _OF_ONE_ACCOUNT)


def _extension_errors(at: Key, tenant: Tenant) -> Iterator[ConfigError]:
    for extension, table in tenant.extensions.items():
        place: Key = (*at, EXTENSIONS, extension)
        if tenant.caller_keys:
            yield ConfigError(place, _OF_ONE_ACCOUNT)
        for secret in TENANT_SECTIONS.type_of(extension).secret_names():
            if secret in table:
                problem = f"{secret} must not be in this file: give {secret}_file or {secret}_env"
                yield ConfigError((*place, secret), problem)


def _place_in_extension(extension: str, setting: str) -> str:
    table = f"[tenant.{EXTENSIONS}.{extension}]"
    return f"the setting {setting} in {table}" if setting else table


def _key_problem(key: str) -> str | None:
    """Say why a key of a tenant cannot be a setting; None if it is one."""
    removed = key.removesuffix("_file").removesuffix("_env")
    if removed in REMOVED:
        return f"{key} was removed. {REMOVED[removed].rstrip('.')}"
    if removed in MOVED:
        return f"{key} is now {MOVED[removed].replace('[', '[tenant.')}{key.removeprefix(removed)}"
    if key in _SECRETS:
        return f"{key} must not be in this file: give {key}_file or {key}_env"
    if key not in SETTINGS:
        return f"there is no key {key!r} in [[tenant]]{nearest(key, [*Tenant.model_fields, *SETTINGS])}"
    return None


def _approvals_errors(team: Team, approvals: ApprovalsSection) -> Iterator[ConfigError]:
    at: Key = ("approvals",)
    if approvals.client_id is None:
        if approvals.model_fields_set != {"own"}:
            yield ConfigError(at, "[approvals] needs the key 'client_id': the client of the approval page")
        return
    mcp = urlsplit(team.url).path
    page = urlsplit(team.page_url or "").path
    if f"{mcp}/".startswith(f"{page}/") or any(f"{page}/".startswith(f"{taken}/") for taken in (mcp, *_RESERVED_PATHS)):
        yield ConfigError((*at, "url"), f"url: {page} is already used by this server")
    if _secret_source(approvals, "client_secret") == _NO_SOURCE:
        yield ConfigError(at, "[approvals] needs client_secret_file or client_secret_env")
    yield from _duplicate_source(at, approvals, "client_secret")
    known = sorted(team.with_keys())
    for number, rule in enumerate(approvals.approver):
        place: Key = (*at, "approver", number)
        if rule.is_empty:
            yield ConfigError(place, "an approver needs subjects, groups or claims")
        for name in rule.tenants or ():
            if name not in known:
                near = nearest(name, known)
                yield ConfigError((*place, "tenants"), f"tenants: there is no tenant {name!r} with a key{near}")


def _secret_source(table: BaseModel, name: str) -> tuple[str | None, str | None]:
    """Return the file and the variable of a secret, as far as the table names them."""
    return getattr(table, f"{name}_file"), getattr(table, f"{name}_env")


def _duplicate_source(at: Key, table: BaseModel, name: str) -> Iterator[ConfigError]:
    if None not in _secret_source(table, name):
        yield ConfigError((*at, f"{name}_env"), f"{name}_file and {name}_env are both given; leave one out")
