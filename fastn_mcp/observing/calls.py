"""Calls of tools: what became of each is counted once, whether an MCP request made it or the command line."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from typing_extensions import override

from fastn_mcp.client import Client
from fastn_mcp.delivery import Delivery
from fastn_mcp.dispatch import Dispatcher, Done
from fastn_mcp.errors import FastnError
from fastn_mcp.guard import Caller, Guard
from fastn_mcp.guard.journalling import Journalling
from fastn_mcp.guard.preview import Shown
from fastn_mcp.guard.question import Asking, Waiting
from fastn_mcp.guard.recording import Recorder
from fastn_mcp.observing import names
from fastn_mcp.observing.signals import Signals, fail, kind_of
from fastn_mcp.offer import Offer
from fastn_mcp.procedures.procedure import Report, unheard
from fastn_mcp.secret_values import SecretValues
from fastn_mcp.system import System


@dataclass(slots=True)
class Calling:
    """What is known of a call."""

    tool: str = names.OTHER
    effect: str | None = None
    outcome: str | None = None
    profile: str | None = None

    def said(self) -> dict[str, str]:
        """As attributes."""
        known = {
            names.TOOL: self.tool,
            names.EFFECT: self.effect,
            names.OUTCOME: self.outcome,
            names.PROFILE: self.profile,
        }
        return {name: value for name, value in known.items() if value is not None}


_calling: ContextVar[Calling | None] = ContextVar("calling", default=None)


@contextmanager
def counted(signals: Signals, calling: Calling) -> Generator[Calling]:
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
        signals.count(names.CALLED, calling.said())


class ObservedDispatcher(Dispatcher):
    """A dispatcher whose calls are counted; a span of their own have those that no request of a client made."""

    def __init__(
        self, client: Client, guard: Guard, recorder: Recorder, journalling: Journalling, secrets: SecretValues,
        delivery: Delivery | None, system: System, signals: Signals, profile: str,
    ) -> None:  # fmt: skip
        super().__init__(client, guard, recorder, journalling, secrets, delivery, system)
        self._signals = signals
        self._profile = profile

    @override
    async def __call__(self, call: Offer[Any], caller: Caller, report: Report = unheard) -> Done | Asking | Waiting:
        with self._observed(call) as calling:
            outcome = await super().__call__(call, caller, report)
            calling.outcome = "done" if isinstance(outcome, Done) else "approval_required"
            return outcome

    @override
    async def preview(self, call: Offer[Any], caller: Caller) -> Shown:
        with self._observed(call) as calling:
            shown = await super().preview(call, caller)
            calling.outcome = "previewed"
            return shown

    @contextmanager
    def _observed(self, call: Offer[Any]) -> Generator[Calling]:
        if (calling := _calling.get()) is not None:
            with self._known(calling, call):
                yield calling
            return
        tool = call.tool_name()
        said = {names.GEN_AI: "execute_tool", names.TOOL: tool}
        with (
            self._signals.span(f"execute_tool {tool}", said) as span,
            counted(self._signals, Calling(tool)) as calling,
            self._known(calling, call),
        ):
            try:
                yield calling
            except BaseException as error:
                fail(span, kind_of(error))
                raise

    @contextmanager
    def _known(self, calling: Calling, call: Offer[Any]) -> Generator[None]:
        calling.effect, calling.profile = call.effective.value, self._profile
        try:
            yield
        except FastnError as error:
            calling.outcome = error.outcome
            raise
