"""Open an extension: a module of its package, imported by name once a setting or a command asks for it.

The core imports no extension, and works without any. What a module of an extension has to offer is its door, a Protocol
below. Of any extension, also of somebody else's: `settings` for its table in the configuration file, `checks` for
doctor, `channel` if it asks people, `store` if it keeps the ledger, `command` if the program has a command of its name.
Of one of ours: `server` of the sandbox, `start` of telemetry, `team_config` and `serve` of a team's server.
"""

import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fastn_mcp import install_extra
from fastn_mcp.config.sections import EXTENSIONS, ChannelSection, Section, SectionReader
from fastn_mcp.errors import SettingsError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import click
    from mcp.server import Server

    from fastn_mcp.audit.outbox import Outbox
    from fastn_mcp.build.check import Check
    from fastn_mcp.channels.approvers import ApproverAnswers
    from fastn_mcp.channels.external import ExternalChannel, Handle
    from fastn_mcp.client.exchange import Exchange
    from fastn_mcp.config.model import ConfigFile, Settings
    from fastn_mcp.guard.approval.votes import Record
    from fastn_mcp.ledger.store import Store
    from fastn_mcp.policy.decision import StepUp
    from fastn_mcp.runtime import System
    from fastn_mcp.server.log import JsonLines

log = logging.getLogger(__name__)

PACKAGE = "fastn_mcp.extensions"

OWN = ("doctor", "install", "sandbox", "slack", "team", "telemetry", "valkey")
"""Extensions of this project. Any other is somebody else's, and found by its entry point."""

ENTRY_POINTS = "fastn_mcp.extensions"
"""Group of the entry points by which packages of others name their extensions: NAME = "PACKAGE"."""

_EXTRAS = {"slack": "slack", "telemetry": "otel", "valkey": "valkey"}
"""Extras of this package with the libraries of an extension."""


class MissingExtension(SettingsError):
    """What was asked for belongs to an extension that is not installed, or whose libraries are not."""


def opened(extension: str, module: str, wanted: str) -> Any:
    """Import a module of an extension. `wanted` says what needs it.

    Raises `MissingExtension` if there is no such extension or module, or a library of it is missing.
    """
    package = _package(extension, wanted)
    try:
        return import_module(f"{package}.{module}")
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing in (PACKAGE, package):
            what = f"{wanted}, but the package {package} is not installed."
            raise MissingExtension(what, "Install this program with all its packages.") from None
        if extension not in OWN:
            what = f"{wanted}, but the module {missing} of the extension {extension} is missing."
            raise MissingExtension(what, "Tell its makers.") from None
        if missing.startswith("fastn_mcp") or extension not in _EXTRAS:
            raise
        what = f"{wanted}, but the library for it is not installed."
        raise MissingExtension(what, f"Run: {install_extra(_EXTRAS[extension])}") from None


def _package(extension: str, wanted: str) -> str:
    """Return the package of an extension. Somebody else's is only looked up once the owner's file has its table."""
    if extension in OWN:
        return f"{PACKAGE}.{extension}"
    return _entry_point(extension, wanted).value


def _named_in_file(extension: str) -> str:
    return f"[{EXTENSIONS}.{extension}] is in the configuration file"


def _entry_point(extension: str, wanted: str) -> "EntryPoint":
    from importlib.metadata import entry_points  # deferred import: a scan of what is installed

    found = list(entry_points(group=ENTRY_POINTS, name=extension))
    if not found:
        known = sorted({*OWN, *entry_points(group=ENTRY_POINTS).names})
        what = f"{wanted}, but no extension of this name is installed{nearest(extension, known)}."
        raise MissingExtension(what, "Install its package beside fastn-mcp, or remove its table.")
    if len(found) > 1:
        packages = " and ".join(sorted(each.value for each in found))
        raise MissingExtension(f"{wanted}, but several are installed: {packages}.", "Uninstall all but one.")
    return found[0]


@dataclass(frozen=True, slots=True)
class ForeignExtension:
    """An extension of somebody else, which acts beside the key."""

    name: str
    distribution: str
    """Name and version of the distribution that it came with."""


def foreign_in(settings: "Settings") -> list[ForeignExtension]:
    """Return the extensions of others that an account uses. Raises `SettingsError` if one is not installed."""
    foreign: list[ForeignExtension] = []
    for name in settings.extensions:
        if name not in OWN:
            distribution = _entry_point(name, _named_in_file(name)).dist
            known = f"{distribution.name} {distribution.version}" if distribution else "an unknown distribution"
            foreign.append(ForeignExtension(name, known))
    return foreign


# --- commands --------------------------------------------------------------------------------------------------------


class CommandDoor(Protocol):
    command: "click.Command"
    """Gets the options before it as its object, `fastn_mcp.cli.start_options.StartOptions`."""


def commands_of_others(file: "ConfigFile") -> "dict[str, click.Command]":
    """Return the commands of the extensions of others that a configuration file names. Raises `SettingsError`."""
    commands: dict[str, click.Command] = {}
    for extension in file.tables_of_extensions(None):
        if extension not in OWN and _has_module(extension, "command"):
            door: CommandDoor = opened(extension, "command", f"{extension} is a command of an extension")
            commands[extension] = door.command
    return commands


