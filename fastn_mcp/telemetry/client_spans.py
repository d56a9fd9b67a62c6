"""Requests to Fastn as spans: one for a call, and one for each attempt.

Nothing is added to what is sent: no trace header leaves for Fastn.
"""

import time
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from typing_extensions import override

from fastn_mcp.client import rate_limit
from fastn_mcp.client.account import Account
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.http import Answer, Exchange
from fastn_mcp.client.rate_limit import RateLimitStore
from fastn_mcp.errors import FastnError
from fastn_mcp.runtime import System
from fastn_mcp.telemetry import attributes
from fastn_mcp.telemetry.instruments import Instruments, fail, kind_of
from fastn_mcp.tools.operation import Operation, Request
from fastn_mcp.tools.tool import FastnObject

R = TypeVar("R", bound=FastnObject)


@dataclass(slots=True)
class _Sending:
    """A call of Fastn's API, and what of it was sent already."""

    operation: str
    sent: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])


_sending: ContextVar[_Sending | None] = ContextVar("sending", default=None)


class ObservedClient(FastnClient):
    """A client whose calls are spans."""

    def __init__(
        self,
        account: Account,
        exchange: Exchange,
        system: System,
        board: RateLimitStore | None,
        signals: Instruments,
        profile: str,
    ) -> None:
        super().__init__(account, ObservedExchange(exchange, account.base_url, signals, profile), system, board)
        self._signals = signals
        self._profile = profile

    @override
    async def send(self, call: Operation[R]) -> R:
        name = call.tool_name()
        said = {attributes.OPERATION: name, attributes.EFFECT: call.effect.value, attributes.PROFILE: self._profile}
        sending, counting = _sending.set(_Sending(name)), rate_limit.counter.set(self._waits)
        try:
            with self._signals.span(f"fastn {name}", said) as span:
                try:
                    return await super().send(call)
                except FastnError as error:
                    span.set_attribute(attributes.OUTCOME, error.outcome)
                    fail(span, error.outcome)
                    raise
                except BaseException as error:
                    fail(span, kind_of(error))
                    raise
        finally:
            _sending.reset(sending)
            rate_limit.counter.reset(counting)

    def _waits(self, cause: rate_limit.WaitReason, seconds: float) -> None:
        trace.get_current_span().add_event(
            "wait", {attributes.CAUSE: cause.value, attributes.SECONDS: round(seconds, 3)}
        )
        self._signals.measure(
            attributes.WAITED, seconds, {attributes.CAUSE: cause.value, attributes.PROFILE: self._profile}
        )


class ObservedExchange:
    """An exchange whose requests are spans."""

    def __init__(self, exchange: Exchange, base_url: str, signals: Instruments, profile: str) -> None:
        self._exchange = exchange
        self._signals = signals
        where = urlsplit(base_url)
        port = where.port or (80 if where.scheme == "http" else 443)
        self._there: dict[str, str | int] = {
            attributes.ADDRESS: where.hostname or "",
            attributes.PORT: port,
            attributes.PROFILE: profile,
        }

    async def __call__(self, request: Request) -> Answer:
        said = self._there | {attributes.HTTP_METHOD: request.method, attributes.TEMPLATE: request.template}
        if (again := self._again(request)) > 0:
            said[attributes.RESENT] = again
        began = time.monotonic()
        try:
            with self._signals.span(f"{request.method} {request.template}", said, SpanKind.CLIENT) as span:
                try:
                    answer = await self._exchange(request)
                except BaseException as error:
                    said[attributes.ERROR] = kind_of(error)
                    fail(span, kind_of(error))
                    raise
                said[attributes.HTTP_STATUS] = answer.status
                span.set_attribute(attributes.HTTP_STATUS, answer.status)
                if (wrong := _wrong(answer)) is not None:
                    said[attributes.ERROR] = wrong
                    fail(span, wrong)
        finally:
            self._signals.measure(attributes.REQUESTED, time.monotonic() - began, said)
        remaining = answer.headers.get("x-ratelimit-remaining", "").strip()
        if remaining.isascii() and remaining.isdecimal() and len(remaining) < 10:
            self._signals.level(attributes.ROOM, int(remaining), self._there)
        return answer

    def _again(self, request: Request) -> int:
        """How often this request of the call was sent before."""
        if (sending := _sending.get()) is None:
            return 0
        sending.sent[request.method, request.path] += 1
        again = sending.sent[request.method, request.path] - 1
        if again > 0:
            self._signals.count(attributes.RETRIED, self._there | {attributes.OPERATION: sending.operation})
        return again

    async def aclose(self) -> None:
        await self._exchange.aclose()


def _wrong(answer: Answer) -> str | None:
    if answer.status >= 400:
        return str(answer.status)
    return None if answer.unreadable is None else answer.unreadable.name.lower()
