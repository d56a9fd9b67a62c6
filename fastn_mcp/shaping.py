"""What the model reads back: compact JSON within a budget. Pure.

Text from Fastn stands inside `data` only, marked as untrusted: names, logs and AI replies can carry instructions.
"""

from typing import Any, cast

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.operation import Effect, Operation, Page, Record

BUDGET = 8_000
"""Characters of one result."""

_SHORTEST_CUT = 200


def shaped(call: Operation[Any], result: Record, account: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The result of `call` as the model reads it."""
    if isinstance(result, Page):
        return _page(cast("Page[Record]", result))
    answer: dict[str, JsonValue] = {}
    if call.effect is not Effect.READ:
        answer["done"] = call.tool_name()
        answer["account"] = account
        if call.target is not None:
            answer["target"] = call.target
    data = cast(JsonValue, result.model_dump(exclude_unset=True))
    answer |= {"data": data, "untrusted": True}
    limit = BUDGET
    while len(to_json(answer)) > BUDGET and limit > _SHORTEST_CUT:
        limit //= 2
        answer["data"] = _cut(data, limit)
        answer["left_out"] = f"Texts are cut at {limit} characters."
    return answer


def _page(page: Page[Record]) -> dict[str, JsonValue]:
    rows = [cast(JsonValue, row.model_dump(exclude_unset=True)) for row in page.items]
    around = page.model_dump(exclude={"items"}, exclude_none=True)
    kept = _fitting(rows, BUDGET)
    answer: dict[str, JsonValue] = {"data": kept}
    if len(kept) < len(rows):
        # The cursor would jump over the rows that were left out.
        around.pop("next_cursor", None)
        answer["left_out"] = (
            f"{len(rows) - len(kept)} rows did not fit. Call again with limit {len(kept)} and go on from there."
        )
    return answer | around | {"untrusted": True}


def _fitting(rows: list[JsonValue], budget: int) -> list[JsonValue]:
    """As many rows as fit, and at least one, cut."""
    room = budget
    for number, row in enumerate(rows):
        room -= len(to_json(row)) + 1
        if room < 0:
            return rows[:number] or [_cut(row, budget // 4)]
    return rows


def _cut(value: JsonValue, limit: int) -> JsonValue:
    if isinstance(value, str) and len(value) > limit:
        return f"{value[:limit]} [{len(value) - limit} more characters]"
    if isinstance(value, list):
        kept = [_cut(item, limit) for item in value[:limit]]
        return [*kept, f"[{len(value) - limit} more]"] if len(value) > limit else kept
    if isinstance(value, dict):
        return {name: _cut(item, limit) for name, item in value.items()}
    return value
