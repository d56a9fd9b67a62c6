"""Budgets, declines, used nonces and other records with an expiry, on Valkey."""

from fastn_mcp.guard.ledger.ledger import rate_free_at
from fastn_mcp.guard.ledger.valkey.server import LedgerPart
from fastn_mcp.guard.policy import PLANNED

_QUARTER = 90 * 86_400_000
"""Milliseconds for which a budget's count is kept after its last use. Its period ends long before."""


class Budgets(LedgerPart):
    """Budgets and declines of one ledger."""

    def _budget(self, budget: str, period: str) -> str:
        return self._server.key("budget", self._server.digest(budget, period))

    def _declines(self, principal: str) -> str:
        return self._server.key("declines", principal)

    async def spent(self, budget: str, period: str) -> int:
        return int(await self._server.read("GET", self._budget(budget, period)) or 0)

    async def spend(self, budget: str, period: str, limit: int) -> bool:
        # A plan can be valid for years, and its count must not expire before it.
        kept = 0 if period == PLANNED else _QUARTER
        return await self._server.run("spend", [self._budget(budget, period), self._revision], limit, kept) == 1

    def _rate(self, budget: str) -> str:
        return self._server.key("rate", budget)

    async def spend_rate(self, budget: str, most: int, seconds: float, now: float) -> float:
        keys, kept = [self._rate(budget), self._revision], max(1, round(seconds * 1000))
        if await self._server.run("rate", keys, now, now - seconds, most, kept) == 1:
            return 0.0
        return rate_free_at(await self.rate_uses(budget, seconds, now), most, seconds) or now

    async def rate_uses(self, budget: str, seconds: float, now: float) -> list[float]:
        recent = await self._server.read("ZRANGE", self._rate(budget), f"({now - seconds!r}", "+inf", "BYSCORE")
        return [float(use.partition(" ")[0]) for use in recent]

    async def declines(self, principal: str) -> tuple[int, float]:
        count, last = await self._server.read("HMGET", self._declines(principal), "count", "last")
        return int(count or 0), float(last or 0)


_DAY = 86_400_000
"""Milliseconds for which a record is kept after it expires, since clocks differ."""

_YEARS = 2 * 366 * _DAY
"""Milliseconds for which the mark of an audit log is kept after it was last set."""


class Marks(LedgerPart):
    """Nonces, distrusted channels, rate limits and audit marks of one ledger."""

    async def use_nonce(self, nonce: str, until: float, now: float) -> bool:
        keys = [self._server.key("nonce", nonce), self._revision]
        return await self._server.run("nonce", keys, until, now, _kept(until, now)) == 1

    async def keep_sealed(self, request: str, sealed: str, until: float, now: float) -> None:
        kept = max(1, round((until - now) * 1000))
        await self._server.run("keep", [self._server.key("sealed", request), self._revision], sealed, kept)

    async def take_sealed(self, request: str, now: float) -> str | None:  # noqa: ARG002 - the server forgets it in time
        return await self._server.run("take", [self._server.key("sealed", request), self._revision])

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
