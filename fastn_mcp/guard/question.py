"""What a person is asked, and what may come back. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from fastn_mcp.guard.ledger import Grant, Scope
from fastn_mcp.guard.policy import Decision
from fastn_mcp.guard.preview import Preview
from fastn_mcp.guard.show import LONGEST, show

SCOPE_MINUTES = 15
"""How long an approval of a tool on a target holds, where a person gives one."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one call."""

    grant: str
    text: str
    expected: str | None
    """What has to be typed, where typing is asked."""
    scope: bool = False
    """Whether it may be answered for this tool on this target for a while."""


@dataclass(frozen=True, slots=True)
class Yes:
    """A person approved; `typed` is what they typed, `minutes` for how long beyond this call."""

    typed: str | None = None
    minutes: int = 0


@dataclass(frozen=True, slots=True)
class No:
    """A person declined, perhaps with a note for the agent."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class Nobody:
    """No person answered."""

    reason: str


@dataclass(frozen=True, slots=True)
class Asking:
    """The question is in the client's form; the answer comes with a later round of this call."""

    question: Question


@dataclass(frozen=True, slots=True)
class Waiting:
    """The question lies elsewhere. The same call, made again, finds the answer; `until` is in Unix seconds."""

    preview: Preview
    where: str
    until: float


Answer = Yes | No | Nobody


def question(grant: str, preview: Preview, asks: Decision, *, scope: bool) -> Question:
    """The question about a call. Our own line comes last, so that no name can speak for us."""
    return asked(grant, preview.lines(), expected(preview) if asks is Decision.TYPED else None, scope=scope)


def asked(grant: str, lines: Iterable[str], typed: str | None, *, scope: bool) -> Question:
    """The question in these lines, with our own behind them; `typed` is what has to be typed, where something has."""
    if typed is not None:
        action = f"To approve this one call, type the name between the quotes: {show(typed)}"
    else:
        action = "Approve this one call?"
    return Question(grant, "\n".join([*lines, action]), typed, scope)


def may_scope(grant: Grant) -> bool:
    """Whether it may be approved for more than one call."""
    return grant.scope and grant.target is not None and grant.expected is None


def for_a_while(grant: Grant, token: str, now: float, by: str) -> Scope:
    """The scope that an approval of `grant` for a while opens, from `now` in Unix seconds."""
    until = now + SCOPE_MINUTES * 60
    return Scope(token, grant.principal, grant.account, grant.tool, grant.target or "", now, until, by)


def expected(preview: Preview) -> str:
    """What is to be typed: the name, or the id where a name is too long to be shown whole."""
    name = preview.name if preview.name is not None and len(preview.name) <= LONGEST else None
    return name or preview.target or preview.tool
