"""The ledger on Valkey (or Redis 7 and newer), for replicas.

Everything that has to be atomic is a script on the server, one for each promise (`scripts/`). All keys of a ledger
share one slot of a cluster, by the braces around its name: a vote, the grant that it decides and the list of what waits
change together, and a ledger is a few commands for each change, far less than one server can do.
"""

from fastn_mcp.guard.ledger.ledger import Ledger
from fastn_mcp.guard.ledger.valkey.approvals import Requests, Scopes
from fastn_mcp.guard.ledger.valkey.counters import Budgets, Marks
from fastn_mcp.guard.ledger.valkey.journal import ValkeyJournal
from fastn_mcp.guard.ledger.valkey.server import Address, Server
from fastn_mcp.runtime import System


class ValkeyLedger(Requests, Scopes, Budgets, Marks, ValkeyJournal, Ledger):
    """The ledger of this name on a server."""

    def __init__(self, address: Address, system: System) -> None:
        server = Server(address, system)
        for part in (Requests, Scopes, Budgets, Marks, ValkeyJournal):
            part.__init__(self, server)

    async def revision(self) -> int:
        return int(await self._server.read("GET", self._revision) or 0)

    async def aclose(self) -> None:
        """Close the connections. The next use opens them again."""
        await self._server.aclose()
