"""New keys go to a file that only their owner can read, and not through a model.

A key is shown once, by the answer that creates it. What passes through a model's context stays in transcripts.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from fastn_mcp.operation import Operation, Record
from fastn_mcp.redaction import is_issued_secret
from fastn_mcp.tools.api_keys import CreateApiKey

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


class Delivery:
    """Puts what is secret in a result into a file of `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, call: Operation[Any], result: Record) -> Record:
        """The result as the model may read it. Raises `OSError` where the file cannot be written."""
        if not isinstance(call, CreateApiKey):
            return result
        fields = result.model_dump(exclude_unset=True)
        secrets = dict(_issued(fields))
        if not secrets:
            return result
        path = self._write(str(fields.get("id") or call.name), secrets)
        return type(result).model_validate(_without(fields, f"[in {path}]"))

    def _write(self, name: str, secrets: Mapping[str, str]) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stem = _UNSAFE.sub("-", name)[:80] or "key"
        number = 0
        while True:
            path = self._folder / (f"{stem}-{number}.txt" if number else f"{stem}.txt")
            try:
                # Created by us or not at all: never into a file that somebody else has put there.
                file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except FileExistsError:
                number += 1
                continue
            with os.fdopen(file, "w", encoding="utf-8") as writing:
                writing.write("".join(f"{name}={value}\n" for name, value in secrets.items()))
            return path


def _issued(value: JsonValue, at: str = "") -> Iterator[tuple[str, str]]:
    """The secrets in an answer, each with where it stands, as `apiKey.key`."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _issued(item, f"{at}{number}.")
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, str) and item and is_issued_secret(name):
                yield f"{at}{name}", item
            else:
                yield from _issued(item, f"{at}{name}.")


def _without(value: JsonValue, instead: str) -> JsonValue:
    if isinstance(value, list):
        return [_without(item, instead) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: instead if isinstance(item, str) and item and is_issued_secret(name) else _without(item, instead)
        for name, item in value.items()
    }
