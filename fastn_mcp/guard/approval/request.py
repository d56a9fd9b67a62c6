"""An approval request: its text, its form and the answers that it accepts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fastn_mcp.guard.ledger.ledger import ApprovalRequest, TemporaryApproval
from fastn_mcp.guard.preview import Shown
from fastn_mcp.redaction import quote
from fastn_mcp.tools.operation import Operation

TEMPORARY_MINUTES = 15
"""How long an approval of a tool on a target holds, where a person gives one."""

FREE = frozenset({"input", "idempotency_key", "code", "name", "description"})
"""Arguments whose values may differ from call to call under a temporary approval. All other values are part of it."""

DECLINE, APPROVE, APPROVE_TEMPORARILY = "decline", "approve", f"approve for {TEMPORARY_MINUTES} minutes"
"""The choices of a form that asks for a decision."""

_LONGEST_NOTE = 500


@dataclass(frozen=True, slots=True)
class ApprovalForm:
    """One question about one call, or about several."""

    grant: str
    text: str
    expected: str | None
    """What has to be typed, where typing is asked."""
    allows_temporary: bool = False
    """Whether it may be answered for this tool on this target for a while."""
    calls: int = 1
    lifetime: float = 0.0
    """Seconds for which it can be answered."""

    @property
    def typing(self) -> str:
        """What has to be typed, for people: a target has a name."""
        return "name" if self.calls == 1 else "words"

    @property
    def field(self) -> str:
        """The only field of the form."""
        return "decision" if self.expected is None else "name"

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of that field, where nothing has to be typed; the first is the default."""
        return (DECLINE, APPROVE, *((APPROVE_TEMPORARILY,) if self.allows_temporary else ()))


@dataclass(frozen=True, slots=True)
class Approve:
    """A person approved; `typed` is what they typed, `minutes` for how long beyond this call."""

    typed: str | None = None
    minutes: int = 0


@dataclass(frozen=True, slots=True)
class Decline:
    """A person declined, perhaps with a note for the agent; `why` explains an answer that is not a valid approval."""

    note: str = ""
    why: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No person answered."""

    reason: str


@dataclass(frozen=True, slots=True)
class PendingForm:
    """The question is in the client's form; the answer comes with a later round of this call."""

    question: ApprovalForm


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """The question lies elsewhere. The same call, made again, finds the answer; `until` is in Unix seconds."""

    preview: Shown
    where: str
    until: float


Answer = Approve | Decline | NoAnswer


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a client's form sent back, before it is compared with the question: MCP's `action` and `content`."""

    action: str
    content: Mapping[str, object] | None

    def answer(self, question: ApprovalForm) -> Answer:
        """The answer to `question`. Only its one field, alone and with a value that was offered, approves."""
        given = self.content or {}
        note = given.get("note")
        said = note[:_LONGEST_NOTE] if isinstance(note, str) else ""
        if self.action == "cancel":
            return NoAnswer("the form was closed without a choice")
        if self.action != "accept" or given.get("decision") == DECLINE:
            return Decline(said)
        if not given:
            return NoAnswer("the form came back without a choice")
        value = given.get(question.field)
        if given.keys() != {question.field} or not isinstance(value, str):
            why = f"The form has to come back with exactly one text field, {question.field!r}, and did not."
            return Decline(why=why)
        if question.expected is not None:
            return Approve(value)
        if value not in question.choices:
            return Decline(why=f"The form came back with a decision that was not offered: {quote(value, 60)}.")
        return Approve(minutes=TEMPORARY_MINUTES if value == APPROVE_TEMPORARILY else 0)


def question(grant: ApprovalRequest) -> ApprovalForm:
    """The question about a grant."""
    lines = [*grant.text, *([temporary(grant)] if can_be_temporary(grant) else [])]
    said = asked(grant.id, lines, grant.expected, can_be_temporary=can_be_temporary(grant), calls=count(grant))
    return replace(said, lifetime=grant.expires - grant.created)


def temporary(grant: ApprovalRequest) -> str:
    """What a temporary approval of `grant` would cover, in words."""
    return f"Approving for {TEMPORARY_MINUTES} minutes covers {grant.extent}"


def asked(
    grant: str, lines: Iterable[str], typed: str | None, *, can_be_temporary: bool, calls: int = 1
) -> ApprovalForm:
    """The question in these lines, with our own behind them, so that no name can speak for us.

    `typed` is what has to be typed, where something has.
    """
    what = "this one call" if calls == 1 else f"these {calls} calls"
    said = ApprovalForm(grant, "", typed, can_be_temporary, calls)
    if typed is not None:
        action = f"To approve {what}, type the {said.typing} between the quotes: {quote(typed)}"
    else:
        action = f"Approve {what}?"
    return replace(said, text="\n".join([*lines, action]))


def count(grant: ApprovalRequest) -> int:
    """How many calls it is about."""
    calls = grant.preview.get("calls")
    return len(calls) if isinstance(calls, list) else 1


def can_be_temporary(grant: ApprovalRequest) -> bool:
    """Whether it may be approved for more than one call."""
    return grant.allows_temporary and grant.target is not None and grant.expected is None


def extent(call: Operation[Any]) -> str:
    """The calls that a temporary approval of `call` covers, in words: what is the same, and what may differ."""
    given = call.arguments().keys() - set(type(call).route.parameters)
    same = f"with exactly the arguments {_listed(given)}" if given else "without further arguments"
    if fixed := given - FREE:
        same += f", and the same {_listed(fixed)}"
    free = given & FREE
    differs = f"; {_listed(free)} may be anything" if free else ""
    return f"{call.tool_name()} on this target {same}{differs}."


def _listed(names: Iterable[str]) -> str:
    *most, last = sorted(names)
    return f"{', '.join(most)} and {last}" if most else last


def temporary_approval(grant: ApprovalRequest, token: str, now: float, by: str) -> TemporaryApproval:
    """The scope that an approval of `grant` for a while opens, from `now` in Unix seconds."""
    until = now + TEMPORARY_MINUTES * 60
    return TemporaryApproval(
        token,
        grant.principal,
        grant.account,
        grant.tool,
        grant.target or "",
        now,
        until,
        by,
        grant.similar or "",
        grant.extent,
    )
