"""The doctor's only way to Fastn: GET and OPTIONS, few enough, and at the pace that Fastn asks for."""

from datetime import datetime

from fastn_mcp.client.exchange import Answer, Exchange
from fastn_mcp.client.retry import LONGEST_WAIT, exhausted_for, retry_after
from fastn_mcp.errors import NotSent, RateLimited
from fastn_mcp.operation import Request
from fastn_mcp.system import System

MOST = 250
"""Requests in one visit; about 60 are usual."""

_LOOKS = ("GET", "OPTIONS")


class Looking:
    """An exchange that refuses whatever could change something, and keeps the last answer."""

    def __init__(self, exchange: Exchange, system: System) -> None:
        self._exchange = exchange
        self._system = system
        self.sent = 0
        self.last: Answer | None = None

    def through(self, exchange: Exchange) -> None:
        """Go on with other headers."""
        self._exchange = exchange

    async def __call__(self, request: Request) -> Answer:
        """Raises `NotSent` for what is no look, and as the exchange does."""
        self.last = None
        if request.method not in _LOOKS or request.body is not None:
            raise NotSent(f"doctor sends no {request.method}.")
        if self.sent >= MOST:
            raise NotSent(f"doctor sends {MOST} requests at most.", "Run it again with fewer --toolsets.")
        self.sent += 1
        self.last = await self._exchange(request)
        return self.last

    async def patiently(self, request: Request) -> Answer:
        """Once more where Fastn asks to wait a moment. Raises `RateLimited` where it is more than that."""
        answer = await self(request)
        now = self._system.now()
        if answer.status == 429:
            await self._wait(retry_after(answer.headers, now), answer, now)
            answer = await self(request)
        elif (seconds := exhausted_for(answer.headers, now)) is not None:
            await self._wait(seconds, answer, now)
        return answer

    async def _wait(self, seconds: float | None, answer: Answer, now: datetime) -> None:
        seconds = seconds or exhausted_for(answer.headers, now)
        if seconds is None or seconds > LONGEST_WAIT:
            raise RateLimited("Fastn's rate limit is used up.", "Run doctor again in some minutes.")
        await self._system.sleep(seconds)

    async def aclose(self) -> None:
        await self._exchange.aclose()
