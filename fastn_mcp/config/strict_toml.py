"""Strict TOML for files that steer the guard: owner-only, and errors name the line and the nearest known key.

It is asked of text that `tomllib` has read, so it only has to know where keys, strings and brackets begin and end.
"""

import hashlib
import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastn_mcp.config.paths import read_regular, require_own
from fastn_mcp.errors import SettingsError

Key = tuple[str | int, ...]
"""As `("rule", 0, "when", "dependents")`."""

_GAP = re.compile(r"(?:\s|#[^\n]*)*")
_PART = re.compile(r"""\s*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
_STRING = re.compile(r'''"""(?:\\.|[^\\])*?"{3,5}|\'{3}.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'''', re.DOTALL)
_PLAIN = re.compile(r"[^,\]}\n#]+")


def places(text: str) -> dict[Key, int]:
    """The line, counted from 1, of each table, key and array item of a TOML text."""
    scan = _Scan(text)
    scan.document()
    return scan.places


def headers(text: str) -> dict[int, tuple[str, ...]]:
    """The path of the table that each header opens, by its line."""
    scan = _Scan(text)
    scan.document()
    return scan.headers


class _Scan:
    def __init__(self, text: str) -> None:
        self.places: dict[Key, int] = {}
        self.headers: dict[int, tuple[str, ...]] = {}
        self._text = text
        self._at = 0
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._tables: dict[Key, int] = {}
        """How many tables each array of tables has so far."""

    def document(self) -> None:
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
        """Go on to the next that is no white space and no comment, if there is one."""
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


T = TypeVar("T")


class ConfigError(Exception):
    """What is wrong, and where."""

    def __init__(self, at: Key, what: str) -> None:
        super().__init__(what)
        self.at = at


@dataclass(frozen=True, slots=True)
class TomlSource:
    """A file that was read: its name, the digest of its text, and the line of each key."""

    file: str
    digest: str
    lines: Mapping[Key, int]

    def line(self, at: Key) -> int:
        """The line of a key, or of the table that would hold it."""
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 1)


def read(path: Path, kind: str, hint: str) -> bytes:
    """The file's content. Raises `SettingsError`: `kind` says what it is for, `hint` what to do where it is absent."""
    try:
        data, _ = read_regular(path, check=partial(require_own, path))
    except FileNotFoundError:
        raise SettingsError(f"There is no {kind} {path}.", hint) from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise SettingsError(f"{path} cannot be read: {why}.") from None
    return data


def load(data: bytes, path: Path, kind: str, build: Callable[[dict[str, Any], TomlSource], T], hint: str) -> T:
    """What `build` makes of a file's table. Raises `SettingsError` with the file and the line of a `ConfigError`."""
    try:
        text = data.decode()
        table = tomllib.loads(text)
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not text in UTF-8.", "Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        where = f"{path}, line {line[1]}" if line else f"{path}, at its end"
        raise SettingsError(f"{where}: not TOML: {error}.", hint) from None
    except RecursionError:
        raise SettingsError(f"{path}: not a {kind}: it is nested too deeply.") from None
    source = TomlSource(path.name, hashlib.sha256(data).hexdigest(), places(text))
    try:
        return build(table, source)
    except ConfigError as flaw:
        raise SettingsError(f"{path}, line {source.line(flaw.at)}: {flaw}.", hint) from None
