"""What an application keeps while it lives. No MCP."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette


def within(app: Starlette, kept: Callable[[], AbstractAsyncContextManager[object]]) -> None:
    """Have `app` live within what is kept: begun before whatever it keeps already, and ended after it."""
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def living(app: Starlette) -> AsyncGenerator[Any]:
        async with kept(), inner(app) as state:
            yield state

    app.router.lifespan_context = living
