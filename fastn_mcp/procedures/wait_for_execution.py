"""The tool `wait_for_execution`: poll a run until it ends."""

from datetime import timedelta
from typing import Annotated, cast

import anyio
from pydantic import Field, JsonValue

from fastn_mcp.errors import (
    Disabled,
    FastnError,
    Forbidden,
    Invalid,
    InvalidArgument,
    NotFound,
    Refused,
    Timeout,
    Unauthorized,
)
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.context import Pending, Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.records.formats import lasting
from fastn_mcp.records.rows import Row, row_of, text, timestamp, word
from fastn_mcp.records.states import run_state
from fastn_mcp.tools.fields import ExecutionId
from fastn_mcp.tools.tool import CONTROL, Effect, suggested
from fastn_mcp.tools.workflows import Execution, GetExecution, ListExecutions, Run, RunWorkflow

_NAMED_STATES = ("pending", "queued", "running")

_FIRST_PAUSE = 0.25
_MAX_PAUSE = 3.0
_GROWTH = 1.5
MAX_WAIT = 45
"""Seconds that one call waits at most."""
_MIN_TIMEOUT = 5.0
"""Minimum timeout of a read in seconds, even if less of the waiting time is left."""

_FINAL_ERRORS = (Unauthorized, Forbidden, Invalid, InvalidArgument, Refused, Disabled)
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
        return Execution.model_validate(await wait_for(self.execution_id, {}, self.seconds, context))


async def wait_for(
    execution_id: str, known: dict[str, JsonValue], seconds: float, context: ProcedureContext
) -> dict[str, JsonValue]:
    """Poll a run until it has ended or `seconds` are over. Returns the last state of it that could be read.

    `known` are its fields known from its start: it may not be found yet, and errors are in the state. Raises errors
    that waiting cannot resolve, and without `known` any other if it was never read.
    """
    final = _FINAL_ERRORS if known else (*_FINAL_ERRORS, NotFound)
    call = GetExecution(execution_id=execution_id)
    began = context.system.monotonic()
    state = known
    pause = _FIRST_PAUSE
    while True:
        left = seconds - (context.system.monotonic() - began)
        error: FastnError | None = None
        try:
            state = known | await _read(call, max(left, _MIN_TIMEOUT), context)
        except final:
            raise
        except FastnError as failed:
            error = failed
        waited = context.system.monotonic() - began
        has_ended = error is None and run_state(state).has_ended
        if has_ended:
            context.look.snapshot.forget("executions")
        if waited >= seconds or has_ended:
            break
        await context.report(_progress(state, error, waited, context), waited, float(seconds))
        asked = error.facts.get("retry_after_seconds", 0.0) if error else 0.0
        await context.system.sleep(min(max(pause, cast(float, asked)), seconds - waited))
        pause = min(pause * _GROWTH, _MAX_PAUSE)
    if error is not None and not state:
        raise error
    fields: dict[str, JsonValue] = {"waited_seconds": round(waited, 1)}
    return _first(fields | ({} if error is None else {"last_look": error.what}) | _next(execution_id, state), state)


def _first(fields: dict[str, JsonValue], state: Row) -> dict[str, JsonValue]:
    """Return our fields, then Fastn's fields that are not null."""
    return fields | {
        name: value for name, value in state.items() if value is not None and name not in (*fields, "next")
    }


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
        return Done(Run.model_validate(_first(fields, answer)), started.change)
    try:
        known: dict[str, JsonValue] = {"workflowId": call.workflow_id} | answer
        state = await wait_for(execution_id, known, call.wait_seconds, context)
    except Exception as error:  # the run was started, and no later error may hide that
        why = error.what if isinstance(error, FastnError) else type(error).__name__
        fields = {"last_look": f"It was started, but could not be read: {why}"}
        state = _first(fields | _next(execution_id, answer), answer)
    return Done(Run.model_validate(state), started.change)


def _next(execution_id: str, state: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the next call: wait again, or diagnose a failure; none after a success."""
    if not run_state(state).has_ended:
        return {"next": suggested(WaitForExecution, execution_id=execution_id)}
    call = suggested(Diagnose, workflow_id=state.get("workflowId")) if run_state(state).is_failure else None
    return {} if call is None else {"next": call}


def _progress(run: Row, error: FastnError | None, waited: float, context: ProcedureContext) -> str:
    if error is not None:
        return f"could not be read, {waited:.0f} s waited"
    status = word(run, "status")
    begun = timestamp(run, "startedAt", "createdAt")
    age = waited if begun is None else (context.system.now() - begun).total_seconds()
    return f"{status if status in _NAMED_STATES else 'running'} for {lasting(timedelta(seconds=max(age, waited)))}"
