"""Run statements, each in a process of its own: one at a time for an account, two for this process."""

import json
import os
import sqlite3
import subprocess
import sys
import weakref
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import anyio.abc
import anyio.lowlevel
from anyio.streams.buffered import BufferedByteReceiveStream

from fastn_mcp.errors import NOTHING_CHANGED, Failed, NotSent
from fastn_mcp.procedures.query.child_program import READY, StatementAnswer, Task
from fastn_mcp.runtime import work_on

STATEMENT_SECONDS = 2.0
"""Seconds after which a statement is stopped."""

COMPILE_SECONDS = 0.5
"""Seconds after which it is stopped while it is only compiled. Both take less than three seconds."""

_LOAD_SECONDS = 10.0
"""Seconds in which a process has to start and take all rows."""

_END_SECONDS = 1.0

_MAX_PROCESSES = 2

_MAX_ANSWER = 64_000_000
"""Maximum size of an answer in bytes. The process keeps to what it is asked for, which is much less."""

_PROGRAM = Path(__file__).with_name("child_program.py")

_processes = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("statement processes")
_accounts = anyio.lowlevel.RunVar["weakref.WeakKeyDictionary[object, anyio.Lock]"]("statements of accounts")

OLDEST_SQLITE = (3, 31, 0)
"""The first version with `hard_heap_limit`. It refuses what newer ones refuse; functions that it lacks are errors."""

IS_AVAILABLE = sys.platform != "win32" and sqlite3.sqlite_version_info >= OLDEST_SQLITE
"""Whether statements run here. The memory of a process on Windows is not limited by this server."""

UNAVAILABLE = (
    "query is not available on Windows or with SQLite before 3.31, where the memory of a statement cannot be limited."
)


class StatementStopped(Failed):
    """The statement was stopped: it took too long, or too much memory."""

    has_ended = False
    """Whether its process has ended by itself, or is about to."""


def slot_of(account: object) -> anyio.Lock:
    """Return the lock of an account, which is held while one of its statements is compiled or run."""
    try:
        locks = _accounts.get()
    except LookupError:
        locks = weakref.WeakKeyDictionary[object, anyio.Lock]()
        _accounts.set(locks)
    return locks.setdefault(account, anyio.Lock())


async def run_task(task: Task, lines: Iterable[bytes] = ()) -> StatementAnswer:
    """Do a task in a process of its own, with rows as lines of JSON. Raises `StatementStopped`, or another `Failed`."""
    if not IS_AVAILABLE:
        raise NotSent(UNAVAILABLE, "Use the list tools.")
    try:
        limiter = _processes.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_MAX_PROCESSES)
        _processes.set(limiter)
    async with limiter:
        try:
            process = await anyio.open_process(
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                stderr=subprocess.DEVNULL,
                cwd=os.sep,
                env={},
            )
        except OSError as error:
            raise _not_run(type(error).__name__) from error
        has_ended = False
        try:
            answer = await _answer(process, task, lines)
            has_ended = True
            return answer
        except StatementStopped as error:
            has_ended = error.has_ended
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process, has_ended=has_ended)


async def _answer(process: anyio.abc.Process, task: Task, lines: Iterable[bytes]) -> StatementAnswer:
    source = cast(anyio.abc.ByteSendStream, process.stdin)
    received = BufferedByteReceiveStream(cast(anyio.abc.ByteReceiveStream, process.stdout))
    try:
        with anyio.fail_after(_LOAD_SECONDS):
            await source.send(json.dumps(task).encode() + b"\n")
            for line in lines:
                await source.send(line + b"\n")
            await source.aclose()
            first = await received.receive_until(b"\n", _MAX_ANSWER)
    except TimeoutError:
        raise _not_run("it did not start in time") from None
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.IncompleteRead, anyio.EndOfStream):
        raise _too_much_memory() from None
    if first != READY.encode():  # it failed before
        return await _parsed(first)
    seconds = STATEMENT_SECONDS if task["runs"] else COMPILE_SECONDS
    try:
        with anyio.fail_after(seconds):
            line = await received.receive_until(b"\n", _MAX_ANSWER)
    except TimeoutError:
        raise StatementStopped(
            f"The statement took longer than {seconds:g} seconds and was stopped.",
            "Read fewer rows: a narrower WHERE, no cross join, a LIMIT in each recursive part.",
            certainty=NOTHING_CHANGED,
        ) from None
    except (anyio.IncompleteRead, anyio.EndOfStream, anyio.DelimiterNotFound):
        raise _too_much_memory() from None
    return await _parsed(line)


async def _parsed(line: bytes) -> StatementAnswer:
    answer = cast(StatementAnswer, await work_on(len(line), partial(json.loads, line)))
    if answer.get("failure") == "memory":
        raise _too_much_memory()
    return answer


def _too_much_memory() -> StatementStopped:
    stopped = StatementStopped(
        "The statement took too much memory and was stopped.",
        "Read fewer rows or columns, and build no long texts.",
        certainty=NOTHING_CHANGED,
    )
    stopped.has_ended = True
    return stopped


def _not_run(why: str) -> Failed:
    return Failed(
        f"The process for the statement could not be used ({why}).", "Use the list tools.", certainty=NOTHING_CHANGED
    )


async def _end(process: anyio.abc.Process, *, has_ended: bool) -> None:
    """End a process. One that ends by itself is waited for: to kill it then would take its exit from asyncio."""
    if has_ended:
        with anyio.move_on_after(_END_SECONDS):
            await process.wait()
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    await process.aclose()
