"""Hides the secrets that Fastn echoes, before anybody reads them. Pure."""

from collections.abc import Iterable

from pydantic import JsonValue

from fastn_mcp.procedures.target import Call

HIDDEN = "[hidden]"

# Shorter ones stand in too many innocent texts.
_SHORTEST = 4


class Mask:
    """Replaces the secrets that it is given wherever they stand in an answer."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: one may hold another.
        self._secrets = sorted({text for text in secrets if len(text) >= _SHORTEST}, key=len, reverse=True)
        self._encoded = [text.encode() for text in self._secrets]

    def may_stand_in(self, body: bytes) -> bool:
        """Whether one of them may be in this JSON text: as it is, or escaped."""
        return b"\\" in body or any(text in body for text in self._encoded)

    def __call__(self, value: JsonValue) -> JsonValue:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self(item) for item in value]
        return self.object(value) if isinstance(value, dict) else value

    def object(self, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        return {self._text(name): self(item) for name, item in value.items()}

    def _text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text


def carried_by(call: Call) -> list[str]:
    """The texts of a call's secret arguments."""
    arguments = call.arguments()
    return [text for name in call.secrets() for text in _texts(arguments.get(name))]


def _texts(value: JsonValue) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []
