"""Clock, sleep, randomness and id generation, injectable for tests."""

import random
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio


def _token() -> str:
    return secrets.token_urlsafe(24)


def _now() -> datetime:
    return datetime.now(UTC)


def untraced() -> None:
    """No name: nobody is told."""


Said = dict[str, str | int | float | None]
"""What is known of something that is being done, by our names; whoever does it adds to this."""


def _unobserved(kind: str, subject: str, said: Said) -> AbstractContextManager[Said]:  # noqa: ARG001
    return nullcontext(said)


Report = Callable[[str, float, float | None], Awaitable[None]]
"""Tells whoever waits what is being done, how far it is, and how far it goes, where that is known."""


async def no_progress(message: str, done: float, total: float | None) -> None:
    """A report to nobody."""


@dataclass(frozen=True, slots=True)
class System:
    """What a process has of the outside: clocks in seconds, a pause, a share from 0 to 1, an unguessable id."""

    now: Callable[[], datetime] = _now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    share: Callable[[], float] = random.random
    token: Callable[[], str] = _token
    trace: Callable[[], str | None] = untraced
    """What is being done, as W3C's `traceparent` names it, where that is told to somebody."""
    span: Callable[[str, str, Said], AbstractContextManager[Said]] = _unobserved
    """Observe what is done meanwhile, by its kind (`execute_tool`, `guard`, `ask`, `fastn`, `http` or `wait`), its
    subject and what is known at the start. Whoever does it adds what becomes known."""
