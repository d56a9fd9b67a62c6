"""A script of calls, one JSON object a line, checked as a whole before any of it is made. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fastn_mcp.errors import NotSent, nearest
from fastn_mcp.procedures.catalog import ParsedCall, UnknownTool, parse
from fastn_mcp.redaction import is_redacted
from fastn_mcp.tools.parsing import current
from fastn_mcp.tools.tool import DRY_RUN, AnyTool

MOST = 10_000
"""Calls in one script."""

_KEYS = ("tool", "arguments", "id")
_FROM, _PATH = "$from", "path"
_LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One call of a script. `wanted` is None where its arguments need what an earlier call returns."""

    number: int
    line: int
    id: str | None
    offer: AnyTool
    arguments: Mapping[str, Any]
    wanted: ParsedCall | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a line. Never shows a value."""

    line: int
    problem: str


class Missing(Exception):
    """An earlier call, whose result this one needs, was not made."""


class _Wrong(Exception):
    """What is wrong with a line."""


def read(lines: Iterable[bytes], offered: Mapping[str, AnyTool]) -> tuple[list[ScriptCall], list[Mistake]]:
    """The calls of a script, and its mistakes. With a mistake in it, none of it is to be made."""
    steps: list[ScriptCall] = []
    mistakes: list[Mistake] = []
    ids: set[str] = set()
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if not text or text.startswith(b"#"):
            continue
        if len(steps) == MOST:
            return steps, [*mistakes, Mistake(number, f"a script has at most {MOST} calls")]
        try:
            step = _step(len(steps) + 1, number, _object(text), offered, ids)
        except _Wrong as wrong:
            mistakes.append(Mistake(number, str(wrong)))
            continue
        steps.append(step)
        if step.id is not None:
            ids.add(step.id)
    return steps, mistakes


def _object(text: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise _Wrong("it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise _Wrong("it is not JSON") from None
    if not isinstance(found, dict):
        raise _Wrong("it is not an object")
    return cast("dict[str, Any]", found)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Wrong("an object in it has the same name twice")
    return found


def _no_number(name: str) -> object:
    raise _Wrong(f"{name} is no number of JSON")


def _step(number: int, line: int, given: dict[str, Any], offered: Mapping[str, AnyTool], ids: set[str]) -> ScriptCall:
    tool, arguments, id_ = _parts(given)
    tool = current(tool)
    if id_ in ids:
        raise _Wrong("an earlier call has the same id")
    needs = _needs(arguments)
    try:
        if not needs:
            wanted = parse(offered, tool, arguments)
            return ScriptCall(number, line, id_, type(wanted.call), arguments, wanted)
        if tool not in offered:
            parse(offered, tool, {})  # says why
    except UnknownTool as error:
        raise _Wrong(error.what) from None
    except NotSent as error:
        raise _Wrong(error.what) from None
    offer = offered[tool]
    _known(offer, arguments)
    for need in needs:
        if need not in ids:
            raise _Wrong(f"{_FROM} names no earlier call{nearest(need, ids)}")
    return ScriptCall(number, line, id_, offer, arguments, None)


def _parts(given: dict[str, Any]) -> tuple[str, dict[str, Any], str | None]:
    for key in given:
        if key not in _KEYS:
            raise _Wrong(f"there is no {key[:64]!r} in a call{nearest(key, _KEYS)}")
    tool, arguments, id_ = given.get("tool"), given.get("arguments", {}), given.get("id")
    if not isinstance(tool, str):
        raise _Wrong("its tool is missing, or is no text")
    if not isinstance(arguments, dict):
        raise _Wrong("its arguments are no object")
    if "id" in given and not (isinstance(id_, str) and 0 < len(id_) <= _LONGEST_ID):
        raise _Wrong(f"its id is no text of 1 to {_LONGEST_ID} characters")
    return tool, cast("dict[str, Any]", arguments), id_


def _known(offer: AnyTool, arguments: Mapping[str, Any]) -> None:
    """What can be checked of arguments that are not complete yet."""
    fields = offer.model_fields.keys() | ({DRY_RUN} if offer.previews() else set[str]())
    for name in arguments:
        if name not in fields:
            raise _Wrong(f"unknown argument {name[:64]!r}{nearest(name, fields)}")
    for name, info in offer.model_fields.items():
        if info.is_required() and name not in arguments:
            raise _Wrong(f"{name}: is required")


def _needs(value: object) -> list[str]:
    """The ids of the calls whose results a value is made from."""
    if isinstance(value, list):
        return [need for item in cast("list[object]", value) for need in _needs(item)]
    if not isinstance(value, dict):
        return []
    found = cast("dict[str, object]", value)
    if _FROM not in found:
        return [need for item in found.values() for need in _needs(item)]
    need, path = found[_FROM], found.get(_PATH)
    if not isinstance(need, str) or not isinstance(path, str) or not path or len(found) > 2:
        raise _Wrong(f'what is taken from an earlier call is not {{"{_FROM}": "ID", "{_PATH}": "id"}}')
    return [need]


def filled(value: Any, results: Mapping[str, object]) -> Any:
    """The value with what earlier calls returned in its place. Raises `Missing`, `NotSent`."""
    if isinstance(value, list):
        return [filled(item, results) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    found = cast("dict[str, Any]", value)
    if _FROM not in found:
        return {name: filled(item, results) for name, item in found.items()}
    if found[_FROM] not in results:
        raise Missing(f"It needs the result of {found[_FROM]!r}, which was not made.")
    return _plucked(results[found[_FROM]], found[_FROM], found[_PATH])


def _plucked(value: object, id_: str, path: str) -> str | int | float | bool:
    for part in path.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(cast("list[object]", value)):
            value = cast("list[object]", value)[int(part)]
        elif isinstance(value, dict) and part in value:
            value = cast("dict[str, object]", value)[part]
        else:
            raise NotSent(f"The result of {id_!r} has no {path!r}.")
    if not isinstance(value, (str, int, float)) or value == "" or is_redacted(value):
        raise NotSent(f"In the result of {id_!r}, {path!r} is no text, number or boolean that can be passed on.")
    return value
