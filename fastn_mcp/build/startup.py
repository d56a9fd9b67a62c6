"""Resolve the settings of a start, and answer a client before anything else is loaded."""

import errno
import os
import socket
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from fastn_mcp.config.addresses import host_and_port
from fastn_mcp.config.command_line import CommandLine, this_program
from fastn_mcp.config.load import Resolved, resolve
from fastn_mcp.config.model import Settings, Trait, settings_with
from fastn_mcp.config.paths import config_dir, state_dir
from fastn_mcp.errors import SettingsError
from fastn_mcp.server.handshake import Introduction

SANDBOX_KEY = "fsk_test_sandbox"

_FILES = {"config", "sandbox_file", *settings_with(Trait.FILE)}
"""Options that name a file. Printed commands hold absolute paths: they may be run in another folder."""

_REACHING = {"sandbox", "sandbox_file", "config", "profile", "base_url", "env", "policy"}
"""Options that decide which account is meant, where its approvals are, and under which policy."""


def state_of(environment: Mapping[str, str], *, sandboxed: bool) -> Path:
    """The folder of approvals and the audit log. The sandbox's are no part of an account's."""
    return state_dir(environment) / "sandbox" if sandboxed else state_dir(environment)


def options_of(root: click.Context, names: Container[str] | None = None) -> list[str]:
    """The options that were given before the command, or those of `names` alone, as they are given again."""
    arguments: list[str] = []
    for option in root.command.params:
        name = option.name or ""
        if not isinstance(option, click.Option) or root.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if names is not None and name not in names:
            continue
        value = root.params[name]
        arguments.append(option.opts[0])
        if not option.is_flag:
            arguments.append(str(Path(value).absolute()) if name in _FILES else str(value))
    return arguments


def command_line_of(root: click.Context, environment: Mapping[str, str]) -> CommandLine:
    """How a person starts this program again, on the same account and folders."""
    return this_program(environment).with_(options_of(root, _REACHING))


def resolved_of(
    flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None, *, sandboxed: bool
) -> Resolved:
    """The settings of this start, and where the key comes from. Raises `SettingsError`."""
    if not sandboxed:
        return resolve(flags, environment, file)
    # The sandbox is an account of its own: a real key or host in the environment must not reach it, nor name it.
    own = {"FASTN_API_KEY", "FASTN_BASE_URL", "FASTN_AUTH", "FASTN_TEST_MODE"}
    kept = {name: value for name, value in environment.items() if name not in own}
    there = {"api_key": SANDBOX_KEY, "base_url": "http://localhost", "profile": "sandbox"}
    return replace(resolve({**flags, **there}, kept, file, sandbox=True), key="the sandbox")


def policy_file(settings: Settings, environment: Mapping[str, str]) -> Path | None:
    """The policy file of the settings, or the user's own where there is one."""
    own = config_dir(environment) / "policy.toml"
    return settings.policy or (own if own.exists() else None)


def introduction_of(settings: Settings, environment: Mapping[str, str]) -> Introduction | None:
    """What a client can be told at once; None where the rest has to be looked at first, since it may stop the start."""
    named = (
        settings.plan,
        settings.webhook_url,
        settings.report,
        settings.log_file,
        settings.tools,
        settings.exclude_tools,
        policy_file(settings, environment),
    )
    if any(value is not None for value in named):
        return None
    return Introduction(settings.toolsets, reads_only=settings.reads_only, attended=settings.mode != "unattended")


def http_address(address: str) -> tuple[str, int]:
    """The host and the port that --http names. Raises `SettingsError`."""
    try:
        return host_and_port(address)
    except ValueError:
        raise SettingsError("--http is not HOST:PORT.", "As in: --http 127.0.0.1:8080") from None


def must_be_free(host: str, port: int, instead: str) -> None:
    """Raises `SettingsError`, with what to write `instead`, where another program has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just ended is no hindrance
        try:
            probe.bind((host, port))
        except OSError as error:
            why = (
                "another program listens there"
                if error.errno == errno.EADDRINUSE
                else error.strerror or "no such address"
            )
            raise SettingsError(f"Cannot listen on {host}:{port}: {why}.", instead) from None


def seal_keys(settings: Settings) -> Sequence[str]:
    """With what open questions are sealed; nothing where this process is the only one that goes on with its own.

    A configured secret, and not keys in the ledger: who can read the ledger cannot open or forge what clients hold.
    """
    if settings.shares and not settings.state_secrets:
        raise SettingsError(
            "The ledger is shared but state_secret is not set: no other replica could continue an approval request.",
            "Set FASTN_STATE_SECRET to the same 32 characters or more on each.",
        )
    return settings.state_secrets
