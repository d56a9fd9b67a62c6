"""Options of the command line, built from the fields of `Settings` that have a flag."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click

from fastn_mcp.cli.help import EnumChoice
from fastn_mcp.config.model import SOURCES, Settings

Command = TypeVar("Command", bound=Callable[..., Any])

_METAVARS = {Path: "FILE", float: "SECONDS", int: "MINUTES", list: "NAMES"}


@cache
def setting_options() -> tuple[click.Option, ...]:
    """Return an option for each setting with a flag. `config` reads its variable, and applies its default."""
    return tuple(
        click.Option([source.flag], **_attributes(source.field, f" [{source.variable}]"))
        for source in SOURCES
        if source.flag is not None
    )


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Give a command options for these settings, which it stores."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            click.option("--" + name.replace("_", "-"), **_attributes(name))(command)
        return command

    return decorate


def _attributes(name: str, note: str = "") -> dict[str, Any]:
    field = Settings.model_fields[name]
    value_type = _value_type(field.annotation)
    attributes: dict[str, Any] = {"help": f"{field.description}{note}"}
    if value_type is bool:
        return attributes | {"is_flag": True, "default": None}
    if get_origin(value_type) is Literal:
        return attributes | {"type": EnumChoice(get_args(value_type))}
    if value_type is str:
        return attributes | {"metavar": "URL" if name.endswith("_url") else "NAME"}
    metavar = _METAVARS[get_origin(value_type) or value_type]
    return attributes | {"metavar": metavar, "type": value_type if value_type in (int, float) else str}


def _value_type(annotation: Any) -> Any:
    """Return the type of a value that is set: without None, and without validators."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _value_type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return _value_type(next(each for each in get_args(annotation) if each is not NoneType))
    return annotation
