"""Where the approval requests of this machine are stored: one store for each account, sandbox and tenant."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio

from fastn_mcp.build.ledger import audit_at, file_of, ledger_at
from fastn_mcp.build.startup import state_of, typed_seal
from fastn_mcp.config.addresses import is_shared
from fastn_mcp.config.command_line import CommandLine, kept_in, this_program
from fastn_mcp.config.file import read
from fastn_mcp.config.load import ledger_settings
from fastn_mcp.config.paths import TENANTS, state_dir
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.approval.votes import TerminalApprovals
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite import FILE
from fastn_mcp.runtime import System

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
    """Where it is, such as `in the sandbox`, if it is not the one that the options of a command select."""
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
        return self.use(TerminalApprovals.waiting) or []

    def use(self, work: Callable[[TerminalApprovals], Awaitable[Result]], *, create: bool = False) -> Result | None:
        """Run `work` on the ledger and this machine's audit log. None if no ledger exists yet, unless `create`."""
        if not (create or self.exists):
            return None
        # Log messages of a shared ledger are for server operators; here the error itself is shown.
        logging.getLogger("fastn_mcp").addHandler(logging.NullHandler())
        system = System()

        async def run_work() -> Result:
            ledger = ledger_at(self.ledger, self.folder, system)
            record = audit_at(ledger, self.ledger, self.folder, system)
            try:
                return await work(TerminalApprovals(ledger, record, system, self.typed(ledger, system), self.warn))
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
        for store in _stores_in(environment, environ, config, config_options, own.warn):
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
    profiles = [] if config is None else [*read(config).profiles]
    starts = [("in the sandbox", None, True), ("on your accounts", None, False)]
    for name, profile, sandboxed in (*starts, *((f"on the profile {name}", name, False) for name in profiles)):
        options = ["--sandbox"] if sandboxed else ["--profile", profile] if profile else []
        with suppress(SettingsError):
            ledger = ledger_settings({"profile": profile}, environment, config, sandbox=sandboxed).ledger
            command = program.with_([*config_options, *options])
            yield ApprovalStore(state_of(environment, sandboxed=sandboxed), ledger, command, warn, name)
    for ledger in sorted(state_dir(environment).glob(f"**/{TENANTS}/**/{FILE}")):
        tenant = "/".join(ledger.parent.parts[ledger.parts.index(TENANTS) + 1 :])
        command = kept_in(program, ledger.parent)
        yield ApprovalStore(ledger.parent, None, command, warn, f"at the tenant {tenant}", is_of_tenant=True)
