"""Results of checks, and proposed settings as TOML.

`finding` and `next` consist of our own words, Fastn's field names and statuses, and may be shared. `here` is for the
person at the terminal only.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from enum import Enum, IntEnum
from typing import Any, cast

import tomlkit

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


class DoctorExit(IntEnum):
    FINE = 0
    DIFFERENCES = 1
    CANNOT_WORK = 2


Value = str | list[str]


@dataclass(slots=True)
class Proposal:
    """Proposed settings by name, routes by tool, field names by resource. `notes` are comments by setting or tool."""

    settings: dict[str, Value] = field(default_factory=dict[str, Value])
    routes: dict[str, str] = field(default_factory=dict[str, str])
    fields: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    notes: dict[str, str] = field(default_factory=dict[str, str])
    profile: str | None = None
    """Profile in the file that they are for."""

    def __bool__(self) -> bool:
        return bool(self.settings or self.routes or self.fields)

    def toml(self) -> str:
        """Return the settings as TOML, with the notes as comments."""
        top = () if self.profile is None else ("profiles", self.profile)
        tables: dict[tuple[str, ...], Mapping[str, Value]] = {top: self.settings, (*top, "routes"): self.routes}
        tables |= {(*top, "fields", name): names for name, names in self.fields.items()}
        document = tomlkit.document()
        for path, values in tables.items():
            table: Any = document
            for number, name in enumerate(path if values else (), 1):
                table = table.setdefault(name, tomlkit.table(is_super_table=number < len(path)))
            for name, value in values.items():
                item = cast(Any, tomlkit.item(value))
                if name in self.notes:
                    item.comment(self.notes[name])
                table[name] = item
        return tomlkit.dumps(document)
