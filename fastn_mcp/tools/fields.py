"""Arguments shared by several operations, with their units, limits and known values."""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from fastn_mcp.redaction import quote
from fastn_mcp.tools.bounds import JsonBound, TextBound, parsed_json
from fastn_mcp.tools.tool import NOT_SENT


def _parsed(kind: type) -> BeforeValidator:
    """Parse an object or an array that a client sent as JSON text. Nothing else is lenient."""

    def parse(value: object) -> object:
        parsed = parsed_json(value)
        return parsed if isinstance(parsed, kind) else value

    return BeforeValidator(parse)


def _sendable(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Reject values that JSON cannot carry now, rather than when they are sent."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        raise ValueError("holds a number or a character that JSON cannot carry") from None
    return value


def _not_empty(value: str) -> str:
    # A validator, as `minLength` in each schema would cost tokens in every conversation.
    if not value.strip():
        raise ValueError("must not be empty")
    return value


NotEmpty = Annotated[str, AfterValidator(_not_empty)]
"""A text whose absence has a meaning of its own: what an empty one would mean is not known."""

JsonObject = Annotated[
    dict[str, JsonValue], _parsed(dict), AfterValidator(_sendable), JsonBound(values=2_000, size=200_000)
]
JsonObjects = Annotated[list[JsonObject], _parsed(list)]
Texts = Annotated[list[NotEmpty], _parsed(list), JsonBound(values=100, size=20_000)]


def _number(value: object) -> object:
    """Accept numeric ids: some are numbers in Fastn's answers (API keys), and clients send them back so."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_json(value: object) -> bool:
    return isinstance(value, str) and value.lstrip().startswith(("[", "{"))


def separated(value: object) -> object:
    """Split a text with commas into its values; a list, or the JSON text of one, is taken as it is."""
    if not isinstance(value, str):
        return value
    return parsed_json(value) if _is_json(value) else [part.strip() for part in value.split(",")]


def joined(value: object) -> object:
    """Join a list of texts, or the JSON text of one, by commas; anything else is returned as it is."""
    parsed = parsed_json(value) if _is_json(value) else value
    if not isinstance(parsed, list):
        return value
    items = cast("list[object]", parsed)
    texts = [item for item in items if isinstance(item, str)]
    return ",".join(texts) if len(texts) == len(items) else value


@dataclass(frozen=True, slots=True)
class Known:
    """Known values of an argument. Others are sent too, as Fastn may have more."""

    values: tuple[str, ...]


def in_words(values: tuple[str, ...]) -> str:
    """Join values for a sentence: `a, b or c`."""
    return f"{', '.join(values[:-1])} or {values[-1]}"


def _trimmed(value: str | None) -> str | None:
    return None if value is None else value.strip()


SEVERAL = TextBound(values=20)
"""Bound of an argument with known values, of which a filter takes several."""


def one_of(*values: str) -> tuple[Any, Known, AfterValidator, TextBound]:
    """Return the description of an argument and its known values, for `Annotated`. A value is sent without blanks."""
    return Field(description=f"{in_words(values)}."), Known(values), AfterValidator(_trimmed), SEVERAL


def any_of(*values: str) -> tuple[Any, Known, AfterValidator, TextBound]:
    """Return `one_of`, and say that the filter takes several values or excludes them. Each with known values does."""
    return Field(description=f"{in_words(values)}; several: A,B; !A: not A."), *one_of(*values)[1:]


_Id = Annotated[str, BeforeValidator(_number), AfterValidator(_not_empty)]

# Which of them it is, is found out before a call is sent: see `procedures.lookup`.
_IdOrName = Annotated[_Id, Field(description="Id/name.")]

CustomerId = _IdOrName
# Connections and triggers carry the customer as `endOrgId`.
OfCustomer = Annotated[str | None, Field(description="Else the account's own.", serialization_alias="endOrgId")]
CustomerFilter = Annotated[str, BeforeValidator(_number), Field(description="Id/name.")]
"""Customer of the rows of a list; empty: none, which is your own account."""
ConnectorId = _IdOrName
ConnectionId = _IdOrName
WorkflowFilter = Annotated[str, BeforeValidator(_number), Field(description="Id/name.")]
"""Workflow that the rows of a list start; empty: none."""
WorkflowId = _IdOrName
TriggerId = _IdOrName
ExecutionId = Annotated[_Id, Field(description="Execution id.")]
ApiKeyId = _IdOrName
SecretId = _IdOrName

Limit = Annotated[int, Field(ge=1, le=100, description="1-100, default 20.")]
Cursor = Annotated[str | None, Field(description="Last next_cursor."), TextBound(8_000)]
Search = Annotated[str | None, Field(description="In name, slug or id.")]
Since = Annotated[str | None, Field(description="From, ISO 8601.")]
Until = Annotated[str | None, Field(description="Before, ISO 8601.")]

WaitSeconds = Annotated[int, Field(ge=0, le=45, description="0 (default) to 45."), NOT_SENT]

Name = Annotated[str, Field(description="1-200 characters.", min_length=1, max_length=200), TextBound(200)]
Description = Annotated[str | None, Field(description="Its purpose."), TextBound(10_000)]


def _one_address(value: str | None) -> str | None:
    # Several in one text, or another form of one, would escape the rules that compare them.
    if value is not None and re.fullmatch(r"[^@\s,;<>]+@[^@\s,;<>]*[^@\s,;<>.]", value) is None:
        raise ValueError("must be one e-mail address, such as dana@example.com")
    return value


EMAIL = AfterValidator(_one_address)

FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
"""Name of a field of Fastn. Any other in `extra` is refused: names stand in what people read."""


def _with_field_names(extra: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
    for name in extra or ():
        if FIELD.fullmatch(name) is None:
            raise ValueError(
                f"{quote(name, 60, is_name=True)} is not a field name: use letters, digits and _ . -, at most 64,"
                " beginning with a letter or _"
            )
    return extra


Extra = Annotated[JsonObject | None, AfterValidator(_with_field_names), Field(description="Other fields; null clears.")]


# A secret is write-only: `Tool.shown` redacts arguments with this mark.
SECRET: dict[str, JsonValue] = {"writeOnly": True}
