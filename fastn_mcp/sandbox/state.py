"""The account's data: collections of rows by id.

A row is JSON exactly as Fastn would show it, in camelCase. What Fastn knows and does not show lies in collections of
its own, whose names begin with an underscore.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

from pydantic import JsonValue

Row = dict[str, JsonValue]

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
        number = 1 if counter is None else cast(int, counter["last"]) + 1
        self.put("_counters", {"id": collection, "last": number})
        return number

    def dump(self) -> dict[str, JsonValue]:
        return {"serial": self.serial, "rows": cast(JsonValue, self.rows)}

    @classmethod
    def load(cls, dumped: dict[str, JsonValue], randomness: Callable[[int], random.Random]) -> SandboxState:
        """What `dump` gave. Raises ValueError where it is something else.

        `randomness` is asked by the serial, so that a state that is read again does not repeat its ids.
        """
        serial, rows = dumped.get("serial"), dumped.get("rows")
        if not isinstance(serial, int) or not isinstance(rows, dict):
            raise ValueError("not a sandbox's state")  # noqa: TRY004 the file's content is wrong, no caller
        state = cls(randomness(serial))
        state.serial = serial
        state.rows = cast("dict[str, dict[str, Row]]", rows)
        return state


def stamp(when: datetime) -> str:
    """ISO 8601 in UTC with milliseconds, as Fastn writes times."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """The inverse of `stamp`."""
    return datetime.fromisoformat(text)


def slug_of(name: str) -> str:
    """`Acme Corp` is `acme-corp`."""
    letters = (letter if letter.isalnum() and letter.isascii() else " " for letter in name.lower())
    return "-".join("".join(letters).split())


def record(
    state: SandboxState,
    now: datetime,
    actor: str,
    action: str,
    resource: tuple[str, JsonValue],
    outcome: str = "Success",
    customer: JsonValue = None,
) -> Row:
    """Append what `actor` did to a resource, which is a type and an id."""
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
