"""Many past runs: described in one row of the state, held in columns of small numbers, made into rows when shown.

The same past gives the same runs, so that a state need not hold them. A run is a number, and a later run has a greater
one; its id follows from its number, and its number from its id. Times are milliseconds since 1970.
"""

import random
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, compress
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from fastn_mcp.sandbox.executions import execution
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
        return frozenset((state.get(*_KEPT) or {}).get("triggers", ()))

    @classmethod
    def of(cls, state: SandboxState) -> "RunSeries":
        """What `keep` stored; an empty one where the account has no such past. Raises ValueError."""
        return cls.model_validate(state.get(*_KEPT) or {})


_MINUTE = 60_000
_LATEST_START = 20_000
"""Milliseconds by which a schedule may be late."""

_ID = re.compile(r"exec_([0-9a-f]{12})")
_BITS = 48
_MASK = (1 << _BITS) - 1
_STEP = 0x5DEECE66D1B3
"""Any odd number, so that a multiplication by it can be undone."""


class History:
    """The runs of `past` that are over. `begun` are the moments at which they began, in order, later ones included."""

    def __init__(self, past: RunSeries) -> None:
        self._past = past
        randomness = random.Random(past.seed)  # noqa: S311 it is to be repeatable
        self._salt = randomness.getrandbits(_BITS)
        # A run is its moment, its series, and whether it met the trouble: three numbers in one, which sort fast.
        width = len(past.series) * 2
        runs = sorted(moment * width + kind for moment, kind in _runs(past, randomness)) if width else []
        self.begun = array("q", [run // width for run in runs])
        self._kinds = array("H", [run % width for run in runs])
        self._over = len(runs)

    def __len__(self) -> int:
        return self._over

    def pass_time(self, now: datetime) -> None:
        """Show the runs that are over at `now`."""
        longest = max((series.longest for series in self._past.series), default=0)
        self._over = bisect_right(self.begun, milliseconds(now) - longest)

    def is_of(self, past: RunSeries) -> bool:
        """Whether these are the runs of this past."""
        return self._past == past

    def by_customer(self, since: datetime) -> Counter[str]:
        """How many runs each customer had since then."""
        first = min(bisect_left(self.begun, milliseconds(since)), len(self))
        kinds = Counter(self._kinds[first : len(self)])
        found: Counter[str] = Counter()
        for kind, count in kinds.items():
            found[self._series(kind)[0].customer] += count
        return found

    def row(self, number: int) -> Row:
        """The run as Fastn would show it."""
        series, troubled = self._series(self._kinds[number])
        trouble = series.trouble if troubled else None
        usual = trouble.duration if trouble else series.duration
        # Between three quarters and five quarters of the usual, by the id; who waits for too long waits for the limit.
        exact = trouble is not None and trouble.status == "timeout"
        return execution(
            f"exec_{self._key(number):012x}",
            self._past.workflows[series.workflow],
            trouble.status if trouble else "completed",
            moment_of(self.begun[number]),
            usual if exact else usual * (750 + self._key(number) % 501) // 1000,
            series.triggered_by,
            endOrgId=series.customer,
            error=trouble.error if trouble else None,
        )

    def number(self, key: str) -> int | None:
        """The run with this id; None where there is none."""
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
        """The runs that match, in order. Letters are compared without case; `until` itself is not in it."""
        first = 0 if since is None else bisect_left(self.begun, milliseconds(since))
        last = len(self) if until is None else min(len(self), bisect_left(self.begun, milliseconds(until)))
        every = range(first, max(first, last))
        if workflow is customer is status is triggered_by is None:
            return every
        wanted = [
            _is(workflow, self._past.workflows[series.workflow]["id"])
            and _is(customer, series.customer)
            and _is(triggered_by, series.triggered_by)
            and _is(status, series.trouble.status if troubled and series.trouble else "completed")
            for series in self._past.series
            for troubled in (False, True)
        ]
        return list(compress(every, map(wanted.__getitem__, self._kinds[first : every.stop])))

    def _series(self, kind: int) -> tuple[Series, bool]:
        return self._past.series[kind // 2], bool(kind % 2)

    def _key(self, number: int) -> int:
        return _mixed((number * _STEP + self._salt) & _MASK)


def _runs(past: RunSeries, randomness: random.Random) -> Iterator[tuple[int, int]]:
    """When each run began and of which kind it is, in no order: an even kind went well, an odd one met its trouble."""
    left = past.count
    for place, series in enumerate(past.series):
        if series.every is not None:
            every, minute = series.every * _MINUTE, series.minute * _MINUTE
            last = past.until - series.longest - _LATEST_START
            slots = range(past.since + (minute - past.since) % every, last, every)
            left -= len(slots)
            for slot in slots:
                moment = slot + int(randomness.random() * _LATEST_START)
                yield moment, 2 * place + _meets_trouble(series, moment, randomness)
    others = [place for place, series in enumerate(past.series) if series.every is None]
    weights = list(accumulate(past.series[place].weight for place in others))
    for place in randomness.choices(others, cum_weights=weights, k=left) if others else ():
        series = past.series[place]
        moment = past.since + int(randomness.random() * (past.until - past.since - series.longest))
        yield moment, 2 * place + _meets_trouble(series, moment, randomness)


def _meets_trouble(series: Series, moment: int, randomness: random.Random) -> bool:
    trouble = series.trouble
    return trouble is not None and moment >= trouble.since and randomness.random() < trouble.share


def _mixed(key: int) -> int:
    """The lower half made to look as random as the upper one. Undone by doing it again."""
    return key ^ (key >> _BITS // 2)


def _is(wanted: str | None, value: object) -> bool:
    return wanted is None or str(value).casefold() == wanted.casefold()
