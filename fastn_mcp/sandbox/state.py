"""The account's data: collections of rows by id, and the file that may hold them.

Field names are Fastn's, in camelCase. What Fastn knows and does not show is in collections whose names begin with an
underscore.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from fastn_mcp.config.paths import make_private_folder, write_private
from fastn_mcp.errors import SettingsError

Row = dict[str, Any]
"""JSON as Fastn would show it."""

ORGANISATION = "org_9c41d07be2f84a36b15d"


class SandboxState:
    """Rows in collections. `serial` counts the changes."""

    def __init__(self, randomness: random.Random) -> None:
        self.rows: dict[str, dict[str, Row]] = {}
        self.serial = 0
        self._random = randomness

    def all(self, collection: str) -> list[Row]:
        """In the order in which they were made."""
        return list(self.rows.get(collection, {}).values())

    def get(self, collection: str, key: object) -> Row | None:
        return self.rows.get(collection, {}).get(str(key))

    def named(self, collection: str, value: str, by: str = "slug") -> Row:
        """The row that the dataset calls so. Raises KeyError."""
        found = self.first(collection, by, value)
        if found is None:
            raise KeyError(f"{collection}: {by} {value}")
        return found

    def first(self, collection: str, by: str, value: object) -> Row | None:
        """The first row with this value, letters compared without case."""
        wanted = str(value).casefold()
        return next((r for r in self.all(collection) if by in r and str(r[by]).casefold() == wanted), None)

    def put(self, collection: str, row: Row) -> Row:
        self.rows.setdefault(collection, {})[str(row["id"])] = row
        self.serial += 1
        return row

    def drop(self, collection: str, key: object) -> Row | None:
        self.serial += 1
        return self.rows.get(collection, {}).pop(str(key), None)

    def share(self) -> float:
        return self._random.random()

    def hex(self, digits: int) -> str:
        return f"{self._random.getrandbits(4 * digits):0{digits}x}"

    def short_id(self, prefix: str) -> str:
        """`wf_b5880b29eb25`: a prefix and 12 hex digits."""
        return f"{prefix}_{self.hex(12)}"

    def uuid(self) -> str:
        number = self.hex(32)
        return f"{number[:8]}-{number[8:12]}-4{number[13:16]}-a{number[17:20]}-{number[20:]}"

    def next_number(self, collection: str) -> int:
        """Small numbers, never given twice."""
        counter = self.get("_counters", collection)
        number = 1 if counter is None else counter["last"] + 1
        self.put("_counters", {"id": collection, "last": number})
        return number

    def dump(self) -> Row:
        return {"serial": self.serial, "rows": self.rows}

    @classmethod
    def load(cls, dumped: object, randomness: Callable[[int], random.Random]) -> SandboxState:
        """The inverse of `dump`. Raises ValueError.

        `randomness` is asked by the serial, so that a state that is read again does not repeat its ids.
        """
        match dumped:
            case {"serial": int(serial), "rows": dict()}:
                state = cls(randomness(serial))
                state.serial = serial
                state.rows = cast(Row, dumped)["rows"]
                return state
            case _:
                raise ValueError("not a sandbox's state")


def stamp(when: datetime) -> str:
    """ISO 8601 in UTC with milliseconds, as Fastn writes times."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """The inverse of `stamp`."""
    return datetime.fromisoformat(text)


def as_object(value: object) -> Row:
    """`value` if it is an object; otherwise an empty one."""
    return cast(Row, value) if isinstance(value, dict) else {}


def objects(row: Row, name: str) -> list[Row]:
    """The objects in a field, which tests may have filled with anything."""
    found = row.get(name)
    return [item for item in cast("list[object]", found) if isinstance(item, dict)] if isinstance(found, list) else []


def provenance(when: str, by: str) -> Row:
    """The fields that say when and by whom a new row was made."""
    return {"version": 1, "createdAt": when, "createdBy": by, "updatedAt": when, "updatedBy": by}


def slug_of(name: str) -> str:
    """`Acme Corp` is `acme-corp`."""
    letters = (letter if letter.isalnum() and letter.isascii() else " " for letter in name.lower())
    return "-".join("".join(letters).split())


def record(
    state: SandboxState,
    now: datetime,
    actor: str,
    action: str,
    resource: tuple[str, object],
    outcome: str = "Success",
    customer: str | None = None,
) -> Row:
    """Append to the audit log what `actor` did to a resource, which is a type and an id."""
    kind, key = resource
    row: Row = {
        "id": state.next_number("audit"),
        "timestamp": stamp(now),
        "actor": actor,
        "actorType": "service_account" if actor.startswith("apikey:") else "agent" if actor == "agent" else "user",
        "action": action,
        "resource": {"type": kind, "id": key},
        "endOrgId": customer,
        "scope": "Customer" if customer else "Organisation-wide",
        "outcome": outcome,
    }
    return state.put("audit", row)


_LOCK_SECONDS = 30
"""How long to wait for another process that uses the file."""


class StateFile:
    """One JSON file, readable by its owner alone, replaced as a whole. Several processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS, mode=0o600)
        self._known: tuple[int, int, int] | None = None

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other processes from the file. Raises `SettingsError` where one of them does not let go of it."""
        make_private_folder(self._path.parent)
        try:
            with self._lock:
                yield
        except Timeout:
            raise SettingsError(
                f"The sandbox's file {self._path} is locked by another process.",
                "End that process, or name another file.",
            ) from None

    def read_changed(self, load: Callable[[object], SandboxState]) -> SandboxState | None:
        """The state that another process left; None where the file is as this process left it, or is not there.

        Raises `SettingsError` where `load` raises ValueError.
        """
        try:
            found = self._path.stat()
            known = (found.st_ino, found.st_mtime_ns, found.st_size)
            if known == self._known:
                return None
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(type(error).__name__) from error
        try:
            state = load(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise self._unreadable("it is not a sandbox's state") from error
        self._known = known
        return state

    def write(self, state: SandboxState) -> None:
        """Whole or not at all: a reader, or a crash, finds the old file or the new one."""
        write_private(self._path, json.dumps(state.dump(), separators=(",", ":")))
        written = self._path.stat()
        self._known = (written.st_ino, written.st_mtime_ns, written.st_size)

    def _unreadable(self, reason: str) -> SettingsError:
        return SettingsError(
            f"The sandbox's file {self._path} cannot be read ({reason}).",
            "Remove it to begin with fresh data, or name another file.",
        )
