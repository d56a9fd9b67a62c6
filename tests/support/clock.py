"""A clock that tests move."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio
from typing_extensions import override

from fastn_mcp.runtime import System

NOW: Final = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)


class Clock:
    """Time that moves by pauses and by `pass_`. It records each pause."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at
        self.waits: list[float] = []

    def now(self) -> datetime:
        return self.at

    def pass_(self, seconds: float = 0, **time: float) -> None:
        self.at += timedelta(seconds=seconds, **time)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.pass_(seconds)

    def system(self, tokens: str = "t", share: float = 0.5) -> System:
        numbers = itertools.count(1)
        return System(
            self.now, lambda: self.at.timestamp(), self.sleep, lambda: share, lambda: f"{tokens}{next(numbers)}"
        )


class SteadyClock(Clock):
    """Time that only tests move, while what waits does wait."""

    @override
    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(min(seconds, 0.02))
