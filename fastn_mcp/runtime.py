"""Clock, sleep, randomness and id generation, injectable for tests; large work; what a client has left unread."""

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
import anyio.lowlevel
import anyio.to_thread

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


LARGE = 100_000
"""Bytes of JSON from which on they are worked on in a thread: redacting as many takes up to 20 ms."""

_MAX_WORKERS = 2
"""Number of such threads. More would not be faster, and the event loop would wait for its turn behind each of them."""

_workers = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("workers")


async def work_on(size: int, work: Callable[[], T]) -> T:
    """Return the result of `work` on `size` bytes: here if that is quick, else in a thread, so that the loop is free.

    `work` must not touch what the loop changes meanwhile. It cannot be cancelled, as if it was done here.
    """
    if size < LARGE:
        return work()
    try:
        limiter = _workers.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_MAX_WORKERS)
        _workers.set(limiter)
    with anyio.CancelScope(shield=True):
        return await anyio.to_thread.run_sync(work, limiter=limiter)
    raise AssertionError("nothing cancels this scope itself")


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
