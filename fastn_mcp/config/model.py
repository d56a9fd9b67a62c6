"""Settings: one field each, with its sources, allowed values and description."""

import base64
import fnmatch
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationInfo,
)

from fastn_mcp.config.addresses import (
    PROXY_VARIABLES,
    callable_address,
    host_and_port,
    is_shared,
    plain_address,
    split_address,
)
from fastn_mcp.config.sections import EXTENSIONS, ChannelSection, Section, Tables
from fastn_mcp.errors import SettingsError, nearest
from fastn_mcp.tools.operation import Route

if TYPE_CHECKING:
    from fastn_mcp.config.strict_toml import TomlSource


KeyKind = Literal["live", "test", "unknown"]

TEST = "fsk_test_"
LIVE = "fsk_live_"


def kind_of(key: str) -> KeyKind:
    if key.startswith(TEST):
        return "test"
    return "live" if key.startswith(LIVE) else "unknown"


DEFAULT_BASE_URL = "https://live.fastn.ai"

TOOLSETS = (
    *("procedures", "customers", "connectors", "connections", "workflows", "triggers", "executions"),
    *("users", "roles", "api_keys", "secrets", "billing", "audit", "ai"),
)
"""Names that `tools` and `exclude_tools` take for all tools of a resource, and for the procedures."""

Mode = Literal["read-only", "guarded", "unattended"]

REMOVED_MODES = {
    "manual": 'write = "confirm"',
    "auto": 'external = "allow" and spend = "allow"',
}
"""Modes that were removed, and the defaults of a policy file that take their place in the mode guarded."""


REMOVED = {
    "notify_url": (
        "Give the URL of the service in notify, such as slack://… or workflows://… (docs/approving.md). For a signed"
        " POST to a receiver of your own, use webhook_url (docs/webhook.md)."
    ),
    "notify_secret": "Nothing that notify sends is signed. For a signed POST, use webhook_url (docs/webhook.md).",
    "notify_style": "Each URL in notify says which service it is for, such as slack://… or workflows://….",
    "remind_after": "Each request is notified once. Remove the setting.",
    "audit_max_mb": "The audit log is rotated at 64 MiB; remove the setting.",
    "audit_keep_files": "Set how long rotated audit logs are kept in audit_keep_days; remove the setting.",
    "audit_export": "Set audit_export in [extensions.telemetry], or FASTN_TELEMETRY_AUDIT_EXPORT.",
    "audit_export_seconds": "With fail-closed an entry may wait for 60 seconds; remove the setting.",
    "read_only": "Use the mode read-only instead: --mode read-only, FASTN_MODE=read-only.",
    "toolsets": "Name the toolsets in tools instead: --tools customers,billing.",
    "ai_deadline": "ai_chat and ai_build have 300 seconds, or those of deadline if that is more; remove the setting.",
    "concurrency": "At most 64 requests are under way at the same time; remove the setting.",
    "requests_per_answer": "An answer takes half of the requests that the rate limit leaves; remove the setting.",
}
"""Settings that were removed, and what to do instead. A start with one of them fails."""

MOVED = {
    "slack_app_token": "app_token in [extensions.slack]",
    "slack_bot_token": "bot_token in [extensions.slack]",
    "slack_channel": "channel in [extensions.slack]",
    "slack_url": "url in [extensions.slack]",
}
"""Settings of the file that are an extension's now. Their variables are as before."""

SHORTEST_SECRET = 32
"""Minimum length of a sealing secret, in characters."""

_MAX_TAIL = 4
"""Maximum number of characters of the key that are shown, provided that the key is long enough."""

_PASSWORD = re.compile(r"://[^:/?]*:([^/?]+)@")
"""Password in an Apprise URL, which need not be a URL by the standard."""

_SERVERS = ("valkey://", "valkeys://", "redis://", "rediss://")


def is_named(tool: str, toolset: str, name: str) -> bool:
    """Return whether a name in `tools` or `exclude_tools` selects a tool: it is its own, its toolset's or a pattern.

    Hyphens count as underscores.
    """
    name = name.replace("-", "_")
    return name == toolset or fnmatch.fnmatch(tool, name)


def is_token(text: str) -> bool:
    """Return whether a text can be a bearer token (RFC 6750) that is hard to guess."""
    return len(text) >= SHORTEST_SECRET and re.fullmatch(r"[A-Za-z0-9._~+/=-]+", text) is not None


