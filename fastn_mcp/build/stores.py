"""Build the configured ledger and audit log, and find where the approval requests of this machine are stored."""

import logging
import platform
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
from pydantic import JsonValue

from fastn_mcp.audit.chain import End
from fastn_mcp.audit.files import Keeping, has_entries
from fastn_mcp.audit.log import FILE as AUDIT
from fastn_mcp.audit.log import NEVER_SEEN, AuditFile, deleted_name
from fastn_mcp.audit.outbox import Outbox
from fastn_mcp.build.extensions import SECTIONS, store_door
from fastn_mcp.build.startup import state_of, typed_seal
from fastn_mcp.config.addresses import is_shared, ledger_file
from fastn_mcp.config.command_line import CommandLine, kept_in, this_program
from fastn_mcp.config.load import ledger_settings, read_file
from fastn_mcp.config.paths import TENANTS, state_dir
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import FILE, SqliteStore
from fastn_mcp.ledger.store import Store
from fastn_mcp.runtime import System

if TYPE_CHECKING:
    from fastn_mcp.guard.approval.votes import TerminalApprovals


@dataclass(frozen=True, slots=True)
class AccountStores:
    """Where an account keeps its approvals, changes and audit entries."""

    account: str
    folder: Path
    """Folder of the ledger, unless it is shared, and of the audit log."""
    ledger: Ledger
    audit: AuditFile
    recorder: Recorder
    typed: TypedSecrets
    system: System

    @property
    def export_folder(self) -> Path:
        """Folder of the files with rows that `query` writes."""
        return self.folder / "exports"


def ledger_at(setting: str | None, state: Path, system: System) -> Ledger:
    """Return the configured ledger, by default a file in the folder `state`. It is not opened yet.

    Raises `SettingsError` if a shared ledger's address is invalid or its library is missing.
    """
    if is_shared(setting):
        return Ledger(_shared(str(setting), system))
    return Ledger(SqliteStore(str(file_of(setting, state))))


def audit_at(
    ledger: Ledger,
    setting: str | None,
    state: Path,
    system: System,
    keeping: Keeping | None = None,
    on_entry: Callable[[Mapping[str, JsonValue]], object] | None = None,
    outbox: Outbox | None = None,
) -> AuditFile:
    """Return the audit log in the folder `state`. `ledger` stores its position; `on_entry` gets each entry."""
    name = audit_name(setting, state)
    return AuditFile(state / AUDIT, system, on_entry, marks=ledger, name=name, keeping=keeping, outbox=outbox)


def audit_name(setting: str | None, state: Path) -> str:
    """Name of an audit log in the ledger: its path and, in a shared ledger, the machine. Each replica has its own.

    A log beside its ledger has a name without a folder, so that the two can be moved or restored together.
    """
    if is_shared(setting):
        return replica_log_name(state / AUDIT)
    is_beside = file_of(setting, state).resolve().parent == state.resolve()
    return AUDIT if is_beside else str((state / AUDIT).resolve())


async def audit_marks(setting: str | None, log: Path, system: System) -> tuple[End | None, End | None]:
    """Return the newest entry of a log in the ledger, and the newest that retention deleted.

    Raises `FastnError` if the ledger cannot be read, or has never seen a log that has entries.
    """
    state = log.parent
    if log.name != AUDIT or not (is_shared(setting) or file_of(setting, state).exists()):
        return None, None
    ledger = ledger_at(setting, state, system)
    name = audit_name(setting, state)
    async with aclosing(ledger):
        marks = [await ledger.audit_mark(each) for each in (name, deleted_name(name))]
    newest, deleted = (None if mark is None else End(*mark) for mark in marks)
    if newest is None and has_entries(log):
        raise SettingsError(
            NEVER_SEEN, "Verify the log at its earlier place, with the ledger there, and compare the head hashes."
        )
    return newest, deleted


def audit_logs(state: Path) -> list[Path]:
    """Audit logs in the folder `state`: the account's log, or the logs of a team's tenants."""
    return [*state.glob(AUDIT), *(state / TENANTS).rglob(AUDIT)]


def replica_log_name(log: Path) -> str:
    """Name of an audit log among the logs of several machines."""
    return f"{platform.node()}:{log.resolve()}"


def file_of(setting: str | None, state: Path) -> Path:
    return state / FILE if setting is None else ledger_file(setting)


def _shared(url: str, system: System) -> Store:
    door = store_door(url)
    try:
        return door.open_store(url, system)
    except ValueError as error:
        what = f"The setting ledger (environment FASTN_LEDGER) {error}."
        raise SettingsError(what, "See docs/shared-ledger.md.") from None


# --- approval requests -------------------------------------------------------------------------------------------

Result = TypeVar("Result")

_STORE_VARIABLES = ("FASTN_STATE_DIR", "FASTN_LEDGER", "FASTN_PROFILE")
"""Variables that select another store than the default."""


