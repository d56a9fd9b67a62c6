"""Caller of a tool, with the scopes of its sign-in, and the ways in which their client asks a person.

A caller's scopes can only restrict what the policy allows, never extend it.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from fastn_mcp.errors import Refused
from fastn_mcp.guard.approval_form import PendingApproval, SubmittedForm
from fastn_mcp.guard.channel import Channel
from fastn_mcp.guard.journal import Delivery
from fastn_mcp.policy.asker import Asker
from fastn_mcp.tools.tool import Effect

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
"""Scope that each effect needs. No scope includes another."""

ALL_SCOPES = tuple(dict.fromkeys(SCOPES.values()))


class InsufficientScope(Refused):
    """The sign-in lacks the scope that a call needs."""

    def __init__(self, tool: str, scope: str) -> None:
        super().__init__(
            f"{tool} needs the scope {scope}, which this sign-in does not hold.",
            "Sign in again with this scope. If it is not offered, ask the operator for it.",
            facts={"scope": scope},
        )
        self.scope = scope


PageLink = Callable[[PendingApproval, Callable[[], Awaitable[bool]]], Awaitable[bool]]
"""Gets a request and the wait for its decision. Returns whether it was decided."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, with the client's form, if it has one."""

    asker: Asker
    form: Channel | None
    """The client's form, or the terminal of the command line."""
    scopes: frozenset[str] | None = None
    """Scopes of the sign-in. None without sign-in: the caller then has all rights of the Fastn credentials."""
    submitted: SubmittedForm | None = None
    """The form that comes with this call, if it answers one."""
    link: PageLink | None = None
    """Leads the person to the approval page by their client, while the call waits or in place of the wait."""
    waiting: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Context in which the call waits for a person, and holds no concurrency slot."""
    undoes: str = ""
    """Id of the change that a person undoes on the approval page. Such a call does not wait for their approval."""
    delivery: Delivery | None = None
    """Delivery of the response, if it can be lost on the way to the caller."""
    export_folder: Path | None = None
    """Folder for files that the caller can open, if they are on this machine."""
    own_effects: frozenset[Effect] | None = None
    """Effects of calls that the person may approve for themselves; None: all."""

    def may_approve(self, effects: Iterable[Effect]) -> bool:
        """Whether the person may approve a call of their own with all of these effects."""
        return self.own_effects is None or self.own_effects.issuperset(effects)

    def check(self, tool: str, *effects: Effect) -> None:
        """Raise `InsufficientScope` if the sign-in does not permit a call of all of these effects."""
        for needed in (SCOPES[effect] for effect in effects):
            if self.scopes is not None and needed not in self.scopes:
                raise InsufficientScope(tool, needed)
