"""Large numbers of past runs, described by one row of the state and generated when they are shown.

`PastContext` gives them to the handlers of the sandbox, beside the stored runs.

The same description always gives the same runs, so the state does not store them. Runs are numbered in order of time,
and the id and the number of a run can be computed from each other. Times are milliseconds since 1970.
"""

import random
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, compress
from operator import itemgetter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue
from typing_extensions import override

from fastn_mcp.extensions.sandbox.executions import execution
from fastn_mcp.extensions.sandbox.replies import Rows, instant, select
from fastn_mcp.extensions.sandbox.resource import EXECUTIONS, RouteContext
from fastn_mcp.extensions.sandbox.runs import SETTLED
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, parse_stamp, stamp
from fastn_mcp.records.cron import next_run
from fastn_mcp.tools.workflows import ListExecutions

_STORED = ("_past", "past")
"""Collection and id of the row."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def milliseconds(when: datetime) -> int:
    """Return the time in milliseconds, rounded up."""
    return -((_EPOCH - when) // _MILLISECOND)


def datetime_of(milliseconds_: int) -> datetime:
    return _EPOCH + milliseconds_ * _MILLISECOND


@dataclass(frozen=True, slots=True)
class Trouble:
    """Ending of the runs of a series from `since` on, or of a `share` of them."""

    status: Literal["failed", "timeout", "cancelled"]
    error: dict[str, JsonValue] | None
    duration: int
    since: int = 0
    share: float = 1


@dataclass(frozen=True, slots=True)
class Series:
    """Repeated runs of a workflow for one customer.

    With `every`, they are scheduled that many minutes apart, `minute` minutes past the hour or midnight. Otherwise they
    are at random times, with `weight` as their share among such series.
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
        """Upper bound of a run's duration in milliseconds."""
        return max(self.duration, self.trouble.duration if self.trouble else 0) * 5 // 4


