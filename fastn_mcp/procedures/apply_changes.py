"""The tool `apply_changes`: several changes with one approval, sent in order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Self, cast

from pydantic import ConfigDict, Field, JsonValue, PrivateAttr, TypeAdapter, ValidationError, model_validator
from typing_extensions import override

from fastn_mcp.errors import Declined, FastnError, Incomplete, Stopped, UnknownOutcome, nearest
from fastn_mcp.guard.permission import DECLINED_NEXT_STEP
from fastn_mcp.guard.result import CallOutcome, Done, ListResult
from fastn_mcp.guard.stops import STOPPED_NEXT_STEP
from fastn_mcp.guard.undo import receipt
from fastn_mcp.ledger.change import BEGUN, MADE_OUTCOMES, PERHAPS_MADE, Change
from fastn_mcp.procedures.context import Pending, Procedure, ProcedureContext
from fastn_mcp.procedures.lookup import KINDS_BY_ARGUMENT
from fastn_mcp.records.formats import since
from fastn_mcp.records.rows import FastnObject, row_of, text
from fastn_mcp.tools.bounds import OF_CALLS, TextBound, size_problem
from fastn_mcp.tools.catalog import OPERATIONS, AnyOperation
from fastn_mcp.tools.fields import JsonObject, JsonObjects
from fastn_mcp.tools.operation import Call, RefusedValue
from fastn_mcp.tools.related_reads import settling_read, suggested_read
from fastn_mcp.tools.selection import EnabledTools
from fastn_mcp.tools.tool import Effect, problems
from fastn_mcp.tools.workflows import RunWorkflow

MAX_CALLS = 50
"""Maximum number of calls in one batch."""

_NOT_IN_BATCHES = {
    "create_api_key": "its key is shown once",
    "ai_chat": "its reply has to be read",
    "ai_build": "its reply has to be read",
}
"""Tools that need a call of their own, and why."""

_UNRECORDED = "It was begun, but no answer was recorded: the server stopped, or another one is still working on it."
_RESPONSE_LOST = "Its answer was lost: it may have happened."

_LEFT = "left"
_REST = (
    "Make the same call again for the rest; completed calls are not repeated."
    " If you change an argument, leave the completed calls out."
)

_HELD = {Stopped.outcome: STOPPED_NEXT_STEP, Declined.outcome: DECLINED_NEXT_STEP}
"""What an agent does next in place of repeating the list, by the outcome that a person chose."""

_SHARED = ("approved_by", "restores", "lost", "why")
"""Fields of a receipt that are the same for many calls. They are given once, with the numbers of the calls."""

_FACTS = ("settle", "rule", "would_allow", "fastn")
"""Facts of an error that its row repeats."""

_ARGUMENTS = TypeAdapter[dict[str, JsonValue]](JsonObject, config=ConfigDict(defer_build=True))


class AppliedChanges(FastnObject):
    """Outcome of each call of a batch."""

    shape = (("batch", "string"), ("calls", "array"))


class ApplyChanges(Procedure[AppliedChanges]):
    """Make several changes in order with one approval. Stops at a failure; the same call again resumes."""

    effect = Effect.DESTROY

    changes: Annotated[
        JsonObjects,
        Field(description="1-50 of {tool, arguments}.", min_length=1, max_length=MAX_CALLS, repr=False),
        OF_CALLS,
    ]
    batch: Annotated[
        str | None, Field(description="Name, to repeat the same changes; at most 64.", max_length=64), TextBound(64)
    ] = None

    _calls: tuple[Call, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _parse_calls(self) -> Self:
        self._calls = tuple(_parse(number, entry) for number, entry in enumerate(self.changes, 1))
        _check_independence(self._calls)
        return self

    @property
    @override
    def inner_calls(self) -> tuple[Call, ...]:
        return self._calls

    @property
    @override
    def list_name(self) -> str | None:
        return self.batch

    @property
    @override
    def effective(self) -> Effect:
        return max((call.effective for call in self._calls), key=lambda effect: effect.rank)

    @override
    def shown(self) -> dict[str, JsonValue]:
        calls: list[JsonValue] = [{"tool": call.tool_name(), "arguments": call.shown()} for call in self._calls]
        arguments = self.arguments()
        arguments["changes"] = calls
        return arguments

    @override
    async def run(self, context: ProcedureContext) -> AppliedChanges | Pending:
        calls = self._calls
        outcome = await context.executor.execute(self, context.caller, context.report)
        if isinstance(outcome, Done):
            raise TypeError("a list has an outcome for each of its calls")
        if not isinstance(outcome, ListResult):
            return outcome
        rows: dict[int, dict[str, JsonValue]] = {}
        for number, (call, call_id) in enumerate(zip(calls, outcome.calls, strict=True), 1):
            if call_id in outcome.outcomes:
                rows[number] = _outcome_row(number, call, outcome.outcomes[call_id], context)
        note = ""
        if all(isinstance(each, Change) for each in outcome.outcomes.values()):
            note = "All calls were begun earlier, and nothing was sent now. To repeat them, pass a name in batch."
        return _result(outcome.id, calls, rows, note)


def _parse(number: int, entry: Mapping[str, Any]) -> Call:
    """Return the call that an entry names. Raises `ValueError`, whose text contains no argument values."""
    where = f"call {number}"
    unknown = entry.keys() - {"tool", "arguments"}
    if unknown:
        wrong = min(unknown)
        raise ValueError(f"{where}: unknown {wrong[:64]!r}{nearest(wrong, ('tool', 'arguments'))}")
    name = text(entry, "tool")
    arguments = entry.get("arguments", {})
    if not name:
        raise ValueError(f"{where}: its tool is missing, or is not a string")
    operation = OPERATIONS.get(name)
    if operation is None:
        names = (name for name, operation in OPERATIONS.items() if operation.effect is not Effect.READ)
        raise ValueError(f"{where}: there is no tool {name[:64]!r} for a list of changes{nearest(name, names)}")
    where = f"{where}, {operation.tool_name()}"
    if operation.effect is Effect.READ:
        raise ValueError(f"{where}: changes nothing; call it separately")
    why = _NOT_IN_BATCHES.get(operation.tool_name())
    if why:
        raise ValueError(f"{where}: {why}; call it separately")
    try:
        call = operation.model_validate(_arguments(where, operation, arguments))
        call.model_copy(update=dict.fromkeys(KINDS_BY_ARGUMENT.keys() & call.model_fields_set, "id")).request()
    except ValidationError as error:
        raise ValueError(f"{where}: {problems(operation, error)}") from None
    except RefusedValue as error:
        raise ValueError(f"{where}: {error.argument}: {error.problem}") from None
    if isinstance(call, RunWorkflow) and call.wait_seconds:
        raise ValueError(f"{where}: wait_seconds: a batch does not wait; use wait_for_execution")
    return call


def _arguments(where: str, operation: AnyOperation, arguments: object) -> dict[str, JsonValue]:
    """Return the arguments of a call, each within its bound. Raises `ValueError`."""
    try:
        fields = _ARGUMENTS.validate_python(arguments)
    except ValidationError:
        raise ValueError(f"{where}: its arguments are not an object") from None
    problem = size_problem(operation, fields)
    if problem:
        raise ValueError(f"{where}: {problem}")
    return fields


def _check_independence(calls: Iterable[Call]) -> None:
    """Raise ValueError if a call changes the target of another: each is approved for the target as it is then."""
    checked: list[Call] = []
    for number, call in enumerate(calls, 1):
        for other, earlier in enumerate(checked, 1):
            if call == earlier:
                raise ValueError(f"call {number}, {call.tool_name()}: is the same as call {other}")
            if _target(call) == _target(earlier) is not None and (_overwrites(call) or _overwrites(earlier)):
                raise ValueError(f"call {number}, {call.tool_name()}: has the same target as call {other}")
        checked.append(call)


def _target(call: Call) -> tuple[str, str] | None:
    return None if call.target is None else (type(call).route.parameters[-1], call.target)


def _overwrites(call: Call) -> bool:
    return call.route.method in ("PUT", "DELETE")


def _row(number: int, call: Call, outcome: str) -> dict[str, JsonValue]:
    return {"call": number, "tool": call.tool_name(), "target": call.target, "outcome": outcome}


def _outcome_row(number: int, call: Call, outcome: CallOutcome, context: ProcedureContext) -> dict[str, JsonValue]:
    match outcome:
        case Done(result, change):
            return _row(number, call, "done") | _receipt(call, result, change, context.tools)
        case FastnError() as error:
            message: dict[str, JsonValue] = {"message": " ".join(filter(None, (error.what, error.known)))}
            facts = {name: error.facts[name] for name in _FACTS if name in error.facts}
            return _row(number, call, error.outcome) | message | facts
        case Change():  # begun by an earlier attempt at the batch
            at: dict[str, JsonValue] = {"at": since(outcome.at, context.system.timestamp())}
            if outcome.outcome in PERHAPS_MADE:
                lost: dict[str, JsonValue] = {"message": _UNRECORDED if outcome.outcome == BEGUN else _RESPONSE_LOST}
                reading = settling_read(call)
                settle: dict[str, JsonValue] = {} if reading is None else {"settle": suggested_read(reading)}
                return _row(number, call, UnknownOutcome.outcome) | at | lost | settle
            done = outcome if outcome.outcome == "done" else None
            return _row(number, call, outcome.outcome) | at | _receipt(call, None, done, context.tools)


def _receipt(
    call: Call, result: FastnObject | None, change: Change | None, tools: EnabledTools
) -> dict[str, JsonValue]:
    """Return the id of the created resource, if any, and the receipt, with the change_id if it can be undone."""
    row: dict[str, JsonValue] = {}
    if isinstance(call, RunWorkflow):
        row["made"] = text(row_of(result), "executionId", "id") or None
    elif call.target is None and change is not None:
        row["made"] = change.target
    if change is not None:
        fields = receipt(change, tools)
        can_undo = ("change_id",) if "undo" in fields else ()
        names = ("name", "changed", "stopped_triggers", *can_undo, "not_restored", *_SHARED)
        row |= {name: fields[name] for name in names if name in fields}
    return {name: value for name, value in row.items() if value is not None}


def _result(id_: str, calls: Sequence[Call], rows: Mapping[int, dict[str, JsonValue]], note: str) -> AppliedChanges:
    """Return the result if every call was done. Raises `UnknownOutcome` or `Incomplete` with the progress if not."""
    all_rows = [rows.get(number) or _row(number, call, _LEFT) for number, call in enumerate(calls, 1)]
    facts = _facts(id_, all_rows, note)
    outcomes = [row["outcome"] for row in all_rows]
    done = sum(outcome in MADE_OUTCOMES for outcome in outcomes)
    if done == len(calls):
        return AppliedChanges.model_validate(facts)
    lost = [row for row in all_rows if row["outcome"] == UnknownOutcome.outcome]
    stopped = [row for row in all_rows if row["outcome"] not in (*MADE_OUTCOMES, _LEFT, UnknownOutcome.outcome)]
    left = outcomes.count(_LEFT)
    sentences = [f"{done} of {len(calls)} calls succeeded."]
    sentences += [f"The outcome of call {_named(row)} is not known." for row in lost]
    sentences += [f"Call {_named(row)}: {row['message']}" for row in stopped]
    if left:
        sentences.append(f"{left} {'was' if left == 1 else 'were'} not attempted.")
    held = _held(stopped)
    rest = _REST if left or stopped else ""
    if lost:
        settle = "Check it with the read in its row: it is not sent again."
        raise UnknownOutcome(" ".join(sentences), f"{settle} {held or rest}".strip(), certainty="", facts=facts)
    raise Incomplete(" ".join(sentences), held or f"Fix the cause. {rest}", certainty="", facts=facts)


def _facts(id_: str, rows: list[dict[str, JsonValue]], note: str) -> dict[str, JsonValue]:
    receipts = _shared(rows)
    facts: dict[str, JsonValue] = {"batch": id_, "calls": cast(JsonValue, rows)}
    if note:
        facts["note"] = note
    if receipts:
        facts["receipts"] = receipts
    return facts


def _held(stopped: Sequence[Mapping[str, JsonValue]]) -> str:
    """Return what an agent does next if a person stopped the changes or declined one; empty if nobody did."""
    outcomes = [str(row["outcome"]) for row in stopped]
    return next((_HELD[outcome] for outcome in outcomes if outcome in _HELD), "")


def _shared(rows: Iterable[dict[str, JsonValue]]) -> list[JsonValue]:
    """Move what receipts share out of the rows: who approved it, and what undo_change restores, by call numbers."""
    numbers: dict[tuple[JsonValue, ...], list[JsonValue]] = {}
    for row in rows:
        shared = tuple(row.pop(name, None) for name in _SHARED)
        if any(shared):
            numbers.setdefault(shared, []).append(row["call"])
    return [
        {"calls": calls, **{name: value for name, value in zip(_SHARED, shared, strict=True) if value}}
        for shared, calls in numbers.items()
    ]


def _named(row: Mapping[str, JsonValue]) -> str:
    target = "" if row["target"] is None else f" {row['target']}"
    return f"{row['call']}, {row['tool']}{target}"
