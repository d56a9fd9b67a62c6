"""Ledger on Valkey (or Redis 7 and newer), shared by replicas.

Each atomic operation is a Lua script on the server (`scripts/`). The braces around the ledger's name put all its keys
into one slot of a cluster, so that a vote, its request and the lists of requests change together. The load, a few
commands for each change, is far below the capacity of one server.
"""

from fastn_mcp.guard.ledger.ledger import Ledger
from fastn_mcp.guard.ledger.valkey.approvals import Requests, Scopes
from fastn_mcp.guard.ledger.valkey.counters import Budgets, Marks
from fastn_mcp.guard.ledger.valkey.journal import ValkeyJournal
from fastn_mcp.guard.ledger.valkey.server import Address, Durability, Server
from fastn_mcp.runtime import System


class ValkeyLedger(Requests, Scopes, Budgets, Marks, ValkeyJournal, Ledger):
    """Ledger at this address."""

    def __init__(self, address: Address, system: System) -> None:
        super().__init__(Server(address, system))

    async def revision(self) -> int:
        return int(await self._server.read("GET", self._revision) or 0)

    async def durability(self) -> Durability:
        """How the server keeps its data."""
        return await self._server.durability()

    async def aclose(self) -> None:
        """Close the connections. The next use opens them again."""
        await self._server.aclose()
