"""Base class of tools. A tool is a type and a call is an instance, with arguments, an effect and a result type."""

import hashlib
import re
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, ValidationInfo, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema, to_json
from typing_extensions import override

from fastn_mcp.errors import nearest, reason
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import REDACTED, redact_object

MAY_BE_ID = re.compile(r"[\w.~:@+=-]{1,256}")
"""What may be an id of Fastn's, and is no sentence."""

KEEP_NULLS = "keep nulls"
"""Validation context of a request, in which a null is a value. Among a client's arguments it means not given."""

DRY_RUN = "dry_run"
"""Argument that requests a preview, as `preview_change` does. It is neither listed nor part of the call."""


class Effect(Enum):
    """Effect of a call, in ascending order of severity."""

    READ = "read"
    WRITE = "write"
    EXTERNAL = "external"
    SPEND = "spend"
    ACCESS = "access"
    TRASH = "trash"
    DESTROY = "destroy"

    def __init__(self, _: str) -> None:
        self.rank = len(type(self).__members__)
        """Severity: 0 for a read."""

    def raised_to(self, other: "Effect") -> "Effect":
        return max(self, other, key=lambda effect: effect.rank)


Result = TypeVar("Result", bound=FastnObject)


class ToolSchema(GenerateJsonSchema):
    """JSON Schema in the subset that every client reads: no titles, no references, no unions.

    An optional argument is not required rather than nullable: a union would hide its description.
    """

    @override
    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    @override
    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        rendered = super().default_schema(schema)
        if rendered.get("default", ...) is None:
            del rendered["default"]
        return rendered

    @override
    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        return {"type": "object"}

    @override
    def field_title_should_be_set(self, schema: object) -> bool:
        return False


NOT_SENT = object()
"""Marks an argument that is never sent to Fastn and that no approval depends on: it shapes our answer."""


UNLISTED = object()
"""Marks an argument of a list tool that clients may send and `tools/list` does not show: `query` takes its place."""


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that are not allowed in the arguments of tools whose texts are ids or parts of a query."""


class Tool(BaseModel, Generic[Result]):
    """A tool that an agent can call. Subclasses declare their `effect`; an instance is one exact call."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
        defer_build=True,
    )

    effect: ClassVar[Effect]
    returns: ClassVar[type[FastnObject]]
    _declares: ClassVar[tuple[str, ...]] = ("effect",)
    """Class attributes that each subclass must declare."""
    _control_characters: ClassVar[re.Pattern[str]] = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
    """Characters that are not allowed in its text arguments."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, raw: object, info: ValidationInfo) -> object:
        """Treat a null as an argument that was not given, even if its default is not null."""
        if not isinstance(raw, dict) or info.context == KEEP_NULLS or None not in raw.values():
            return cast(object, raw)
        arguments = cast("dict[str, object]", raw)
        fields = cls.model_fields
        return {
            name: value
            for name, value in arguments.items()
            if value is not None or name not in fields or fields[name].default is None or fields[name].is_required()
        }

    @model_validator(mode="wrap")
    @classmethod
    def _unseal_cursor(cls, raw: object, validate: Callable[[object], Self]) -> Self:
        """Take the cursor of an earlier page, and refuse it with other filters: rows would be skipped silently."""
        fields = cast("dict[str, object]", raw)
        if not isinstance(raw, dict) or "~" not in str(fields.get("cursor")):
            return validate(fields)
        cursor, _, seal = str(fields["cursor"]).partition("~")
        sealed = {name: digest for name, _, digest in (part.partition("=") for part in seal.split(","))}
        what = "belongs to another tool"
        if sealed.get("tool") == _digest(cls.tool_name()):
            call = validate({**fields, "cursor": cursor})
            own = call._digests()
            if own == sealed:
                return call
            changed = sorted(name for name in cls.model_fields if own.get(name) != sealed.get(name))
            what = f"had another {' and '.join(changed)}"
        raise ValueError(f"cursor: the page that it continues {what}. Repeat its arguments, or omit the cursor")

    def sealed(self, cursor: str) -> str:
        """Return the cursor for a client, with the filters that it belongs to."""
        return f"{cursor}~{','.join(f'{name}={digest}' for name, digest in self._digests().items())}"

    def _digests(self) -> dict[str, str]:
        """Return digests of the tool and of its filters, by name."""
        return {"tool": _digest(self.tool_name())} | {name: _digest(value) for name, value in self.filters.items()}

    @property
    def filters(self) -> dict[str, Any]:
        """Given arguments for Fastn, without the arguments of a page: the filters of a list."""
        others = {"limit", "cursor", *self.ours()}
        return {name: value for name, value in self if value is not None and name not in others}

    @model_validator(mode="after")
    def _refuse_control_characters(self) -> Self:
        for name, value in self:
            if isinstance(value, (str, dict, list)):
                for text in _texts(cast(JsonValue, value)):
                    match = self._control_characters.search(text)
                    if match is not None:
                        raise ValueError(f"{name}: holds the control character U+{ord(match[0]):04X}; leave it out")
        return self

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        generic = cls.__pydantic_generic_metadata__
        if generic["args"] or generic["parameters"]:
            return  # a shared base class
        for name in cls._declares:
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} does not say its {name}")
        cls.returns = cls._result_type()

    @classmethod
    def _result_type(cls) -> type[FastnObject]:
        """Return the `Result` that the class binds."""
        bound = (base.__pydantic_generic_metadata__["args"] for base in cls.__mro__ if issubclass(base, Tool))
        return cast("type[FastnObject]", next(filter(None, bound))[0])

    @classmethod
    @cache
    def tool_name(cls) -> str:
        """Return the name: `delete_workflow` for `DeleteWorkflow`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def title(cls) -> str:
        """Return the title for people: "Create API key" for `CreateApiKey`."""
        words = cls.tool_name().replace("_", " ").replace("api", "API")
        return words.replace("ai ", "AI ", 1) if words.startswith("ai ") else words[0].upper() + words[1:]

    @classmethod
    def input_schema(cls) -> dict[str, Any]:
        """Return the arguments as JSON Schema 2020-12, in the portable subset."""
        schema = cls.model_json_schema(schema_generator=ToolSchema)
        schema.pop("title", None)
        schema.pop("description", None)
        schema["properties"].get("cursor", {}).pop("pattern", None)  # the pattern of the cursor without its seal
        return schema

    @classmethod
    def previews(cls) -> bool:
        """Return whether the tool takes `dry_run`. Every tool that changes something does."""
        return cls.effect is not Effect.READ

    @classmethod
    @cache
    def secrets(cls) -> frozenset[str]:
        """Return the arguments that hold secrets, which are never shown or recorded."""
        return frozenset(
            name
            for name, info in cls.model_fields.items()
            if cast("dict[str, object]", info.json_schema_extra or {}).get("writeOnly")
        )

    @property
    def effective(self) -> Effect:
        """Least effect of this call. Arguments can raise the tool's effect, never lower it."""
        return self.effect

    @property
    def target(self) -> str | None:
        """Id that this call acts on, if it names one."""
        return None

    @property
    def person_types(self) -> str | None:
        """Secret argument that was not given, which a person types where they approve the call if it is needed."""
        return None

    @property
    def inner_calls(self) -> "tuple[Tool[Any], ...]":
        """Calls that this call makes. Each must be allowed by itself."""
        return ()

    @property
    def list_name(self) -> str | None:
        """Name that tells a list of calls from an earlier list of the same calls."""
        return None

    @classmethod
    def toolset(cls) -> str:
        """Return the toolset, such as `customers`."""
        raise NotImplementedError

    @classmethod
    def idempotent(cls) -> bool:
        """Return whether a second call has no further effect."""
        return cls.effect is Effect.READ

    @classmethod
    def destructive(cls) -> bool:
        """Return whether it may overwrite or remove something, or reach beyond the account's own configuration."""
        return cls.effect not in (Effect.READ, Effect.WRITE)

    def arguments(self) -> dict[str, JsonValue]:
        """Return the arguments for Fastn that were given, including secrets."""
        ours = self.ours()
        return {name: value for name, value in self if value is not None and name not in ours}

    @classmethod
    @cache
    def unlisted(cls) -> frozenset[str]:
        """Return the arguments marked with `UNLISTED`, which are taken, and not listed."""
        return frozenset(name for name, info in cls.model_fields.items() if UNLISTED in info.metadata)

    @classmethod
    @cache
    def ours(cls) -> frozenset[str]:
        """Return the arguments marked with `NOT_SENT`, which are not sent to Fastn."""
        return frozenset(name for name, info in cls.model_fields.items() if NOT_SENT in info.metadata)

    def shown(self) -> dict[str, JsonValue]:
        """Return the arguments for display and records, with secrets redacted."""
        secrets = self.secrets()
        return redact_object({name: REDACTED if name in secrets else item for name, item in self.arguments().items()})


