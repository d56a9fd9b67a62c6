"""Approvers by webhook and in Slack, from an owner-only file.

An approver is identified by the signature of an answer, or by the user that Slack names, not by what an answer says.
One entry is one person: their answers count once, however they give them.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from fastn_mcp.config.model import SHORTEST_SECRET
from fastn_mcp.config.strict_toml import ONE_OR_MORE, STRICT, ConfigError, TomlSource, load, read, validate
from fastn_mcp.errors import Refused, SettingsError
from fastn_mcp.guard.approval_form import effects_of
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.policy.decision import of_groups
from fastn_mcp.policy.schema import Effects
from fastn_mcp.records.formats import counted
from fastn_mcp.tools.tool import Effect

_SLACK_USER = re.compile(r"[TE][A-Z0-9]{2,}/[UW][A-Z0-9]{2,}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


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
        digest = hmac.new(self.text.encode(), text, hashlib.sha256).hexdigest()
        return hmac.compare_digest(digest, signature.lower()) if signature.isascii() else False

    def __repr__(self) -> str:
        return "Secret()"


Credential = PublicKey | ApproverSecret
"""Credential that verifies the answers of one approver."""


@dataclass(frozen=True, slots=True)
class Approver:
    """Person who may answer. `principal` is theirs as a requester, by default their name."""

    name: str
    credential: Credential | None
    """Verifies their answers by webhook. Without one they answer in Slack only."""
    principal: str
    effects: frozenset[str]
    person: str
    """Identity by which people are counted: their name or, in a team, their sign-in, as on its approval page."""
    groups: tuple[str, ...] = ()
    slack: tuple[str, ...] = ()
    """Their users in Slack, as `TEAM/USER`."""

    @property
    def display_name(self) -> str | None:
        """Name beside their identity, for people; None if that is their name."""
        return None if self.person == self.name else self.name

    def may_answer(self, request: ApprovalRequest) -> bool:
        """Whether they may decide a request: all its effects are among theirs, and it cannot be their own."""
        may_be_own = request.may_be_of(self.principal) or request.may_be_of(self.name)
        return not may_be_own and effects_of(request) <= self.effects


def load_approvers(path: Path, issuer: str | None = None) -> dict[str, Approver]:
    """Load the approvers by name. Raises `SettingsError` that names the file and line but no value.

    With the `issuer` of a team, each of them needs their sign-in as principal, so that nobody counts twice.
    """
    data, status = read(path, "file of approvers", "Correct the setting approvers (FASTN_APPROVERS).")
    if os.name == "posix" and exposed(status, os.geteuid(), {os.getegid(), *os.getgroups()}):
        raise SettingsError(f"{path} can be read by users other than its owner.", f"Run: chmod 600 {path}")
    return load(data, path, "file of approvers", partial(_build, issuer), "See docs/webhook.md.")


def require_able(approvers: Iterable[Approver], request: ApprovalRequest) -> None:
    """Raise `Refused` unless enough of them may decide a request, of every group that it asks for."""
    needed, able = request.needed, [each for each in approvers if each.may_answer(request)]
    groups = {group for each in able for group in each.groups}
    if len(able) < needed or not groups.issuperset(request.second):
        takes = f"It takes {counted(needed, 'approver')}{of_groups(request.second)}"
        raise Refused(
            f"{takes}, and {len(able)} of those on the list may decide about this call.",
            "Tell the operator: the file of approvers lists their effects and groups. Nobody decides about what may be"
            " their own call: one who is named by e-mail may be any caller whose sign-in has no e-mail address.",
        )


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


def _slack_users(users: list[str]) -> list[str]:
    if wrong := next((user for user in users if not _SLACK_USER.fullmatch(user)), None):
        raise ValueError(f"{wrong!r} is not TEAM/USER, such as T0123ABCD/U0123ABCD")
    return users


class _Entry(BaseModel):
    model_config = STRICT

    public_key: Annotated[PublicKey | None, BeforeValidator(_public_key)] = None
    secret: Annotated[ApproverSecret | None, BeforeValidator(_secret)] = None
    principal: Annotated[str | None, Field(min_length=1)] = None
    effects: Effects = list(Effect)
    groups: Annotated[list[str], ONE_OR_MORE] = []
    slack: Annotated[list[str], ONE_OR_MORE, AfterValidator(_slack_users)] = []


def _build(issuer: str | None, table: Mapping[str, Any], source: TomlSource) -> dict[str, Approver]:
    approvers = {name: _approver(name, values, source, issuer) for name, values in table.items()}
    if not approvers:
        raise ConfigError((), "it names no approver")
    for what, identities in _IDENTITIES.items():
        seen: set[object] = set()
        for approver in approvers.values():
            if seen.intersection(identities(approver)):
                raise ConfigError((approver.name,), f"{approver.name} has the {what} of another approver")
            seen.update(identities(approver))
    return approvers


_IDENTITIES: Mapping[str, Callable[[Approver], Collection[object]]] = {
    "name": lambda approver: [approver.name.casefold()],
    "principal": lambda approver: [approver.principal.casefold()],
    "credential": lambda approver: [approver.credential] if approver.credential else [],
    "Slack user": lambda approver: set(approver.slack),
}
"""What no two approvers share, since one person could then approve twice."""


def _approver(name: str, values: object, source: TomlSource, issuer: str | None) -> Approver:
    if not _NAME.fullmatch(name):
        raise ConfigError((name,), "a name is at most 64 letters, digits and . _ @ + -")
    entry = validate(_Entry, values, source, (name,))
    credential = entry.public_key or entry.secret
    if (credential is None and not entry.slack) or (entry.public_key and entry.secret):
        raise ConfigError((name,), f"{name} needs a public_key or a secret, and not both; or Slack users: slack")
    principal = entry.principal or name
    if issuer is not None and not re.fullmatch(rf"{re.escape(issuer)}\|\S+", principal):
        raise ConfigError(
            (name,), f'{name} needs principal = "{issuer}|SUBJECT", the sign-in by which people are counted'
        )
    person = name if issuer is None else principal
    effects = frozenset(effect.value for effect in entry.effects)
    return Approver(name, credential, principal, effects, person, tuple(entry.groups), tuple(entry.slack))