def _has_module(extension: str, module: str) -> bool:
    package = _package(extension, _named_in_file(extension))
    try:
        return find_spec(f"{package}.{module}") is not None
    except ModuleNotFoundError:  # of the package itself
        return False


# --- settings --------------------------------------------------------------------------------------------------------


class SettingsDoor(Protocol):
    section: type[Section]
    """Settings of the extension."""


def _section_of(extension: str) -> type[Section]:
    own = f"Settings of the extension {extension} are given"
    door: SettingsDoor = opened(extension, "settings", own if extension in OWN else _named_in_file(extension))
    return door.section


_WITH_SETTINGS = ("slack", "telemetry")

SECTIONS = SectionReader(_section_of, with_variables=_WITH_SETTINGS)
"""Reads the settings of extensions for one account, from the owner's own file and environment."""

PROCESS_SECTIONS = replace(SECTIONS, with_variables=("telemetry",))
"""Reads the settings of extensions for a process of several accounts, from the owner's own file and environment."""


def _section_of_tenant(extension: str) -> type[Section]:
    """Return the type of the settings that a tenant may have: of a channel of this project.

    What a tenant names must not run as somebody else's code.
    """
    section = _section_of(extension) if extension in OWN else Section
    if not issubclass(section, ChannelSection):
        raise SettingsError(f"A tenant has no settings of the extension {extension}.", "Remove the table.")
    return section


TENANT_SECTIONS = SectionReader(_section_of_tenant)
"""Reads the settings of extensions for a tenant, from the team file. Their variables are not read."""


# --- approval channels -----------------------------------------------------------------------------------------------

HandlerOf = Callable[[str], AbstractAsyncContextManager["Handle | None"]]
"""Opens the account of a tenant by name; None if nothing is decided there."""


@dataclass(frozen=True, slots=True)
class ChannelOpening:
    """What an account gives to the channel of an extension."""

    answers: "ApproverAnswers"
    """Counts the answers of people whom the channel tells apart."""
    record: "Record"
    """Records in the audit log what somebody decides whom the channel does not tell apart (`count_vote`)."""
    issuer: str | None
    """Identity provider of a team, whose people decide."""
    tenant: str
    follow: Callable[[str], None]
    """Called with the id of a request whose messages may be old."""
    only: bool
    """Whether no other channel of the account tells people apart."""


class Receiver(Protocol):
    """Connection to a service, which delivers answers for several accounts."""

    def begin(self) -> None: ...

    async def aclose(self) -> None: ...


class ChannelDoor(Protocol):
    def check_settings(self, settings: "Settings", issuer: str | None) -> object:
        """Raise `SettingsError` if the settings of the channel are incomplete, or nobody can decide there."""
        ...

    def open_channel(self, settings: "Settings", opening: ChannelOpening) -> "ExternalChannel": ...

    def receivers(self, accounts: Mapping[str, "Settings"], handler_of: HandlerOf) -> Iterable[Receiver]:
        """Yield a connection for each service that these accounts, by tenant, use. None has begun."""
        ...


def channel_door(extension: str) -> ChannelDoor:
    return opened(extension, "channel", f"{extension.capitalize()} is set up")


# --- where the ledger is kept ----------------------------------------------------------------------------------------


class StoreDoor(Protocol):
    def open_store(self, url: str, system: "System") -> "Store":
        """Return the store at an address, not yet connected. Raises `ValueError` if the address is invalid."""
        ...


class StoreChecks(Protocol):
    def shown(self, url: str) -> str:
        """Return the address without its password."""
        ...

    def weakness(self, url: str) -> str | None:
        """Say what is unsafe about the address, as two sentences: what, and what to do. None if nothing is."""
        ...

    async def check_store(self, store: "Store", now: float) -> "list[Check]":
        """Check how a store that can be reached keeps its data, and its clock."""
        ...


_VALKEY_SCHEMES = ("valkey", "valkeys", "redis", "rediss")


def _store_extension(url: str) -> str:
    scheme = url.partition("://")[0]
    return "valkey" if scheme in _VALKEY_SCHEMES else scheme


def store_door(url: str) -> StoreDoor:
    return opened(_store_extension(url), "store", "The setting ledger names a server")


def store_checks(url: str) -> StoreChecks:
    return opened(_store_extension(url), "checks", "The setting ledger names a server")


# --- the sandbox -----------------------------------------------------------------------------------------------------


class SandboxDoor(Protocol):
    def exchanges(self, now: Callable[[], datetime], file: Path | None) -> "Callable[[Mapping[str, str]], Exchange]":
        """Return a factory of exchanges with one simulated account, by the headers that each sends."""
        ...


def sandbox_door() -> SandboxDoor:
    return opened("sandbox", "server", "The sandbox is to be used")


# --- telemetry -------------------------------------------------------------------------------------------------------

_COLLECTOR = re.compile("OTEL_EXPORTER_OTLP_([A-Z]+_)?ENDPOINT")

AtTheEnd = Callable[[Callable[[], None]], object]
"""Registers what is called when the process ends."""


