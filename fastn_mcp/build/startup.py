"""What a process starts with: settings, folders and command line, the early handshake, what its accounts share."""

import errno
import os
import socket
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from fastn_mcp.build.extensions import SECTIONS
from fastn_mcp.config.addresses import host_and_port
from fastn_mcp.config.command_line import PROGRAM, CommandLine, this_program
from fastn_mcp.config.keys import Key
from fastn_mcp.config.load import choose, load, read_file
from fastn_mcp.config.model import TOOLSETS, Settings, Trait, is_named, settings_with
from fastn_mcp.config.paths import config_dir, create_secret, read_private, state_dir
from fastn_mcp.errors import SettingsError, nearest
from fastn_mcp.runtime import System
from fastn_mcp.server.handshake import Introduction

if TYPE_CHECKING:
    from fastn_mcp.audit.outbox import Outbox
    from fastn_mcp.build.extensions import Telemetry
    from fastn_mcp.guard.channel import Channel
    from fastn_mcp.guard.seal import Seal
    from fastn_mcp.ledger.ledger import Ledger
    from fastn_mcp.report.collector import Tally

SANDBOX_KEY = "fsk_test_sandbox"

SANDBOX_SETTINGS = {"base_url": "http://localhost", "profile": "sandbox", "auth": "header", "test_mode": "auto"}
"""The sandbox is a separate account: these settings and its key never come from the environment or a profile."""

_FILE_OPTIONS = {"config", "sandbox_file", *settings_with(Trait.FILE)}
"""Options that name a file. Printed commands use absolute paths, since they may be run in another folder."""

_ACCOUNT_OPTIONS = {"sandbox", "sandbox_file", "config", "profile", "base_url", "env", "policy"}
"""Options that select the account, the folder of its approvals, or the policy."""


def state_of(environment: Mapping[str, str], *, sandboxed: bool) -> Path:
    """Folder of approvals and the audit log. The sandbox has its own."""
    return state_dir(environment) / "sandbox" if sandboxed else state_dir(environment)


def options_of(root: click.Context, names: Container[str] | None = None) -> list[str]:
    """Return the options given before the command, or only the options in `names`, as arguments to repeat."""
    arguments: list[str] = []
    for option in root.command.get_params(root):
        name = option.name or ""
        if not isinstance(option, click.Option) or root.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if names is not None and name not in names:
            continue
        value = root.params[name]
        arguments.append(option.opts[0])
        if not option.is_flag:
            arguments.append(str(Path(value).absolute()) if name in _FILE_OPTIONS else str(value))
    return arguments


def command_line_of(root: click.Context, environment: Mapping[str, str]) -> CommandLine:
    return this_program(environment).with_(options_of(root, _ACCOUNT_OPTIONS))


def settings_of(
    flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None, *, sandboxed: bool
) -> Settings:
    """Return the settings. Raises `SettingsError` if they are invalid."""
    if sandboxed:
        account = choose({**flags, **SANDBOX_SETTINGS}, environment, read_file(file), sandbox=True, sections=SECTIONS)
        origins = {name: origin for name, origin in account.origins.items() if name not in SANDBOX_SETTINGS}
        settings = replace(account, origins=origins).with_key(Key(SANDBOX_KEY, "the sandbox"))
    else:
        settings = load(flags, environment, file, sections=SECTIONS)
    require_known_tools(settings)
    return settings


def require_known_tools(settings: Settings) -> None:
    """Raise `SettingsError` for a name or pattern in `tools` or `exclude_tools` that selects no tool."""
    if settings.toolsets is not None:
        return
    from fastn_mcp.procedures.catalog import TOOLS  # a fifth of the startup time, rarely needed

    for setting in ("tools", "exclude_tools"):
        for name in getattr(settings, setting) or ():
            if not any(is_named(tool, each.toolset(), name) for tool, each in TOOLS.items()):
                kind = "tool that fits" if any(letter in name for letter in "*?[") else "tool or toolset"
                near = nearest(name.replace("-", "_"), [*TOOLSETS, *TOOLS])
                raise settings.error(setting, f"there is no {kind} {name[:64]!r}{near}")


