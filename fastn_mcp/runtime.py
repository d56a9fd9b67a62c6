"""Clock, sleep, randomness and id generation, injectable for tests."""

import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio


def _token() -> str:
    return secrets.token_urlsafe(24)


def _now() -> datetime:
    return datetime.now(UTC)


def untraced() -> None:
    """No name: nobody is told."""


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
