"""Data of the account: collections of rows by id, and the file that stores them.

Field names are Fastn's, in camelCase. Collections that Fastn does not show have names that begin with an underscore.
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
    """Collections of rows. `serial` counts the changes."""

    def __init__(self, randomness: random.Random) -> None:
        self.rows: dict[str, dict[str, Row]] = {}
        self.serial = 0
        self._random = randomness

    def all(self, collection: str) -> list[Row]:
        """Return the rows in order of creation."""
        return list(self.rows.get(collection, {}).values())

    def get(self, collection: str, key: object) -> Row | None:
        return self.rows.get(collection, {}).get(str(key))

    def named(self, collection: str, value: str, by: str = "slug") -> Row:
        """Return the row with this value. Raises KeyError."""
        row = self.first(collection, by, value)
        if row is None:
            raise KeyError(f"{collection}: {by} {value}")
        return row

    def first(self, collection: str, by: str, value: object) -> Row | None:
        """Return the first row with this value, compared without case; None if there is none."""
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
        """Return a prefix and 12 hex digits, as `wf_b5880b29eb25`."""
        return f"{prefix}_{self.hex(12)}"

    def uuid(self) -> str:
        number = self.hex(32)
        return f"{number[:8]}-{number[8:12]}-4{number[13:16]}-a{number[17:20]}-{number[20:]}"

    def next_number(self, collection: str) -> int:
        """Return the next number of a counter, starting at 1."""
        counter = self.get("_counters", collection)
        number = 1 if counter is None else counter["last"] + 1
        self.put("_counters", {"id": collection, "last": number})
        return number

    def dump(self) -> Row:
        return {"serial": self.serial, "rows": self.rows}

    @classmethod
    def load(cls, dumped: object, randomness: Callable[[int], random.Random]) -> SandboxState:
        """Restore the result of `dump`. Raises ValueError if it is not one.

        `randomness` is seeded by the serial, so that a restored state does not repeat ids.
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
    """Format a time as Fastn does: ISO 8601 in UTC with milliseconds."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_stamp(text: str) -> datetime:
    """Parse the result of `stamp`."""
    return datetime.fromisoformat(text)


def provenance(when: str, by: str) -> Row:
    """Return the version, time and author fields of a new row."""
    return {"version": 1, "createdAt": when, "createdBy": by, "updatedAt": when, "updatedBy": by}


def slug_of(name: str) -> str:
    """Return the slug of a name: `acme-corp` for `Acme Corp`."""
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
    """Append an event to the audit log. `resource` is a type and an id."""
    kind, key = resource
    actor_type = "user"
    if actor.startswith("apikey:"):
        actor_type = "service_account"
    elif actor == "agent":
        actor_type = "agent"
    row: Row = {
        "id": state.next_number("audit"),
        "timestamp": stamp(now),
        "actor": actor,
        "actorType": actor_type,
        "action": action,
        "resource": {"type": kind, "id": key},
        "endOrgId": customer,
        "scope": "Customer" if customer else "Organisation-wide",
        "outcome": outcome,
    }
    return state.put("audit", row)


_LOCK_SECONDS = 30
"""Seconds to wait for a lock held by another process."""


class StateFile:
    """JSON file of the state, readable only by its owner and replaced atomically. Processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS, mode=0o600)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Lock the file against other processes. Raises `SettingsError` if another one keeps it locked."""
        make_private_folder(self._path.parent)
        try:
            with self._lock:
                yield
        except Timeout:
            raise SettingsError(
                f"The sandbox's file {self._path} is locked by another process.",
                "End that process, or name another file.",
            ) from None

    def read(self, randomness: Callable[[int], random.Random]) -> SandboxState | None:
        """Return the state, which another process may have changed; None if there is no file.

        Raises `SettingsError` if the file cannot be read or does not contain a state.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(type(error).__name__) from error
        try:
            return SandboxState.load(json.loads(text), randomness)
        except (ValueError, RecursionError) as error:
            raise self._unreadable("it is not a sandbox's state") from error

    def write(self, state: SandboxState) -> None:
        """Replace the file atomically: readers, also after a crash, find the old or the new state."""
        write_private(self._path, json.dumps(state.dump(), separators=(",", ":")))

    def _unreadable(self, reason: str) -> SettingsError:
        return SettingsError(
            f"The sandbox's file {self._path} cannot be read ({reason}).",
            "Remove it to begin with fresh data, or name another file.",
        )
