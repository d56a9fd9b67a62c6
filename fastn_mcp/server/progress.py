"""Progress notifications to the client, and why a call waits.

Progress goes to a client that gave a token. Log messages are deprecated since 2026-07-28, and still work: from then on
a request names the level that it wants; before, `logging/setLevel` does, which only stdio remembers: over HTTP, which
is stateless here, clients of the legacy protocol get none.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast, get_args

import anyio
from mcp.server import ServerRequestContext
from mcp.types import (
    LOG_LEVEL_META_KEY,
    EmptyResult,
    LoggingLevel,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    SetLevelRequestParams,
)

from fastn_mcp.channels.elicitation_form import MODERN
from fastn_mcp.client import retry
from fastn_mcp.guard.approval.flow import FormChannel
from fastn_mcp.guard.approval.request import Answer, ApprovalForm, PendingForm
from fastn_mcp.redaction import safe_text
from fastn_mcp.runtime import Report, System, no_progress

Context = ServerRequestContext[Any]
T = TypeVar("T")

_FIRST = 1.0
_EVERY = 2.0
"""Seconds in which nothing was said, after which we say that we wait: at first, and from then on."""

_STEP = 0.001
"""How far progress goes where only time has passed: it has to grow, and must not look like work that was done."""

_LEVELS: tuple[str, ...] = get_args(LoggingLevel)
_OURS = "info"


class Levels:
    """Which messages a client wants."""

    def __init__(self) -> None:
        self._chosen: LoggingLevel | None = None

    async def choose(self, ctx: Context, params: SetLevelRequestParams) -> EmptyResult:
        """Up to 2025-11-25. Remembered where this process serves one client, on its pipes."""
        if ctx.request is None:
            self._chosen = params.level
        return EmptyResult()

    def wants(self, ctx: Context) -> bool:
        """Whether this request's client wants our messages."""
        if ctx.protocol_version >= MODERN:
            level = (ctx.meta or {}).get(LOG_LEVEL_META_KEY)
        else:
            level = self._chosen if ctx.request is None else None
        return level in _LEVELS and _LEVELS.index(cast(str, level)) <= _LEVELS.index(_OURS)


class ProgressReporter:
    """Reports on one request to its client, if it asked for progress or for log messages."""

    def __init__(self, ctx: Context, levels: Levels, system: System) -> None:
        self._ctx = ctx
        self._system = system
        self._progresses = bool(ctx.meta and "progress_token" in ctx.meta)
        self._logs = levels.wants(ctx)
        self.is_wanted = self._progresses or self._logs
        self._turn = anyio.Lock()
        self._reached = 0.0
        self._total: float | None = None
        self._begun = self._said = system.monotonic()
        self._doing = "Waiting for Fastn"

    async def during(self, work: Callable[[Report], Awaitable[T]]) -> T:
        """Do the work, and report on it while it lasts."""
        if not self.is_wanted:
            return await work(no_progress)
        heard = retry.listener.set(self._waits)
        try:
            return await self._watched(work)
        finally:
            retry.listener.reset(heard)

    async def _watched(self, work: Callable[[Report], Awaitable[T]]) -> T:
        # Caught inside: out of a group it would come as a group of errors.
        ended: Exception = AssertionError("the work ended neither way")
        async with anyio.create_task_group() as tasks:
            if self._progresses:
                tasks.start_soon(self._watch)
            try:
                return await work(self.report)
            except Exception as error:
                ended = error
            finally:
                tasks.cancel_scope.cancel()
        raise ended

    async def report(self, message: str, done: float, total: float | None) -> None:
        """What a procedure says of itself."""
        self._doing, self._total = message, total
        await self._progress(message, done)

    async def _watch(self) -> None:
        pause = _FIRST
        while True:
            await self._system.sleep(pause)
            pause = _EVERY
            now = self._system.monotonic()
            if (quiet := now - self._said) < _FIRST:
                pause = _EVERY - quiet
                continue
            await self._progress(f"{self._doing}, {now - self._begun:.0f} s", self._reached)

    async def _waits(self, why: str) -> None:
        if self._logs:
            said = LoggingMessageNotificationParams(level=_OURS, logger="fastn_mcp.client", data=safe_text(why))
            await self._ctx.session.send_notification(LoggingMessageNotification(params=said), self._ctx.request_id)
        await self._progress(why, self._reached)

    async def _progress(self, message: str, done: float) -> None:
        async with self._turn:
            self._said = self._system.monotonic()
            self._reached = max(done, self._reached + _STEP)
            total = None if self._total is None or self._total < self._reached else self._total
            await self._ctx.session.report_progress(self._reached, total, safe_text(message))

    async def ask(self, form: FormChannel, question: ApprovalForm) -> Answer | PendingForm:
        """Ask by a form of the client; meanwhile the call waits for a person."""
        before, self._doing = self._doing, "Waiting for a person's answer"
        try:
            return await form.ask(question)
        finally:
            self._doing = before


class ReportedForm:
    """A form whose waiting is reported as progress."""

    def __init__(self, form: FormChannel, reporter: ProgressReporter) -> None:
        self._form = form
        self._reporter = reporter
        self.name = form.name
        self.trusts_fast_answers = form.trusts_fast_answers
        self.submitted = form.submitted

    async def ask(self, question: ApprovalForm) -> Answer | PendingForm:
        return await self._reporter.ask(self._form, question)
