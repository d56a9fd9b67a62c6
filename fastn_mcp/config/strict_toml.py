"""Strict TOML for files that steer the guard: owner-only, and errors name the line and the nearest known key.

Lines are located only in text that `tomllib` has parsed, so the scanner only finds keys, strings and brackets.
"""

import hashlib
import os
import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from fastn_mcp.config.paths import read_regular, require_own
from fastn_mcp.errors import SettingsError, closest, nearest, os_reason, reason

Key = tuple[str | int, ...]
"""As `("rule", 0, "when", "dependents")`."""

_GAP = re.compile(r"(?:\s|#[^\n]*)*")
_PART = re.compile(r"""\s*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
_STRING = re.compile(r'''"""(?:\\.|[^\\])*?"{3,5}|\'{3}.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'''', re.DOTALL)
_PLAIN = re.compile(r"[^,\]}\n#]+")


def places(text: str) -> dict[Key, int]:
    """Return the line, counted from 1, of each table, key and array item of a TOML text."""
    return _Scan(text).places


class _Scan:
    def __init__(self, text: str) -> None:
        self.places: dict[Key, int] = {}
        self.headers: dict[int, tuple[str, ...]] = {}
        """Path of the table that each header opens, by line."""
        self._text = text
        self._at = 0
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._tables: dict[Key, int] = {}
        """Number of tables seen in each array of tables."""
        table: Key = ()
        while self._more():
            if self._take("[["):
                table = self._header(array=True)
                self._take("]]")
            elif self._take("["):
                table = self._header(array=False)
                self._take("]")
            else:
                self._pair(table)

    def _header(self, *, array: bool) -> Key:
        line = self._line()
        *outer, last = self._names()
        self.headers[line] = (*outer, last)
        path: Key = ()
        for name in outer:
            path = self._noted((*path, name))
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        path = self._noted((*path, last))
        if array:
            self._tables[path] = self._tables.get(path, 0) + 1
            path = self._noted((*path, self._tables[path] - 1))
        return path

    def _pair(self, table: Key) -> None:
        path = table
        for name in self._names():
            path = self._noted((*path, name))
        self._take("=")
        self._value(path)

    def _value(self, path: Key) -> None:
        self._more()
        self._noted(path)
        if self._take("["):
            index = 0
            while self._more() and not self._take("]"):
                self._value((*path, index))
                self._more()
                self._take(",")
                index += 1
        elif self._take("{"):
            while self._more() and not self._take("}"):
                self._pair(path)
                self._more()
                self._take(",")
        elif found := _STRING.match(self._text, self._at) or _PLAIN.match(self._text, self._at):
            self._at = found.end()

    def _names(self) -> list[str]:
        names: list[str] = []
        while found := _PART.match(self._text, self._at):
            self._at = found.end()
            quoted = found[1][0] in "\"'"
            names.append(str(tomllib.loads(f"name = {found[1]}")["name"]) if quoted else found[1])
            if not self._take("."):
                break
        return names

    def _more(self) -> bool:
        """Skip white space and comments. Return whether any text is left."""
        found = _GAP.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at < len(self._text)

    def _take(self, token: str) -> bool:
        taken = self._text.startswith(token, self._at)
        self._at += len(token) * taken
        return taken

    def _noted(self, path: Key) -> Key:
        self.places.setdefault(path, self._line())
        return path

    def _line(self) -> int:
        return bisect_left(self._breaks, self._at) + 1


def without_tables(text: str, path: tuple[str, ...], *, gap: bool = False) -> str:
    """Remove a table and its subtables, each from its header (or the gap before it) to its last line."""
    opened = _Scan(text).headers
    kept: list[str] = []
    held: list[str] = []
    inside = False
    for number, line in enumerate(text.split("\n"), 1):
        line += "\n"
        if (table := opened.get(number)) is not None:
            kept, held, inside = [*kept, *held], [], table[: len(path)] == path
            if inside and gap and kept and not kept[-1].strip():
                kept.pop()
            gap = gap and not inside
        if not inside:
            kept.append(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            held = []
        else:  # belongs to the next table, unless another line of this one follows
            held.append(line)
    return "".join([*kept, *held]).removesuffix("\n")


T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class ConfigError(Exception):
    def __init__(self, at: Key, what: str) -> None:
        super().__init__(what)
        self.at = at


class TomlSource:
    """Text of a TOML file. Lines are located only if there is an error."""

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
