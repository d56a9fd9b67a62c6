"""The one way through: guard, send, record. Everything that reaches Fastn passes here; there is no second entry."""

from dataclasses import dataclass
from typing import Any

from fastn_mcp.client import Client
from fastn_mcp.delivery import Delivery
from fastn_mcp.errors import AppliedUnreadable, FastnError, UnknownOutcome
from fastn_mcp.guard import Caller, Guard
from fastn_mcp.guard.preview import Preview
from fastn_mcp.guard.question import Asking, Waiting
from fastn_mcp.guard.recording import Consent, Recorder
from fastn_mcp.operation import Operation, Record
from fastn_mcp.secret_values import SecretValues

Call = Operation[Any]


@dataclass(frozen=True, slots=True)
class Done:
    """A call that was made, by what right, and what came back."""

    result: Record
    consent: Consent


class Dispatcher:
    """Makes calls for agents."""

    def __init__(
        self, client: Client, guard: Guard, recorder: Recorder, secrets: SecretValues, delivery: Delivery | None
    ) -> None:
        """Without `delivery`, a new key stands in the result."""
        self._client = client
        self._guard = guard
        self._recorder = recorder
        self._secrets = secrets
        self._delivery = delivery

    async def __call__(self, call: Call, caller: Caller) -> Done | Asking | Waiting:
        """Make `call`, or ask about it. Raises a `FastnError` that says what became of it."""
        admitted = await self._guard.admit(call, caller)
        if not isinstance(admitted, Consent):
            return admitted
        filled = self._secrets.fill(call)
        intent = self._recorder.intent(call, caller.principal, admitted)
        try:
            result = await self._client.send(filled)
        except FastnError as error:
            self._recorder.outcome(intent, error.outcome, error.what)
            if isinstance(error, UnknownOutcome):
                await self._guard.lost(call, caller)
            raise
        except BaseException as error:  # cancelled, or a defect of ours: it may have left
            self._recorder.outcome(intent, "unknown_outcome", type(error).__name__)
            raise
        self._recorder.outcome(intent, "done")
        return Done(self._delivered(call, result), admitted)

    def _delivered(self, call: Call, result: Record) -> Record:
        try:
            return result if self._delivery is None else self._delivery(call, result)
        except OSError as error:
            raise AppliedUnreadable(
                f"The key was created, but no file could be written for it ({type(error).__name__}).",
                "Revoke it with revoke_api_key, and tell the operator.",
                facts={"settle": {"tool": "list_api_keys", "arguments": {}}},
            ) from error

    async def preview(self, call: Call, caller: Caller) -> Preview:
        """What `call` would do, by fresh reads. Nothing is sent."""
        _, shown = await self._guard.judged(call, caller.principal)
        return shown

    async def aclose(self) -> None:
        await self._client.aclose()
