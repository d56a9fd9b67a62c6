"""The tool `wait_for_execution`: poll a run until it ends."""

from dataclasses import dataclass
from typing import Annotated

import anyio
from pydantic import Field, JsonValue

from fastn_mcp.errors import FastnError, Forbidden, Invalid, NotFound, NotSent, Refused, Timeout, Unauthorized
from fastn_mcp.fastn.rows import row_of, text, timestamp, word
from fastn_mcp.fastn.states import run_state
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.context import Pending, Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.diagnose_workflow import DiagnoseWorkflow
from fastn_mcp.tools.fields import ExecutionId
from fastn_mcp.tools.operation import RefusedValue
from fastn_mcp.tools.tool import Effect, FastnObject, suggested
from fastn_mcp.tools.workflows import Execution, GetExecution, ListExecutions, Run, RunWorkflow

_KNOWN = ("pending", "queued", "running")

_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.5, 3.0, 1.5
_LONGEST_LOOK = 5.0
"""Seconds that a look may take at least, and beyond the time to wait at most."""

_FINAL = (Unauthorized, Forbidden, Invalid, Refused)
"""What no waiting mends."""


class WaitForExecution(Procedure[Execution]):
    """Get a run once it has ended. Call again while it runs."""

    effect = Effect.READ

    execution_id: ExecutionId
    seconds: Annotated[int, Field(ge=1, le=45, description="1-45, default 30.")] = 30

    @property
    def target(self) -> str | None:
        return self.execution_id

    async def run(self, context: ProcedureContext) -> Execution:
        waited = await wait_for(self.execution_id, self.seconds, context, (*_FINAL, NotFound))
        if waited.run is None and waited.trouble is not None:
            raise waited.trouble
        return Execution.model_validate(waited.told(self.execution_id))


@dataclass(frozen=True, slots=True)
class Waited:
    """What is known of a run after we waited for it: its last state that could be read, if any could."""

    run: FastnObject | None
    seconds: float
    failed_looks: int = 0
    trouble: FastnError | None = None
    """Why the last look failed, where it did."""

    @property
    def ended(self) -> bool:
        return self.run is not None and run_state(row_of(self.run)).has_ended

    def told(self, execution_id: str, known: dict[str, JsonValue] | None = None) -> dict[str, JsonValue]:
        """The state of the run, after what we have to say of it. `known` is what is known of it besides."""
        state = (known or {}) | ({} if self.run is None else row_of(self.run))
        said: dict[str, JsonValue] = {"waited_seconds": round(self.seconds, 1)}
        if self.failed_looks:
            said["looks_failed"] = self.failed_looks
        if self.trouble is not None:
            said["last_look"] = self.trouble.what
        said |= _next(execution_id, state)
        return said | {name: value for name, value in state.items() if name not in said}


async def wait_for(
    execution_id: str, seconds: float, context: ProcedureContext, final: tuple[type[FastnError], ...] = _FINAL
) -> Waited:
    """Look at a run until it has ended or `seconds` are over. Raises what is `final`: no waiting mends it."""
    call = GetExecution(execution_id=execution_id)
    _must_be_an_id(call)
    began = context.system.monotonic()
    run: FastnObject | None = None
    trouble: FastnError | None = None
    failed, pause = 0, _FIRST_PAUSE
    while True:
        left = seconds - (context.system.monotonic() - began)
        try:
            run, trouble = await _look(call, max(left, _LONGEST_LOOK), context), None
        except final:
            raise
        except FastnError as error:
            failed, trouble = failed + 1, error
        waited = context.system.monotonic() - began
        if waited >= seconds or (trouble is None and run is not None and run_state(row_of(run)).has_ended):
            return Waited(run, waited, failed, trouble)
        await context.report(_progress(run, trouble, waited, context), waited, float(seconds))
        await context.system.sleep(min(max(pause, _asked_for(trouble)), seconds - waited))
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)


async def _look(call: GetExecution, longest: float, context: ProcedureContext) -> FastnObject:
    with anyio.move_on_after(longest):
        return await context.read(call)
    raise Timeout(f"Fastn did not answer within {longest:.0f} seconds.", "Call again.")


async def run_and_wait(call: RunWorkflow, context: ProcedureContext) -> Done | Pending:
    """Start a run, then wait for it. Once it was started, the answer says so, whatever becomes of the waiting."""
    started = await context.change(call)
    if not isinstance(started, Done):
        return started
    answer = row_of(started.result)
    execution_id = _id_of(answer)
    if run_state(answer).has_ended:
        return started
    if execution_id is None:
        said: dict[str, JsonValue] = {"not_waited": "Fastn's answer names no run to wait for."}
        said["next"] = suggested(ListExecutions, workflow_id=call.workflow_id)
        return Done(Run.model_validate(said | answer), started.change)
    try:
        # A run that was started just now may not be found yet.
        waited = await wait_for(execution_id, call.wait_seconds, context)
    except Exception as error:  # it runs, and nothing may hide that
        why = error.what if isinstance(error, FastnError) else type(error).__name__
        failed: dict[str, JsonValue] = {"last_look": f"It was started, but could not be read: {why}"}
        return Done(Run.model_validate(failed | _next(execution_id, answer) | answer), started.change)
    told = waited.told(execution_id, {"workflowId": call.workflow_id} | answer)
    return Done(Run.model_validate(told), started.change)


def _next(execution_id: str, state: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The call to make next: wait on, or ask why it failed; none where all is well."""
    call: dict[str, JsonValue] | None = None
    if not run_state(state).has_ended:
        call = suggested(WaitForExecution, execution_id=execution_id)
    elif run_state(state).is_failure:
        call = suggested(DiagnoseWorkflow, workflow_id=state.get("workflowId"))
    return {} if call is None else {"next": call}


def _id_of(answer: dict[str, JsonValue]) -> str | None:
    """The id of the run in the answer to its start."""
    own = text(answer, "id")
    return text(answer, "executionId") or (own if own.startswith("exec_") else None)


def _must_be_an_id(call: GetExecution) -> None:
    try:
        call.request()
    except RefusedValue as error:
        raise NotSent(f"{error.argument}: {error.problem}.", "Correct the argument and call again.") from None


def _asked_for(trouble: FastnError | None) -> float:
    """Seconds that Fastn wants to be left alone."""
    seconds = None if trouble is None else trouble.facts.get("retry_after_seconds")
    return float(seconds) if isinstance(seconds, (int, float)) else 0.0


def _progress(run: FastnObject | None, trouble: FastnError | None, waited: float, context: ProcedureContext) -> str:
    if trouble is not None or run is None:
        return f"could not be looked at, {waited:.0f} s waited"
    state = row_of(run)
    status = word(state, "status")
    begun = timestamp(state, "startedAt", "createdAt")
    age = waited if begun is None else (context.system.now() - begun).total_seconds()
    return f"{status if status in _KNOWN else 'running'} for {max(age, waited):.0f} s"
