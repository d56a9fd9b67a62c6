"""Replies and refusals of the sandbox."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pydantic import JsonValue
from pydantic_core import to_json

JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class SandboxReply:
    """An HTTP response. Header names are lower-case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


class SandboxRefusal(Exception):
    """Refusal of a request, sent as an error response."""

    def __init__(
        self, status: int, code: str, message: str, details: JsonValue = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers or {}

    def reply(self) -> SandboxReply:
        error: dict[str, JsonValue] = {"code": self.code, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        if (seconds := self.headers.get("retry-after", "")).isdigit():
            error["retryAfter"] = int(seconds)
        return SandboxReply(self.status, self.headers | JSON, to_json({"error": error}))


def not_allowed(method: str, allowed: Iterable[str]) -> SandboxRefusal:
    """Return the refusal for a path that exists, but not with this method."""
    headers = {"allow": ", ".join(sorted(set(allowed)))}
    return SandboxRefusal(405, "METHOD_NOT_ALLOWED", f"{method} is not allowed here", headers=headers)


def invalid(field: str, problem: str) -> SandboxRefusal:
    """Return the refusal of a field's value; `field` is its name on the wire."""
    return SandboxRefusal(422, "VALIDATION_ERROR", f"{field}: {problem}", [{"field": field, "problem": problem}])


def check_choice(field: str, value: object, choices: Collection[str]) -> None:
    """Raise the refusal of a value that is not one of the choices."""
    if value not in choices:
        raise invalid(field, f"one of {', '.join(choices)}")


def choice(field: str, text: str, choices: Collection[str]) -> str:
    """Return the choice that a text names in any case. Raises the refusal of another text."""
    chosen = next((each for each in choices if each.casefold() == text.casefold()), text)
    check_choice(field, chosen, choices)
    return chosen


def conflict(message: str, details: JsonValue = None) -> SandboxRefusal:
    return SandboxRefusal(409, "CONFLICT", message, details)


def not_found() -> SandboxRefusal:
    return SandboxRefusal(404, "NOT_FOUND", "The resource does not exist, or you do not have access.")


def forbidden(message: str) -> SandboxRefusal:
    return SandboxRefusal(403, "FORBIDDEN", message)