@dataclass(frozen=True, slots=True)
class ApprovalStore:
    """Where approval requests are stored: this machine's state folder, and the ledger setting."""

    folder: Path
    ledger: str | None
    program: CommandLine
    """Command that opens this store at a shell."""
    warn: Callable[[str], None]
    """Gets a warning where something could not be recorded."""
    name: str = ""
    """Where it is, such as `in the sandbox`, if the options of a command do not select it."""
    state_secrets: Sequence[str] = ()
    is_of_tenant: bool = False
    """Whether it is of a tenant of a team, whose process has a ledger of its own beside it."""

    @property
    def file(self) -> Path:
        """Path of the ledger, if it is a file."""
        return file_of(self.ledger, self.folder).resolve()

    @property
    def place(self) -> str | Path:
        """What tells stores apart: the address of a shared ledger, or the file."""
        return str(self.ledger) if is_shared(self.ledger) else self.file

    @property
    def exists(self) -> bool:
        """Whether the ledger is shared, or its file exists."""
        return is_shared(self.ledger) or self.file.exists()

    def waiting(self) -> list[ApprovalRequest]:
        return self.use(lambda approvals: approvals.waiting()) or []

    def use(self, work: "Callable[[TerminalApprovals], Awaitable[Result]]", *, create: bool = False) -> Result | None:
        """Run `work` on the ledger and this machine's audit log. None if no ledger exists yet, unless `create`."""
        if not (create or self.exists):
            return None
        from fastn_mcp.guard.approval.votes import TerminalApprovals  # deferred import: `audit` needs no guard

        # Log messages of a shared ledger are for server operators; here the error itself is shown.
        logging.getLogger("fastn_mcp").addHandler(logging.NullHandler())
        system = System()

        async def run_work() -> Result:
            ledger = ledger_at(self.ledger, self.folder, system)
            record = audit_at(ledger, self.ledger, self.folder, system)
            try:
                return await work(
                    TerminalApprovals(ledger, record, system, typed=self.typed(ledger, system), warn=self.warn)
                )
            finally:
                await record.settle()
                record.close()
                await ledger.aclose()

        return anyio.run(run_work)

    def typed(self, ledger: Ledger, system: System) -> TypedSecrets | None:
        """Return what keeps typed secrets; None if the servers could not open them."""
        if is_shared(self.ledger) and not self.state_secrets:
            return None
        return TypedSecrets(ledger, partial(typed_seal, self.state_secrets, self.folder, system), system)


def other_stores(
    own: ApprovalStore, config: Path | None, config_options: Sequence[str], environ: Mapping[str, str]
) -> Iterator[ApprovalStore]:
    """Yield the user's stores that exist, without `own`: of the sandbox, the accounts and the tenants, each once.

    Looks each up both with and without the variables that select another store than the default.
    """
    seen = {own.place}
    defaults = {name: value for name, value in environ.items() if name not in _STORE_VARIABLES}
    for environment in [environ, defaults] if len(defaults) < len(environ) else [defaults]:
        for store in _stores_in(environment, environ, config, config_options=config_options, warn=own.warn):
            if store.place not in seen and store.exists:
                seen.add(store.place)
                yield store


def _stores_in(
    environment: Mapping[str, str],
    shell: Mapping[str, str],
    config: Path | None,
    config_options: Sequence[str],
    warn: Callable[[str], None],
) -> Iterator[ApprovalStore]:
    """Yield the stores that `environment` selects. Their commands work in the environment of the `shell`."""
    program = this_program(environment)
    unset = tuple((name, "") for name in _STORE_VARIABLES if name in shell and name not in environment)
    program = replace(program, variables=(*program.variables, *unset))
    profiles = read_file(config).profiles
    starts = [("in the sandbox", None, True), ("on your accounts", None, False)]
    for name, profile, sandboxed in (*starts, *((f"on the profile {name}", name, False) for name in profiles)):
        options: list[str] = []
        if sandboxed:
            options = ["--sandbox"]
        elif profile:
            options = ["--profile", profile]
        with suppress(SettingsError):
            ledger = ledger_settings(
                {"profile": profile}, environment, config, sandbox=sandboxed, sections=SECTIONS
            ).ledger
            command = program.with_([*config_options, *options])
            yield ApprovalStore(state_of(environment, sandboxed=sandboxed), ledger, command, warn=warn, name=name)
    for ledger in sorted(state_dir(environment).glob(f"**/{TENANTS}/**/{FILE}")):
        tenant = "/".join(ledger.parent.parts[ledger.parts.index(TENANTS) + 1 :])
        command = kept_in(program, ledger.parent)
        yield ApprovalStore(ledger.parent, None, command, warn=warn, name=f"at the tenant {tenant}", is_of_tenant=True)
