"""Calls that wait for people's decisions in one ledger.

One call listens for changes and looks for all of them, in one read, so that a thousand cost no more than one. Each is
woken by an event of its own, which stays set until it has looked, and ends at its own bound: no other call can lose it.
"""

from collections.abc import Callable
from contextlib import suppress

import anyio

from fastn_mcp.guard.stops import Stops
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.asker import Asker
from fastn_mcp.runtime import System

_CHECK_INTERVAL = 2.0
"""Seconds after which the requests are looked at again, whatever the ledger reports."""

_RETRY_SECONDS = 1.0
"""Seconds until the ledger is tried again after it could not be reached."""


_MAX_ENDED = 1000
"""Requests of which it is known that their call waits no longer."""


class _WaitingCall:
    def __init__(self, request: str, asker: Asker, until: float) -> None:
        self.request = request
        self.asker = asker
        self.until = until
        self.is_seen = False
        """Whether its request was looked at since it waits."""
        self.is_decided = False
        self.woken = anyio.Event()

    async def wait(self) -> None:
        await self.woken.wait()
        self.woken = anyio.Event()


class DecisionWait:
    """Wakes calls when their approval requests were decided, or changes were stopped, by whatever process."""

    def __init__(self, ledger: Ledger, stops: Stops, system: System) -> None:
        self._ledger = ledger
        self._stops = stops
        self._system = system
        self.is_leaving: Callable[[], bool] = lambda: False
        """Whether the process is shutting down or its client has left, so that no call waits on. The server sets it."""
        self._calls = set[_WaitingCall]()
        self._ended: dict[str, bool] = {}
        """Requests whose call waits no longer, the newest last, and whether its client had gone."""
        self._looking = anyio.Lock()
        self._is_listening = False
        self._seen = ""

    async def decided(self, request: str, asker: Asker, until: float) -> bool:
        """Wait until a request is no longer open, or the changes of its caller are stopped.

        Return False if neither is so at `until`, in Unix seconds.
        """
        call = _WaitingCall(request, asker, until)
        is_cancelled = True
        self._calls.add(call)
        try:
            with anyio.move_on_after(self._left(until)):
                with suppress(LedgerLost):
                    async with self._looking:  # of calls that begin at once, the first looks for all
                        if not call.is_seen:
                            await self._look()
                while self._waits(call, until):
                    await (call.wait() if self._is_listening else self._listen(call, until))
            is_cancelled = False
        finally:
            self._calls.discard(call)
            self._ended.pop(request, None)
            self._ended[request] = is_cancelled
            if len(self._ended) > _MAX_ENDED:
                del self._ended[next(iter(self._ended))]
        return call.is_decided

    def presence(self, request: str) -> tuple[str, float]:
        """Return what this process knows of the call of a request, in words or empty, and how long that is true."""
        waiting = [call.until for call in self._calls if call.request == request]
        if waiting:
            return "The agent is waiting for your decision.", max(waiting)
        is_gone = self._ended.get(request)
        if is_gone is None:
            return "", 0.0
        what = "The client has disconnected." if is_gone else "The agent is no longer waiting."
        return f"{what} If you approve, the call runs when the agent makes it again.", float("inf")

    def _left(self, until: float) -> float:
        return until - self._system.timestamp()

    def _waits(self, call: _WaitingCall, until: float) -> bool:
        return not call.is_decided and self._left(until) > 0 and not self.is_leaving()

    async def _listen(self, call: _WaitingCall, until: float) -> None:
        """Listen for all calls as long as this one waits. However that ends, the others are woken, and one listens."""
        self._is_listening = True
        try:
            while self._waits(call, until):
                try:
                    await self._next_change(min(_CHECK_INTERVAL, self._left(until)))
                except LedgerLost:
                    await self._system.sleep(min(_RETRY_SECONDS, max(0.0, self._left(until))))
        finally:
            self._is_listening = False
            for other in self._calls:
                other.woken.set()

    async def _next_change(self, longest: float) -> None:
        seen = self._seen
        with anyio.CancelScope() as listening:

            async def sleep(seconds: float) -> None:
                await self._system.sleep(seconds)
                if self.is_leaving():
                    listening.cancel()

            seen = await self._ledger.wait_for_change(self._seen, longest, sleep)
        async with self._looking:
            await self._look()
        self._seen = seen  # not before the look, which may fail

    async def _look(self) -> None:
        """Read which requests are open and who is stopped, and wake the calls that have nothing to wait for."""
        calls = [*self._calls]
        still_open = await self._ledger.still_open({call.request for call in calls})
        stopped = await self._stops.holding({call.asker for call in calls})
        for call in calls:
            call.is_seen = True
            if call.request not in still_open or call.asker in stopped:
                call.is_decided = True
                call.woken.set()
