"""The doctor's requests to Fastn: GET and OPTIONS only, few, at the pace that Fastn asks for; and where else to ask."""

from fastn_mcp.client.http import Answer, Exchange
from fastn_mcp.client.retry import announce_wait, exhausted_for, retry_after
from fastn_mcp.errors import NotSent, RateLimited
from fastn_mcp.runtime import System
from fastn_mcp.tools.catalog import AnyOperation
from fastn_mcp.tools.operation import Request, Route

MOST = 250
"""Requests of one run; about 40 are usual."""

LONGEST_PAUSE = 75.0
"""Seconds that are waited for a rate limit to open: limits are by the minute, and a run may be longer than a call."""

LONGEST_PAUSES = 300.0
"""Seconds of all pauses together."""

_READING = ("GET", "OPTIONS")


class Probe:
    """An exchange that refuses whatever could change something, and keeps the last answer."""

    def __init__(self, exchange: Exchange, system: System) -> None:
        self._exchange = exchange
        self._system = system
        self._paused = 0.0
        self.sent = 0
        self.last: Answer | None = None

    async def switch(self, exchange: Exchange) -> None:
        """Go on with other headers."""
        await self._exchange.aclose()
        self._exchange = exchange

    async def __call__(self, request: Request) -> Answer:
        """Raises `NotSent` for another method, `RateLimited` where a limit opens late, and as the exchange does."""
        self.last = None
        if request.method not in _READING or request.body is not None:
            raise NotSent(f"doctor sends no {request.method}.")
        answer = await self._send(request)
        now = self._system.now()
        seconds = exhausted_for(answer.headers, now)
        if answer.status == 429:
            await self._pause(retry_after(answer.headers, now) or seconds)
            answer = await self._send(request)
        elif seconds is not None:
            await self._pause(seconds)
        self.last = answer
        return answer

    async def _send(self, request: Request) -> Answer:
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


_OTHER_PATHS = {
    "/api/v1/customers": ("/api/v1/orgs", "/api/v1/organizations"),  # third parties; the classic API
    "/api/v1/triggers": ("/api/v1/app-triggers",),  # third parties
    "/api/v1/audit": ("/api/v1/audit-log",),  # Fastn's documentation
    "/api/v1/api-keys": ("/api/v1/api-access",),  # the classic API
    "/api/v1/billing/usage": ("/api/v1/quota/usage",),  # the classic API
    "/api/v1/billing/quotas": ("/api/v1/quota/summary", "/api/v1/quota/daily"),  # the classic API
    # Fastn's documentation, third parties
    "/api/v1/workflows/{workflow_id}/run": ("/api/v1/workflows/{workflow_id}/execute",),
    "/api/v1/ai/build": ("/api/v1/ai/generate", "/api/v1/ai/run"),  # the classic API
}
"""The beginning of a declared path, what is there instead on other accounts, and who says so."""


def alternatives(operation: AnyOperation) -> tuple[Route, ...]:
    """The other routes that an operation may have."""
    path = operation.route.path
    return tuple(
        Route(operation.route.method, other + path.removeprefix(declared))
        for declared, others in _OTHER_PATHS.items()
        if path == declared or path.startswith(f"{declared}/")
        for other in others
    )
