"""Errors in arguments, and the old names of renamed tools.

An old name is listed nowhere. A call, a policy, a plan, a record of the past may still hold it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fastn_mcp.errors import nearest, reason
from fastn_mcp.tools.tool import AnyTool

_MOST_PROBLEMS = 8
_DEEPEST = 6
"""Parts of a field's path that are named."""


def problems(offer: AnyTool, error: ValidationError) -> str:
    """All that is wrong with the arguments of a call, in one sentence without its full stop."""
    found = [_problem(offer, problem) for problem in error.errors(include_url=False)]
    return "; ".join(found[:_MOST_PROBLEMS])


def _problem(offer: AnyTool, problem: Any) -> str:
    field = ".".join(str(part)[:64] for part in problem["loc"][:_DEEPEST])
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown argument {field!r}{nearest(field, offer.model_fields)}"
        case "missing":
            return f"{field}: is required"
        case _:
            return f"{field}: {reason(problem)}" if field else reason(problem)


@dataclass(frozen=True, slots=True)
class Renamed:
    """What an old name stands for."""

    to: str
    since: str
    """The version that renamed it."""
    until: str
    """The version that forgets the old name."""


Aliases = Mapping[str, Renamed]

ALIASES: Aliases = {}
"""By the old name."""


def current(name: str, aliases: Aliases = ALIASES) -> str:
    """The name that a tool has now."""
    return aliases[name].to if name in aliases else name


def hint(name: str, aliases: Aliases = ALIASES) -> dict[str, str]:
    """What the result of a call by an old name says of it: a field more."""
    if name not in aliases:
        return {}
    alias = aliases[name]
    return {"renamed": f"{name} is {alias.to} since {alias.since}. Use that; {alias.until} forgets the old name."}