def policy_file(settings: Settings, environment: Mapping[str, str]) -> Path | None:
    """Path of the configured policy file, else of the user's own if it exists."""
    if settings.policy is not None:
        return settings.policy
    own = config_dir(environment) / "policy.toml"
    return own if own.exists() else None


def introduction_of(settings: Settings, environment: Mapping[str, str]) -> Introduction | None:
    """Return the early handshake; None if a setting has to be checked first, since it can fail the start."""
    checked_first = (
        settings.plan,
        settings.webhook_url,
        settings.extensions or None,
        settings.notify,
        settings.report,
        settings.log_file,
        policy_file(settings, environment),
    )
    toolsets = settings.toolsets
    if not toolsets or any(value is not None for value in checked_first):
        return None
    return Introduction(toolsets, reads_only=settings.reads_only)


def http_address(address: str) -> tuple[str, int]:
    try:
        return host_and_port(address)
    except ValueError:
        raise SettingsError("--http must be HOST:PORT.", "For example: --http 127.0.0.1:8080") from None


def must_be_free(host: str, port: int, instead: str) -> None:
    """Raise `SettingsError`, with `instead` as its next step, if the address cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # allows a port in TIME_WAIT
        try:
            probe.bind((host, port))
        except OSError as error:
            why = (
                "another program listens there"
                if error.errno == errno.EADDRINUSE
                else error.strerror or "no such address"
            )
            raise SettingsError(f"Cannot listen on {host}:{port}: {why}.", instead) from None


SEAL_KEY = "seal.key"
"""File in the state folder that seals what people type, where no state secret is set."""


def typed_seal(secrets: Sequence[str], state: Path, system: System) -> "Seal":
    """Return the seal of secrets that people type. Every process on this state or ledger opens what it closes."""
    from fastn_mcp.guard.seal import Seal  # deferred import: only once a person types a secret

    if secrets:
        return Seal(secrets, system)
    path = state / SEAL_KEY
    create_secret(path, system.token, "FASTN_STATE_SECRET")
    return Seal([read_private(path).strip()], system)


def seal_keys(settings: Settings) -> Sequence[str]:
    """Return the secrets that seal pending approval requests. Empty: this process uses a random key of its own.

    They are configured and not stored in the ledger, so that a reader of the ledger cannot open or forge sealed state.
    Raises `SettingsError` if the ledger is shared and no secret is set.
    """
    if settings.shares and not settings.state_secrets:
        raise SettingsError(
            "The ledger is shared, but state_secret is not set: no other replica could continue an approval request.",
            "Set FASTN_STATE_SECRET to the same 32 characters or more on each replica.",
        )
    return settings.state_secrets


@dataclass(frozen=True, slots=True)
class Sandboxed:
    """Use the in-process sandbox. Its state is stored in `file`, if given."""

    file: Path | None = None


@dataclass(frozen=True, slots=True)
class ServedAccount:
    """An account of a process that serves several, whose people sign in. `run` names the run of the process."""

    name: str
    run: str
    issuer: str
    page: "Channel | None" = None
    """Its approval page, if it has one."""
    system: System = field(default_factory=System)


@dataclass(frozen=True, slots=True)
class Process:
    """What a process gives to each account that it opens."""

    environment: Mapping[str, str]
    sandbox: Sandboxed | None = None
    """The in-process sandbox in place of Fastn, if it is used."""
    program: CommandLine = PROGRAM
    """Command line by which a person reaches the same account and folders."""
    has_browser: bool = False
    """Whether it runs for one person, whose browser can show the approval page."""
    served: ServedAccount | None = None
    """The account, if the process serves several."""
    tally: "Tally | None" = None
    """Collects calls for a report."""
    telemetry: "Telemetry | None" = None
    outbox_of: "Callable[[Path], Outbox] | None" = None
    """Returns the outbox of an audit log, if it is exported."""
    stops: "Ledger | None" = None
    """Where the stops of a team are stored. By default in the ledger of the account."""

    @property
    def begins_anew(self) -> bool:
        """Whether its account is a sandbox of its own, which no other process has seen or will see."""
        return self.sandbox is not None and self.sandbox.file is None

    @property
    def stays(self) -> bool:
        """Whether it runs long enough to receive an answer to an approval request."""
        return self.has_browser or self.served is not None
