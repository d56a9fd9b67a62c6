"""The guard's decisions, and its questions to people, as spans and metrics.

Where a person was asked in an earlier request, the span of the call that is sent links to the one that asked.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

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


class GuardSpans:
    """What `System.span` opens, on one account."""

    def __init__(self, signals: Instruments, profile: str) -> None:
        self._signals = signals
        self._profile = profile

    @contextmanager
    def __call__(self, kind: str, subject: str, said: Said) -> Generator[Said]:
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
