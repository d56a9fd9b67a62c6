"""TOML by which a person steers the guard: only its owner may write it, and what is wrong is named with its line."""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastn_mcp.errors import SettingsError
from fastn_mcp.private_files import require_own
from fastn_mcp.regular_files import read_regular
from fastn_mcp.toml_places import Key, places

T = TypeVar("T")


class Flaw(Exception):
    """What is wrong, and where."""

    def __init__(self, at: Key, what: str) -> None:
        super().__init__(what)
        self.at = at


@dataclass(frozen=True, slots=True)
class Source:
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


def load(data: bytes, path: Path, kind: str, build: Callable[[dict[str, Any], Source], T], hint: str) -> T:
    """What `build` makes of a file's table. Raises `SettingsError`, which names the file and the line of a `Flaw`."""
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
    source = Source(path.name, hashlib.sha256(data).hexdigest(), places(text))
    try:
        return build(table, source)
    except Flaw as flaw:
        raise SettingsError(f"{path}, line {source.line(flaw.at)}: {flaw}.", hint) from None
