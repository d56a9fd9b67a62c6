"""What a person is asked, and what may come back. Pure.

No name and no value can speak for us: each is quoted, cut, and shows what cannot be seen; our own line comes last.
"""

import unicodedata
from dataclasses import dataclass

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.operation import Effect, Operation, Record

LONGEST_VALUE = 200
"""Characters of one value in a question."""

_UNSEEN = ("C", "Zl", "Zp")
_FILLERS = "\u115f\u1160\u3164\uffa0\u2800"

_WHAT_IT_DOES = {
    Effect.READ: "It reads.",
    Effect.WRITE: "It changes the account's configuration.",
    Effect.EXTERNAL: "It acts on the systems that are connected, for real.",
    Effect.SPEND: "It spends AI credits.",
    Effect.ACCESS: "It gives access.",
    Effect.TRASH: "It goes to Trash; only the dashboard can bring it back.",
    Effect.DESTROY: "It is destroyed for good. This cannot be undone.",
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one call. `expected` is the text that has to be typed, where typing is asked."""

    grant: str
    text: str
    expected: str | None


@dataclass(frozen=True, slots=True)
class Yes:
    """A person approved; `typed` is what they typed."""

    typed: str | None = None


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
    """The question is on its way; the answer comes with a later call."""

    question: Question


Answer = Yes | No | Nobody


def show(value: object, limit: int = LONGEST_VALUE) -> str:
    """A value as it may stand in a question: quoted, one line, cut with a count, nothing invisible."""
    text = value if isinstance(value, str) else to_json(value, inf_nan_mode="strings").decode()
    cut = len(text) - limit
    seen = "".join(_visible(letter) for letter in text[:limit])
    quoted = '"' + seen.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else seen
    return f"{quoted} [{cut} more characters]" if cut > 0 else quoted


def _visible(letter: str) -> str:
    category = unicodedata.category(letter)
    hidden = category.startswith(_UNSEEN) or category == "Mn" or letter in _FILLERS
    return f"\\u{{{ord(letter):x}}}" if hidden else letter


def name_of(record: Record | None) -> str | None:
    """What people call it."""
    for field in ("name", "slug", "email"):
        value: JsonValue = getattr(record, field, None)
        if isinstance(value, str) and value.strip():
            return value
    return None


def ask(
    grant: str, call: Operation[Record], effect: Effect, target: Record | None, account: str, *, typed: bool
) -> Question:
    """The question about `call`. `account` is the profile, the host and the environment, in our words."""
    arguments = " ".join(f"{name}={show(value)}" for name, value in call.shown().items())
    lines = [f"{call.tool_name()} {arguments}".rstrip(), f"Account: {account}."]
    name = name_of(target)
    if call.target is not None:
        lines.append(f"Target: {show(name)}, id {show(call.target)}." if name else f"Target: id {show(call.target)}.")
    lines.append((type(call).__doc__ or "").strip())
    lines.append(_WHAT_IT_DOES[effect])
    expected = (name or call.target or call.tool_name()) if typed else None
    if expected is not None:
        lines.append(f"To approve this one call, type {show(expected)}. Anything else declines it.")
    else:
        lines.append("Approve this one call?")
    return Question(grant, "\n".join(lines), expected)
