"""Options before a command, and the options made from `Settings`. Each function imports what it needs on demand."""

import logging
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from typing_extensions import override

from fastn_mcp.cli.help import EnumChoice, GroupedOption, completing

if TYPE_CHECKING:
    from fastn_mcp.build.composition import AccountParts
    from fastn_mcp.config.command_line import CommandLine
    from fastn_mcp.config.model import Settings
    from fastn_mcp.errors import NoKey
    from fastn_mcp.report.collector import Tally

Command = TypeVar("Command", bound=Callable[..., Any])

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Account": ("base_url", "auth", "env", "profile"),
    "Permissions": (*("mode", "tools", "exclude_tools", "policy", "plan", "approval_minutes"),),
    "Requests, results and log": (),
}
"""Headings of settings in the program's help; the last is of all others."""

_METAVARS = {Path: "FILE", float: "SECONDS", int: "MINUTES", list: "NAMES"}


@dataclass(frozen=True, slots=True)
class StartOptions:
    """Options before a command, which select account, settings and folders."""

    context: click.Context
    flags: Mapping[str, object]
    config: Path | None
    sandboxed: bool
    sandbox_file: Path | None

    def with_flags(self, **flags: object) -> "StartOptions":
        """Return a copy with a command's own flags. None leaves a flag as it is."""
        overrides = {name: value for name, value in flags.items() if value is not None}
        return replace(self, flags={**self.flags, **overrides})

    @contextmanager
    def own_commands(self) -> Generator[None]:
        """Make commands that a `SettingsError` suggests reach the same account and folders as this one."""
        from fastn_mcp.errors import SettingsError
        from fastn_mcp.redaction import redact_text

        try:
            yield
        except SettingsError as error:
            raise error.with_program(redact_text(self.command_line().line())) from None

    def settings(self) -> "Settings":
        from fastn_mcp.build.startup import settings_of

        with self.own_commands():
            return settings_of(self.flags, os.environ, self.existing_config(), sandboxed=self.sandboxed)

    def parts(
        self,
        settings: "Settings | None" = None,
        *,
        browser: bool = False,
        tally: "Tally | None" = None,
        no_key: "NoKey | None" = None,
    ) -> "AccountParts":
        """Assemble the parts of an account from `settings`, by default the settings of the selected account."""
        from fastn_mcp.build.composition import assemble, begin_log, policy_of
        from fastn_mcp.build.extensions import audit_outboxes, begin_telemetry
        from fastn_mcp.build.startup import Process, Sandboxed

        settings = settings or self.settings()
        if browser and settings.report is not None:
            from fastn_mcp.report.collector import Tally  # without --report nothing is collected

            tally = Tally()
        lines = begin_log(settings)
        program = self.command_line()
        policy = policy_of(settings, os.environ, program)
        telemetry = begin_telemetry(os.environ, lines, self.context.call_on_close)
        outbox_of = audit_outboxes(settings, self.state(), os.environ, self.context.call_on_close)
        if no_key is not None:
            logging.getLogger("fastn_mcp").error("Every call will be answered with: %s", no_key)
        process = Process(
            os.environ,
            Sandboxed(self.sandbox_file) if self.sandboxed else None,
            program,
            has_browser=browser,
            tally=tally,
            telemetry=telemetry,
            outbox_of=outbox_of,
        )
        parts = assemble(settings, policy, self.state(), process=process, no_key=no_key)
        if browser:  # a server, which may run for longer than its key is valid
            parts.client.stored_key = lambda: self.settings().api_key
        return parts

    def command_line(self) -> "CommandLine":
        """Return the command that starts this program again at a shell, on the same account and folders."""
        from fastn_mcp.build.startup import command_line_of

        return command_line_of(self.context, os.environ)

    def existing_config(self) -> Path | None:
        """Return the file of --config or FASTN_CONFIG, or else the user's own. Never one in the working directory."""
        if self.config is not None:
            return self.config
        path = os.environ.get("FASTN_CONFIG")
        if path:
            return Path(path)
        own = _own_config()
        return own if own.exists() else None

    def config_file(self) -> Path:
        return self.existing_config() or _own_config()

    def state(self) -> Path:
        """Return the folder of the ledger and the audit log. Raises `SettingsError` if other users can change it."""
        from fastn_mcp.build.startup import state_of
        from fastn_mcp.config.paths import require_own_folder, state_dir

        folder = state_dir(os.environ)
        state = state_of(os.environ, sandboxed=self.sandboxed)
        require_own_folder(folder)
        require_own_folder(state)
        return state

    def ledger_settings(self) -> "Settings":
        from fastn_mcp.build.extensions import SECTIONS
        from fastn_mcp.config.load import ledger_settings

        with self.own_commands():
            file = self.existing_config()
            return ledger_settings(self.flags, os.environ, file, sandbox=self.sandboxed, sections=SECTIONS)

    def keyless(self) -> "Settings":
        """Return the settings without a key, for commands that need none. Raises `SettingsError`."""
        from fastn_mcp.build.extensions import SECTIONS
        from fastn_mcp.build.startup import require_known_tools
        from fastn_mcp.config.keys import without_key
        from fastn_mcp.config.load import choose, read_file

        with self.own_commands():
            file = read_file(self.existing_config())
            settings = choose(
                self.flags, without_key(os.environ), file, sandbox=self.sandboxed, sections=SECTIONS
            ).keyless()
            require_known_tools(settings)
            return settings


