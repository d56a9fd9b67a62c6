"""Many past runs described in one row.

The runs themselves follow from it: see `history.py`. Times are milliseconds since 1970.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from fastn_mcp.sandbox.state import Row, SandboxState

_KEPT = ("_past", "past")
"""The collection and the id of the row."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def milliseconds(when: datetime) -> int:
    """The first whole millisecond that is not before `when`."""
    return -((_EPOCH - when) // _MILLISECOND)


def moment_of(milliseconds_: int) -> datetime:
    return _EPOCH + milliseconds_ * _MILLISECOND


@dataclass(frozen=True, slots=True)
class Trouble:
    """How the runs of a series end since a moment, or a `share` of them."""

    status: Literal["failed", "timeout", "cancelled"]
    error: dict[str, JsonValue] | None
    duration: int
    since: int = 0
    share: float = 1


@dataclass(frozen=True, slots=True)
class Series:
    """A workflow that runs again and again for one customer.

    With `every` it is on a schedule: so many minutes apart, `minute` minutes after the beginning of the day or the
    hour. Otherwise it runs at any time, and `weight` says how often beside the others.
    """

    workflow: int
    customer: str
    triggered_by: str
    duration: int
    every: int | None = None
    minute: int = 0
    weight: float = 1
    trouble: Trouble | None = None

    @property
    def longest(self) -> int:
        """Milliseconds that no run exceeds."""
        return max(self.duration, self.trouble.duration if self.trouble else 0) * 5 // 4


class RunSeries(BaseModel):
    """`count` runs that began and ended between two moments. `triggers` are the ids of what started them."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    seed: str = ""
    count: int = 0
    since: int = 0
    until: int = 0
    workflows: tuple[dict[str, JsonValue], ...] = ()
    series: tuple[Series, ...] = ()
    triggers: tuple[str, ...] = ()

    def keep(self, state: SandboxState) -> None:
        collection, key = _KEPT
        state.put(collection, {"id": key, **self.model_dump(mode="json")})

    @classmethod
    def of_triggers(cls, state: SandboxState) -> frozenset[str]:
        """The triggers whose runs a past describes, by id."""
        row = state.get(*_KEPT) or {}
        triggers = row.get("triggers")
        return frozenset(str(key) for key in triggers) if isinstance(triggers, list) else frozenset()

    @classmethod
    def of(cls, state: SandboxState) -> "RunSeries | None":
        """What `keep` kept; None where the account has no such past. Raises ValueError where it is something else."""
        row: Row | None = state.get(*_KEPT)
        return None if row is None else cls.model_validate(row)
