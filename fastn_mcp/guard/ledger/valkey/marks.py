"""What holds until a time, in a shared ledger: used nonces, channels that reach nobody, full limits."""

from fastn_mcp.guard.ledger.valkey.server import Server

_DAY = 86_400_000
"""Milliseconds that a mark is kept after it ends: the clocks of processes differ."""

_YEARS = 2 * 366 * _DAY
"""Milliseconds that the place of an audit log is kept after its last entry."""


class Marks:
    """The marks of one ledger."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._revision = server.key("revision")

    async def use_nonce(self, nonce: str, until: float, now: float) -> bool:
        keys = [self._server.key("nonce", nonce), self._revision]
        return await self._server.run("nonce", keys, until, now, _kept(until, now)) == 1

    async def distrust(self, principal: str, channel: str, until: float) -> None:
        await self._mark(self._distrusted(principal, channel), until, _DAY)

    async def distrusted(self, principal: str, channel: str, now: float) -> bool:
        return await self._until(self._distrusted(principal, channel)) > now

    def _distrusted(self, principal: str, channel: str) -> str:
        return self._server.key("distrust", channel, principal)

    async def note_limit(self, key: str, until: float, now: float) -> None:
        await self._mark(self._server.key("limit", key), until, _kept(until, now))

    async def limited(self, key: str) -> float:
        return await self._until(self._server.key("limit", key))

    async def mark_audit(self, log: str, n: int, head: str) -> None:
        await self._server.run("audit", [self._server.key("audit", log)], n, head, _YEARS)

    async def audit_mark(self, log: str) -> tuple[int, str] | None:
        n, head = await self._server.read("HMGET", self._server.key("audit", log), "n", "head")
        return None if n is None else (int(n), str(head))

    async def _mark(self, key: str, until: float, kept: int) -> None:
        await self._server.run("mark", [key, self._revision], until, kept)

    async def _until(self, key: str) -> float:
        return float(await self._server.read("GET", key) or 0)


def _kept(until: float, now: float) -> int:
    return round(max(0.0, until - now) * 1000) + _DAY
