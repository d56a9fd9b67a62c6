"""Approvers by webhook, each with their own credential, from an owner-only file.

An approver is identified by the signature of an answer, not by the name in it.
"""

import base64
import binascii
import hmac
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, BeforeValidator, Field

from fastn_mcp.channels.webhook.payloads import SHORTEST_SECRET, hmac_hex
from fastn_mcp.config.strict_toml import ONE_OR_MORE, STRICT, ConfigError, TomlSource, load, read, validate
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.approval_form import effects_of
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.tools.tool import Effect

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_ALL = frozenset(effect.value for effect in Effect)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Ed25519 public key. Its readers, including this server, can verify answers but not sign them."""

    raw: bytes

    def signed(self, text: bytes, signature: str) -> bool:
        """Whether the hexadecimal signature of the text is by this key."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(bytes.fromhex(signature), text)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class ApproverSecret:
    """Secret shared by this server and an approver."""

    text: str

    def signed(self, text: bytes, signature: str) -> bool:
        """Whether the hexadecimal signature of the text is by this secret."""
        return hmac.compare_digest(hmac_hex(self.text, text), signature.lower()) if signature.isascii() else False

    def __repr__(self) -> str:
        return "Secret()"


Credential = PublicKey | ApproverSecret
"""Credential that verifies the answers of one approver."""


@dataclass(frozen=True, slots=True)
class Approver:
    """Person who may answer. `principal` is theirs as a requester, by default their name."""

    name: str
    credential: Credential
    principal: str
    effects: frozenset[str]
    person: str
    """Identity by which people are counted: their name or, in a team, their sign-in, as on its approval page."""
    groups: tuple[str, ...] = ()

    @property
    def display_name(self) -> str | None:
        """Name beside their identity, for people; None if that is their name."""
        return None if self.person == self.name else self.name

    def may_answer(self, request: ApprovalRequest) -> bool:
        """Whether they may decide a request: all its effects are among theirs, and it is not their own."""
        is_own = request.principal.casefold() in (self.principal.casefold(), self.name.casefold())
        return not is_own and effects_of(request) <= self.effects


def load_approvers(path: Path, issuer: str | None = None) -> dict[str, Approver]:
    """Load the approvers by name. Raises `SettingsError` that names the file and line but no value.

    With the `issuer` of a team, each of them needs their sign-in as principal, so that nobody counts twice.
    """
    data, status = read(path, "file of approvers", "Correct the setting approvers (FASTN_APPROVERS).")
    if os.name == "posix" and exposed(status, os.geteuid(), {os.getegid(), *os.getgroups()}):
        raise SettingsError(f"{path} can be read by users other than its owner.", f"Run: chmod 600 {path}")
    return load(data, path, "file of approvers", partial(_build, issuer), "See docs/webhook.md.")


def exposed(file: os.stat_result, user: int, groups: Collection[int]) -> bool:
    """Whether other users can read the file. Clusters mount secrets owned by root and the process's group."""
    mounted = file.st_uid == 0 != user and file.st_gid in groups
    return bool(file.st_mode & (0o037 if mounted else 0o077))


def _public_key(value: object) -> PublicKey:
    try:
        raw = base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ValueError("must be the 32 bytes of an Ed25519 key in base64")
    return PublicKey(raw)


def _secret(value: object) -> ApproverSecret:
    if not isinstance(value, str) or len(value) < SHORTEST_SECRET:
        raise ValueError(f"must be a text of {SHORTEST_SECRET} characters or more")
    return ApproverSecret(value)


def _effects(value: object) -> frozenset[str]:
    effects = frozenset(str(item).lower() for item in cast("list[object]", value)) if isinstance(value, list) else None
    if not effects or not effects <= _ALL:
        raise ValueError(f"must be a list of {' '.join(effect.name for effect in Effect)}")
    return effects


class _Entry(BaseModel):
    model_config = STRICT

    public_key: Annotated[PublicKey | None, BeforeValidator(_public_key)] = None
    secret: Annotated[ApproverSecret | None, BeforeValidator(_secret)] = None
    principal: Annotated[str | None, Field(min_length=1)] = None
    effects: Annotated[frozenset[str], BeforeValidator(_effects)] = _ALL
    groups: Annotated[list[str], ONE_OR_MORE] = []


def _build(issuer: str | None, table: Mapping[str, Any], source: TomlSource) -> dict[str, Approver]:
    approvers = {name: _approver(name, values, source, issuer) for name, values in table.items()}
    if not approvers:
        raise ConfigError((), "it names no approver")
    for attribute in ("name", "principal", "credential"):
        _check_distinct(approvers.values(), attribute)
    return approvers


def _check_distinct(approvers: Iterable[Approver], attribute: str) -> None:
    """Raise `ConfigError` if two approvers share a field, since one person could then approve twice."""
    seen: set[object] = set()
    for approver in approvers:
        value: object = getattr(approver, attribute)
        if isinstance(value, str):
            value = value.casefold()
        if value in seen:
            raise ConfigError((approver.name,), f"{approver.name} has the {attribute} of another approver")
        seen.add(value)


def _approver(name: str, values: object, source: TomlSource, issuer: str | None) -> Approver:
    if not _NAME.fullmatch(name):
        raise ConfigError((name,), "a name is at most 64 letters, digits and . _ @ + -")
    entry = validate(_Entry, values, source, (name,))
    credential = entry.public_key or entry.secret
    if credential is None or (entry.public_key and entry.secret):
        raise ConfigError((name,), f"{name} needs a public_key or a secret, and not both")
    principal = entry.principal or name
    if issuer is not None and not re.fullmatch(rf"{re.escape(issuer)}\|\S+", principal):
        raise ConfigError(
            (name,), f'{name} needs principal = "{issuer}|SUBJECT", the sign-in by which people are counted'
        )
    person = name if issuer is None else principal
    return Approver(name, credential, principal, entry.effects, person, tuple(entry.groups))
