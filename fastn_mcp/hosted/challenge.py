"""How a request is turned away: a status, a challenge that says what to come back with, and an error that a client can
show. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from mcp.types import INTERNAL_ERROR, INVALID_REQUEST
from pydantic import JsonValue
from starlette.responses import JSONResponse

FORBIDDEN = -32003
"""Of those that the specification leaves to servers."""


@dataclass(frozen=True, slots=True)
class Challenger:
    """`metadata` is where a client reads whose tokens are wanted (RFC 9728)."""

    metadata: str

    def _bearer(self, scopes: Iterable[str], error: str | None, description: str) -> str:
        parts = [f'resource_metadata="{self.metadata}"', f'scope="{" ".join(scopes)}"']
        if error is not None:
            parts = [f'error="{error}"', f'error_description="{description}"', *parts]
        return "Bearer " + ", ".join(parts)

    def unknown(self, scopes: Iterable[str], why: str | None) -> "Turned":
        """Nobody signed in; `why` says why a token that came is none."""
        said = "Sign in first." if why is None else f"The token was refused. {why}"
        challenge = self._bearer(scopes, None if why is None else "invalid_token", why or "")
        return Turned(401, said, INVALID_REQUEST, {"WWW-Authenticate": challenge})

    def insufficient(self, held: Iterable[str], needed: str, said: str) -> "Turned":
        """The token lacks a scope. What it holds is named too, so that a new one has both."""
        challenge = self._bearer(sorted({*held, needed}), "insufficient_scope", f"It needs {needed}.")
        return Turned(403, said, FORBIDDEN, {"WWW-Authenticate": challenge}, {"scope": needed})


class Turned(Exception):
    """A request that goes no further. Nothing of it was sent anywhere."""

    def __init__(
        self,
        status: int,
        said: str,
        code: int = INVALID_REQUEST,
        headers: dict[str, str] | None = None,
        facts: dict[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(said)
        self.status = status
        self._error: dict[str, JsonValue] = {"code": code, "message": f"{said} Nothing was sent."}
        if facts:
            self._error["data"] = {"outcome": "refused", **facts}
        self._headers = {"Cache-Control": "no-store"} | (headers or {})

    def response(self, id_: str | int | None) -> JSONResponse:
        """As an answer to the request of this id: clients show the message, where a mere status would tell nothing."""
        body = {"jsonrpc": "2.0", "id": id_, "error": self._error}
        return JSONResponse(body, self.status, self._headers)


def unavailable(said: str, seconds: int) -> Turned:
    """It could not be looked at now."""
    return Turned(503, said, INTERNAL_ERROR, {"Retry-After": str(seconds)})
