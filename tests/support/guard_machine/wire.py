"""The way of a process to Fastn, and what is noted of each change that reaches it."""

from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import anyio
from pydantic_core import to_json

from fastn_mcp.client.exchange import Answer, NotSentError, ResponseLost, headers
from fastn_mcp.config.model import Settings
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.sandbox.server import InProcess
from fastn_mcp.tools.operation import Request
from support.guard_machine.deployment import Deployment
from support.guard_machine.records import CURRENT_CALL, SentChange
from support.guard_machine.steps import ProcessSteps

FastnFault = Literal["500", "500 applied", "429", "lost", "lost applied", "refused"]
"""How Fastn fails: with a status or a lost response, with or without having made the change, or before it is sent."""

FASTN_FAULTS: tuple[FastnFault, ...] = get_args(FastnFault)


class FastnWire:
    """Exchange of a process with Fastn. Each request is a step."""

    def __init__(self, deployment: Deployment, steps: ProcessSteps, process: str) -> None:
        account = Settings(base_url="http://localhost", api_key=KEY)
        self._inner = InProcess(deployment.sandbox, headers(account))
        self._deployment = deployment
        self._steps = steps
        self._process = process

    async def __call__(self, request: Request) -> Answer:
        if request.method == "GET":
            return await self._steps.take("read", request.path, partial(self._read, request))
        return await self._steps.take("change", request.path, partial(self._change, request))

    async def _read(self, request: Request) -> Answer:
        await anyio.lowlevel.checkpoint()  # a transport waits for its socket here, and a cancelled call ends
        return await self._inner(request)

    async def _change(self, request: Request) -> Answer:
        await anyio.lowlevel.checkpoint()
        fault = self._deployment.fastn_faults.pop(0) if self._deployment.fastn_faults else ""
        if fault == "refused":
            raise NotSentError("ConnectError")
        sent = await self._observed(request)
        is_applied = fault in ("", "500 applied", "lost applied")
        applied = await self._inner(request) if is_applied else None
        heard = self._deployment.sandbox.requests[-1].tool if is_applied else None
        answer = applied if applied is not None and fault == "" else _failed(fault)
        response = fault or str(answer.status)
        self._deployment.sent.append(replace(sent, tool=heard or sent.tool, response=response))
        if fault.startswith("lost"):
            raise ResponseLost("ReadError")
        return answer

    async def _observed(self, request: Request) -> SentChange:
        """Return a change that is about to reach Fastn, with what is stored of it now."""
        deployment = self._deployment
        call = CURRENT_CALL.get()
        assert call is not None, "a change is sent outside of a call"
        call.sent_count += 1
        log = deployment.audit_entries()
        ended = {entry.get("of") for entry in log if entry["event"] == "outcome"}
        intent = None
        for entry in log:
            is_open = entry["event"] == "intent" and str(entry["n"]) not in ended
            is_own = str(entry.get("change", "")).startswith(f"chg_{self._process}-")
            if is_open and is_own and entry.get("principal") == call.principal:
                intent = entry
        change = approval = None
        if intent is not None:
            with anyio.CancelScope(shield=True):
                change = await deployment.change(str(intent["change"]))
                approval = await deployment.approval(str(intent.get("grant") or "").partition(".")[0])
        return SentChange(
            at=deployment.next_number(),
            time=deployment.now,
            tool="" if intent is None else str(intent["tool"]),
            method=request.method,
            call=call,
            intent=intent,
            change=change,
            approval=approval,
            stops_read_at=call.stops_read_at,
            begun_at=call.begun_at or call.began,
        )

    async def aclose(self) -> None:
        """Nothing is open."""


def _failed(fault: str) -> Answer:
    """Return Fastn's answer to a change that fails."""
    if fault == "429":
        throttled = to_json({"error": {"code": "RATE_LIMITED", "message": "wait"}})
        return Answer(429, {"retry-after": "1"}, throttled)
    return Answer(500, body=to_json({"error": {"code": "INTERNAL_ERROR", "message": "it failed"}}))
