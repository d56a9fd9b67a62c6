"""Calls that wait for people's decisions in one ledger."""

from collections.abc import Callable

import anyio

from fastn_mcp.guard.ledger.ledger import Ledger, LedgerLost, RequestState
from fastn_mcp.runtime import System

_LONGEST = 2.0
"""Seconds after which a waiting call looks at its request again, whatever the ledger reports."""

_RETRY = 1.0
"""Seconds until the ledger is tried again after it could not be reached."""


class DecisionWait:
    """Wakes calls when their approval requests were decided, by whatever process. One of them listens for all."""

    def __init__(self, ledger: Ledger, system: System) -> None:
        self._ledger = ledger
        self._system = system
        self.is_leaving: Callable[[], bool] = lambda: False
        """Whether the process is shutting down or its client has left, so that no call waits on. The server sets it."""
        self._seen = ""
        self._is_listening = False
        self._changed = anyio.Event()

    async def decided(self, request: str, until: float) -> bool:
        """Wait until a request is no longer open. Return False if it still is at `until`, in Unix seconds."""
        while self._system.timestamp() < until and not self.is_leaving():
            changed = self._changed  # before the look, so that no change is missed after it
            try:
                found = await self._ledger.find(request)
                if found is None or found.state is not RequestState.OPEN:
                    return True
                await self._next_change(changed, until)
            except LedgerLost:
                await self._system.sleep(_RETRY)
        return False

    async def _next_change(self, changed: anyio.Event, until: float) -> None:
        if self._is_listening:
            return await changed.wait()
        self._is_listening = True
        try:
            longest = min(_LONGEST, until - self._system.timestamp())
            with anyio.CancelScope() as listening:

                async def sleep(seconds: float) -> None:
                    await self._system.sleep(seconds)
                    if self.is_leaving():
                        listening.cancel()

                self._seen = await self._ledger.wait_for_change(self._seen, longest, sleep)
        finally:  # another one listens if this call has ended
            self._is_listening, self._changed = False, anyio.Event()
            changed.set()
