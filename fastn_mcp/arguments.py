"""What a client sends becomes a call, or a refusal that names the field and the reason, never the value. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from fastn_mcp.errors import NotSent
from fastn_mcp.nearest import nearest
from fastn_mcp.offer import DRY_RUN, AnyOffer, Offer
from fastn_mcp.procedures.catalog import BY_NAME

_MOST_PROBLEMS = 8
_DEEPEST = 6
"""Parts of a field's path that are named."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call, and whether it is only to be previewed."""

    call: Offer[Any]
    dry_run: bool


class UnknownTool(NotSent):
    """No tool has this name."""


def parse(offered: Mapping[str, AnyOffer], name: str, arguments: Mapping[str, Any]) -> Wanted:
    """The call that a client makes. Raises `NotSent`."""
    operation = offered.get(name)
    if operation is None:
        if name in BY_NAME:
            raise NotSent(
                f"{name} is switched off here, by read-only mode or toolsets.", "Only a person can change that."
            )
        raise UnknownTool(f"There is no tool {name[:64]!r}{nearest(name, offered)}.", "See tools/list.")
    given = dict(arguments)
    dry_run = operation.previews() and given.pop(DRY_RUN, False)
    if not isinstance(dry_run, bool):
        raise NotSent(f"{DRY_RUN}: must be true or false.", "Correct the arguments and call again.")
    if beyond := [field for field, value in given.items() if not _encodable(value)]:
        raise NotSent(
            f"{beyond[0][:64]!r} holds half a character, or is nested too deep.", "Correct it and call again."
        )
    try:
        return Wanted(operation.model_validate(given), dry_run)
    except ValidationError as error:
        problems = [_problem(operation, problem) for problem in error.errors(include_input=False, include_url=False)]
        said = "; ".join(problems[:_MOST_PROBLEMS])
        raise NotSent(f"{said}.", "Correct the arguments and call again.") from None


def _encodable(value: object) -> bool:
    """Whether JSON can carry it. What only Python can hold would fail later, and without a word that helps."""
    try:
        to_json(value)
    except ValueError:
        return False
    return True


def _problem(operation: AnyOffer, problem: Any) -> str:
    field = ".".join(str(part)[:64] for part in problem["loc"][:_DEEPEST])
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown argument {field!r}{nearest(field, operation.model_fields)}"
        case "missing":
            return f"{field}: is required"
        case _:
            reason = str(problem["msg"]).removeprefix("Value error, ")
            return f"{field}: {reason}" if field else reason
