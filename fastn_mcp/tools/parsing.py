"""Errors in the arguments of a call, in words."""

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
