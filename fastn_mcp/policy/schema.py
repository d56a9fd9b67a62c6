"""Keys, tables and values that a policy file may contain."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from fastn_mcp.config.strict_toml import ONE_OR_MORE, STRICT, ConfigError, Key
from fastn_mcp.errors import nearest
from fastn_mcp.policy.asker import FACTS
from fastn_mcp.policy.conditions import DERIVED, NAME, NEW_NAME, Choice, Glob, Who
from fastn_mcp.policy.decision import BREAKER, DESTROY_RATE, Decision
from fastn_mcp.policy.rules import Hours, hours
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.operation import Create, Update
from fastn_mcp.tools.tool import Effect

_EFFECTS = [effect.value for effect in Effect if effect is not Effect.READ]
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def _decision(value: object) -> Decision:
    known = [decision.value for decision in Decision]
    if value in known:
        return Decision(value)
    near = nearest(value, known) if isinstance(value, str) else ""
    raise ValueError(f"unknown decision {value!r}{near}; use one of {', '.join(known)}")


def _stricter(decision: Decision) -> Decision:
    if decision is Decision.ALLOW:
        raise ValueError("what is protected cannot be allowed; leave the entry out")
    return decision


def _effect(value: object) -> Effect:
    name = value.casefold() if isinstance(value, str) else ""
    if name == Effect.READ.value:
        raise ValueError("reads are always allowed")
    if name not in _EFFECTS:
        raise ValueError(f"unknown effect {value!r}{nearest(name, _EFFECTS)}; use any of {', '.join(_EFFECTS)}")
    return Effect(name)


def _glob(value: object) -> Glob:
    if not isinstance(value, str) or not value.strip():
        raise ValueError('must be a non-empty text, for example "acme-*"')
    return Glob(value.strip())


def _seconds(value: object) -> float:
    match = re.fullmatch(r"([1-9]\d{0,5})\s?([smh])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a time in seconds, minutes or hours, for example "90s", "10m" or "2h"')
    return float(int(match[1]) * _SECONDS[match[2]])


def _rate(value: object) -> tuple[int, float]:
    match = re.fullmatch(r"([1-9]\d{0,4}) per ([1-9]\d{0,5}\s?[smh])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a number and a time, for example "10 per 5m"')
    return int(match[1]), _seconds(match[2])


def _removed(value: object) -> None:  # noqa: ARG001 - whatever it is
    raise ValueError("was removed: who may approve is set for approvers, by group and effect (docs/policy.md)")


Decided = Annotated[Decision, BeforeValidator(_decision)]
Holding = Annotated[Decision, BeforeValidator(lambda value: _stricter(_decision(value)))]
Globs = Annotated[list[Annotated[Glob, BeforeValidator(_glob)]], ONE_OR_MORE, Field(min_length=1)]
AnyEffects = Annotated[list[Annotated[Effect, BeforeValidator(_effect)]], ONE_OR_MORE]
Effects = Annotated[AnyEffects, Field(min_length=1)]
Openings = Annotated[list[Annotated[Hours, BeforeValidator(hours)]], ONE_OR_MORE, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Value = TypeVar("Value")


class PolicyTable(BaseModel):
    model_config = STRICT


class ByEffect(PolicyTable, Generic[Value]):
    """A value for each effect, if it has one."""

    write: Value | None = None
    external: Value | None = None
    spend: Value | None = None
    access: Value | None = None
    trash: Value | None = None
    destroy: Value | None = None

    def values(self) -> dict[Effect, Value]:
        given = {effect: getattr(self, effect.value, None) for effect in Effect}
        return {effect: value for effect, value in given.items() if value is not None}


class Defaults(ByEffect[Decided]):
    """`[defaults]`: decisions on effects that replace the mode's, and others for one kind of key."""

    live: ByEffect[Decided] = ByEffect[Decided]()
    test: ByEffect[Decided] = ByEffect[Decided]()


class Protect(PolicyTable):
    """`[[protect]]`: protected resources, whatever the rules allow."""

    customer: Globs | None = None
    connector: Globs | None = None
    connection: Globs | None = None
    workflow: Globs | None = None
    trigger: Globs | None = None
    api_key: Globs | None = None
    secret: Globs | None = None
    role: Globs | None = None
    then: Holding = Decision.DENY
    second: Annotated[None, BeforeValidator(_removed)] = None
    """It was removed."""
    reason: str = ""


class DependentsForm(PolicyTable):
    """`dependents` of `when`."""

    min: Count | None = None
    max: Count | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is more than max")
        return self


class RuleForm(PolicyTable):
    """`[[rule]]`. The arguments in `when` are checked against the tools."""

    tool: Globs | None = None
    effects: Effects | None = None
    target: Globs | None = None
    key: Literal["live", "test"] | None = None
    when: dict[str, Any] = {}
    who: dict[str, Globs] | None = None
    unless: dict[str, Globs] | None = None
    then: Decided
    second: Annotated[None, BeforeValidator(_removed)] = None
    """It was removed."""
    reason: str = ""


class Window(PolicyTable):
    """`[[window]]`: hours in which effects may happen."""

    effects: Effects
    tools: Globs | None = None
    open: Openings
    reason: str = ""


class Budget(ByEffect[Count]):
    """`[budget]`: calls of an effect per period, for each account and caller, and further limits per run."""

    per: Literal["day", "run"] = "day"
    destroy_rate: Annotated[tuple[int, float], BeforeValidator(_rate)] = DESTROY_RATE
    run: ByEffect[Count] = ByEffect[Count]()


