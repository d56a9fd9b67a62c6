"""Keys and values that a plan may contain."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, JsonValue

from fastn_mcp.config.strict_toml import ONE_OR_MORE, STRICT, ConfigError, Key, TomlSource, validate
from fastn_mcp.errors import nearest
from fastn_mcp.guard.plans.plan import Plan, PlannedCalls
from fastn_mcp.guard.policy_rules.matching import Choice, choice
from fastn_mcp.guard.policy_rules.schema import CHANGING, kind_of
from fastn_mcp.tools.catalog import BY_NAME, AnyOperation
from fastn_mcp.tools.parsing import ALIASES, Aliases, current
from fastn_mcp.tools.tool import Effect

_ANY = "any"
_LONGEST = 90
"""Days that a plan can hold."""


class _PlanTable(BaseModel):
    model_config = STRICT


class Allow(_PlanTable):
    """`[[allow]]`."""

    tool: str
    target: Annotated[list[str], ONE_OR_MORE] = []
    arguments: dict[str, Any] | str | None = None
    when: dict[str, Any] | None = None
    count: Annotated[int, Field(ge=1, le=10_000)] = 1


class PlanForm(_PlanTable):
    """The whole file."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    account: str
    begins: datetime | None = None
    until: datetime
    reason: str = ""
    allow: Annotated[list[Allow], Field(min_length=1, max_length=1_000)]


def plan(table: Mapping[str, Any], source: TomlSource, signers: tuple[str, ...], aliases: Aliases = ALIASES) -> Plan:
    """The plan that a file holds. Raises `ConfigError`."""
    form = validate(PlanForm, table, source)
    for name in ("begins", "until"):
        moment = getattr(form, name)
        if moment is not None and moment.tzinfo is None:
            raise ConfigError((name,), f"{name}: must name its offset, as 2026-12-01T18:00:00Z")
    return Plan(
        name=form.name,
        account=form.account,
        begins=form.begins,
        until=form.until,
        digest=source.digest,
        signers=signers,
        permits=tuple(_permit(number, allow, source, len(signers), aliases) for number, allow in enumerate(form.allow)),
    )


def _permit(number: int, allow: Allow, source: TomlSource, signers: int, aliases: Aliases) -> PlannedCalls:
    at: Key = ("allow", number)
    operation = BY_NAME.get(current(allow.tool, aliases))
    if operation is None or operation.effect is Effect.READ:
        near = nearest(allow.tool, (known.tool_name() for known in CHANGING))
        why = f"is none{near}" if operation is None else "only reads, which needs no plan"
        raise ConfigError((*at, "tool"), f"tool: {allow.tool!r} {why}")
    exact, conditions = _bounds(at, allow, operation)
    return PlannedCalls(
        name=f"plan {source.file} line {source.line(at)}",
        budget=f"plan {source.digest} {number}",
        tool=operation.tool_name(),
        targets=_targets(at, allow, operation),
        arguments=exact,
        conditions=conditions,
        count=allow.count,
        signers=signers,
    )


def _targets(at: Key, allow: Allow, operation: AnyOperation) -> tuple[str, ...]:
    if operation.route.parameters and not allow.target:
        raise ConfigError(at, "[[allow]] needs a target: the id, or a pattern of ids")
    if allow.target and not operation.route.parameters:
        raise ConfigError(at, "target: it has none")
    for index, text in enumerate(allow.target):
        if not text.strip("*?[]! "):
            raise ConfigError((*at, "target", index), f"target: {text!r} bounds nothing")
    return tuple(allow.target)


def _bounds(
    at: Key, allow: Allow, operation: AnyOperation
) -> tuple[Mapping[str, JsonValue] | None, Mapping[str, Choice] | None]:
    """The exact arguments, or the conditions on them."""
    takes = operation.model_fields.keys() - {*operation.route.parameters} - operation.ours()
    if allow.arguments is not None and allow.when is not None:
        raise ConfigError((*at, "when"), "when: arguments are given, so there is nothing left to compare")
    if allow.when is not None:
        return None, {name: _choice((*at, "when", name), operation, value) for name, value in allow.when.items()}
    if allow.arguments is None:
        if takes:
            raise ConfigError(at, f'[[allow]] needs arguments, when, or arguments = "{_ANY}"')
        return {}, None
    if isinstance(allow.arguments, str):
        if allow.arguments != _ANY:
            raise ConfigError((*at, "arguments"), f'arguments: must be a table, or "{_ANY}"')
        return None, None
    if unknown := sorted(allow.arguments.keys() - takes):
        raise ConfigError(
            (*at, "arguments", unknown[0]), f"arguments: there is no {unknown[0]!r}{nearest(unknown[0], takes)}"
        )
    if hidden := sorted(allow.arguments.keys() & operation.secrets()):
        raise ConfigError((*at, "arguments", hidden[0]), f"arguments: {hidden[0]} is a secret, which no plan may hold")
    try:
        json.dumps(allow.arguments, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigError(
            (*at, "arguments"), "arguments: hold something that JSON has no word for, as a date"
        ) from None
    return allow.arguments, None


def _choice(at: Key, operation: AnyOperation, value: object) -> Choice:
    try:
        kind = kind_of([operation], str(at[-1]))
    except ValueError as error:
        raise ConfigError(at, f"when: {error}") from None
    if (found := choice(value, kind)) is None:
        raise ConfigError(at, f"when: {at[-1]} has to be compared with a {kind}, or a list of such")
    return found