def _profile_names(ctx: click.Context) -> Iterable[str]:
    from fastn_mcp.config.file import read_or_none

    root = ctx.find_root()
    return read_or_none(
        StartOptions(root, {}, root.params.get("config"), sandboxed=False, sandbox_file=None).config_file()
    ).profiles


complete_profile = completing(_profile_names)


def _own_config() -> Path:
    from fastn_mcp.config.paths import CONFIG, config_dir

    return config_dir(os.environ) / CONFIG


@cache
def setting_options() -> tuple[click.Option, ...]:
    """Return an option for each setting with a flag. `config` reads its variable, and applies its default."""
    from fastn_mcp.config.model import SOURCES

    return tuple(
        GroupedOption(
            [source.flag],
            group=next(group for group, names in _GROUPS.items() if source.field in names or not names),
            **_attributes(source.field, f" [{source.variable}]"),
        )
        for source in SOURCES
        if source.flag is not None
    )


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Give a command options for these settings, which it stores."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            option = "--" + name.replace("_", "-")
            click.option(option, cls=GroupedOption, group="Settings", **_attributes(name))(command)
        return command

    return decorate


def _attributes(name: str, note: str = "") -> dict[str, Any]:
    from fastn_mcp.config.model import Settings

    field = Settings.model_fields[name]
    value_type = _value_type(field.annotation)
    attributes: dict[str, Any] = {"help": f"{field.description}{note}"}
    if get_origin(value_type) is Literal:
        choice = _ModeChoice if name == "mode" else EnumChoice
        return attributes | {"type": choice(get_args(value_type))}
    if value_type is str:
        attributes["shell_complete"] = complete_profile if name == "profile" else None
        return attributes | {"metavar": "URL" if name.endswith("_url") else "NAME"}
    metavar = _METAVARS[get_origin(value_type) or value_type]
    return attributes | {"metavar": metavar, "type": value_type if value_type in (int, float) else str}


class _ModeChoice(EnumChoice):
    """Choice of a mode, which says what takes the place of one that was removed."""

    @override
    def get_invalid_choice_message(self, value: str, ctx: click.Context | None) -> str:
        from fastn_mcp.config.model import removed_mode

        removed = removed_mode(value)
        return super().get_invalid_choice_message(value, ctx) if removed is None else f"it {removed}."


def _value_type(annotation: Any) -> Any:
    """Return the type of a value that is set: without None, and without validators."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _value_type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return _value_type(next(each for each in get_args(annotation) if each is not NoneType))
    return annotation
