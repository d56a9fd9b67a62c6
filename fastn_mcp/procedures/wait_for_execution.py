"""The tool `wait_for_execution`: poll a run until it ends."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, cast

import anyio
from pydantic import Field, JsonValue

from fastn_mcp.errors import (
    FastnError,
    Forbidden,
    Invalid,
    InvalidArgument,
    NotFound,
    Refused,
    Timeout,
    Unauthorized,
)
from fastn_mcp.guard.batch import Done
from fastn_mcp.procedures.context import Pending, Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.records.formats import lasting
from fastn_mcp.records.rows import Row, row_of, text, timestamp, word
from fastn_mcp.records.states import run_state
from fastn_mcp.tools.fields import ExecutionId
from fastn_mcp.tools.tool import CONTROL, Effect, suggested
from fastn_mcp.tools.workflows import Execution, GetExecution, ListExecutions, Run, RunWorkflow

_NAMED_STATES = ("pending", "queued", "running")

_FIRST_PAUSE, _MAX_PAUSE, _GROWTH = 0.25, 3.0, 1.5
MAX_WAIT = 45
"""Seconds that one call waits at most."""
_MIN_TIMEOUT = 5.0
"""Minimum timeout of a read in seconds, even if less of the waiting time is left."""

_FINAL_ERRORS = (Unauthorized, Forbidden, Invalid, InvalidArgument, Refused)
"""Errors that waiting cannot resolve."""


class WaitForExecution(Procedure[Execution]):
    """Wait until a run has finished. Call again while it runs."""

    effect = Effect.READ
    _control_characters = CONTROL

    execution_id: ExecutionId
    seconds: Annotated[int, Field(ge=1, le=MAX_WAIT, description="1-45, default 30.")] = 30

    @property
    def target(self) -> str | None:
        return self.execution_id

    async def run(self, context: ProcedureContext) -> Execution:
        waited = await wait_for(self.execution_id, self.seconds, context, (*_FINAL_ERRORS, NotFound))
        if not waited.run and waited.error is not None:
            raise waited.error
        return Execution.model_validate(waited.data(self.execution_id))


@dataclass(frozen=True, slots=True)
class Waited:
    """Result of waiting for a run: its last state that could be read, or nothing."""

    run: dict[str, JsonValue]
    seconds: float
    error: FastnError | None = None
    """Error of the last read, if it failed."""

    def data(self, execution_id: str, answer: dict[str, JsonValue] | None = None) -> dict[str, JsonValue]:
        """Return our fields, then the state of the run without nulls. `answer` has fields known from its start."""
        state = (answer or {}) | self.run
        fields: dict[str, JsonValue] = {"waited_seconds": round(self.seconds, 1)}
        if self.error is not None:
            fields["last_look"] = self.error.what
        fields |= _next(execution_id, state)
        known = {name: value for name, value in state.items() if value is not None and name != "next"}
        return fields | known | fields


async def wait_for(
    execution_id: str, seconds: float, context: ProcedureContext, final: tuple[type[FastnError], ...] = _FINAL_ERRORS
) -> Waited:
    """Poll a run until it has ended or `seconds` are over. Raises errors of the types `final` at once."""
    call = GetExecution(execution_id=execution_id)
    began = context.system.monotonic()
    run: dict[str, JsonValue] = {}
    last_error: FastnError | None = None
    pause = _FIRST_PAUSE
    while True:
        left = seconds - (context.system.monotonic() - began)
        try:
            run, last_error = await _read(call, max(left, _MIN_TIMEOUT), context), None
        except final:
            raise
        except FastnError as error:
            last_error = error
        waited = context.system.monotonic() - began
        has_ended = last_error is None and run_state(run).has_ended
        if has_ended:
            context.look.snapshot.forget("executions")
        if waited >= seconds or has_ended:
            return Waited(run, waited, last_error)
        await context.report(_progress(run, last_error, waited, context), waited, float(seconds))
        asked = last_error.facts.get("retry_after_seconds", 0.0) if last_error else 0.0
        await context.system.sleep(min(max(pause, cast(float, asked)), seconds - waited))
        pause = min(pause * _GROWTH, _MAX_PAUSE)


async def _read(call: GetExecution, longest: float, context: ProcedureContext) -> dict[str, JsonValue]:
    with anyio.move_on_after(longest):
        return row_of(await context.read(call))
    raise Timeout(f"Fastn did not answer within {longest:.0f} seconds.", "Call again.")


async def run_workflow(call: RunWorkflow, context: ProcedureContext) -> Done | Pending:
    """Start a run, and wait for it if asked. Once it is started, errors while waiting are reported in the result."""
    started = await context.change(call)
    if not isinstance(started, Done):
        return started
    answer = row_of(started.result)
    own = text(answer, "id")
    execution_id = text(answer, "executionId") or (own if own.startswith("exec_") else None)
    if run_state(answer).has_ended or (execution_id and not call.wait_seconds):
        return started
    if execution_id is None:
        fields: dict[str, JsonValue] = {"note": "Fastn's answer does not say which run was started."}
        fields["next"] = suggested(ListExecutions, workflow_id=call.workflow_id)
        return Done(Run.model_validate(fields | answer | fields), started.change)
    try:
        # No NotFound here: a run that has just started may not be found yet.
        waited = await wait_for(execution_id, call.wait_seconds, context)
    except Exception as error:  # the run was started, and no later error may hide that
        why = error.what if isinstance(error, FastnError) else type(error).__name__
        failed: dict[str, JsonValue] = {"last_look": f"It was started, but could not be read: {why}"}
        failed |= _next(execution_id, answer)
        return Done(Run.model_validate(failed | answer | failed), started.change)
    data = waited.data(execution_id, {"workflowId": call.workflow_id} | answer)
    return Done(Run.model_validate(data), started.change)


def _next(execution_id: str, state: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the next call: wait again, or diagnose a failure; none after a success."""
    if not run_state(state).has_ended:
        return {"next": suggested(WaitForExecution, execution_id=execution_id)}
    call = suggested(Diagnose, workflow_id=state.get("workflowId")) if run_state(state).is_failure else None
    return {} if call is None else {"next": call}


def _progress(run: Row, error: FastnError | None, waited: float, context: ProcedureContext) -> str:
    if error is not None:
        return f"could not be looked at, {waited:.0f} s waited"
    status, begun = word(run, "status"), timestamp(run, "startedAt", "createdAt")
    age = waited if begun is None else (context.system.now() - begun).total_seconds()
    return f"{status if status in _NAMED_STATES else 'running'} for {lasting(timedelta(seconds=max(age, waited)))}"
