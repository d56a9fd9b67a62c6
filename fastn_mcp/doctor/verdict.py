"""What a check says. Pure.

`seen` and `next` are our own words, Fastn's names of fields, and statuses: they may be shown to anybody. What only the
person at the terminal is to read stands in `here`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum


class Verdict(Enum):
    """What a check says. One that was skipped could not be made, or ought not to be."""

    OK = "ok"
    DIFFERS = "differs"
    FAILED = "failed"
    SKIPPED = "skipped"


class Group(Enum):
    """What is checked, in the order in which it is."""

    SETTINGS = "settings"
    CONNECTION = "connection"
    KEY = "key"
    READS = "reads"
    WRITES = "writes"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table."""

    group: Group
    name: str
    verdict: Verdict
    seen: str
    next: str = ""
    here: str = ""


class Exit(IntEnum):
    """The exit code."""

    FINE = 0
    DIFFERENCES = 1
    CANNOT_WORK = 2


_GATES = (Group.SETTINGS, Group.CONNECTION, Group.KEY)


def exit_of(checks: Iterable[Check]) -> Exit:
    """What all of them come to."""
    found = list(checks)
    reads = [check.verdict for check in found if check.group is Group.READS]
    nothing_answers = Verdict.FAILED in reads and not {Verdict.OK, Verdict.DIFFERS} & set(reads)
    if nothing_answers or any(check.verdict is Verdict.FAILED and check.group in _GATES for check in found):
        return Exit.CANNOT_WORK
    wrong = any(check.verdict in (Verdict.DIFFERS, Verdict.FAILED) for check in found)
    return Exit.DIFFERENCES if wrong else Exit.FINE
