"""Work of a channel beside calls, which neither wait for it nor cancel it.

A module of its own: `runtime` is imported by commands that need no event loop, and the HTTP server not by every
channel.
"""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundTasks:
    """Tasks without the context of the call that begins them, whose cancellation and spans they do not share."""

    def __init__(self) -> None:
        self._tasks = set[asyncio.Task[Any]]()

    def begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run work in the background. `aclose` gives up what has not ended."""
        task = asyncio.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
