"""Load the team file: strict TOML. Anything wrong in it stops the start."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fastn_mcp.config.addresses import plain_address
from fastn_mcp.config.model import Settings, Trait, settings_with
from fastn_mcp.config.strict_toml import ONE_OR_MORE, STRICT, ConfigError, Key, TomlSource, load, read, validate
from fastn_mcp.errors import nearest
from fastn_mcp.hosted.inbox import ALL, Approvals, ApproverRule
from fastn_mcp.hosted.team_config import SECRETS, Match, Pattern, SecretRef, Team, TeamLimits, Tenant, origin_of
from fastn_mcp.hosted.tokens import ALGORITHMS, Trust

_KIND = "team file"
_SEE = "See docs/hosting.md."

SETTINGS = sorted(Settings.model_fields.keys() - {*SECRETS, *settings_with(Trait.PROCESS)})
"""What a tenant can set. The process has one log and one ledger; answers of approvers come to the server itself."""

_TAKEN = ("/healthz", "/readyz", "/tenants", "/.well-known")
_FILES = settings_with(Trait.FILE)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_HOST = re.compile(r"[a-z0-9.-]+(:\d{1,5})?|\[[0-9a-f:]+\](:\d{1,5})?")


def load_team(path: Path) -> Team:
    """What the file says. Raises `SettingsError`, which names the file, the line, the key and the nearest known one."""
    data, _ = read(path, _KIND, "Correct --team.")
    folder = path.absolute().parent
    return load(data, path, _KIND, lambda table, source: _built(table, source, folder), _SEE)


def _resource(url: str) -> str:
    if not urlsplit(plain_address(url)).path.strip("/") or url.endswith("/"):
        raise ValueError("must have a path, and no slash at its end, as in https://fastn-mcp.example.com/mcp")
    return url


def _host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is not an exact host, as in fastn-mcp.example.com or 10.0.0.7:8080")
    return host


def _origin(origin: str) -> str:
    if urlsplit(origin).scheme not in ("http", "https") or origin != origin_of(origin) or "*" in origin:
        raise ValueError(f"{origin!r} is not an exact origin, as in https://app.example.com")
    return origin


def _algorithm(name: str) -> str:
    if name not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {name!r}{nearest(name, ALGORITHMS)}; use any of {', '.join(ALGORITHMS)}")
    return name


def _glob(text: str) -> str:
    if not text.strip():
        raise ValueError("must be a non-empty text")
    return text


def _some(values: list[str]) -> list[str]:
    if not values:
        raise ValueError("must not be empty")
    return values


_Texts = Annotated[list[Annotated[str, AfterValidator(_glob)]], ONE_OR_MORE, AfterValidator(_some)]


_DEFAULT = TeamLimits()


class _TeamTable(BaseModel):
    model_config = STRICT


class _Limits(_TeamTable):
    body_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = _DEFAULT.body
    header_bytes: Annotated[int, Field(ge=1024, le=65_536)] = _DEFAULT.head
    connections: Annotated[int, Field(ge=1, le=100_000)] = _DEFAULT.connections
    calls: Annotated[int, Field(ge=1, le=1000)] = _DEFAULT.calls
    queue: Annotated[int, Field(ge=0, le=10_000)] = _DEFAULT.queue
    queue_seconds: Annotated[float, Field(ge=0, le=300)] = _DEFAULT.patience
    tenants: Annotated[int, Field(ge=1, le=10_000)] = _DEFAULT.tenants
    idle_seconds: Annotated[float, Field(ge=1, le=86_400)] = _DEFAULT.idle
    drain_seconds: Annotated[float, Field(ge=0, le=300)] = _DEFAULT.drain
    grace_seconds: Annotated[float, Field(ge=0, le=600)] = _DEFAULT.grace

    def bounds(self) -> TeamLimits:
        return TeamLimits(
            self.body_bytes, self.header_bytes, self.connections, self.calls, self.queue, self.queue_seconds,
            self.tenants, self.idle_seconds, self.drain_seconds, self.grace_seconds,
        )  # fmt: skip


class _Tenant(_TeamTable):
    model_config = ConfigDict(extra="allow")  # settings, checked below

    name: str
    subjects: _Texts | None = None
    groups: _Texts | None = None
    claims: dict[str, _Texts] = {}
    caller_keys: bool = False
    profile: str | None = None
    api_key_file: str | None = None
    api_key_env: str | None = None
    webhook_secret_file: str | None = None
    webhook_secret_env: str | None = None


class _Approver(_TeamTable):
    subjects: _Texts | None = None
    groups: _Texts | None = None
    claims: dict[str, _Texts] = {}
    tenants: _Texts | None = None
    effects: _Texts | None = None


class _Approvals(_TeamTable):
    client_id: Annotated[str, AfterValidator(_glob)]
    client_secret_file: str | None = None
    client_secret_env: str | None = None
    url: Annotated[str, AfterValidator(_resource)] | None = None
    scopes: Annotated[list[str], ONE_OR_MORE, AfterValidator(_some)] = ["openid", "profile"]
    own: bool = True
    session_minutes: Annotated[float, Field(ge=1, le=720)] = 60.0
    approver: list[_Approver] = []


class _TeamForm(_TeamTable):
    url: Annotated[str, AfterValidator(_resource)]
    issuer: Annotated[str, AfterValidator(plain_address)]
    audience: str | None = None
    hosts: Annotated[list[Annotated[str, AfterValidator(_host)]], ONE_OR_MORE, AfterValidator(_some)] | None = None
    origins: Annotated[list[Annotated[str, AfterValidator(_origin)]], ONE_OR_MORE] = []
    algorithms: Annotated[list[Annotated[str, AfterValidator(_algorithm)]], ONE_OR_MORE, AfterValidator(_some)] = list(
        ALGORITHMS
    )
    groups_claim: str = "groups"
    leeway_seconds: Annotated[float, Field(ge=0, le=120)] = 30.0
    limits: _Limits = _Limits()
    approvals: _Approvals | None = None
    tenant: list[_Tenant]


def _built(table: Mapping[str, Any], source: TomlSource, folder: Path) -> Team:
    form = validate(_TeamForm, table, source)
    tenants = tuple(_tenant(number, entry, folder) for number, entry in enumerate(form.tenant))
    if not tenants:
        raise ConfigError(("tenant",), "it has no [[tenant]]")
    names = [tenant.name for tenant in tenants]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError(("tenant", number, "name"), f"there are two tenants {name}")
    trust = Trust(form.issuer, form.audience or form.url, form.url, tuple(form.algorithms), form.leeway_seconds)
    approvals = None if form.approvals is None else _approvals(form.approvals, form.url, tenants, folder)
    # The page may have a host of its own.
    served = [urlsplit(url).netloc for url in (form.url, *([] if approvals is None else [approvals.url]))]
    return Team(
        url=form.url,
        trust=trust,
        hosts=tuple(form.hosts or dict.fromkeys(served)),
        origins=tuple(form.origins),
        groups_claim=form.groups_claim,
        bounds=form.limits.bounds(),
        tenants=tenants,
        approvals=approvals,
    )


def _approvals(form: _Approvals, url: str, tenants: tuple[Tenant, ...], folder: Path) -> Approvals:
    at = ("approvals",)
    base = urlsplit(url)
    page = form.url or f"{origin_of(url)}/approvals"
    path = urlsplit(page).path
    if any(path == taken or path.startswith(f"{taken}/") for taken in (base.path, *_TAKEN)) or base.path.startswith(
        f"{path}/"
    ):
        raise ConfigError((*at, "url"), f"url: {path} is already used by this server")
    if "openid" not in form.scopes:
        raise ConfigError((*at, "scopes"), "scopes: must include openid, which tells who signed in")
    if (secret := _kept(at, form, "client_secret", folder)) is None:
        raise ConfigError(at, "[approvals] needs client_secret_file or client_secret_env")
    known = [tenant.name for tenant in tenants if not tenant.caller_keys]
    for number, tenant in enumerate(tenants):
        if "webhook_url" in tenant.values:
            # One person could be an approver of each, and count as two.
            raise ConfigError(("tenant", number, "webhook_url"), "webhook_url: with [approvals] there is no webhook")
    rules = tuple(_rule(number, entry, known) for number, entry in enumerate(form.approver))
    return Approvals(page, form.client_id, secret, tuple(form.scopes), form.own, form.session_minutes * 60, rules)


def _rule(number: int, form: _Approver, known: list[str]) -> ApproverRule:
    at = ("approvals", "approver", number)
    match = _match(at, form, "an approver needs subjects, groups or claims: who it is")
    for name in form.tenants or ():
        if name not in known:
            raise ConfigError(
                (*at, "tenants"), f"tenants: there is no tenant {name!r} with a key{nearest(name, known)}"
            )
    effects = frozenset(effect.lower() for effect in form.effects or ALL)
    if not effects <= ALL:
        raise ConfigError(
            (*at, "effects"), f"effects: use some of {' '.join(sorted(effect.upper() for effect in ALL))}"
        )
    return ApproverRule(match, frozenset(form.tenants or known), effects)


def _match(at: Key, form: "_Tenant | _Approver", nobody: str) -> Match:
    match = Match(
        frozenset(form.subjects or ()),
        tuple(map(Pattern, form.groups or ())),
        {name: tuple(map(Pattern, wanted)) for name, wanted in form.claims.items()},
    )
    if not (match.subjects or match.groups or match.claims):
        raise ConfigError(at, nobody)
    if any("*" in subject for subject in match.subjects):
        raise ConfigError((*at, "subjects"), 'subjects: they are exact; for a pattern, give claims = { sub = "..." }')
    return match


def _tenant(number: int, form: _Tenant, folder: Path) -> Tenant:
    at = ("tenant", number)
    if not _NAME.fullmatch(form.name):
        raise ConfigError((*at, "name"), "name: at most 32 small letters, digits and -, since it names a folder")
    match = _match(at, form, f"the tenant {form.name} needs subjects, groups or claims: whom it serves")
    values = _settings(at, form, folder)
    secrets = {name: kept for name in SECRETS if (kept := _kept(at, form, name, folder)) is not None}
    _keyed(at, form, secrets, values)
    return Tenant(form.name, match, form.caller_keys, form.profile, values, secrets)


def _settings(at: Key, form: _Tenant, folder: Path) -> dict[str, object]:
    values: dict[str, object] = dict(form.model_extra or {})
    for key in values:
        if key in SECRETS:
            raise ConfigError((*at, key), f"{key} must not be in this file: give {key}_file or {key}_env")
        if key not in SETTINGS:
            known = [*_Tenant.model_fields, *SETTINGS]
            raise ConfigError((*at, key), f"there is no key {key!r} in [[tenant]]{nearest(key, known)}")
    for key in _FILES:
        if isinstance(value := values.get(key), str):
            values[key] = folder / value  # never the working directory
    return values


def _keyed(at: Key, form: _Tenant, secrets: Mapping[str, SecretRef], values: Mapping[str, object]) -> None:
    """Raises `ConfigError` where no key is known to come from anywhere, or from two places."""
    keys = [form.caller_keys, form.profile is not None, "api_key" in secrets]
    if sum(keys) == 0:
        raise ConfigError(
            at, f"the tenant {form.name} needs a key: api_key_file, api_key_env, profile or caller_keys = true"
        )
    if form.caller_keys and sum(keys) > 1:
        raise ConfigError((*at, "caller_keys"), "with caller_keys the callers bring the keys: leave the other out")
    if form.caller_keys and "webhook_url" in values:
        raise ConfigError((*at, "webhook_url"), "with caller_keys there is no webhook: approvers are of one account")


def _kept(at: Key, form: "_Approvals | _Tenant", name: str, folder: Path) -> SecretRef | None:
    file: str | None = getattr(form, f"{name}_file")
    variable: str | None = getattr(form, f"{name}_env")
    if file is None and variable is None:
        return None
    if file is not None and variable is not None:
        raise ConfigError((*at, f"{name}_env"), f"{name}_file and {name}_env are both given; leave one out")
    return SecretRef(None if file is None else folder / file, variable)
