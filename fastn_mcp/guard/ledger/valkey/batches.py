"""How far batches have come, in a shared ledger: whoever goes on with one, on any replica, makes no call twice.

Where the answer to a beginning is lost, the call counts as begun: it was not sent, and is not begun again.
"""

from collections.abc import Mapping

from fastn_mcp.guard.ledger.valkey.server import KEPT, Server
from fastn_mcp.procedures.batch import FINAL, Step
from fastn_mcp.procedures.journal import BEGUN


class Batches:
    """The batches of one ledger, each a key."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._revision = server.key("revision")

    def _keys(self, batch: str) -> list[str]:
        return [self._server.key("batch", batch), self._revision]

    async def steps(self, batch: str) -> list[Step]:
        found = await self._server.gather(self._keys(batch)[:1])
        known: dict[int, dict[str, str]] = {}
        for name, value in found[0].items() if found else ():
            number, _, field = name.partition(":")
            known.setdefault(int(number), {})[field] = value
        return [_read(number, known[number]) for number in sorted(known)]

    async def hold_steps(self, batch: str, grants: Mapping[int, str], at: float) -> None:
        pairs = [part for pair in grants.items() for part in pair]
        await self._server.run("hold", self._keys(batch), at, KEPT, *pairs)

    async def begin_step(self, batch: str, number: int, at: float) -> bool:
        return await self._server.run("begin", self._keys(batch), number, at, KEPT, BEGUN, *FINAL) == 1

    async def end_step(self, batch: str, number: int, outcome: str, change: str | None, at: float) -> None:
        await self._server.run("end", self._keys(batch), number, at, KEPT, outcome, change or "")


def _read(number: int, fields: Mapping[str, str]) -> Step:
    return Step(number, fields.get("outcome"), fields.get("grant"), fields.get("change"), float(fields["at"]))
