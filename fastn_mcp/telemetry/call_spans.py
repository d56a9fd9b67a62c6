"""Tool calls, the guard's decisions and its questions to people, as spans and metrics.

Where a person was asked in an earlier request, the span of the call that is sent links to the one that asked.
"""

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import Span

from fastn_mcp.errors import FastnError
from fastn_mcp.runtime import Said
from fastn_mcp.telemetry import attributes
from fastn_mcp.telemetry.instruments import Instruments, fail, kind_of, link_to

_NAMES: dict[str, tuple[str, Callable[[str], str]]] = {
    "operation": (attributes.OPERATION, str),
    "effect": (attributes.EFFECT, str),
    "decision": (attributes.DECISION, str),
    "rule": (attributes.RULE, attributes.rule),
    "consent": (attributes.CONSENT, attributes.consent),
    "outcome": (attributes.OUTCOME, str),
    "channel": (attributes.CHANNEL, str),
}
"""What is told of a span, and in which form."""


@dataclass(slots=True)
class Calling:
    """What is known of a call."""

    tool: str = attributes.OTHER
    effect: str | None = None
    outcome: str | None = None
    profile: str | None = None

    def said(self) -> dict[str, str]:
        """As attributes."""
        known = {
            attributes.TOOL: self.tool,
            attributes.EFFECT: self.effect,
            attributes.OUTCOME: self.outcome,
            attributes.PROFILE: self.profile,
        }
        return {name: value for name, value in known.items() if value is not None}


_calling: ContextVar[Calling | None] = ContextVar("calling", default=None)


@contextmanager
def counted(signals: Instruments, calling: Calling) -> Generator[Calling]:
    """The call that is made meanwhile, counted at its end."""
    token = _calling.set(calling)
    signals.active(1)
    try:
        yield calling
    except BaseException as error:
        calling.outcome = calling.outcome or ("failed" if isinstance(error, Exception) else "cancelled")
        raise
    finally:
        _calling.reset(token)
        signals.active(-1)
        trace.get_current_span().set_attributes(calling.said())
        signals.count(attributes.CALLED, calling.said())


class CallSpans:
    """What `System.span` opens, on one account: tool calls, the guard's decisions and its questions."""

    def __init__(self, signals: Instruments, profile: str) -> None:
        self._signals = signals
        self._profile = profile

    def __call__(self, kind: str, subject: str, said: Said) -> AbstractContextManager[Said]:
        return self._called(subject, said) if kind == "execute_tool" else self._decided(kind, subject, said)

    @contextmanager
    def _called(self, tool: str, said: Said) -> Generator[Said]:
        """A tool call, counted; a span of its own has one that no request of a client made."""
        if (calling := _calling.get()) is not None:
            with self._known(calling, said):
                yield said
            return
        given = {attributes.GEN_AI: "execute_tool", attributes.TOOL: tool}
        with (
            self._signals.span(f"execute_tool {tool}", given) as span,
            counted(self._signals, Calling(tool)) as calling,
            self._known(calling, said),
        ):
            try:
                yield said
            except BaseException as error:
                fail(span, kind_of(error))
                raise

    @contextmanager
    def _known(self, calling: Calling, said: Said) -> Generator[None]:
        effect = said.get("effect")
        calling.effect, calling.profile = None if effect is None else str(effect), self._profile
        try:
            yield
            outcome = said.get("outcome")
            calling.outcome = None if outcome is None else str(outcome)
        except FastnError as error:
            calling.outcome = error.outcome
            raise

    @contextmanager
    def _decided(self, kind: str, subject: str, said: Said) -> Generator[Said]:
        began = time.monotonic()
        with self._signals.span(f"{kind} {subject}", self._told(said)) as span:
            try:
                yield said
            except BaseException as error:
                _failed(span, said, error)
                raise
            finally:
                asked = said.get("asked")
                link_to(span, asked if isinstance(asked, str) else None)
                span.set_attributes(self._told(said))
                if kind == "guard":
                    self._signals.count(attributes.DECIDED, self._told(said))
                elif said.get("is_answered"):
                    self._signals.measure(attributes.ASKED, time.monotonic() - began, self._told(said))

    def _told(self, said: Said) -> dict[str, str | int | float]:
        told: dict[str, str | int | float] = {attributes.PROFILE: self._profile}
        told |= {name: form(str(said[key])) for key, (name, form) in _NAMES.items() if said.get(key) is not None}
        return told | ({attributes.CALLS: calls} if (calls := said.get("calls")) is not None else {})


def _failed(span: Span, said: Said, error: BaseException) -> None:
    if isinstance(error, FastnError):
        said["outcome"] = error.outcome
        if isinstance(rule := error.facts.get("rule"), str):
            said |= {"decision": "deny", "rule": rule}
    else:
        said["outcome"] = "cancelled"
        fail(span, kind_of(error))
