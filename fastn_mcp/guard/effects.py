"""What a call does in view of what is there: facts raise an effect. Pure."""

from typing import Any

from fastn_mcp.operation import Effect, Operation, Record
from fastn_mcp.tools.connectors import UpdateConnector
from fastn_mcp.tools.triggers import UpdateTrigger, is_disabled
from fastn_mcp.tools.workflows import UpdateWorkflow

_LIVE = ("active", "live", "published", "enabled", "deployed")
_HARMLESS = frozenset({"trigger_id", "name", "description"})


def in_view_of(call: Operation[Any], target: Record | None, dependents: int | None) -> Effect:
    """The effect of `call` on `target`, which `dependents` others use (None: unknown). Without facts, the worst."""
    match call:
        case UpdateTrigger():
            return Effect.EXTERNAL if _fires_more(call, target) else Effect.WRITE
        case UpdateWorkflow():
            going_live = call.status is not None and call.status.casefold() in _LIVE
            # Nobody knows what `extra` says to Fastn.
            return Effect.EXTERNAL if going_live or call.extra or is_live(target) else Effect.WRITE
        case UpdateConnector():
            return Effect.WRITE if dependents == 0 else Effect.EXTERNAL
        case _:
            return call.effective


def is_live(workflow: Record | None) -> bool:
    """Whether a workflow can run for real; one that says nothing is taken to."""
    status = getattr(workflow, "status", None)
    return not isinstance(status, str) or status.casefold() in _LIVE


def _fires_more(call: UpdateTrigger, target: Record | None) -> bool:
    if call.extra:
        return True  # nobody knows what it says to Fastn
    if is_disabled(call.status):
        return False
    if target is None:
        return call.effective is not Effect.WRITE
    was = getattr(target, "status", None)
    disabled = isinstance(was, str) and is_disabled(was)
    if call.status is not None and disabled:
        return True
    changed = call.arguments().keys() - _HARMLESS - {"status"}
    if disabled or not changed:
        return False
    if changed == {"schedule"} and call.schedule is not None:
        before = getattr(target, "schedule", None) or getattr(target, "cron", None)
        return not (isinstance(before, str) and _fewer(call.schedule, before))
    return True


def _fewer(after: str, before: str) -> bool:
    """Whether a schedule surely fires less often than another: its every field is the same or narrower."""
    new, old = _fields(after), _fields(before)
    return new is not None and old is not None and new != old and all(n <= o for n, o in zip(new, old, strict=True))


_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def _fields(schedule: str) -> list[frozenset[int]] | None:
    parts = schedule.split()
    if len(parts) != len(_RANGES):
        return None
    try:
        return [_field(part, low, high) for part, (low, high) in zip(parts, _RANGES, strict=True)]
    except ValueError:
        return None


def _field(text: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start, end = (low, high) if span == "*" else (int(first), int(last or first))
        if not low <= start <= end <= high or (step and not 0 < int(step) <= high):
            raise ValueError(text)
        values.update(range(start, (high if step and span != "*" and not last else end) + 1, int(step or 1)))
    return frozenset(values)
