"""What a person types for a call: a secret, or the credentials of a connection by the fields of its connector."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue
from pydantic_core import from_json

from fastn_mcp.records.rows import Row, inside, key_of, objects, text, value, word
from fastn_mcp.tools.connectors import CreateConnection
from fastn_mcp.tools.operation import Call

_OBJECT = 'a JSON object such as {"token": "…"}'


@dataclass(frozen=True, slots=True)
class TypedField:
    """A field that a person fills in. It is hidden while they type unless it is documented to hold no secret."""

    name: str
    is_required: bool = True
    is_hidden: bool = True


@dataclass(frozen=True, slots=True)
class TypedArgument:
    """The argument of a call that a person types. Its one field bears its name, unless it is an object of several."""

    name: str
    fields: tuple[TypedField, ...]
    is_certain: bool = True
    """Whether Fastn said which fields it has, or whether it is needed at all."""

    @property
    def is_whole(self) -> bool:
        return [each.name for each in self.fields] == [self.name]

    def prompt(self, each: TypedField) -> str:
        """Return the words that ask for a field."""
        what = f"{each.name}, {_OBJECT}" if self.is_whole and self.name == "credentials" else each.name
        return what if each.is_required else f"{what}, if needed"

    def value(self, typed: Mapping[str, str]) -> JsonValue:
        """Return the argument from what was typed; None if nothing was, and nothing has to be.

        Raises `ValueError`, which says what is wrong and never what was typed.
        """
        entered: dict[str, JsonValue] = {each.name: typed[each.name] for each in self.fields if typed.get(each.name)}
        missing = [each.name for each in self.fields if each.is_required and each.name not in entered]
        if missing:
            raise ValueError(f"type the {' and the '.join(missing)}.")
        if not self.is_whole:
            return entered or None
        return _object(typed[self.name]) if entered and self.name == "credentials" else entered.get(self.name)


def _object(content: str) -> JsonValue:
    try:
        credentials = from_json(content, allow_inf_nan=False)
    except ValueError:
        credentials = None
    if not isinstance(credentials, dict) or not credentials:
        raise ValueError(f"the credentials have to be {_OBJECT}.")
    return cast("dict[str, JsonValue]", credentials)


MAX_FIELDS = 8
"""Fields that are asked for one by one. A connector that names more takes them as one JSON object."""

_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")

# Shapes that were seen in use. For BASIC, DIGEST and INPUT (custom) none was.
_KNOWN_FIELDS = {
    "bearer": (TypedField("token"),),
    "api key": (TypedField("apiKey"), TypedField("headerName", is_required=False, is_hidden=False)),
}
_TYPES_WITH_CREDENTIALS = frozenset({*_KNOWN_FIELDS, "basic", "digest", "input", "custom"})
_TYPES_WITHOUT_CREDENTIALS = frozenset({"no auth", "none", "oauth", "oauth2", "oauth 2", "oauth 2.0"})
"""Auth types without credentials: none are needed, or a person authorises in the browser."""


def typed_argument(call: Call, connector: Row | None) -> TypedArgument | None:
    """Return what a person has to type for a call; None if nothing. `connector`: the connector of a new connection.

    If it is None or does not say what it takes, the person is asked and may leave it out: they know the app.
    """
    name = call.person_types
    if name is None:
        return None
    if not isinstance(call, CreateConnection):
        return TypedArgument(name, (TypedField(name),))
    method = _auth_method(call, connector or {})
    type_ = word(method, "type")
    if type_ in _TYPES_WITHOUT_CREDENTIALS:
        return None
    fields = _named(method) or _KNOWN_FIELDS.get(type_)
    if fields is None:
        is_certain = type_ in _TYPES_WITH_CREDENTIALS
        return TypedArgument(name, (TypedField(name, is_required=is_certain),), is_certain)
    return TypedArgument(name, fields)


def _auth_method(call: CreateConnection, connector: Row) -> Row:
    """Return the auth method of a new connection; empty if the connector does not tell it."""
    methods = objects(connector, "authMethods")
    if call.auth_method_id is not None:
        methods = [method for method in methods if key_of(method) == call.auth_method_id]
    elif len(methods) > 1:
        methods = [method for method in methods if value(method, "isDefault") is True]
    return methods[0] if len(methods) == 1 else {}


def _named(method: Row) -> tuple[TypedField, ...] | None:
    """Return the fields that an auth method names, as a list, by name or by a JSON Schema; None if it names none."""
    config = inside(method, "config")
    for row in (method, config, inside(config, "schema"), inside(config, "inputSchema")):
        for place in ("fields", "inputs", "credentials", "properties"):
            fields = _specified(value(row, place))
            if fields:
                return _fields(fields, value(row, "required"))
    return None


def _specified(fields: JsonValue) -> list[tuple[str, Row]]:
    """Return names and specifications of fields, from a list of either or an object by name."""
    if isinstance(fields, dict):
        return [(name, spec) for name, spec in fields.items() if isinstance(spec, dict)]
    return [
        (each, {}) if isinstance(each, str) else (text(each, "name", "key", "id"), each)
        for each in (fields if isinstance(fields, list) else [])
        if isinstance(each, (str, dict))
    ]


def _fields(fields: Sequence[tuple[str, Row]], required: JsonValue) -> tuple[TypedField, ...] | None:
    """Return fields by their names; None unless all are plain, differ and are few."""
    names = {name for name, _ in fields if _FIELD_NAME.fullmatch(name)}
    if len(names) != len(fields) or len(names) > MAX_FIELDS or names & {"credentials"}:
        return None
    needed = set(map(str, required)) if isinstance(required, list) else names
    return tuple(TypedField(name, name in needed and spec.get("required") is not False) for name, spec in fields)
