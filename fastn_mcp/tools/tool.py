"""A tool is a type and a call is a value: declaration, arguments, effect and result."""

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

KEEP_NULLS = "keep nulls"
"""The validation context of a request, in which a null is a value; among a client's arguments it is none."""

DRY_RUN = "dry_run"
"""The argument that asks for a preview. It is not part of the call."""


class Effect(Enum):
    """What a call does to the world. Later ones need more care."""

    READ = "read"
    WRITE = "write"
    EXTERNAL = "external"
    SPEND = "spend"
    ACCESS = "access"
    TRASH = "trash"
    DESTROY = "destroy"

    @property
    def rank(self) -> int:
        """How much care it needs: 0 for a read."""
        return list(Effect).index(self)

    def raised_to(self, other: "Effect") -> "Effect":
        return max(self, other, key=lambda effect: effect.rank)


class FastnObject(BaseModel):
    """A response of Fastn. Unknown fields are kept: the documentation gives no schemas."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    columns: ClassVar[tuple[str, ...]] = ()
    """The fields of a concise list, by Fastn's names; where there are none, any plain ones."""


class SecretRow(FastnObject):
    """A row about a secret: only what is known to be harmless is kept, whatever Fastn sends."""

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


OURS = object()
"""Marks an argument that Fastn never sees and no approval depends on: it is about our answer."""


class Tool(BaseModel, Generic[Result]):
    """What an agent can call. Subclasses declare their `effect`; an instance is one exact call."""

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
    """What each class has to declare."""
    _control_characters: ClassVar[re.Pattern[str]] = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
    """What its texts must not contain."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: object, info: ValidationInfo) -> object:
        """A null is an argument that was not given, also where its default is something else."""
        if not isinstance(given, dict) or info.context == KEEP_NULLS or None not in given.values():
            return cast(object, given)
        arguments, fields = cast("dict[str, object]", given), cls.model_fields
        return {
            name: value
            for name, value in arguments.items()
            if value is not None or name not in fields or fields[name].default is None or fields[name].is_required()
        }

    @model_validator(mode="after")
    def _refuse_control_characters(self) -> Self:
        for name, value in self:
            if isinstance(value, (str, dict, list)):
                for text in _texts(cast(JsonValue, value)):
                    if (found := self._control_characters.search(text)) is not None:
                        raise ValueError(f"{name}: holds the control character U+{ord(found[0]):04X}; leave it out")
        return self

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        generic = cls.__pydantic_generic_metadata__
        if generic["args"] or generic["parameters"]:
            return  # a base that several share
        for name in cls._declares:
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} does not say its {name}")
        cls.returns = cls._result_type()

    @classmethod
    def _result_type(cls) -> type[FastnObject]:
        """The `Result` that the class binds."""
        bound = (base.__pydantic_generic_metadata__["args"] for base in cls.__mro__ if issubclass(base, Tool))
        return cast("type[FastnObject]", next(filter(None, bound))[0])

    @classmethod
    @cache
    def tool_name(cls) -> str:
        """`delete_workflow` of `DeleteWorkflow`."""
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
    @cache
    def secrets(cls) -> frozenset[str]:
        """The arguments that hold secrets, which nothing shows or records."""
        return frozenset(
            name
            for name, info in cls.model_fields.items()
            if cast("dict[str, object]", info.json_schema_extra or {}).get("writeOnly")
        )

    @property
    def effective(self) -> Effect:
        """The least effect of this call. Arguments can raise the type's effect, never lower it."""
        return self.effect

    @property
    def target(self) -> str | None:
        """The id that this call acts on, where it names one."""
        return None

    @property
    def made_of(self) -> "tuple[Tool[Any], ...]":
        """The calls that it is given to make. Each has to be allowed by itself."""
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
        """The arguments that were given, secrets included, without those that are only ours."""
        ours = self.ours()
        return {name: value for name, value in self if value is not None and name not in ours}

    @classmethod
    @cache
    def ours(cls) -> frozenset[str]:
        """The arguments that are not Fastn's: marked with `OURS`."""
        return frozenset(name for name, info in cls.model_fields.items() if OURS in info.metadata)

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


def _texts(value: JsonValue) -> Iterator[str]:
    """Every text in a JSON value, the names of its fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
