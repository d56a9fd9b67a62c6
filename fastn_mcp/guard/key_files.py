"""Secrets kept out of the model's context: new keys go to owner-only files, values come from variables or from people.

Fastn shows a key once, in the response that creates it, and a model's context stays in transcripts.

Only variables that the operator allows are read: otherwise an agent could copy the environment into Fastn.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import JsonValue

from fastn_mcp.account.typed_argument import TypedArgument
from fastn_mcp.config.paths import make_private_folder
from fastn_mcp.errors import AppliedUnreadable, InvalidArgument, Refused
from fastn_mcp.guard.approval_form import used_up
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, SealedSecret
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import Redactor, may_hold_new_key
from fastn_mcp.runtime import System
from fastn_mcp.tools.access import CreateApiKey, CreateSecret
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Tool

if TYPE_CHECKING:
    from fastn_mcp.guard.seal import Seal

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


class KeyFileWriter:
    """Writes the secrets of a new API key to an owner-only file in `folder`.

    Fastn does not document in which field the key is, so all that is not known to be harmless goes there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, call: Operation[Any], result: FastnObject) -> FastnObject:
        """Return the result with the file's path in place of secrets. Raises `OSError` if it cannot be written."""
        if not isinstance(call, CreateApiKey):
            return result
        fields = result.model_dump(exclude_unset=True)
        secrets = dict(pair for name, value in fields.items() for pair in _issued(name, value, name))
        if not secrets:
            return result
        id_ = fields.get("id")
        path = self._write(str(call.name if not id_ or may_hold_new_key("id", id_) else id_), secrets)
        instead = f"[in the file {path} on this server's machine]"
        return type(result).model_validate({name: _without(name, value, instead) for name, value in fields.items()})

    def _write(self, name: str, secrets: Mapping[str, str]) -> Path:
        make_private_folder(self._folder)
        stem = _UNSAFE.sub("-", name)[:80]
        number = 0
        while True:
            path = self._folder / (f"{stem}-{number}.txt" if number else f"{stem}.txt")
            try:
                # O_EXCL: never write into a file that another process has created.
                file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except FileExistsError:
                number += 1
                continue
            with os.fdopen(file, "w", encoding="utf-8") as writing:
                writing.write("".join(f"{name}={value}\n" for name, value in secrets.items()))
            return path


def _issued(name: str, value: JsonValue, at: str) -> Iterator[tuple[str, str]]:
    """Yield the path (such as `apiKey.key`) and value of each text in a response that may be a secret."""
    if not may_hold_new_key(name, value):
        return
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _issued(name, item, f"{at}.{number}")
    elif isinstance(value, dict):
        for inner, item in value.items():
            yield from _issued(inner, item, f"{at}.{inner}")
    else:
        yield at, str(value)


def _without(name: str, value: JsonValue, instead: str) -> JsonValue:
    if not may_hold_new_key(name, value):
        return value
    if isinstance(value, list):
        return [_without(name, item, instead) for item in value]
    if isinstance(value, dict):
        return {inner: _without(inner, item, instead) for inner, item in value.items()}
    return instead


C = TypeVar("C", bound=Tool[Any])