AnyTool = type[Tool[Any]]


def _digest(value: object) -> str:
    return hashlib.sha256(to_json(value)).hexdigest()[:4]


def suggested(type_: AnyTool, **arguments: object) -> dict[str, JsonValue] | None:
    """Return a next call as `{"tool", "arguments"}`; None if an argument is invalid, such as an omitted id."""
    if not all(MAY_BE_ID.fullmatch(str(item)) for name, item in arguments.items() if name.endswith("_id")):
        return None
    try:
        call = type_.model_validate(arguments)
    except ValidationError:
        return None
    return {"tool": call.tool_name(), "arguments": call.model_dump(exclude_unset=True)}


_MAX_PROBLEMS = 8
_MAX_DEPTH = 6
"""Maximum number of parts of a field's path in a message."""


def problems(tool: AnyTool, error: ValidationError) -> str:
    """Describe all errors in the arguments of a call, in one sentence without its full stop."""
    found = error.errors(include_url=False)
    named = [_problem(tool, each) for each in found[:_MAX_PROBLEMS]]
    more = len(found) - _MAX_PROBLEMS
    return "; ".join([*named, f"{more:,} more"] if more > 0 else named)


def _problem(tool: AnyTool, problem: Any) -> str:
    field = ".".join(str(part)[:64] for part in problem["loc"][:_MAX_DEPTH])
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown argument {field!r}{nearest(field, tool.model_fields)}"
        case "missing":
            return f"{field}: is required{_described(tool, problem)}"
        case str(type_) if type_.endswith(("_type", "_parsing")):
            return f"{field}: {reason(problem)}{_described(tool, problem)}"
        case _:
            return f"{field}: {reason(problem)}" if field else reason(problem)


def _described(tool: AnyTool, problem: Any) -> str:
    """Return the description of the argument that a problem is about, in brackets; empty if its name says as much."""
    name = str(problem["loc"][0]) if problem["loc"] else ""
    described = (tool.model_fields[name].description or "").removesuffix(".") if name in tool.model_fields else ""
    says_more = described.casefold().replace(" ", "_") not in (name, "")
    return f" ({described})" if says_more else ""


def _texts(value: JsonValue) -> Iterator[str]:
    """Yield every text in a JSON value, including field names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
