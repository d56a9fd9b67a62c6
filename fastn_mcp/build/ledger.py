"""Build the configured ledger and audit log."""

import logging
import platform
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from fastn_mcp.audit.chain import End
from fastn_mcp.audit.files import Keeping, has_entries
from fastn_mcp.audit.log import FILE as AUDIT
from fastn_mcp.audit.log import NEVER_SEEN, AuditFile, deleted_name
from fastn_mcp.audit.outbox import Outbox
from fastn_mcp.config.addresses import is_shared, ledger_file
from fastn_mcp.config.paths import TENANTS
from fastn_mcp.errors import SettingsError, extra
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)


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


def ledger_at(setting: str | None, state: Path, system: System) -> Ledger:
    """Return the configured ledger, by default a file in the folder `state`. It is not opened yet.

    Raises `SettingsError` if a shared ledger's address is invalid or its library is missing.
    """
    if is_shared(setting):
        return _shared(str(setting), system)
    from fastn_mcp.ledger.sqlite import SqliteLedger

    return SqliteLedger(str(file_of(setting, state)))


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
    ledger, name = ledger_at(setting, state, system), audit_name(setting, state)
    async with aclosing(ledger):
        marks = [await ledger.audit_mark(each) for each in (name, deleted_name(name))]
    newest, deleted = (None if mark is None else End(*mark) for mark in marks)
    if newest is None and has_entries(log):
        raise SettingsError(NEVER_SEEN, "Verify it where both were, and compare the head hash there with this one.")
    return newest, deleted


def audit_logs(state: Path) -> list[Path]:
    """Audit logs in the folder `state`: that of its account, or those of the tenants of a team."""
    return [*state.glob(AUDIT), *(state / TENANTS).rglob(AUDIT)]


def replica_log_name(log: Path) -> str:
    """Name of an audit log among those of several machines."""
    return f"{platform.node()}:{log.resolve()}"


def file_of(setting: str | None, state: Path) -> Path:
    from fastn_mcp.ledger.sqlite import FILE

    return state / FILE if setting is None else ledger_file(setting)


def _shared(url: str, system: System) -> Ledger:
    with extra("valkey", "The setting ledger names a server"):
        from fastn_mcp.ledger.valkey.ledger import ValkeyLedger  # deferred import: an extra
        from fastn_mcp.ledger.valkey.server import parse
    try:
        address = parse(url)
        if (weakness := address.weakness) is not None:
            log.warning("The shared ledger at %s: %s", address.shown, weakness)
        return ValkeyLedger(address, system)
    except ValueError as error:
        what = f"The setting ledger (environment FASTN_LEDGER) {error}."
        raise SettingsError(what, "See docs/shared-ledger.md.") from None
