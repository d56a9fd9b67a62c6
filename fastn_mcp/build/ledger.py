"""Build the ledger and the audit log that the settings ask for."""

import logging
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import JsonValue

from fastn_mcp import install_extra
from fastn_mcp.config.model import is_shared
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.audit.files import Keeping
from fastn_mcp.guard.audit.log import FILE as AUDIT
from fastn_mcp.guard.audit.log import AuditFile
from fastn_mcp.guard.ledger.ledger import Ledger
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

_SQLITE = "sqlite:"


def ledger_at(setting: str | None, state: Path, system: System) -> Ledger:
    """The ledger that the setting names, by default a file in the folder `state`. Raises `SettingsError`.

    Nothing is opened yet.
    """
    if is_shared(setting):
        return _shared(str(setting), system)
    from fastn_mcp.guard.ledger.sqlite import SqliteLedger

    return SqliteLedger(str(file_of(setting, state)))


def audit_at(
    ledger: Ledger,
    setting: str | None,
    state: Path,
    system: System,
    keeping: Keeping | None = None,
    told: Callable[[Mapping[str, JsonValue]], object] | None = None,
) -> AuditFile:
    """The audit log in the folder `state`, whose place `ledger` keeps."""
    return AuditFile(state / AUDIT, system, told, ledger=ledger, name=audit_name(setting, state), keeping=keeping)


def audit_name(setting: str | None, state: Path) -> str:
    """What the ledger calls the audit log in the folder `state`: replicas have one each, on machines of their own."""
    path = str((state / AUDIT).resolve())
    return f"{platform.node()}:{path}" if is_shared(setting) else path


def file_of(setting: str | None, state: Path) -> Path:
    """The file of a ledger that is one."""
    from fastn_mcp.guard.ledger.sqlite import FILE

    if setting is None:
        return state / FILE
    return Path(setting.removeprefix(_SQLITE)).expanduser()


def _shared(url: str, system: System) -> Ledger:
    try:
        from fastn_mcp.guard.ledger.valkey.ledger import ValkeyLedger  # only where a server is named: it is an extra
        from fastn_mcp.guard.ledger.valkey.server import parse
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "valkey":
            raise
        raise SettingsError(
            "The setting ledger names a server, but the library for it is not installed.",
            f"Run: {install_extra('valkey')}",
        ) from None
    try:
        address = parse(url)
        if (weakness := address.weakness) is not None:
            log.warning("The shared ledger at %s: %s", address.shown, weakness)
        return ValkeyLedger(address, system)
    except ValueError as error:
        raise SettingsError(f"The setting ledger (environment FASTN_LEDGER) {error}.", "See docs/hosting.md.") from None
