"""Quote values for people.

No name and no value can speak for us: each is quoted, on one line, cut with a count, and shows what cannot be seen.
"""

from pydantic_core import to_json

from fastn_mcp.redaction import left_out, redact_text, sanitize

LONGEST = 200
"""Characters of one value."""


def show(value: object, limit: int = LONGEST, *, is_name: bool = False) -> str:
    """A value, quoted where it is text. What `is_name`, as `api-keys:create`, holds no secret and hides none."""
    text = value if isinstance(value, str) else to_json(value, inf_nan_mode="strings").decode()
    text = text if is_name else redact_text(text)
    shown = text[:limit]
    if isinstance(value, str):
        shown = '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return sanitize(shown) + left_out(len(text) - limit)
