"""A check of the installation, and its result. `doctor` runs them; each extension has its own.

`finding` and `next` consist of our own words, Fastn's field names and statuses, and may be shared. `here` is for the
person at the terminal only.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from enum import Enum

from fastn_mcp.records.formats import lasting


class CheckResult(Enum):
    """Verdict of a check. A skipped one could not be made, or should not be."""

    OK = "ok"
    DIFFERS = "differs"
    FAILED = "failed"
    SKIPPED = "skipped"


class CheckGroup(Enum):
    """Groups of checks, in the order in which they run."""

    SETTINGS = "settings"
    CONNECTION = "connection"
    KEY = "key"
    READS = "reads"
    WRITES = "writes"
    PROVIDER = "provider"
    CALLER = "access token"
    PUBLIC = "public address"

    def ok(self, name: str, finding: str, next_step: str = "", here: str = "") -> "Check":
        return Check(self, name, CheckResult.OK, finding=finding, next=next_step, here=here)

    def differs(self, name: str, finding: str, next_step: str, here: str = "") -> "Check":
        return Check(self, name, CheckResult.DIFFERS, finding=finding, next=next_step, here=here)

    def failed(self, name: str, finding: str, next_step: str, here: str = "") -> "Check":
        return Check(self, name, CheckResult.FAILED, finding=finding, next=next_step, here=here)

    def skipped(self, name: str, finding: str, next_step: str) -> "Check":
        return Check(self, name, CheckResult.SKIPPED, finding=finding, next=next_step)


@dataclass(frozen=True, slots=True)
class Check:
    group: CheckGroup
    name: str
    verdict: CheckResult
    finding: str
    next: str = ""
    here: str = ""


CLOSE = 5.0
"""Seconds by which clocks may differ without a word, for processes that share a ledger and for servers."""


def seconds_ahead(date: str | None, sent: float, now: float) -> float | None:
    """Return how far ahead a server's `Date` is, for a request from `sent` to `now`; None if it cannot be read."""
    with suppress(ValueError, TypeError, OverflowError):
        time = parsedate_to_datetime(date or "").timestamp()
        return time - min(max(time, sent), now)
    return None


def check_clock(group: CheckGroup, name: str, ahead: float, most: float, why: str) -> Check:
    if abs(ahead) <= most:
        return group.ok(name, f"It agrees with this machine's within {most:.0f} seconds.")
    side = "ahead of" if ahead > 0 else "behind"
    finding = f"It is {lasting(timedelta(seconds=abs(ahead)))} {side} this machine's. {why}"
    return group.differs(name, finding, "Synchronize the clock that is wrong (NTP).")
