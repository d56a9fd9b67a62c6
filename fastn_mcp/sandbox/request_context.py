"""What a route works with: the account, the time and the caller; and the log of requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from fastn_mcp.redaction import REDACTED, is_secret_name
from fastn_mcp.sandbox.reply import Outcome
from fastn_mcp.sandbox.run_history import History
from fastn_mcp.sandbox.state import Row, SandboxState, record, stamp


@dataclass(frozen=True, slots=True)
class RouteContext:
    """`body` is what came, by Fastn's names; `actor` is how the audit log calls the caller.

    `history` are the runs that the state does not keep.
    """

    state: SandboxState
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


Handler = Callable[[RouteContext, Any], Outcome]
"""Does what one call asks for. Raises `Refusal`."""


LONGEST_LOG = 10_000


@dataclass(frozen=True, slots=True)
class HeardRequest:
    """A request. `tool` is the operation that it was, None where it was none; `path` is as it came, encoded.

    `body` is all that was sent, a secret's value and credentials too: tests show by it that they arrived.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: JsonValue
    tool: str | None

    def shown(self) -> dict[str, JsonValue]:
        return {
            "method": self.method,
            "path": self.path,
            "query": dict(self.query),
            "headers": dict(self.headers),
            "body": self.body,
            "tool": self.tool,
        }


def without_key(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers as they may be kept: that there was a key, not which."""
    return {name: REDACTED if is_secret_name(name) else value for name, value in headers.items()}