class TypedSecrets:
    """Secrets that people type where they approve a call, sealed in the ledger until that call is made."""

    def __init__(self, requests: Ledger, seal: "Callable[[], Seal]", system: System) -> None:
        """`seal` is called on first use: most calls need none."""
        self._requests = requests
        self._seal = cache(seal)
        self._system = system

    def seal(self, request: ApprovalRequest, approver: str, value: JsonValue, now: float) -> SealedSecret:
        """Return the argument that an approver typed, to be stored with their vote while the request is valid."""
        text = self._seal().close(_purpose(request, approver), [value])  # a list, since it may be None
        return SealedSecret(approver, text, request.expires - now)

    async def typed(self, request: ApprovalRequest, approver: str, now: float) -> list[JsonValue] | None:
        """Return the argument that an approver typed, in a list; None if there is none that can be opened."""
        sealed = await self._requests.sealed(request.id, approver, now)
        typed = None if sealed is None else self._seal().open(_purpose(request, approver), sealed, _MAX_LIFETIME)
        return cast("list[JsonValue]", typed) if isinstance(typed, list) else None

    async def fill(self, call: C, argument: TypedArgument | None, request: ApprovalRequest | None) -> C:
        """Return the call with what was typed by who approved it; using the approval then deletes that.

        Raises `Refused` if a person still has to type it.
        """
        if argument is None:
            return call
        now = self._system.timestamp()
        if request is not None:
            for approver in request.approvers[:1]:  # where there are two, they typed the same
                typed = await self.typed(request, approver, now)
                if typed is not None:
                    return call.model_copy(update={argument.name: typed[0]})
            if await self._requests.void(request.id, RequestState.STALE, now) is None:
                raise used_up()
        raise Refused(f"Nobody has typed the {argument.name}.", "Call again for a new approval request.")


_MAX_LIFETIME = 86_400.0
"""Seconds for which an approval can be valid at most; the ledger forgets what was typed with its request."""


def _purpose(request: ApprovalRequest, approver: str) -> str:
    return f"typed {request.id} {approver}"


_OWN_VALUE = "this variable holds a setting or a secret of this server, which is never given out."


class SecretValues:
    """Values for new secrets, from the variables of `environment` whose names match a pattern in `allowed`.

    A variable that is named FASTN_* or holds a secret in `own` is never used, whatever `allowed` contains.
    """

    def __init__(self, environment: Mapping[str, str], allowed: Sequence[str], own: Iterable[str] = ()) -> None:
        self._own = Redactor(own)
        self._environment = environment
        self._allowed = tuple(allowed)

    def fill(self, call: C) -> C:
        """Return the call with its secret filled in. Raises `NotSent` if the variable is not allowed or not set."""
        if not isinstance(call, CreateSecret) or call.value_from_env is None:
            return call
        name = call.value_from_env
        if name.upper().startswith("FASTN_"):
            raise InvalidArgument(f"value_from_env: {_OWN_VALUE}", "Name a variable that holds the value itself.")
        if not any(fnmatchcase(name, pattern) for pattern in self._allowed):
            raise InvalidArgument(
                "value_from_env: this server does not give out a variable with this name.",
                "A person can add it to FASTN_SECRET_ENV, where the server is started.",
            )
        value = self._environment.get(name)
        if not value:
            raise InvalidArgument(
                "value_from_env: this variable is not set.", "A person can set it where the server is started."
            )
        if self._own.find(value):
            raise InvalidArgument(f"value_from_env: {_OWN_VALUE}", "Name a variable that holds another value.")
        return call.model_copy(update={"value": value, "value_from_env": None})


@dataclass(frozen=True, slots=True)
class CallSecrets:
    """Secrets of calls: filled in right before a call is sent, and taken out of its result."""

    values: SecretValues
    typed: TypedSecrets
    key_files: KeyFileWriter | None
    """None if a new API key is returned in the result."""

    async def fill(self, call: C, argument: TypedArgument | None, request: ApprovalRequest | None) -> C:
        """Return the call with its secrets, from variables and people. Raises a `Refused` if one is missing."""
        return await self.typed.fill(self.values.fill(call), argument, request)

    def deliver(self, call: Operation[Any], result: FastnObject) -> FastnObject:
        """Return the result, with a file in place of a new key. Raises `AppliedUnreadable` without that file."""
        try:
            return result if self.key_files is None else self.key_files(call, result)
        except OSError as error:
            raise AppliedUnreadable(
                f"The key was created, but no file could be written for it ({type(error).__name__}).",
                "Revoke it with revoke_api_key, and tell the operator.",
                facts={"settle": {"tool": "list_api_keys", "arguments": {}}},
            ) from error