class RunSeries(BaseModel):
    """Description of `count` runs between two times. `triggers` are the ids of the triggers that started them."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    seed: str = ""
    count: int = 0
    since: int = 0
    until: int = 0
    workflows: tuple[dict[str, JsonValue], ...] = ()
    series: tuple[Series, ...] = ()
    triggers: tuple[str, ...] = ()

    def store(self, state: SandboxState) -> None:
        collection, key = _STORED
        state.put(collection, {"id": key, **self.model_dump(mode="json")})

    @classmethod
    def of(cls, state: SandboxState) -> "RunSeries":
        """Return what `store` stored; empty if there is none."""
        return cls.model_validate(stored(state))


def stored(state: SandboxState) -> Row:
    """Return the row in which `RunSeries.store` stored a description; empty if there is none."""
    return state.get(*_STORED) or {}


def pass_described(state: SandboxState, now: datetime) -> None:
    """Pass the occurrences of schedules whose runs are described, so that the sandbox does not run them."""
    described = frozenset(stored(state).get("triggers", ()))
    for trigger in state.all("triggers"):
        if trigger["id"] not in described or trigger["type"] != "scheduler":
            continue
        while trigger["status"] == "Active" and trigger["nextRun"] and parse_stamp(trigger["nextRun"]) + SETTLED <= now:
            due = parse_stamp(trigger["nextRun"])
            trigger |= {
                "lastRun": stamp(due),
                "nextRun": stamp(next_run(trigger["schedule"], trigger["timezone"], due)),
            }
            state.put("triggers", trigger)


_MINUTE = 60_000
_LATEST_START = 20_000
"""Milliseconds that a scheduled run may be late."""

_ID = re.compile(r"exec_([0-9a-f]{12})")
_BITS = 48
_MASK = (1 << _BITS) - 1
_STEP = 0x5DEECE66D1B3
"""An odd number, so that multiplication by it is invertible."""


class History:
    """The ended runs of `past`. `begun` are the start times of all its runs, in order."""

    def __init__(self, past: RunSeries) -> None:
        self._past = past
        randomness = random.Random(past.seed)  # noqa: S311 it is to be repeatable
        self._salt = randomness.getrandbits(_BITS)
        # Start time, series and ending of a run in one number, for fast sorting.
        width = len(past.series) * 2
        runs = sorted(begun * width + kind for begun, kind in _runs(past, randomness)) if width else []
        self.begun = array("q", [run // width for run in runs])
        self._kinds = array("H", [run % width for run in runs])
        self._over = len(runs)
        self._longest = max((series.longest for series in past.series), default=0)
        # What a run of each kind is searched by.
        self._searched = [
            tuple(str(value).casefold() for value in (workflow["id"], series.customer, series.triggered_by, status))
            for series in past.series
            for workflow in [past.workflows[series.workflow]]
            for status in ("completed", series.trouble.status if series.trouble else "completed")
        ]

    def __len__(self) -> int:
        return self._over

    def pass_time(self, now: datetime) -> None:
        """Show the runs that have ended by `now`."""
        self._over = bisect_right(self.begun, milliseconds(now) - self._longest)

    def by_customer(self, numbers: Sequence[int]) -> Counter[str]:
        """Count these runs by customer."""
        kinds = Counter(map(self._kinds.__getitem__, numbers))
        found: Counter[str] = Counter()
        for kind, count in kinds.items():
            found[self._series(kind)[0].customer] += count
        return found

    def row(self, number: int) -> Row:
        """Return the row of a run."""
        series, troubled = self._series(self._kinds[number])
        trouble = series.trouble if troubled else None
        usual = trouble.duration if trouble else series.duration
        # Between 75 and 125 % of the usual duration, depending on the id. A timeout is always at the limit.
        exact = trouble is not None and trouble.status == "timeout"
        return execution(
            f"exec_{self._key(number):012x}",
            self._past.workflows[series.workflow],
            trouble.status if trouble else "completed",
            datetime_of(self.begun[number]),
            usual if exact else usual * (750 + self._key(number) % 501) // 1000,
            series.triggered_by,
            endOrgId=series.customer,
            error=trouble.error if trouble else None,
        )

    def number(self, key: str) -> int | None:
        """Return the number of the run with this id; None if there is none."""
        found = _ID.fullmatch(key)
        if found is None:
            return None
        number = (_mixed(int(found[1], 16)) - self._salt) * pow(_STEP, -1, 1 << _BITS) & _MASK
        return number if number < len(self) else None

    def numbers(
        self,
        *,
        workflow: str | None = None,
        customer: str | None = None,
        status: str | None = None,
        triggered_by: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Sequence[int]:
        """Return the numbers of the matching runs, in order. Case-insensitive; `until` is exclusive."""
        first = 0 if since is None else bisect_left(self.begun, milliseconds(since))
        last = len(self) if until is None else min(len(self), bisect_left(self.begun, milliseconds(until)))
        every = range(first, max(first, last))
        asked = [value and value.casefold() for value in (workflow, customer, triggered_by, status)]
        places = [place for place, value in enumerate(asked) if value is not None]
        if not places:
            return every
        pick = itemgetter(*places)
        values = pick(asked)
        wanted = [pick(kind) == values for kind in self._searched]
        return list(compress(every, map(wanted.__getitem__, self._kinds[first : every.stop])))

    def _series(self, kind: int) -> tuple[Series, bool]:
        return self._past.series[kind // 2], bool(kind % 2)

    def _key(self, number: int) -> int:
        return _mixed((number * _STEP + self._salt) & _MASK)


def _runs(past: RunSeries, randomness: random.Random) -> Iterator[tuple[int, int]]:
    """Yield start time and kind of each run, unordered. Even kinds completed; odd ones ended by their `Trouble`."""
    remaining = past.count
    for place, series in enumerate(past.series):
        if series.every is not None:
            every, minute = series.every * _MINUTE, series.minute * _MINUTE
            last = past.until - series.longest - _LATEST_START
            slots = range(past.since + (minute - past.since) % every, last, every)
            remaining -= len(slots)
            for slot in slots:
                begun = slot + int(randomness.random() * _LATEST_START)
                yield begun, 2 * place + _meets_trouble(series, begun, randomness)
    others = [place for place, series in enumerate(past.series) if series.every is None]
    weights = list(accumulate(past.series[place].weight for place in others))
    for place in randomness.choices(others, cum_weights=weights, k=remaining) if others else ():
        series = past.series[place]
        begun = past.since + int(randomness.random() * (past.until - past.since - series.longest))
        yield begun, 2 * place + _meets_trouble(series, begun, randomness)


def _meets_trouble(series: Series, begun: int, randomness: random.Random) -> bool:
    trouble = series.trouble
    return trouble is not None and begun >= trouble.since and randomness.random() < trouble.share


def _mixed(key: int) -> int:
    """Mix the upper bits into the lower half. Its own inverse."""
    return key ^ (key >> _BITS // 2)


class MergedRows(Rows):
    """Stored runs and runs of the history, newest first. At equal times the stored run comes first.

    `numbers` are the runs of the history, in its order.
    """

    def __init__(
        self, rows: Sequence[Row], shown: Callable[[Row], Row], history: History, numbers: Sequence[int]
    ) -> None:
        super().__init__(rows, shown)
        self._history = history
        self._numbers = numbers
        # For each stored row, the number of runs of the history before it.
        self._before = [self._newer(milliseconds(parse_stamp(str(row["createdAt"])))) for row in rows]
        self._positions = [position + before for position, before in enumerate(self._before)]

    @override
    def __len__(self) -> int:
        return len(self._rows) + len(self._numbers)

    @override
    def slice(self, start: int, end: int) -> Iterator[Row]:
        return (self._shown(self._row(position)) for position in range(start, min(end, len(self))))

    @override
    def position(self, key: str) -> int | None:
        for row, position in zip(self._rows, self._positions, strict=True):
            if row["id"] == key:
                return position
        number = self._history.number(key)
        if number is None:
            return None
        at = bisect_left(self._numbers, number)
        if at == len(self._numbers) or self._numbers[at] != number:
            return None
        rank = len(self._numbers) - 1 - at
        return rank + bisect_right(self._before, rank)

    @override
    def count(self, field: str) -> Counter[Any]:
        if field != "endOrgId":
            raise NotImplementedError
        return super().count(field) + self._history.by_customer(self._numbers)

    def _newer(self, when: int) -> int:
        return len(self._numbers) - bisect_right(self._numbers, when, key=self._history.begun.__getitem__)

    def _row(self, position: int) -> Row:
        index = bisect_left(self._positions, position)
        if index < len(self._positions) and self._positions[index] == position:
            return self._rows[index]
        return self._history.row(self._numbers[len(self._numbers) - 1 - (position - index)])


@dataclass(frozen=True, slots=True)
class PastContext(RouteContext):
    """Context of a request about an account with a history."""

    history: History

    @override
    def run(self, key: str) -> Row | None:
        number = self.history.number(key)
        return RouteContext.run(self, key) if number is None else self.history.row(number)

    @override
    def runs(self, call: ListExecutions) -> Rows:
        numbers = self.history.numbers(
            workflow=call.workflow_id,
            customer=call.customer_id,
            status=call.status,
            triggered_by=call.started_by,
            since=None if call.since is None else instant("since", call.since),
            until=None if call.until is None else instant("until", call.until),
        )
        return MergedRows(select(self.state.all("executions"), call), EXECUTIONS.brief, self.history, numbers)
