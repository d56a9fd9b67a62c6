"""Errors: what happened, whether anything was sent or changed, and what to do next.

There is one class for each way in which a caller would react differently. `outcome` is its name in results.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from fastn_mcp import install_extra

if TYPE_CHECKING:
    from typing import Self

    from pydantic import JsonValue


NOTHING_SENT = "Nothing was sent."
NOTHING_CHANGED = "Nothing was changed."


class FastnError(Exception):
    """Base class. `facts` are the same facts as data: status, request id, the call that settles the outcome."""

    outcome: ClassVar[str] = "failed"
    certainty: ClassVar[str] = ""
    """What is known about the effect, in one sentence."""

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

    @property
    def message(self) -> str:
        """What happened and what is known, without the next step, which is the agent's."""
        return " ".join(part for part in (self.what, self.known) if part)

    def data(self) -> dict[str, JsonValue]:
        """Return the error as data: `outcome`, `message`, `next` and the facts."""
        body: dict[str, JsonValue] = {"outcome": self.outcome, "message": self.message}
        if self.next_step:
            body["next"] = self.next_step
        return body | self.facts


class SettingsError(FastnError):
    """A setting is missing or wrong. Names the setting, never its value."""

    outcome = "misconfigured"

    def with_program(self, program: str) -> Self:
        """Return the error with commands as this program is started, so that they use its configuration and profile."""
        return type(self)(self.what, self.next_step.replace("fastn-mcp ", f"{program} "))


@contextmanager
def extra(name: str, what: str) -> Generator[None]:
    """Raise `SettingsError` if a library of an extra, which is imported inside, is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fastn_mcp"):
            raise
        why = f"{what}, but the library for it is not installed."
        raise SettingsError(why, f"Run: {install_extra(name)}") from None


class NoKey(SettingsError):
    """There is no usable API key. A server starts nevertheless, and every call fails with this error."""


class NotSent(FastnError):
    """The call was not sent, because of an invalid argument or a failed connection."""

    outcome = "not_sent"
    certainty = NOTHING_SENT


class InvalidArgument(NotSent):
    """The call was not sent, because of an argument: its name, its value, or what it is combined with."""


class Disabled(NotSent):
    """A setting disables the tool that this needs."""


class Refused(FastnError):
    """The policy or the mode denies the call."""

    outcome = "refused"
    certainty = NOTHING_SENT


class Stopped(Refused):
    """A person has stopped changes."""

    outcome = "stopped"


class Declined(FastnError):
    """A person denied the approval request."""

    outcome = "declined"
    certainty = NOTHING_SENT


class ApprovalRequired(FastnError):
    """A person must approve the call, and it cannot wait for that."""

    outcome = "approval_required"
    certainty = NOTHING_SENT


class TargetChanged(FastnError):
    """The target is no longer in the state that was approved."""

    outcome = "target_changed"
    certainty = NOTHING_SENT


class Rejected(FastnError):
    """Fastn rejected the call."""

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


class LeftOut(RateLimited):
    """A read that was not sent, to keep within the rate limit."""


class QuotaExceeded(Rejected):
    outcome = "quota_exceeded"


class Failed(FastnError):
    """The call failed and certainly changed nothing: a read, or a response that says so."""

    outcome = "failed"
    certainty = NOTHING_CHANGED


class Timeout(FastnError):
    """A read that took too long."""

    outcome = "timeout"
    certainty = NOTHING_CHANGED


class Incomplete(FastnError):
    """Some of several calls were made, the others were not."""

    outcome = "incomplete"
    certainty = "Changes that were already made stay."


class UnknownOutcome(FastnError):
    """The request was sent and its response lost. It may or may not have been applied."""

    outcome = "unknown_outcome"
    certainty = "The change may or may not have been made. Do not repeat it until you have checked."


class AppliedUnreadable(FastnError):
    """Fastn confirmed success, but the rest of the response could not be read."""

    outcome = "applied_unreadable"
    certainty = "It was done. Do not repeat it."


class TooLarge(FastnError):
    """The response to a read is larger than this server accepts."""

    outcome = "too_large"
    certainty = NOTHING_CHANGED


MAX_NAMED = 3
"""Maximum number of unknown names that an error or an answer names. The rest are counted."""

_MAX_LIKE = 64
"""Characters of a name up to which similar ones are looked for."""


def first_few(names: Iterable[str], describe: Callable[[str], str] = str, most: int = MAX_NAMED) -> list[str]:
    """Return the first distinct names as `describe` says them, and how many more there are, so that no text grows."""
    distinct = list(dict.fromkeys(names))
    more = len(distinct) - most
    return [*map(describe, distinct[:most]), *([f"{more:,} more"] if more > 0 else [])]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean …?)` with the closest known name; empty if none is close."""
    close = closest(name, known)
    return "" if close is None else f" (did you mean {close!r}?)"


def closest(name: str, known: Iterable[str], likeness: float = 0.65) -> str | None:
    """Return the most similar known name; None below `likeness`, from 0 (any name) to 1 (the same name).

    Case is ignored, and so are hyphens and underscores: that two options begin with dashes does not make them alike.
    """
    if len(name) > _MAX_LIKE:
        return None
    plain = {_plain(each): each for each in known}
    close = difflib.get_close_matches(_plain(name), plain, 1, likeness)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").lstrip("-")


def os_reason(error: BaseException) -> str:
    """Return the operating system's reason for an error, or else its type: never its text, which may hold data."""
    return getattr(error, "strerror", None) or type(error).__name__


def reason(problem: Mapping[str, Any]) -> str:
    """Return the reason of a pydantic error. It holds no part of the value, only the closest known one."""
    if problem["type"] not in ("literal_error", "enum"):
        message = str(problem["msg"]).removeprefix("Value error, ").replace("a valid dictionary", "an object")
        return re.sub(r"^\w+ should ", "must ", message)
    expected = str(problem["ctx"]["expected"])
    received = problem.get("input")
    known = re.findall(r"'([^']*)'", expected)
    return f"must be {expected}{nearest(received, known) if isinstance(received, str) else ''}"
