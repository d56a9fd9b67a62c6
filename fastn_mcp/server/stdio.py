"""MCP over stdio. Every request gets a response, and the process always exits.

The SDK's own transport drops unparsable messages without a response, hangs on SIGINT, exits on SIGTERM without cleanup,
and cancels calls in flight when the input ends (python-sdk #2678). This transport replaces it, on the SDK's streams.
The SDK is loaded after the early handshake.
"""

import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from fastn_mcp.server.handshake import Introduction
from fastn_mcp.server.pipes import Pipes

if TYPE_CHECKING:
    from mcp.server import Server


async def serve(begin: "Callable[[Callable[[], bool]], Server[Any]]", introduction: Introduction | None = None) -> None:
    """Serve until the input ends or SIGINT or SIGTERM arrives.

    `begin` builds the server when it is first needed. Its argument tells whether the input has ended.
    """
    pipes = Pipes()
    try:
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
                await tasks.start(_stop_on_signal, tasks)  # before the first response, after which a signal may come
            lines = pipes.lines()
            replayed = list[bytes]()
            answered = set[object]()
            if introduction is None or await _introduce(
                introduction, lines, pipes, replayed=replayed, answered=answered
            ):
                server = begin(pipes.ended.is_set)
                from fastn_mcp.server.session import serve_session  # the SDK

                await serve_session(server, pipes, lines, replayed=replayed, answered=answered)
            tasks.cancel_scope.cancel()
    finally:
        pipes.restore()


async def _introduce(
    introduction: Introduction, lines: AsyncIterator[bytes], pipes: Pipes, replayed: list[bytes], answered: set[object]
) -> bool:
    """Run the early handshake and record its lines and answered ids. Return whether the session goes on."""
    async for line in lines:
        replayed.append(line)
        reply = introduction.reply(line)
        if reply is None:
            return True
        if reply.line:
            answered.add(reply.id)
            await pipes.write(reply.line)
        if reply.last:
            return True
    return False


async def _stop_on_signal(tasks: TaskGroup, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            tasks.cancel_scope.cancel()
            return
