"""What the sandbox was asked: a log for tests, which show by it that something was sent, or was not. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from fastn_mcp.redaction import REDACTED, is_secret_name

LONGEST_LOG = 10_000


@dataclass(frozen=True, slots=True)
class Heard:
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
