"""A tool is a type and a call is a value: declaration, arguments, effect and result.

`Operation` adds how a call goes to Fastn, `Procedure` how it is made of others.
"""

import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, ValidationInfo, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from typing_extensions import override

from fastn_mcp.redaction import REDACTED, redact_object, redact_row

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

KEEP_NULLS = "keep nulls"
"""The validation context of what is not a client's arguments, where a null is a value."""

DRY_RUN = "dry_run"
"""The argument that asks for a preview. It is about a call, and no part of it."""


class Effect(Enum):
    """What a call does to the world, in the order in which we grow careful."""

    READ = "read"
    WRITE = "write"
    EXTERNAL = "external"
    SPEND = "spend"
    ACCESS = "access"
    TRASH = "trash"
    DESTROY = "destroy"

    @property
    def rank(self) -> int:
        """How careful: 0 for a read, more for each step."""
        return list(Effect).index(self)

    def raised_to(self, other: "Effect") -> "Effect":
        """The one of the two that needs more care."""
        return max(self, other, key=lambda effect: effect.rank)


class FastnObject(BaseModel):
    """Anything Fastn answers with. Unknown fields are kept: the documentation gives no schemas."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    columns: ClassVar[tuple[str, ...]] = ()
    """The fields that a person would want in a table, by Fastn's names; any plain ones where none is said."""


class SecretRow(FastnObject):
    """A row that is about a secret: what it is not known to show stays hidden, even if Fastn sends it."""

    @model_validator(mode="before")
    @classmethod
    def _without_secrets(cls, row: object) -> object:
        return redact_row(cast("dict[str, JsonValue]", row)) if isinstance(row, dict) else row


Result = TypeVar("Result", bound=FastnObject)


