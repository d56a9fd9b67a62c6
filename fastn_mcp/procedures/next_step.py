"""A suggested next call: its tool and arguments."""

from typing import Any

from pydantic import JsonValue, ValidationError

from fastn_mcp.tools.tool import Tool


def following(offer: type[Tool[Any]], **arguments: object) -> dict[str, JsonValue] | None:
    """`{"tool", "arguments"}`; None where an argument is none, as an id that Fastn left out."""
    try:
        call = offer.model_validate(arguments)
    except ValidationError:
        return None
    return {"tool": call.tool_name(), "arguments": call.model_dump(exclude_unset=True)}