class Breaker(PolicyTable):
    """`[breaker]`: consecutive declines after which changes are refused, and for how long."""

    declined: Annotated[int, Field(ge=1)] = BREAKER[0]
    rest: Annotated[float, BeforeValidator(_seconds)] = BREAKER[1]


class PolicyForm(PolicyTable):
    """A whole policy file."""

    defaults: Defaults = Defaults()
    protect: list[Protect] = []
    rule: list[RuleForm] = []
    window: list[Window] = []
    budget: Budget = Budget()
    breaker: Breaker = Breaker()


CHANGING_TOOLS = tuple(operation for operation in CATALOG if operation.effect is not Effect.READ)
"""Tools that a policy applies to. Reads are always allowed."""


def possible_effects(operation: AnyOperation) -> frozenset[Effect]:
    """Return the effects that calls of a tool can have: its own, and the ones that arguments or facts raise it to."""
    return frozenset({operation.effect, *operation.raises_to})


def named(glob: str) -> list[AnyOperation]:
    """Return the tools that a glob matches. Raises `ValueError` if it matches no tool that changes something."""
    matches = [operation for operation in CATALOG if fnmatchcase(operation.tool_name(), glob.casefold())]
    changing = [operation for operation in matches if operation.effect is not Effect.READ]
    if changing:
        return changing
    if matches:
        raise ValueError(f"{glob!r} names only tools that read, and reads are always allowed")
    raise ValueError(f"unknown tool {glob!r}{nearest(glob, (operation.tool_name() for operation in CHANGING_TOOLS))}")


_COMPARABLE_TYPES: Mapping[str | None, tuple[type, str]] = {
    "string": (str, "a text"),
    "integer": (int, "a whole number"),
}


def _takers(argument: str, operations: Sequence[AnyOperation], *, loosens: bool) -> list[AnyOperation]:
    """Return tools with the argument that a condition compares, for its type; empty if it can never match."""
    if argument == NEW_NAME:
        return [each for each in operations if issubclass(each, Update) and NAME in each.model_fields]
    takers = [each for each in operations if argument in each.model_fields]
    # Any call has an environment, a customer and a name in effect, by its record or a setting.
    if not takers and argument in (*DERIVED, NAME) and operations and not loosens:
        return [each for each in CHANGING_TOOLS if argument in each.model_fields]
    return takers


def condition(
    at: Key, operations: Sequence[AnyOperation], value: object, keys: Iterable[str] = (), *, loosens: bool
) -> Choice:
    """Parse the condition of `when` that `at` ends in: one value, or a list of values. Raises `ConfigError`.

    `keys` are the keys allowed in `when` besides conditions. `loosens`: whether its rule allows.
    """
    argument = str(at[-1])
    takers = _takers(argument, list(operations), loosens=loosens)
    if not takers:
        known = sorted({*keys, *DERIVED, NEW_NAME, *(name for each in operations for name in each.model_fields)})
        raise ConfigError(at, f"when: none of its tools has an argument {argument!r}{nearest(argument, known)}")
    if loosens and argument == NAME and any(not issubclass(each, Create) for each in operations):
        raise ConfigError(
            at, "when: a rule that allows cannot compare the name of a target, as an agent could change it; use target"
        )
    argument = NAME if argument == NEW_NAME else argument
    if any(argument in operation.secrets() for operation in takers):
        raise ConfigError(at, f"when: {argument!r} is a secret, which a policy file must not contain")
    shapes = [operation.input_schema()["properties"][argument] for operation in takers]
    kinds = {
        _COMPARABLE_TYPES.get(shape["items"]["type"] if shape["type"] == "array" else shape["type"]) for shape in shapes
    }
    if len(kinds) > 1 or (kind := kinds.pop()) is None:
        raise ConfigError(at, f"when: {argument!r} has parts, and only texts and numbers can be compared")
    wanted, called = kind
    options: list[Any] = [value]
    if isinstance(value, list):
        options = cast("list[object]", value)
    if not options or any(type(option) is not wanted for option in options):
        raise ConfigError(at, f"when: {argument} has to be compared with {called}, or a list of them")
    return Choice(tuple(Glob(option) if isinstance(option, str) else option for option in options))


def check_facts(at: Key, facts: Mapping[str, object] | None) -> None:
    """Raise `ConfigError` if a table at `at` on who asks is empty or has another key."""
    for name in {""} if facts == {} else (facts or {}).keys() - {*FACTS}:
        why = f"there is no key {name!r} in {at[-1]}{nearest(name, FACTS)}" if name else f"{at[-1]}: names nobody"
        raise ConfigError((*at, name), f"{why}; known are {', '.join(FACTS)}")


def asked_by(at: Key, form: Mapping[str, list[Glob]] | None, *, loosens: bool) -> Who:
    """Return the conditions at `at` on who asks. Raises `ConfigError` if what can be claimed `loosens` a decision."""
    check_facts(at, form)
    facts = {name: tuple(globs) for name, globs in (form or {}).items()}
    for glob in facts.get("person", ()) if loosens else ():
        if "|" not in glob.text and re.search(r"[\s@<>]", glob.text):
            why = f"person: {glob.text!r} reads like a name or an e-mail address, which may be unverified or another's"
            raise ConfigError((*at, "person"), f'{why}; a rule that loosens needs "ISSUER|SUBJECT"')
    if loosens and "client_name" in facts:
        why = "client_name: any client can call itself so, and here it would loosen the decision; use client, its id"
        raise ConfigError((*at, "client_name"), why)
    return Who(facts)
