"""MCP over this process's own pipes. Every request gets an answer, and the process always ends.

The SDK's own transport drops what it cannot parse, without an answer; hangs on SIGINT; leaves on SIGTERM without
cleaning up; and cancels calls in flight when the input ends (python-sdk #2678). Hence a transport of our own, on the
SDK's streams. The SDK itself is loaded once the introduction needs it.
"""

import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from fastn_mcp.introduction import Introduction
from fastn_mcp.pipes import Pipes

if TYPE_CHECKING:
    from mcp.server import Server


async def serve(begin: "Callable[[], Server[Any]]", introduction: Introduction | None = None) -> None:
    """Serve until the input ends, or until SIGINT or SIGTERM. `begin` makes the server, when it is first needed."""
    pipes = Pipes()
    try:
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
                await tasks.start(_stop_on_signal, tasks)  # before the first answer: a signal may follow it at once
            lines = pipes.lines()
            heard, answered = list[bytes](), set[object]()
            if introduction is None or await _introduce(introduction, lines, pipes, heard, answered):
                server = begin()
                from fastn_mcp.session import converse  # the SDK

                await converse(server, pipes, lines, heard, answered)
            tasks.cancel_scope.cancel()
    finally:
        pipes.restore()


async def _introduce(
    introduction: Introduction, lines: AsyncIterator[bytes], pipes: Pipes, heard: list[bytes], answered: set[object]
) -> bool:
    """Answer what can be answered beforehand, and note it. Whether the conversation goes on."""
    async for line in lines:
        heard.append(line)
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