def _parts(secret: str) -> list[str]:
    return [part.strip() for part in secret.split(",")] if secret else []


class Trait(Enum):
    """Property of a setting, besides type, description and bounds. A setting with `repr=False` is a secret."""

    FLAG = "flag"
    FILE = "file"
    """The setting is a path. In the configuration file, relative paths start at the file's folder."""
    ACCOUNT = "account"
    """The setting identifies the account of a key. Its variable must agree with the chosen profile."""
    PROCESS = "process"
    """The setting applies to the whole process, whatever its tenants."""


def _setting(default: Any, description: str, *traits: Trait, **more: Any) -> Any:
    return Field(
        default, description=description, json_schema_extra={"traits": [each.value for each in traits]}, **more
    )


_Traits = dict[str, list[str]]


# --- what the values have to be ----------------------------------------------------------------------------------


def _key(key: str) -> str:
    if not key:
        raise ValueError("is empty")
    if not all("!" <= letter <= "~" for letter in key):
        raise ValueError("holds a space, a line break or another character that no key has")
    if key[0] in "\"'`" or key[-1] in "\"'`":
        raise ValueError("is in quotes, which count as part of the value")
    if any(letter in "${}<>" for letter in key) or key.endswith("..."):
        raise ValueError("is a placeholder that was not replaced")
    if key.startswith("FASTN_API_KEY="):
        raise ValueError("begins with the name of its variable")
    return key


def _certificates(file: Path) -> Path:
    try:
        is_pem = b"-----BEGIN " in file.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    if not is_pem:
        raise ValueError("is not a file of certificates in PEM")
    return file


