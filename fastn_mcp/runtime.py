"""Clock, sleep, randomness and id generation, injectable for tests; and what a client has left unread."""

import os
import random
import secrets
import stat
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio

SpanFacts = dict[str, str | int | float | None]
"""Facts about an operation in progress, by our names. The code that runs it adds more."""


def _unobserved(kind: str, subject: str, facts: SpanFacts) -> AbstractContextManager[SpanFacts]:  # noqa: ARG001
    return nullcontext(facts)


T = TypeVar("T")


async def with_background(background: Callable[[], Coroutine[Any, Any, None]], work: Callable[[], Awaitable[T]]) -> T:
    """Await `work`, and cancel `background` once it has ended. Its error is not wrapped in an exception group."""
    failure: Exception = AssertionError("the work ended neither way")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(background)
        try:
            return await work()
        except Exception as error:  # caught inside the group, which would wrap it
            failure = error
        finally:
            tasks.cancel_scope.cancel()
    raise failure


Report = Callable[[str, float, float | None], Awaitable[None]]
"""Reports progress: a message, the work done, and the total if it is known."""


async def no_progress(message: str, done: float, total: float | None) -> None:
    """Discard a progress report."""


@dataclass(frozen=True, slots=True)
class System:
    """Clocks in seconds, sleep, a random number from 0 to 1, unguessable ids, and tracing."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    share: Callable[[], float] = random.random
    token: Callable[[], str] = lambda: secrets.token_urlsafe(24)
    trace: Callable[[], str | None] = lambda: None
    """Return the current span as a W3C `traceparent`; None if nothing is traced."""
    span: Callable[[str, str, SpanFacts], AbstractContextManager[SpanFacts]] = _unobserved
    """Open a span of a kind (`execute_tool`, `guard`, `ask`, `fastn`, `http` or `wait`) with a subject and the facts
    known at the start. The code inside adds further facts."""

    def timestamp(self) -> float:
        """Return the current time in Unix seconds."""
        return self.now().timestamp()


def unread_bytes(descriptor: int) -> int:
    """Return the unread bytes of a pipe or the unreceived bytes of a socket. Always 0 outside Linux."""
    if sys.platform != "linux":
        return 0
    import fcntl  # not on Windows
    import termios

    request = termios.FIONREAD if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else termios.TIOCOUTQ
    return int.from_bytes(fcntl.ioctl(descriptor, request, bytes(4)), sys.byteorder)
