"""The guard's decisions as spans.

Where a person was asked in an earlier request, the span of the call that is sent links to the one that asked.
"""

import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import replace
from typing import Any

from opentelemetry.trace import Span
from pydantic import JsonValue
from typing_extensions import override

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.targets import Call
from fastn_mcp.guard.approval.batch import Agreed, BatchCalls
from fastn_mcp.guard.approval.flow import Caller, FormAround, FormChannel, OutOfBandChannel
from fastn_mcp.guard.approval.request import Answer, Asking, PendingApproval, Question
from fastn_mcp.guard.audit.log import AuditEvent
from fastn_mcp.guard.audit.recorder import Consent, Recorder, Watch
from fastn_mcp.guard.evaluation import Evaluator
from fastn_mcp.guard.guard import Guard
from fastn_mcp.guard.ledger.ledger import Ledger
from fastn_mcp.guard.policy import Decision
from fastn_mcp.runtime import System
from fastn_mcp.telemetry import attributes
from fastn_mcp.telemetry.instruments import Instruments, fail, kind_of, link_to
from fastn_mcp.tools.tool import Effect

Said = dict[str, str | int | float]

_deciding: ContextVar[Said | None] = ContextVar("deciding", default=None)
"""What is known of the decision that is being made."""


class ObservedGuard(Guard):
    """A guard whose decisions are spans."""

    def __init__(
        self, judge: Evaluator, ledger: Ledger, recorder: Recorder, system: System, desk: OutOfBandChannel | None,
        signals: Instruments, profile: str,
    ) -> None:  # fmt: skip
        super().__init__(judge, ledger, recorder, system, desk)
        self._signals = signals
        self._profile = profile

    @override
    async def admit(self, call: Call, caller: Caller) -> Consent | Asking | PendingApproval:
        if call.effect is Effect.READ:
            return await super().admit(call, caller)
        with _Deciding(self._signals, self._profile, call.tool_name(), call.effective) as deciding:
            admitted = await super().admit(call, self._asked(caller))
            deciding.became(admitted)
            return admitted

    @override
    async def agree(
        self, several: BatchCalls, numbers: Sequence[int], caller: Caller
    ) -> Agreed | Asking | PendingApproval:
        tool, effect = several.offer.tool_name(), several.offer.effect
        with _Deciding(self._signals, self._profile, tool, effect, len(numbers)) as deciding:
            agreed = await super().agree(several, numbers, self._asked(caller))
            deciding.became(agreed)
            return agreed

    @override
    async def admit_one(self, several: BatchCalls, number: int, agreed: Agreed, caller: Caller) -> Consent:
        call = several.calls[number - 1]
        with _Deciding(self._signals, self._profile, call.tool_name(), call.effective) as deciding:
            admitted = await super().admit_one(several, number, agreed, caller)
            deciding.became(admitted)
            return admitted

    def _asked(self, caller: Caller) -> Caller:
        if caller.form is None:
            return caller
        return replace(caller, form=_ObservedForm(caller.form, self._signals, self._profile))


class _Deciding:
    """One decision: a span, and one more in the counter."""

    def __init__(
        self, signals: Instruments, profile: str, operation: str, effect: Effect, calls: int | None = None
    ) -> None:
        self._signals = signals
        self._said: Said = {
            attributes.OPERATION: operation,
            attributes.EFFECT: effect.value,
            attributes.PROFILE: profile,
        }
        if calls is not None:
            self._said[attributes.CALLS] = calls
        self._opened = signals.span(f"guard {operation}", self._said)
        self._span: Span
        self._token: Token[Said | None]

    def __enter__(self) -> "_Deciding":
        self._token = _deciding.set(self._said)
        self._span = self._opened.__enter__()
        return self

    def became(self, what: Consent | Agreed | Asking | PendingApproval) -> None:
        """How it ended."""
        match what:
            case Consent(by, verdict, effect, asked=asked):
                self._said |= {
                    attributes.DECISION: verdict.decision.value,
                    attributes.RULE: attributes.rule(verdict.rule),
                    attributes.CONSENT: attributes.consent(by),
                    attributes.EFFECT: effect.value,
                    attributes.OUTCOME: "admitted",
                }
                link_to(self._span, asked)
            case Asking() | PendingApproval():
                self._said[attributes.OUTCOME] = "approval_required"
            case _:
                self._said[attributes.OUTCOME] = "admitted"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        _deciding.reset(self._token)
        if isinstance(error, FastnError):
            rule = error.facts.get("rule")
            if isinstance(rule, str):
                self._said |= {attributes.DECISION: Decision.DENY.value, attributes.RULE: attributes.rule(rule)}
            self._said[attributes.OUTCOME] = error.outcome
        elif error is not None:
            self._said[attributes.OUTCOME] = "cancelled"
            fail(self._span, kind_of(error))
        self._span.set_attributes(self._said)
        self._signals.count(attributes.DECIDED, self._said)
        self._opened.__exit__(kind, error, trace)


class ObservedWatch:
    """A watch that hears what was asked, and tells another of all."""

    def __init__(self, other: Watch | None) -> None:
        self._other = other

    def entry(self, line: Mapping[str, JsonValue]) -> None:
        if (said := _deciding.get()) is not None and line.get("event") == AuditEvent.ASKED.value:
            for name, value in ((attributes.DECISION, line.get("decision")), (attributes.EFFECT, line.get("effect"))):
                if isinstance(value, str):
                    said[name] = value
            if isinstance(rule := line.get("rule"), str):
                said[attributes.RULE] = attributes.rule(rule)
        if self._other is not None:
            self._other.entry(line)

    def read(self) -> None:
        if self._other is not None:
            self._other.read()


class _ObservedForm(FormAround):
    """A form whose questions are spans."""

    def __init__(self, form: FormChannel, signals: Instruments, profile: str) -> None:
        super().__init__(form)
        self._signals = signals
        self._profile = profile

    async def ask(self, question: Question) -> Answer | Asking:
        said = {attributes.CHANNEL: self._form.name, attributes.PROFILE: self._profile}
        began = time.monotonic()
        with self._signals.span(f"ask {self._form.name}", said):
            answer = await self._form.ask(question)
        if not isinstance(answer, Asking):
            self._signals.measure(attributes.ASKED, time.monotonic() - began, said)
        return answer
