"""Progress notifications and log messages to the client, which say why a call waits.

Progress goes to clients that send a progress token. Log messages are deprecated since 2026-07-28 but still work: since
then each request names its level. Before, `logging/setLevel` set it, which only stdio remembers: over HTTP, which is
stateless here, legacy clients get no log messages.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, cast, get_args

import anyio
from mcp import types
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from fastn_mcp.channels.elicitation import Context
from fastn_mcp.client import retry
from fastn_mcp.guard.approval_form import Answer
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.redaction import safe_text, shorten
from fastn_mcp.runtime import Report, System, with_background

T = TypeVar("T")

_FIRST_REPORT = 1.0
_INTERVAL = 2.0
"""Seconds without a report until progress is sent: the first time, and then repeatedly."""

_MAX_MESSAGE = 1_000
"""Maximum characters of a message."""

_MIN_PROGRESS = 0.001
"""Progress added when only time has passed. It has to grow, but must not look like work done."""

_LEVELS: tuple[str, ...] = get_args(types.LoggingLevel)
_LEVEL = "info"


class Levels:
    """Log levels that clients request."""

    def __init__(self) -> None:
        self._chosen: types.LoggingLevel | None = None

    async def choose(self, ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        """Handle `logging/setLevel` (up to 2025-11-25). Stored only on stdio, where there is one client."""
        if ctx.request is None:
            self._chosen = params.level
        return types.EmptyResult()

    def wants(self, ctx: Context) -> bool:
        """Whether the client of this request wants our info messages."""
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            level = (ctx.meta or {}).get(types.LOG_LEVEL_META_KEY)
        else:
            level = self._chosen if ctx.request is None else None
        return level in _LEVELS and _LEVELS.index(cast(str, level)) <= _LEVELS.index(_LEVEL)


class ProgressReporter:
    """Reports on one request to its client, which wants progress or log messages."""

    def __init__(self, ctx: Context, system: System, *, wants_progress: bool, wants_logs: bool) -> None:
        self._ctx = ctx
        self._system = system
        self._wants_progress = wants_progress
        self._wants_logs = wants_logs
        self._sending = anyio.Lock()
        self._reached = 0.0
        self._total: float | None = None
        self._started_at = self._reported_at = system.monotonic()
        self.activity = "Waiting for Fastn"

    async def during(self, work: Callable[[Report], Awaitable[T]]) -> T:
        """Await the work and report on it meanwhile."""
        token = retry.listener.set(self._report_wait)
        try:
            if not self._wants_progress:
                return await work(self.report)
            return await with_background(self._watch, partial(work, self.report))
        finally:
            retry.listener.reset(token)

    async def report(self, message: str, done: float, total: float | None) -> None:
        self.activity = message
        self._total = total
        await self._progress(message, done)

    async def _watch(self) -> None:
        pause = _FIRST_REPORT
        while True:
            await self._system.sleep(pause)
            pause = _INTERVAL
            now = self._system.monotonic()
            quiet = now - self._reported_at
            if quiet < _FIRST_REPORT:
                pause = _INTERVAL - quiet
                continue
            await self._progress(f"{self.activity}, {now - self._started_at:.0f} s", self._reached)

    async def _report_wait(self, why: str) -> None:
        if self._wants_logs:
            text = safe_text(why)
            logger = "fastn_mcp.client"
            params = types.LoggingMessageNotificationParams(level=_LEVEL, logger=logger, data=text)
            message = types.LoggingMessageNotification(params=params)
            await self._ctx.session.send_notification(message, self._ctx.request_id)
        await self._progress(why, self._reached)

    async def _progress(self, message: str, done: float) -> None:
        async with self._sending:
            self._reported_at = self._system.monotonic()
            self._reached = max(done, self._reached + _MIN_PROGRESS)
            total = None if self._total is None or self._total < self._reached else self._total
            await self._ctx.session.report_progress(self._reached, total, shorten(safe_text(message), _MAX_MESSAGE))


def reporter(ctx: Context, levels: Levels, system: System) -> ProgressReporter | None:
    """Return what reports on a request to its client; None if it wants neither progress nor log messages."""
    progress = bool(ctx.meta and "progress_token" in ctx.meta)
    logs = levels.wants(ctx)
    return ProgressReporter(ctx, system, wants_progress=progress, wants_logs=logs) if progress or logs else None


class ReportedForm(Channel):
    """Form that reports its waiting time as progress."""

    def __init__(self, form: Channel, reporter: ProgressReporter) -> None:
        self.name = form.name
        self._form = form
        self._reporter = reporter

    @property
    def capabilities(self) -> ChannelCapabilities:
        return self._form.capabilities

    async def ask(self, request: ApprovalRequest) -> Answer | Announcement | None:
        before = self._reporter.activity
        self._reporter.activity = "Waiting for a person's answer"
        try:
            return await self._form.ask(request)
        finally:
            self._reporter.activity = before
