"""The one way through: guard, send. Everything that reaches Fastn passes here; there is no second entry."""

from dataclasses import dataclass
from typing import Any

from fastn_mcp.client import Client
from fastn_mcp.errors import Refused
from fastn_mcp.guard import Caller, Consent, Guard
from fastn_mcp.guard.question import Asking
from fastn_mcp.operation import Effect, Operation, Record
from fastn_mcp.procedures.target import read_target

Call = Operation[Any]


@dataclass(frozen=True, slots=True)
class Done:
    """A call that was made, by what right, and what came back."""

    result: Record
    consent: Consent


class Dispatcher:
    """Makes calls for agents."""

    def __init__(self, client: Client, guard: Guard) -> None:
        self._client = client
        self._guard = guard

    async def __call__(self, call: Call, caller: Caller) -> Done | Asking:
        """Make `call`, or ask about it. Raises a `FastnError` that says what became of it."""
        admitted = await self._guard.admit(call, caller, self._target_of)
        if isinstance(admitted, Asking):
            return admitted
        return Done(await self._client.send(call), admitted)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _target_of(self, call: Call) -> Record | None:
        return await read_target(call, self._read)

    async def _read(self, call: Call) -> Record:
        if call.effective is not Effect.READ:
            raise Refused(f"{call.tool_name()} is no read.")
        return await self._client.send(call)
