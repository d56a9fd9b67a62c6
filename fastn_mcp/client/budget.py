"""How many retries one credential has left, so that an outage is not answered by a storm. Pure.

First attempts always go. A retry costs, a success gives back; once it is used up, failures are said at once.
"""

from fastn_mcp.client.retry import Fate

FULL = 500.0
_COST = {Fate.UNSENT: 14.0, Fate.UNKNOWN: 14.0, Fate.THROTTLED: 5.0, Fate.ANSWERED: 0.0}
_REFILL = 1.0


class RetryBudget:
    """Tokens: 14 for a retry after a failure, 5 after a 429, one back for each answer."""

    def __init__(self) -> None:
        self._left = FULL

    def take(self, after: Fate) -> bool:
        """Pay for a retry; False where it cannot be paid."""
        if self._left < _COST[after]:
            return False
        self._left -= _COST[after]
        return True

    def refill(self) -> None:
        """An answer came."""
        self._left = min(FULL, self._left + _REFILL)
