"""What is wrong with arguments: the field and the reason, never the value. Pure."""

from typing import Any

from pydantic import ValidationError

from fastn_mcp.nearest import nearest, reason
from fastn_mcp.offer import AnyOffer

_MOST_PROBLEMS = 8
_DEEPEST = 6
"""Parts of a field's path that are named."""


def problems(offer: AnyOffer, error: ValidationError) -> str:
    """All that is wrong with the arguments of a call, in one sentence without its full stop."""
    found = [_problem(offer, problem) for problem in error.errors(include_url=False)]
    return "; ".join(found[:_MOST_PROBLEMS])


def _problem(offer: AnyOffer, problem: Any) -> str:
    field = ".".join(str(part)[:64] for part in problem["loc"][:_DEEPEST])
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown argument {field!r}{nearest(field, offer.model_fields)}"
        case "missing":
            return f"{field}: is required"
        case _:
            return f"{field}: {reason(problem)}" if field else reason(problem)
