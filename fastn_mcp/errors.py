"""Every outcome that is not a success, in words: what happened, whether anything was sent, what to do next.

Every error says three things: what happened, whether anything was sent or changed, and what to do next. One class for
each thing that a caller would do differently; `outcome` is its name in results.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue


NOTHING_SENT = "Nothing was sent."
NOTHING_CHANGED = "Nothing was changed."


class FastnError(Exception):
    """The base of all. `facts` are the same truths as data: status, request id, the call that settles it."""

    outcome: ClassVar[str] = "failed"
    certainty: ClassVar[str] = ""
    """What is known of the effect, in one sentence."""

    def __init__(
        self,
        what: str,
        next_step: str = "",
        *,
        certainty: str | None = None,
        facts: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self.what = what
        self.known = type(self).certainty if certainty is None else certainty
        self.next_step = next_step
        self.facts: dict[str, JsonValue] = dict(facts or {})
        super().__init__(" ".join(part for part in (self.what, self.known, self.next_step) if part))

    def data(self) -> dict[str, JsonValue]:
        """The error as data: `outcome`, `message`, `next` and the facts."""
        message = " ".join(part for part in (self.what, self.known) if part)
        body: dict[str, JsonValue] = {"outcome": self.outcome, "message": message}
        if self.next_step:
            body["next"] = self.next_step
        return body | self.facts


class SettingsError(FastnError):
    """A setting is missing or wrong. Names the setting, never its value."""

    outcome = "misconfigured"


class NoKey(SettingsError):
    """There is no API key that could be sent. A server starts nevertheless, and answers every call with this."""

    def with_program(self, program: str) -> NoKey:
        """The same with its commands as this server is started, so that they reach its configuration and profile."""
        return NoKey(self.what, self.next_step.replace("fastn-mcp ", f"{program} "))


class NotSent(FastnError):
    """The call never left: a bad argument, a connection that could not be made."""

    outcome = "not_sent"
    certainty = NOTHING_SENT


class Refused(FastnError):
    """The policy or the mode does not allow it."""

    outcome = "refused"
    certainty = NOTHING_SENT


class Declined(FastnError):
    """A person said no."""

    outcome = "declined"
    certainty = NOTHING_SENT


class ApprovalRequired(FastnError):
    """A person has to be asked, and this call cannot wait for the answer."""

    outcome = "approval_required"
    certainty = NOTHING_SENT


class TargetChanged(FastnError):
    """The target is no longer in the state that was approved."""

    outcome = "target_changed"
    certainty = NOTHING_SENT


class Rejected(FastnError):
    """Fastn answered, and did not do it."""

    certainty = NOTHING_CHANGED


class Unauthorized(Rejected):
    outcome = "unauthorized"


class Forbidden(Rejected):
    outcome = "forbidden"


class NotFound(Rejected):
    outcome = "not_found"


class Conflict(Rejected):
    outcome = "conflict"


class Invalid(Rejected):
    outcome = "invalid"


class RateLimited(Rejected):
    outcome = "rate_limited"


class QuotaExceeded(Rejected):
    outcome = "quota_exceeded"


class Failed(FastnError):
    """It did not work, and it is known that nothing was changed: a read, or an answer that says so."""

    outcome = "failed"
    certainty = NOTHING_CHANGED


class Timeout(FastnError):
    """A read that took too long."""

    outcome = "timeout"
    certainty = NOTHING_CHANGED


class Stopped(FastnError):
    """Some of several calls were made, and others not."""

    outcome = "stopped"
    certainty = "What was made stays made."


class UnknownOutcome(FastnError):
    """It was sent and the answer was lost. It may or may not have happened."""

    outcome = "unknown_outcome"
    certainty = "It may or may not have happened. Do not repeat it before you have looked."


class AppliedUnreadable(FastnError):
    """Fastn said that it did it, and the rest of the answer could not be read."""

    outcome = "applied_unreadable"
    certainty = "It was done. Do not repeat it."


class TooLarge(FastnError):
    """The answer to a read is larger than this server takes in."""

    outcome = "too_large"
    certainty = NOTHING_CHANGED


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean …?)`, where a known name is near; else nothing."""
    close = closest(name, known)
    return "" if close is None else f" (did you mean {close!r}?)"


def closest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name that is most like this one: from 0, which any name is, to 1, which only itself is.

    Case, hyphens and underscores make no difference.
    """
    plain = {_plain(each): each for each in known}
    close = difflib.get_close_matches(_plain(name[:64]), plain, 1, likeness)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-")


def reason(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value, by an error of pydantic: no part of the value, only the nearest known one."""
    if problem["type"] not in ("literal_error", "enum"):
        return str(problem["msg"]).removeprefix("Value error, ")
    expected, given = str(problem["ctx"]["expected"]), problem.get("input")
    known = re.findall(r"'([^']*)'", expected)
    return f"must be {expected}{nearest(given, known) if isinstance(given, str) else ''}"
