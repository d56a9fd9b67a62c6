"""What a call costs: the requests sent to Fastn for it, and the age of what it read. Known without the HTTP library."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Spent:
    """Cost of one call, counted while it runs."""

    requests: int = 0
    """Requests sent to Fastn, retries included."""
    oldest: float | None = None
    """Monotonic time of the oldest read that the answer uses, if it was not made for this call."""
    received: int = 0
    """Bytes of the bodies that Fastn answered, by which the answer can be large."""
    _recorded: int = 0

    def unrecorded(self) -> int:
        """Return the requests since the last call of this method. Each is counted for one entry of the audit log."""
        requests = self.requests - self._recorded
        self._recorded = self.requests
        return requests


spent: ContextVar[Spent | None] = ContextVar("spent", default=None)
"""Cost of the call in this context."""


def received() -> int:
    """Return the bytes that Fastn answered for the call in this context."""
    cost = spent.get()
    return 0 if cost is None else cost.received


@contextmanager
def counted_requests() -> Generator[Spent]:
    """Count the requests of the calls in this block. In another such block, it is that one's count."""
    outer = spent.get()
    if outer is not None:
        yield outer
        return
    inner = Spent()
    token = spent.set(inner)
    try:
        yield inner
    finally:
        spent.reset(token)
