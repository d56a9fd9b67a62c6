"""What a caller's sign-in allows, by scopes: one for each kind of effect. Pure.

The policy decides about a call, and who signed in can be allowed less than it, never more.
"""

from dataclasses import dataclass

from fastn_mcp.errors import Refused
from fastn_mcp.operation import Effect

READ = "fastn:read"
WRITE = "fastn:write"
DESTROY = "fastn:destroy"
ADMIN = "fastn:admin"

SCOPES = {
    Effect.READ: READ,
    Effect.WRITE: WRITE,
    Effect.EXTERNAL: WRITE,
    Effect.SPEND: WRITE,
    Effect.TRASH: DESTROY,
    Effect.DESTROY: DESTROY,
    Effect.ACCESS: ADMIN,
}
"""The scope that each effect needs. None contains another."""


class InsufficientScope(Refused):
    """The sign-in lacks the scope that the call needs."""

    def __init__(self, tool: str, scope: str) -> None:
        super().__init__(
            f"{tool} needs the scope {scope}, which this sign-in does not hold.",
            "Sign in again with it; where that is not offered, the operator can give it.",
            facts={"scope": scope},
        )
        self.scope = scope


@dataclass(frozen=True, slots=True)
class Rights:
    """The scopes of a sign-in. Those that are not ours mean nothing here."""

    scopes: frozenset[str]

    def lacks(self, effect: Effect) -> str | None:
        """The scope that is missing for a call of this effect."""
        needed = SCOPES[effect]
        return None if needed in self.scopes else needed

    def check(self, tool: str, effect: Effect) -> None:
        """Raises `InsufficientScope`."""
        if (missing := self.lacks(effect)) is not None:
            raise InsufficientScope(tool, missing)
