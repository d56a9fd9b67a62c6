"""The doctor's requests to Fastn: GET and OPTIONS only, few, and at the pace that Fastn asks for."""

from fastn_mcp.client.http import Answer, Exchange
from fastn_mcp.client.retry import announce_wait, exhausted_for, retry_after
from fastn_mcp.errors import NotSent, RateLimited
from fastn_mcp.runtime import System
from fastn_mcp.tools.operation import Request

MOST = 250
"""Requests in one visit; about 40 are usual."""

LONGEST_PAUSE = 75.0
"""Seconds that are waited for a rate limit to open: limits are by the minute, and a visit may be longer than a call."""

LONGEST_PAUSES = 300.0
"""Seconds of all pauses together."""

_LOOKS = ("GET", "OPTIONS")


class Looking:
    """An exchange that refuses whatever could change something, and keeps the last answer."""

    def __init__(self, exchange: Exchange, system: System) -> None:
        self._exchange = exchange
        self._system = system
        self._paused = 0.0
        self.sent = 0
        self.last: Answer | None = None

    async def through(self, exchange: Exchange) -> None:
        """Go on with other headers."""
        await self._exchange.aclose()
        self._exchange = exchange

    async def __call__(self, request: Request) -> Answer:
        """Raises `NotSent` for what is no look, `RateLimited` where a limit opens late, and as the exchange does."""
        self.last = None
        if request.method not in _LOOKS or request.body is not None:
            raise NotSent(f"doctor sends no {request.method}.")
        answer = await self._sent(request)
        now = self._system.now()
        seconds = exhausted_for(answer.headers, now)
        if answer.status == 429:
            await self._pause(retry_after(answer.headers, now) or seconds)
            answer = await self._sent(request)
        elif seconds is not None:
            await self._pause(seconds)
        self.last = answer
        return answer

    async def _sent(self, request: Request) -> Answer:
        if self.sent >= MOST:
            raise NotSent(f"doctor sends {MOST} requests at most.", "Run it again with fewer --toolsets.")
        self.sent += 1
        return await self._exchange(request)

    async def _pause(self, seconds: float | None) -> None:
        if seconds is None or seconds > LONGEST_PAUSE or self._paused + seconds > LONGEST_PAUSES:
            raise RateLimited("Fastn's rate limit is used up.", "Run doctor again in some minutes.")
        self._paused += seconds
        await announce_wait(f"Fastn's rate limit is used up. It opens again in {seconds:.0f} s.")
        await self._system.sleep(seconds)

    async def aclose(self) -> None:
        await self._exchange.aclose()