class Telemetry(Protocol):
    """Spans and metrics of a process."""

    def of_account(self, system: "System", profile: str) -> "System":
        """Return the clock and randomness of an account, with its spans."""
        ...

    def observe(self, server: "Server[Any]") -> None:
        """Add a middleware for spans and metrics to a server."""
        ...


class TelemetryDoor(Protocol):
    def begin(self, environment: Mapping[str, str], lines: "JsonLines", at_the_end: AtTheEnd) -> Telemetry | None:
        """Start sending telemetry. Returns None if there is no collector or the exporter cannot be set up."""
        ...

    def audit_outboxes(
        self, settings: "Settings", state: Path, environment: Mapping[str, str], at_the_end: AtTheEnd
    ) -> "Callable[[Path], Outbox] | None":
        """Start exporting the audit logs in the folder `state`, if that is set, and return the outboxes of logs.

        Raises `SettingsError` if there is nowhere to export to.
        """
        ...


def begin_telemetry(environment: Mapping[str, str], lines: "JsonLines", at_the_end: AtTheEnd) -> Telemetry | None:
    """Start sending telemetry if a collector is named. A missing extension or library is logged only.

    Clients pass their own variables on to the servers that they start, so none of these stops a start.
    """
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    has_collector = any(_COLLECTOR.fullmatch(name) and value.strip() for name, value in environment.items())
    if is_disabled or not has_collector:
        return None
    try:
        door: TelemetryDoor = opened("telemetry", "start", "A collector is set")
    except MissingExtension as error:
        log.warning("no telemetry is sent: %s", error)
        return None
    return door.begin(environment, lines, at_the_end)


def audit_outboxes(
    settings: "Settings", state: Path, environment: Mapping[str, str], at_the_end: AtTheEnd
) -> "Callable[[Path], Outbox] | None":
    """Start exporting the audit logs in the folder `state`, if that is set. Raises `SettingsError`."""
    if "telemetry" not in settings.extensions:
        return None
    door: TelemetryDoor = opened("telemetry", "start", "Telemetry is set up")
    return door.audit_outboxes(settings, state, environment, at_the_end)


# --- checks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckedAccount:
    """An account whose extensions are checked."""

    settings: "Settings"
    issuer: str | None
    """Identity provider of a team, whose people decide."""
    audit_logs: Iterable[Path]
    now: datetime


class ExtensionChecks(Protocol):
    async def check(self, account: CheckedAccount) -> "list[Check]":
        """Check what the settings of the extension say, without a message to anybody. Raises `SettingsError`."""
        ...


def extension_checks(extension: str) -> ExtensionChecks:
    return opened(extension, "checks", f"The extension {extension} is set up")


# --- a team's server -------------------------------------------------------------------------------------------------


class TeamFile(Protocol):
    """What the policy's commands read in a team file."""

    @property
    def approver_rules(self) -> list[Any]: ...

    @property
    def step_up(self) -> "StepUp | None": ...


class TeamFileDoor(Protocol):
    def load_team(self, path: Path) -> TeamFile:
        """Load a team file. Raises `SettingsError`."""
        ...


class TeamServer(Protocol):
    def serve(
        self,
        file: Path,
        address: str,
        flags: Mapping[str, object],
        config: Path | None,
        state: Path,
        *,
        sandboxed: bool,
    ) -> None:
        """Serve a team at `HOST:PORT` until stopped by a signal. Raises `SettingsError` if it cannot start."""
        ...


class TeamChecks(Protocol):
    """Checks of a team's server, where a replica of it runs."""

    host: str
    """Host of its public address."""
    issuer: str
    """Its identity provider."""
    shared: "Settings"
    """Settings of the process, which all tenants share."""

    @property
    def sent(self) -> int:
        """Number of requests that were sent."""
        ...

    def check_settings(self) -> "Iterable[Check]":
        """Check what the team file says, and the secrets of the process."""
        ...

    def accounts(self) -> "Iterable[tuple[str, Settings]]":
        """Yield each tenant that can be served, by name, with its settings."""
        ...

    def check_keys(self) -> "AsyncIterator[Check]":
        """Make one read with the key of each tenant, unless its callers bring their own."""
        ...

    def check_provider(self) -> "AsyncIterator[Check]":
        """Check the identity provider, and the access token if there is one."""
        ...

    def check_public(self) -> "AsyncIterator[Check]":
        """Check the public address."""
        ...

    async def aclose(self) -> None: ...


class TeamChecksDoor(Protocol):
    def open_checks(
        self,
        file: Path,
        config: Path | None,
        state: Path,
        *,
        token: str | None,
        url: str | None,
        sandboxed: bool,
    ) -> TeamChecks:
        """Read a team file to check its server, by default at the `url` of the file. Raises `SettingsError`.

        `token` is an access token to try.
        """
        ...


def team_checks() -> TeamChecksDoor:
    return opened("team", "checks", "A team file is named")


def load_team(file: Path) -> TeamFile:
    door: TeamFileDoor = opened("team", "team_config", "A team file is named")
    return door.load_team(file)


def team_server() -> TeamServer:
    return opened("team", "serve", "A team file is named")
