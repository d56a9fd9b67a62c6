"""What a route works with: the account, the moment, and who is asking. One desk for each request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from fastn_mcp.sandbox.audit_rows import record
from fastn_mcp.sandbox.history import History
from fastn_mcp.sandbox.reply import Outcome
from fastn_mcp.sandbox.state import Row, State, stamp


@dataclass(frozen=True, slots=True)
class Desk:
    """`body` is what came, by Fastn's names; `actor` is how the audit log calls the caller.

    `history` are the runs that the state does not keep.
    """

    state: State
    history: History
    now: datetime
    key: Row
    body: Row
    headers: Mapping[str, str]

    @property
    def actor(self) -> str:
        return f"apikey:{self.key['id']}"

    @property
    def time(self) -> str:
        return stamp(self.now)

    def audit(
        self, action: str, kind: str, key: JsonValue, customer: JsonValue = None, actor: str | None = None
    ) -> None:
        """Append to the account's audit log what was just done."""
        record(self.state, self.now, actor or self.actor, action, (kind, key), customer=customer)


Handler = Callable[[Desk, Any], Outcome]
"""Does what one call asks for. Raises `Refusal`."""