def _proxy(proxy: str) -> str | None:
    if proxy == "none":
        return None
    parts = split_address(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("is not http://HOST:PORT; write none to reach Fastn without one")
    return parts.geturl().rstrip("/")


def _header(value: str) -> str | None:
    if not all(" " <= letter <= "~" for letter in value):
        raise ValueError("holds a character that no header can have")
    return value or None


def _profile(name: str) -> str:
    if not 0 < len(name) <= 64 or not name.isprintable():
        raise ValueError("must be a name of at most 64 visible characters")
    return name


def _signing(secret: str) -> str:
    if secret.startswith("whsec_"):
        try:
            base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError:
            raise ValueError("begins with whsec_, and what follows is not base64") from None
    return secret


def _listen(address: str) -> str:
    host_and_port(address, lowest=0)
    return address


def _ledger(ledger: str, others: ValidationInfo) -> str:
    # The URL of a server is validated when it is opened.
    if not ledger.isprintable():
        raise ValueError("holds a line break or another character that no file and no URL has")
    servers = [*_SERVERS, *(f"{name}://" for name in others.data.get(EXTENSIONS, {}))]
    if is_shared(ledger) and not ledger.startswith(tuple(servers)):
        raise ValueError(f"is neither a file nor the URL of a server: {', '.join(servers)}")
    return ledger


def _bearer(token: str) -> str:
    if not is_token(token):
        raise ValueError(f"must be {SHORTEST_SECRET} characters or more: letters, digits and ._~+/=-")
    return token


def _sealing(secret: str) -> str:
    if any(len(part) < SHORTEST_SECRET for part in _parts(secret)):
        raise ValueError(f"must have {SHORTEST_SECRET} characters or more; a comma separates two such secrets")
    if len(set(_parts(secret))) < len(_parts(secret)):
        raise ValueError("has the same secret twice")
    return secret


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _listed_urls(value: object) -> object:
    """Split a text before each scheme, since a URL of Apprise can hold commas."""
    return _NEXT_URL.split(value.strip(" ,\n")) if isinstance(value, str) else value


def _apprise_urls(urls: list[str]) -> list[str]:
    for number, url in enumerate(urls, 1):
        if not _APPRISE_URL.fullmatch(url):
            raise ValueError(f"has a value that is not a URL such as slack://… (number {number})")
    return urls


def removed_mode(mode: object) -> str | None:
    """Say what takes the place of a mode that was removed; None if it was not."""
    if not isinstance(mode, str) or mode not in REMOVED_MODES:
        return None
    return f"names the mode {mode}, which was removed: add {REMOVED_MODES[mode]} to [defaults] of the policy file"


def _mode(mode: object) -> object:
    removed = removed_mode(mode)
    if removed is not None:
        raise ValueError(removed)
    return mode


def _routes(raw: dict[str, object]) -> dict[str, Route]:
    routes = {name: _route(name, text) for name, text in raw.items()}
    if not routes:
        return routes
    from fastn_mcp.tools.catalog import OPERATIONS  # a fifth of the startup time, only for the few with custom paths

    for tool, route in routes.items():
        operation = OPERATIONS.get(tool)
        if operation is None:
            raise ValueError(f"there is no tool {tool!r}{nearest(tool, OPERATIONS)}")
        if sorted(route.parameters) != sorted(operation.route.parameters):
            wanted = ", ".join(f"{{{name}}}" for name in operation.route.parameters) or "no {parameter}"
            raise ValueError(f"the path of {tool} must hold {wanted}")
    return routes


def _route(tool: str, text: object) -> Route:
    if isinstance(text, Route):
        return text
    method, _, path = str(text).partition(" ")
    if method not in ("GET", "POST", "PUT", "PATCH", "DELETE") or not path.startswith("/"):
        raise ValueError(f'{tool} is not "METHOD /path", for example "POST /api/v1/workflows/{{workflow_id}}/execute"')
    return Route(method, path)


def _resources(fields: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    resources = [name for name in TOOLSETS if name != "procedures"]
    for name in fields:
        if name not in resources:
            raise ValueError(f"there is no resource {name!r}{nearest(name, resources)}")
    return fields


_Url = Annotated[str, AfterValidator(lambda url: plain_address(url).rstrip("/"))]
# People copy /api/v1 along, although every path starts with it.
_BaseUrl = Annotated[_Url, AfterValidator(lambda url: url.removesuffix("/api/v1"))]
_Receiver = Annotated[str, AfterValidator(callable_address)]
_SigningSecret = Annotated[str, Field(min_length=SHORTEST_SECRET), AfterValidator(_signing)]
_HeaderValue = Annotated[str, AfterValidator(_header)]
_Names = Annotated[list[str] | None, BeforeValidator(_listed)]
_APPRISE_URL = re.compile(r"[A-Za-z0-9]{1,32}://\S+")
_NEXT_URL = re.compile(r"[,\s]+(?=[A-Za-z0-9]{1,32}://)")
_AppriseUrls = Annotated[list[str], BeforeValidator(_listed_urls), AfterValidator(_apprise_urls)]


class Settings(BaseModel):
    """All that can be set. The description of a field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True)

    extensions: dict[str, SerializeAsAny[Section]] = _setting(
        {}, "Settings of extensions, each in its own table: [extensions.slack]."
    )
    """Validated first, since `ledger` may name one of them."""
    api_key: Annotated[str, AfterValidator(_key)] = _setting(
        ..., "Fastn API key (dashboard: Settings > API keys). Keep it out of the files of a project.", repr=False
    )
    base_url: _BaseUrl = _setting(DEFAULT_BASE_URL, "Base URL of Fastn.", Trait.FLAG, Trait.ACCOUNT)
    dashboard_url: _Url | None = _setting(None, "URL of your dashboard, for links in answers.")
    auth: Literal["header", "bearer"] = _setting(
        "header", "header sends x-fastn-api-key, bearer sends Authorization: Bearer.", Trait.FLAG
    )
    test_mode: Literal["auto", "on", "off"] = _setting(
        "auto", "X-fastn-Test-Mode: auto sends it with keys that begin with fsk_test_."
    )
    ca_file: Annotated[Path, AfterValidator(_certificates)] | None = _setting(
        None, "File of more certificates to trust (PEM), for example a company's CA.", Trait.FILE
    )
    proxy: Annotated[str, AfterValidator(_proxy)] | None = _setting(
        None, "Proxy as http://HOST:PORT, or none; by default HTTPS_PROXY, except for NO_PROXY.", repr=False
    )
    space_id: _HeaderValue | None = _setting(None, "Sent as x-fastn-space-id.", Trait.ACCOUNT)
    tenant_id: _HeaderValue | None = _setting(None, "Sent as x-fastn-space-tenantid.", Trait.ACCOUNT)
    end_org_id: _HeaderValue | None = _setting(None, "Sent as x-end-org-id.", Trait.ACCOUNT)
    env: _HeaderValue | None = _setting(
        None, "Fastn environment, such as test or live; sent as x-fastn-env.", Trait.FLAG
    )
    profile: Annotated[str, AfterValidator(_profile)] = _setting(
        "default",
        "Account to use from the configuration file. Every result of a change names it.",
        Trait.FLAG,
        Trait.PROCESS,
    )
    mode: Annotated[Mode, BeforeValidator(_mode)] = _setting(
        "guarded", "Which calls need approval before they are sent (approvals.md).", Trait.FLAG
    )
    tools: _Names = _setting(
        None,
        f"Enable only these: names, patterns such as list_*, or toolsets ({', '.join(TOOLSETS)}).",
        Trait.FLAG,
    )
    exclude_tools: _Names = _setting(
        None,
        "Disable these, even when other tools call them; overrides tools: names, patterns such as delete_*, or"
        " toolsets.",
        Trait.FLAG,
    )
    update: Literal["merge", "partial"] = _setting(
        "merge", "merge reads, changes and sends the whole resource; partial sends only the named fields.", Trait.FLAG
    )
    policy: Path | None = _setting(
        None, "Policy file; by default policy.toml in your configuration folder.", Trait.FLAG, Trait.FILE
    )
    plan: Path | None = _setting(
        None, "Signed run plan, whose calls are made without asking (unattended.md).", Trait.FLAG, Trait.FILE
    )
    plan_keys: Path | None = _setting(
        None,
        "File of public keys of people who may sign plans; by default plan-keys.toml beside the policy.",
        Trait.FILE,
    )
    reveal: Literal["file", "result"] = _setting(
        "file", "Where a new API key is shown: in a file in your state folder, or in the result.", Trait.FLAG
    )
    secret_env: _Names = _setting(
        None, "Variables whose values create_secret may store, for example STRIPE_*,SHOP_TOKEN."
    )
    report: Path | None = _setting(
        None,
        "At the end, write a report of all changes to FILE as JSON, and a readable copy as FILE.md.",
        Trait.FLAG,
        Trait.FILE,
        Trait.PROCESS,
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "warning", "Lowest level that is logged.", Trait.FLAG, Trait.PROCESS
    )
    log_file: Path | None = _setting(
        None, "File for the log, instead of stderr.", Trait.FLAG, Trait.FILE, Trait.PROCESS
    )
    audit_keep_days: int | None = _setting(
        None, "Days for which rotated audit logs are kept; by default for ever. Rotates daily (audit-log.md).", ge=1
    )
    deadline: float = _setting(
        60.0,
        "Maximum seconds for one call, including retries; at least 300 for one of Fastn's AI.",
        Trait.FLAG,
        gt=0,
        le=600,
    )
    snapshot_seconds: int = _setting(
        90, "Seconds for which find, overviews and diagnoses reuse what was read; 0 reuses nothing.", ge=0, le=3600
    )
    approval_minutes: int = _setting(
        10,
        "Minutes within which an approval request must be answered and the approved call made.",
        Trait.FLAG,
        ge=1,
        le=1440,
    )
    approval_wait_seconds: int = _setting(
        45, "Seconds for which a call waits for the decision on its approval request; 0 does not wait.", ge=0, le=55
    )
    webhook_url: _Receiver | None = _setting(
        None, "URL to which approval requests are posted if no form can show them (webhook.md).", repr=False
    )
    webhook_secret: _SigningSecret | None = _setting(
        None, "Secret that signs what is posted to webhook_url; 32 characters or more.", repr=False
    )
    notify: _AppriseUrls | None = _setting(
        None,
        "Apprise URLs that are notified when a call waits for approval; the message decides nothing (approving.md).",
        repr=False,
    )
    approvers: Path | None = _setting(None, "File of approvers, each with a public key.", Trait.FILE)
    approval_listen: Annotated[str, AfterValidator(_listen)] | None = _setting(
        None,
        "HOST:PORT that receives webhook answers; by default any port of 127.0.0.1. Over HTTP they come to --http.",
        Trait.PROCESS,
    )
    approval_url: _Url | None = _setting(
        None, "Public address of approval_listen if it is behind a proxy.", Trait.PROCESS
    )
    ledger: Annotated[str, AfterValidator(_ledger)] | None = _setting(
        None,
        "Where approvals, budgets and the journal are kept: a file, or valkeys://HOST for replicas (shared-ledger.md).",
        Trait.PROCESS,
        repr=False,
    )
    http_token: Annotated[str, AfterValidator(_bearer)] | None = _setting(
        None,
        "Bearer token for --http on this machine, 32 characters or more; by default in a file in your state folder.",
        repr=False,
    )
    state_secret: Annotated[str, AfterValidator(_sealing)] | None = _setting(
        None,
        "Secret that seals open approval requests, so that any replica can continue them; 32 characters or more.",
        Trait.PROCESS,
        repr=False,
    )
    routes: Annotated[dict[str, Any], AfterValidator(_routes)] = _setting(
        {}, 'Paths that differ from the documented ones: run_workflow = "POST /api/v1/workflows/{workflow_id}/execute".'
    )
    fields: Annotated[dict[str, dict[str, Annotated[str, Field(min_length=1)]]], AfterValidator(_resources)] = _setting(
        {}, 'Names of fields that differ, by resource: customers = { id = "orgId" }.'
    )

    _place: Callable[[str], str] = PrivateAttr(default_factory=lambda: "The setting {}".format)
    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict[str, str])

    def with_origins(self, origins: Mapping[str, str], place: Callable[[str], str]) -> "Settings":
        """Set where settings come from, and what `error` calls them, such as a line in the file."""
        self._origins = origins
        self._place = place
        return self

    @property
    def origins(self) -> Mapping[str, str]:
        """Flag or variable of each setting that has one, or the file; of the key, its place for people."""
        return self._origins

    @property
    def key_place(self) -> str:
        """Place of the key, for people."""
        return self._origins.get("api_key", "")

    @property
    def proxy_from(self) -> str:
        """Variable that sets the proxy. FASTN_PROXY stands for the setting, wherever it was set."""
        origin = self._origins.get("proxy")
        return origin if origin in PROXY_VARIABLES else "FASTN_PROXY"

    def error(self, name: str, why: str) -> SettingsError:
        """Return the error for the value of a setting, with the place it comes from."""
        return SettingsError(f"{self._place(name)} is wrong: {why}.")

    @property
    def reads_only(self) -> bool:
        """Whether no changes are allowed."""
        return self.mode == "read-only"

    @property
    def toolsets(self) -> frozenset[str] | None:
        """The enabled toolsets; None if `tools` or `exclude_tools` has a name that is no toolset."""
        enabled = {name.replace("-", "_") for name in (TOOLSETS if self.tools is None else self.tools)}
        excluded = {name.replace("-", "_") for name in self.exclude_tools or ()}
        return frozenset(enabled - excluded) if enabled | excluded <= {*TOOLSETS} else None

    def disabled_by(self, name: str, toolset: str, *, reads: bool) -> str | None:
        """Return the setting that disables a tool; None if it is selected, not excluded, and permitted."""
        if any(is_named(name, toolset, each) for each in self.exclude_tools or ()):
            return "exclude_tools"
        if self.tools is not None and not any(is_named(name, toolset, each) for each in self.tools):
            return "tools"
        return "mode" if self.reads_only and not reads else None

    @property
    def shares(self) -> bool:
        """Whether processes on other machines use the same ledger."""
        return is_shared(self.ledger)

    @property
    def external_channels(self) -> list[str]:
        """Extensions that ask people for approvals."""
        return [name for name, section in self.extensions.items() if isinstance(section, ChannelSection)]

    @property
    def state_secrets(self) -> list[str]:
        """Sealing secret, followed by earlier ones that can still open what they sealed."""
        return _parts(self.state_secret or "")

    @property
    def secrets(self) -> list[str]:
        """Values that must never be logged."""
        urls = (self.proxy, self.ledger if self.shares else None)
        passwords = [urlsplit(url or "").password or "" for url in urls]
        notify = self.notify or []
        passwords += [found[1] for found in map(_PASSWORD.search, notify) if found]
        not_whole = ("ledger", "notify")  # an address, but for its password; a list
        whole = [getattr(self, name) for name in SECRETS if name not in not_whole] + notify
        whole += [secret for section in self.extensions.values() for secret in section.secrets]
        return [secret for secret in (*whole, *passwords, *map(unquote, passwords), *self.state_secrets) if secret]

    @property
    def host(self) -> str:
        """Host and port, as shown with the account in results."""
        return urlsplit(self.base_url).netloc

    @property
    def key_kind(self) -> KeyKind:
        return kind_of(self.api_key)

    @property
    def identity(self) -> dict[str, str]:
        """What tells this account from others, for results: profile, host, environment, the last letters of its key."""
        tail = self.api_key[-_MAX_TAIL:] if len(self.api_key) >= 4 * _MAX_TAIL else ""
        identity = {"profile": self.profile, "host": self.host, "environment": self.env, "key_ends": tail}
        return {name: item for name, item in identity.items() if item}


@dataclass(frozen=True, slots=True)
class Source:
    """Source of a setting, besides the file. A key has no flag because every process can see flags."""

    field: str
    variable: str
    flag: str | None


class KeySettings(BaseModel):
    """Settings of a key that only the file can contain."""

    api_key_env: str = _setting(..., "Variable that holds the key of this account.")
    api_key_file: Path = _setting(
        ..., "File that holds the key of this account, which only its owner can read.", Trait.FILE
    )
    api_key_host: str = _setting(..., "Only host to send this key to; by default the host of base_url in the file.")


def settings_with(trait: Trait) -> tuple[str, ...]:
    fields = Settings.model_fields | KeySettings.model_fields
    return tuple(
        name for name, field in fields.items() if trait.value in cast(_Traits, field.json_schema_extra)["traits"]
    )


_FLAGS = settings_with(Trait.FLAG)

SOURCES = tuple(
    Source(field, "FASTN_" + field.upper(), "--" + field.replace("_", "-") if field in _FLAGS else None)
    for field in Settings.model_fields
    if field not in ("routes", "fields", EXTENSIONS)
)

OF_THE_PROCESS = ("FASTN_CONFIG", "FASTN_CONFIG_DIR", "FASTN_STATE_DIR", "FASTN_HTTP")
"""Variables that are not settings of an account."""

KEY_SETTINGS = ("api_key", "api_key_env", "api_key_file")
"""Settings in the file that specify a key: the key itself, its variable, or its file."""

KEY_HOST = "api_key_host"
"""Host that the key beside it is bound to. Defaults to the host of the address in the file."""

SECRETS = tuple(name for name, field in Settings.model_fields.items() if not field.repr)

PROFILES = "profiles"
"""Table of the file with one subtable for each account."""


@dataclass(frozen=True)
class ConfigFile:
    """Contents of a configuration file: settings for all accounts, and for each profile, which override them."""

    path: Path | None = None
    top: Mapping[str, object] = field(default_factory=dict[str, object])
    profiles: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])
    source: "TomlSource | None" = None
    permissions: int = 0
    """Mode bits of the file."""

    @property
    def text(self) -> str:
        return "" if self.source is None else self.source.data.decode()

    def table(self, profile: str | None) -> Mapping[str, object]:
        """Return the table of a profile; None is the top level."""
        return self.top if profile is None else self.profiles[profile]

    def no_profile(self, name: str, where: str = "") -> SettingsError:
        """Return the error for a name that is none of the profiles."""
        if kind_of(name) != "unknown":
            return SettingsError(
                "That is a key, not the name of a profile: other users can read a command line, and the shell records"
                " it.",
                "Revoke the key in the Fastn dashboard, and give a new one only where login asks for it.",
            )
        known = f"Known: {', '.join(self.profiles)}."
        if not self.profiles:
            known = f"{self.path or 'The configuration file'} has no profiles."
        what = f"{where}There is no profile {name[:64]!r}{nearest(name, self.profiles)}. {known}"
        return SettingsError(what, f"Correct the name, or add it: fastn-mcp login {shlex.quote(name[:64])}")

    def line(self, *at: str) -> str:
        """Return file and line of a key, as messages name it."""
        return f"{self.path}, line {1 if self.source is None else self.source.line(at)}"

    def tables_of_extensions(self, profile: str | None) -> Tables:
        """Return the tables of extensions for a profile, whose own replace those at the top level."""
        own = self.table(profile).get(EXTENSIONS, {})
        return {**cast(Tables, self.top.get(EXTENSIONS, {})), **cast(Tables, own)}

    def place_in_extension(self, extension: str, setting: str, profile: str | None) -> str:
        """Say where the table of an extension is, or a setting in it. An empty `setting` stands for the table."""
        at = [EXTENSIONS, extension]
        if profile is not None and extension in cast(Tables, self.table(profile).get(EXTENSIONS, {})):
            at = [PROFILES, profile, *at]
        table = f"[{'.'.join(at)}]"
        if not setting:
            return f"{self.line(*at)}: {table}"
        return f"{self.line(*at, setting)}: the setting {setting} in {table}"

    def line_of(self, name: str, profile: str | None) -> str:
        """Return file and line of a setting in the table of a profile."""
        return self.line(*(() if profile is None else (PROFILES, profile)), name)
