"""What the exit codes of `run`, `call` and `doctor` say. Pure."""

from collections.abc import Iterable
from enum import IntEnum

EXIT_CODES = """\b
Exit codes:
  0  all was done
  1  something failed, or was refused
  2  the command, a setting or the script is wrong: nothing was sent
  3  something waits for a person
  4  an outcome is unknown: it may have happened
  5  a person declined
Where several are true of a run, 4 is given before 1, 1 before 5, and 5 before 3.
"""

DOCTORS_CODES = """\b
Exit codes:
  0  all is as it was declared
  1  something differs; what to do stands beside it
  2  it cannot work: the settings, the network, the key, or no operation answers
"""


class Exit(IntEnum):
    """An exit code."""

    DONE = 0
    FAILED = 1
    WRONG = 2
    WAITING = 3
    UNKNOWN = 4
    DECLINED = 5


_STRONGEST = (Exit.UNKNOWN, Exit.FAILED, Exit.DECLINED, Exit.WAITING, Exit.DONE)
_OF_OUTCOME = {
    **dict.fromkeys(("done", "previewed", "left"), Exit.DONE),
    "approval_required": Exit.WAITING,
    "unknown_outcome": Exit.UNKNOWN,
    "declined": Exit.DECLINED,
}


def exit_of(outcome: str) -> Exit:
    """The code of one outcome. One that was done but came back unreadable has failed: somebody has to look."""
    return _OF_OUTCOME.get(outcome, Exit.FAILED)


def strongest(outcomes: Iterable[str]) -> Exit:
    """The code of several."""
    found = {exit_of(outcome) for outcome in outcomes}
    return next((code for code in _STRONGEST if code in found), Exit.DONE)
