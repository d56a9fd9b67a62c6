"""Errors in arguments, and old names of renamed tools.

Old names are not listed. A call, a policy, a plan or an old record may still hold one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fastn_mcp.errors import nearest, reason
from fastn_mcp.tools.tool import AnyTool

_MAX_PROBLEMS = 8
_MAX_DEPTH = 6
"""Maximum number of parts of a field's path in a message."""


def problems(tool: AnyTool, error: ValidationError) -> str:
    """Describe all errors in the arguments of a call, in one sentence without its full stop."""
    found = [_problem(tool, problem) for problem in error.errors(include_url=False)]
    return "; ".join(found[:_MAX_PROBLEMS])


def _problem(tool: AnyTool, problem: Any) -> str:
    field = ".".join(str(part)[:64] for part in problem["loc"][:_MAX_DEPTH])
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown argument {field!r}{nearest(field, tool.model_fields)}"
        case "missing":
            return f"{field}: is required"
        case _:
            return f"{field}: {reason(problem)}" if field else reason(problem)


@dataclass(frozen=True, slots=True)
class Renamed:
    """The new name for an old one."""

    to: str
    since: str
    """Version that renamed the tool."""
    until: str
    """Version that drops the old name."""


Aliases = Mapping[str, Renamed]

ALIASES: Aliases = {"diagnose_workflow": Renamed("diagnose", since="0.1.0", until="0.3.0")}
"""Renamed tools by old name."""


def current(name: str, aliases: Aliases = ALIASES) -> str:
    """Return the current name of a tool."""
    return aliases[name].to if name in aliases else name


def hint(name: str, aliases: Aliases = ALIASES) -> dict[str, str]:
    """Return a field that the result of a call by an old name gets in addition; empty for a current name."""
    if name not in aliases:
        return {}
    alias = aliases[name]
    return {"renamed": f"{name} is {alias.to} since {alias.since}. Use that; {alias.until} forgets the old name."}
