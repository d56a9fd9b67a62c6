"""Strict TOML for files that steer the guard: owner-only, and errors name the line and the nearest known key.

Lines are located by parsing a valid text statement by statement: tomllib and tomlkit know no line of a key, and tomlkit
would add 22 ms to a start with a policy.
"""

import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from fastn_mcp.config.paths import read_regular, require_own
from fastn_mcp.errors import SettingsError, closest, nearest, os_reason, reason

Key = tuple[str | int, ...]
"""As `("rule", 0, "when", "dependents")`."""

_TOKENS = re.compile(
    r"""
    \"{3} (?: [^"\\]+ | \\. | "{1,2}(?!") )*+ "{3,5}
    | '{3} (?: [^']+ | '{1,2}(?!') )*+ '{3,5}
    | " (?: [^"\\\n]+ | \\. )*+ "
    | ' [^'\n]* '
    | \# [^\n]*
    | [\[\]{}\n]
    """,
    re.DOTALL | re.VERBOSE,
)
"""Strings, comments, brackets and line ends of a valid text."""


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield each header, pair, comment and blank line of a valid text: its first line, its text, what it parses to."""
    text += "\n"
    first = 1
    start = 0
    depth = 0
    for token in _TOKENS.finditer(text):
        match token[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth -= 1
            case "\n" if depth == 0:
                statement = text[start : token.end()]
                yield first, statement, tomllib.loads(statement)
                first += statement.count("\n")
                start = token.end()
            case _:
                pass


def _is_header(statement: str) -> bool:
    return statement.lstrip().startswith("[")


def _path(header: Any) -> tuple[str, ...]:
    """Return the path of the table that a parsed header opens, such as `{"a": {"b": {}}}` or `{"a": [{}]}`."""
    names: list[str] = []
    while isinstance(header, dict) and header:
        ((name, header),) = cast("dict[str, Any]", header).items()
        names.append(name)
    return tuple(names)


def places(text: str) -> dict[Key, int]:
    """Return the line, counted from 1, on which each table and key of a valid TOML text begins.

    What is inside a value has the line of its key.
    """
    lines: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    """Number of tables so far in each array of tables."""
    table: Key = ()

    def add(value: object, at: Key, line: int) -> None:
        lines.setdefault(at, line)
        inside = enumerate(cast("list[object]", value)) if isinstance(value, list) else ()
        for name, inner in cast("dict[str, object]", value).items() if isinstance(value, dict) else inside:
            add(inner, (*at, name), line)

    for line, statement, parsed in _statements(text):
        if not _is_header(statement):
            for name, value in parsed.items():
                add(value, (*table, name), line)
            continue
        path = _path(parsed)
        table = ()
        for depth, name in enumerate(path, 1):
            table = (*table, name)
            lines.setdefault(table, line)
            if depth == len(path) and statement.lstrip().startswith("[["):
                counts[table] = counts.get(table, 0) + 1
            if table in counts:
                table = (*table, counts[table] - 1)
                lines.setdefault(table, line)
    return lines


T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class ConfigError(Exception):
    def __init__(self, at: Key, what: str) -> None:
        super().__init__(what)
        self.at = at


class TomlSource:
    """Text of a TOML file. Lines are located when one is first asked for."""

    def __init__(self, path: Path, data: bytes = b"") -> None:
        self.path = path
        self.data = data

    @property
    def file(self) -> str:
        return self.path.name

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def lines(self) -> Mapping[Key, int]:
        return places(self.data.decode())

    def line(self, at: Key) -> int:
        """Return the line of a key, or of the table that would contain it."""
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 1)

    def first(self, flaws: Iterable[ConfigError]) -> ConfigError:
        """Return the first error of the file. Misspelt keys precede missing ones: they explain them."""
        return min(flaws, key=lambda flaw: (flaw.at not in self.lines, self.line(flaw.at)))


def read(path: Path, kind: str, hint: str) -> tuple[bytes, os.stat_result]:
    """Read content and status of a file. Raises `SettingsError` that names its `kind` and ends with `hint`."""
    try:
        return read_regular(path, check=partial(require_own, path))
    except FileNotFoundError:
        raise SettingsError(f"There is no {kind} {path}.", hint) from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {os_reason(error)}.") from None


def load(data: bytes, path: Path, kind: str, build: Callable[[dict[str, Any], TomlSource], T], hint: str) -> T:
    """Parse a file and `build` from its table. Raises `SettingsError` with file and line of a `ConfigError`."""
    try:
        table = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not text in UTF-8.", "Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        where = f"{path}, line {line[1]}" if line else f"{path}, at its end"
        raise SettingsError(f"{where}: not TOML: {error}.", hint) from None
    except RecursionError:
        raise SettingsError(f"{path}: not a {kind}: it is nested too deeply.") from None
    source = TomlSource(path, data)
    try:
        return build(table, source)
    except ConfigError as flaw:
        raise SettingsError(f"{path}, line {source.line(flaw.at)}: {flaw}.", hint) from None


STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True, hide_input_in_errors=True)
"""Configuration of table models. Errors never show a value: it may be secret."""

ONE_OR_MORE = BeforeValidator(lambda value: cast("object", [value] if isinstance(value, str) else value))
"""Validator that accepts one text in place of a list of texts."""

_PROBLEMS = {
    "int_type": "must be a whole number",
    "string_type": "must be a text, in quotes",
    "list_type": "must be a list of texts, or one text",
    "dict_type": "must be a table, for example { ... }",
    "too_short": "must not be empty",
}


def validate(form: type[M], table: object, source: TomlSource, inside: Key = ()) -> M:
    """Validate a file's table, or the subtable at `inside`. Raises `ConfigError` for the file's first error."""
    try:
        return form.model_validate(table)
    except ValidationError as error:
        problems = cast("list[Mapping[str, Any]]", error.errors(include_url=False))
    raise source.first(_flaw(form, problem, source, inside) for problem in problems)


def _flaw(form: type[BaseModel], problem: Mapping[str, Any], source: TomlSource, inside: Key) -> ConfigError:
    at: Key = (*inside, *problem["loc"])
    kind = problem["type"]
    if kind not in ("extra_forbidden", "missing"):
        while len(at) > len(inside) and at not in source.lines:  # pydantic adds the alternatives of a union to the path
            at = at[:-1]
    names = _names(at)
    key = names[-1] if names else "the file"
    tables = dict(_tables(form, inside))
    where, model = tables.get(names[:-1], ("", form))
    match kind:
        case "extra_forbidden":
            known = list(model.model_fields)
            near = nearest(key, known) or _in_another(key, tables.values()) or f"; known are {', '.join(known)}"
            if not names[:-1] and all((name,) in tables for name in known):
                return ConfigError(at, f"there is no table {key!r}{near}")
            return ConfigError(at, f"there is no key {key!r} in {where}{near}")
        case "missing":
            return ConfigError(at, f"{where} needs the key {key!r}")
        case "model_type":
            own = tables[names][0]
            return ConfigError(at, f"{key} must be a table{f', for example {own}' if own.startswith('[') else ''}")
        case "list_type" if names in tables:
            return ConfigError(at, f"each {key} is a table of its own, for example {tables[names][0]}")
        case _:
            why = _PROBLEMS.get(kind) or reason(problem)
            return ConfigError(at, f"{key}: {why[0].lower()}{why[1:]}")


def _names(at: Key) -> tuple[str, ...]:
    return tuple(part for part in at if isinstance(part, str))


def _tables(form: type[BaseModel], at: Key) -> Iterator[tuple[tuple[str, ...], tuple[str, type[BaseModel]]]]:
    """Yield each table of a model: its path, its name for people, and its own model."""
    yield _names(at), (_called(at), form)
    for name, field in form.model_fields.items():
        entry = (*at, name, 0) if get_origin(field.annotation) is list else (*at, name)
        for model in _models(field.annotation):
            yield from _tables(model, entry)


def _called(at: Key) -> str:
    path = ".".join(_names(at))
    if not at:
        return "the file"
    if isinstance(at[-1], int):
        return f"[[{path}]]"
    return str(at[-1]) if any(isinstance(part, int) for part in at) else f"[{path}]"


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _in_another(key: str, tables: Iterable[tuple[str, type[BaseModel]]]) -> str:
    """Suggest the table that has this key, or one close to it."""
    keys = {name: where for where, model in tables for name in model.model_fields}
    close = closest(key, keys)
    return "" if close is None else f" (did you mean {close!r} in {keys[close]}?)"
