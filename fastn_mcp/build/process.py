"""What a process gives to each account that it opens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastn_mcp.audit.outbox import Outbox
from fastn_mcp.config.command_line import PROGRAM, CommandLine
from fastn_mcp.guard.caller import ApprovalChannel
from fastn_mcp.ledger.stop import StopOrders
from fastn_mcp.report.collector import Tally
from fastn_mcp.runtime import System

if TYPE_CHECKING:
    from fastn_mcp.channels.webhook.webhook import Webhook
    from fastn_mcp.telemetry.instruments import Instruments


@dataclass(frozen=True, slots=True)
class Sandboxed:
    """Use the in-process sandbox. Its state is stored in `file`, if given."""

    file: Path | None = None


@dataclass(frozen=True, slots=True)
class TenantContext:
    """A tenant of a multi-tenant process. `run` identifies the run of the process, which outlives an open account."""

    name: str
    run: str
    issuer: str
    channel: "Callable[[Webhook | None], ApprovalChannel] | None" = None
    """Factory of its approval channel, which may have a webhook, unless that is a webhook alone or a terminal."""
    system: System = field(default_factory=System)


@dataclass(frozen=True, slots=True)
class Process:
    environment: Mapping[str, str]
    sandbox: Sandboxed | None = None
    """The in-process sandbox in place of Fastn, if it is used."""
    program: CommandLine = PROGRAM
    """Command line by which a person reaches the same account and folders."""
    has_browser: bool = False
    """Whether it runs for one person, whose browser can show the approval page."""
    tenant: TenantContext | None = None
    tally: Tally | None = None
    """Collects calls for a report."""
    instruments: "Instruments | None" = None
    outbox_of: Callable[[Path], Outbox] | None = None
    """Returns the outbox of an audit log, if it is exported."""
    stops: StopOrders | None = None
    """Where the stops of a team are stored. By default in the ledger of the account."""

    @property
    def begins_anew(self) -> bool:
        """Whether its account is a sandbox of its own, which no other process has seen or will see."""
        return self.sandbox is not None and self.sandbox.file is None

    @property
    def stays(self) -> bool:
        """Whether it runs long enough to receive an answer to an approval request."""
        return self.has_browser or self.tenant is not None