class ToolSchema(GenerateJsonSchema):
    """JSON Schema in the subset that every client reads: no titles, no references, no unions.

    An optional argument is simply not required: a nullable one would become a union, which hides its description.
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


class Ours:
    """Marks an argument about the answer, or about how we go on: Fastn never sees it, and no approval depends on it."""


OURS = Ours()


class Tool(BaseModel, Generic[Result]):
    """What an agent can call. Subclasses say their `effect`; an instance is one exact call."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
        defer_build=True,
    )

    effect: ClassVar[Effect]
    returns: ClassVar[type[FastnObject]]

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: object, info: ValidationInfo) -> object:
        """A null is an argument that was not given, also where its default is something else.

        Not so in a request, which would send it: there it is as wrong as any other type.
        """
        if info.context == KEEP_NULLS or not isinstance(given, dict):
            return given
        arguments = cast("dict[str, object]", given)
        absent = [name for name, value in arguments.items() if value is None and _has_default(cls, name)]
        return {name: value for name, value in arguments.items() if name not in absent} if absent else arguments

    @model_validator(mode="after")
    def _refuse_control_characters(self) -> Self:
        for name in type(self).model_fields:
            for text in _texts(getattr(self, name)):
                found = next((found for found in _CONTROL.finditer(text) if found[0] not in self._layout()), None)
                if found is not None:
                    raise ValueError(f"{name}: holds the control character U+{ord(found[0]):04X}; leave it out")
        return self

    @classmethod
    def _layout(cls) -> str:
        """The control characters that texts may hold."""
        return "\t\n\f\r"

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        generic = cls.__pydantic_generic_metadata__
        if generic["args"] or generic["parameters"]:
            return  # a base that several share
        for name in cls._facts():
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} does not say its {name}")
        cls.returns = _result_of(cls)

    @classmethod
    def _facts(cls) -> tuple[str, ...]:
        """What a class has to say."""
        return ("effect",)

    @classmethod
    def tool_name(cls) -> str:
        """`DeleteWorkflow` is offered as `delete_workflow`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def title(cls) -> str:
        """For people: `CreateApiKey` is "Create API key"."""
        words = cls.tool_name().replace("_", " ").replace("api", "API")
        return words.replace("ai ", "AI ", 1) if words.startswith("ai ") else words[0].upper() + words[1:]

    @classmethod
    def input_schema(cls) -> dict[str, Any]:
        """The arguments as JSON Schema 2020-12, in the portable subset."""
        schema = cls.model_json_schema(by_alias=False, schema_generator=ToolSchema)
        schema.pop("title", None)
        schema.pop("description", None)
        if cls.previews():
            schema["properties"][DRY_RUN] = {"description": "Preview.", "type": "boolean"}
        return schema

    @classmethod
    def previews(cls) -> bool:
        """Whether it takes `dry_run`: everything that changes something does."""
        return cls.effect is not Effect.READ

    @classmethod
    def secrets(cls) -> frozenset[str]:
        """The arguments that hold secrets, which nothing shows or records."""
        return frozenset(
            name
            for name, info in cls.model_fields.items()
            if cast("dict[str, object]", info.json_schema_extra or {}).get("writeOnly")
        )

    @property
    def effective(self) -> Effect:
        """The least effect of this call, by its arguments. They can raise the type's effect, never lower it."""
        return self.effect

    @property
    def target(self) -> str | None:
        """The id that this call acts on, where it names one."""
        return None

    @property
    def made_of(self) -> "tuple[Tool[Any], ...]":
        """The calls that it makes, where it is given them. Each has to be one that may be made by itself."""
        return ()

    @classmethod
    def toolset(cls) -> str:
        """What it belongs to, as `customers`."""
        raise NotImplementedError

    @classmethod
    def idempotent(cls) -> bool:
        """Whether a second call changes nothing more."""
        return cls.effect is Effect.READ

    @classmethod
    def destructive(cls) -> bool:
        """Whether it may overwrite or remove something, or reach beyond the account's own configuration."""
        return cls.effect not in (Effect.READ, Effect.WRITE)

    def arguments(self) -> dict[str, JsonValue]:
        """The arguments that were given, by field name: secrets included, without those that are only ours."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name not in self.ours()}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def ours(cls) -> frozenset[str]:
        """The arguments that are not Fastn's: marked with `OURS`."""
        return _marked(cls)

    def shown(self) -> dict[str, JsonValue]:
        """The arguments as they may be shown and recorded: secrets hidden."""
        hidden = self.secrets()
        return redact_object({name: REDACTED if name in hidden else item for name, item in self.arguments().items()})


AnyTool = type[Tool[Any]]


def suggested(offer: AnyTool, **arguments: object) -> dict[str, JsonValue] | None:
    """A next call, as `{"tool", "arguments"}`; None where an argument is none, as an id that Fastn left out."""
    try:
        call = offer.model_validate(arguments)
    except ValidationError:
        return None
    return {"tool": call.tool_name(), "arguments": call.model_dump(exclude_unset=True)}


def _has_default(offer: AnyTool, name: str) -> bool:
    info = offer.model_fields.get(name)
    return info is not None and not info.is_required() and info.default is not None


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON value, the names of its fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in cast("dict[str, object]", value).items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _texts(inner)


@cache
def _marked(offer: AnyTool) -> frozenset[str]:
    return frozenset(name for name, info in offer.model_fields.items() if OURS in info.metadata)


def _result_of(offer: AnyTool) -> type[FastnObject]:
    """The `Result` that a class binds, directly or through a base such as `List[Item]`."""
    declared = [base.__pydantic_generic_metadata__ for base in offer.__mro__ if issubclass(base, Tool)]
    bound = next(base for base in declared if base["args"])
    (argument,) = bound["args"]
    inner = [base["args"][0] for base in declared if base["args"] and base is not bound]
    for wrapper in inner:
        if not isinstance(wrapper, TypeVar) and wrapper.__pydantic_generic_metadata__["parameters"]:
            return cast(type[FastnObject], wrapper[argument])
    return cast(type[FastnObject], argument)
