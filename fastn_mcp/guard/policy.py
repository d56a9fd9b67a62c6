"""What may be sent, and what a person is asked first. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from fastn_mcp.operation import Effect

Mode = Literal["read-only", "guarded", "manual", "auto"]


class Decision(Enum):
    """What the policy says of a call, from the loosest to the strictest."""

    ALLOW = "allow"
    CONFIRM = "confirm"
    TYPED = "typed"
    DENY = "deny"


_ALLOW, _CONFIRM, _TYPED, _DENY = Decision

# The order of Effect: read, write, external, spend, access, trash, destroy.
_TABLE: dict[Mode, tuple[Decision, ...]] = {
    "read-only": (_ALLOW, _DENY, _DENY, _DENY, _DENY, _DENY, _DENY),
    "guarded": (_ALLOW, _ALLOW, _CONFIRM, _CONFIRM, _CONFIRM, _CONFIRM, _TYPED),
    "manual": (_ALLOW, _CONFIRM, _CONFIRM, _CONFIRM, _CONFIRM, _CONFIRM, _TYPED),
    "auto": (_ALLOW, _ALLOW, _ALLOW, _ALLOW, _CONFIRM, _CONFIRM, _TYPED),
}
MODES: Mapping[Mode, Mapping[Effect, Decision]] = {
    mode: dict(zip(Effect, decisions, strict=True)) for mode, decisions in _TABLE.items()
}


@dataclass(frozen=True, slots=True)
class Policy:
    """The decisions of one mode."""

    mode: Mode = "guarded"

    def decide(self, effect: Effect) -> Decision:
        """What is to happen with a call of this effect."""
        return MODES[self.mode][effect]
