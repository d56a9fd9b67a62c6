"""Options of the command line, built from the fields of `Settings` that have a flag."""

from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click

from fastn_mcp.cli.help import EnumChoice
from fastn_mcp.config.model import SOURCES, Settings, Source

_METAVARS = {Path: "FILE", float: "SECONDS", int: "MINUTES", list: "NAMES"}


@cache
def setting_options() -> tuple[click.Option, ...]:
    """Return an option for each setting with a flag. `config` reads its variable, and applies its default."""
    return tuple(_option(source) for source in SOURCES if source.flag is not None)


def _option(source: Source) -> click.Option:
    field = Settings.model_fields[source.field]
    description = f"{field.description} [{source.variable}]"
    return click.Option([str(source.flag)], help=description, **_attributes(source.field, field.annotation))


def _attributes(name: str, annotation: Any) -> dict[str, Any]:
    value_type = _value_type(annotation)
    if value_type is bool:
        return {"is_flag": True, "default": None}
    if get_origin(value_type) is Literal:
        return {"type": EnumChoice(get_args(value_type))}
    if value_type is str:
        return {"metavar": "URL" if name.endswith("_url") else "NAME"}
    metavar = _METAVARS[get_origin(value_type) or value_type]
    return {"metavar": metavar, "type": value_type if value_type in (int, float) else str}


def _value_type(annotation: Any) -> Any:
    """Return the type of a value that is set: without None, and without validators."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _value_type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return _value_type(next(each for each in get_args(annotation) if each is not NoneType))
    return annotation
