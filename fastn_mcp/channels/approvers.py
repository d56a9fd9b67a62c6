"""Approvers by webhook and in Slack, from an owner-only file, and their answers: who may decide, and their vote.

An approver is identified by the signature of an answer, or by the user that Slack names, not by what an answer says.
One entry is one person: their answers count once, however they give them.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from fastn_mcp.audit.log import AuditEvent, AuditFile, LogEntry
from fastn_mcp.config.model import SHORTEST_SECRET
from fastn_mcp.config.strict_toml import ONE_OR_MORE, STRICT, ConfigError, TomlSource, load, read, validate
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.approval.votes import NotCounted, count_vote, why_closed, why_not_withdrawn, withdraw
from fastn_mcp.guard.approval_form import VERIFIED, approved_elsewhere, is_typed
from fastn_mcp.guard.channel import NobodyAble
from fastn_mcp.guard.recorder import decision_entry, record_fact
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.identity import account_name
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.schema import Effects
from fastn_mcp.records.formats import counted
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect

_SLACK_USER = re.compile(r"[TE][A-Z0-9]{2,}/[UW][A-Z0-9]{2,}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")

MAX_REJECTIONS = 20
"""Audited rejections per `REJECTION_SPAN`, counted separately for strangers and approvers."""

REJECTION_SPAN = 3600.0
"""Seconds."""

OTHER_LINES = "What you were shown does not match the request. Nothing was decided."

Choice = Literal["approve", "decline", "withdraw"]


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
    slack: tuple[str, ...] = ()
    """Their users in Slack, as `TEAM/USER`."""

    @property
    def display_name(self) -> str | None:
        """Name beside their identity, for people; None if that is their name."""
        return None if self.person == self.name else self.name

    def may_answer(self, request: ApprovalRequest) -> bool:
        """Whether they may decide a request: all its effects are among theirs, and it cannot be their own."""
        may_be_own = request.may_be_of(self.principal) or request.may_be_of(self.name)
        return not may_be_own and request.question.effects <= self.effects


def load_approvers(path: Path, issuer: str | None = None) -> dict[str, Approver]:
    """Load the approvers by name. Raises `SettingsError` that names the file and line but no value.

    With the `issuer` of a team, each of them needs their sign-in as principal, so that nobody counts twice.
    """
    data, status = read(path, "approvers file", "Correct the setting approvers (FASTN_APPROVERS).")
    if os.name == "posix" and exposed(status, os.geteuid(), {os.getegid(), *os.getgroups()}):
        raise SettingsError(f"{path} can be read by users other than its owner.", f"Run: chmod 600 {path}")
    return load(data, path, "approvers file", build=partial(_build, issuer), hint="See docs/webhook.md.")


def able_approvers(approvers: Iterable[Approver], request: ApprovalRequest, *, enough: bool) -> list[Approver]:
    """Return those who may decide a request.

    Raises `NobodyAble` if there is none; or, if all approvals have to come from them (`enough`), if they are too few.
    """
    needed = request.needed
    able = [each for each in approvers if each.may_answer(request)]
    if not able or (enough and len(able) < needed):
        raise NobodyAble(
            f"This call needs {counted(needed, 'approver')}, and {len(able)} of the listed approvers may decide on it.",
            "Tell the operator: the approvers file lists their effects. Nobody decides on a call that"
            " may be their own: an approver named by e-mail may be any caller whose sign-in has no e-mail address.",
        )
    return able


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
        raise ConfigError((name,), f"{name} needs either a public_key or a secret; or Slack users: slack")
    principal = entry.principal or name
    if issuer is not None and not re.fullmatch(rf"{re.escape(issuer)}\|\S+", principal):
        raise ConfigError(
            (name,), f'{name} needs principal = "{issuer}|SUBJECT", the sign-in that identifies the person'
        )
    person = name if issuer is None else principal
    effects = frozenset(effect.value for effect in entry.effects)
    return Approver(
        name,
        credential,
        principal,
        effects=effects,
        person=person,
        slack=tuple(entry.slack),
    )


def digest(lines: Sequence[str]) -> str:
    """Hexadecimal SHA-256 of the lines of a request, joined by line feeds, by which an answer names what was shown."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(eq=False)
class AnswerRejected(Exception):
    """Rejected answer. `why` is sent back; `approver` and `request` are set only once verified."""

    status: int
    """HTTP status of the response."""
    why: str
    approver: Approver | None = None
    request: ApprovalRequest | None = None


@dataclass(slots=True)
class _Rejections:
    began: float = float("-inf")
    recorded: int = 0
    left_out: int = 0


class ApproverAnswers:
    """Counts answers about calls on one account, of one tenant if there are any."""

    def __init__(self, account: str, tenant: str, ledger: Ledger, audit: AuditFile, system: System) -> None:
        self.account = account
        self._tenant = tenant
        self._audit = audit
        self.ledger = ledger
        self.system = system
        # Counted separately, so that strangers cannot hide rejections of an approver from the audit log.
        self._rejections = {True: _Rejections(), False: _Rejections()}

    async def find(self, id_: str, choice: Choice, approver: Approver) -> ApprovalRequest:
        """Return the open request, or the approved one to withdraw. Raises `AnswerRejected` if it is not theirs."""
        request = await self.ledger.find(id_)
        now = self.system.timestamp()
        own = (self.account, self._tenant)
        if request is None or not request.out_of_band or (request.account, request.tenant) != own:
            raise AnswerRejected(404, why_closed(None), approver)
        if choice == "withdraw":
            if not request.can_be_withdrawn(now):
                raise AnswerRejected(409, why_not_withdrawn(request), approver, request)
        elif request.state is not RequestState.OPEN:
            raise AnswerRejected(409, why_closed(request), approver, request)
        if request.expires <= now:
            raise AnswerRejected(410, why_closed(request), approver, request)
        if not approver.may_answer(request):
            why = (
                f"Nothing was decided: {approver.name} may not decide on this call. It may be their own, or it has"
                " an effect that the approvers file does not list for them."
            )
            raise AnswerRejected(403, why, approver, request)
        return request

    def check_typed(self, request: ApprovalRequest, approver: Approver, typed: str | None) -> None:
        """Raise `AnswerRejected` unless the typed text is the expected one, and nothing more is typed."""
        if (elsewhere := approved_elsewhere(request)) is not None:
            raise AnswerRejected(422, elsewhere, approver, request)
        if not is_typed(request.expected, typed):
            raise AnswerRejected(422, "The typed text does not match exactly.", approver, request)

    async def count(
        self, choice: Choice, request: ApprovalRequest, approver: Approver, note: str | None
    ) -> ApprovalRequest:
        """Count an answer. Return the updated request. Raises `AnswerRejected` if it does not count."""
        vote = Vote(
            approver.person,
            approves=choice == "approve",
            at=self.system.timestamp(),
            name=approver.display_name or "",
        )

        def record(event: AuditEvent, decided_request: ApprovalRequest, message: str | None) -> None:
            self._record(decision_entry(event, decided_request, VERIFIED, message), approver)

        count = withdraw if choice == "withdraw" else count_vote
        note = (note or "").strip() or None
        counted = await count(vote, request, self.ledger, by=VERIFIED, note=note, record=record)
        if isinstance(counted, NotCounted):
            raise AnswerRejected(409, counted.why, approver, request)
        return counted

    @contextmanager
    def recorded(self) -> Generator[None]:
        """Audit a rejection that is raised inside, and raise it again."""
        try:
            yield
        except AnswerRejected as rejected:
            self._record_rejection(rejected)
            raise

    def _record(self, entry: LogEntry, approver: Approver | None) -> None:
        if approver is not None:
            entry = replace(entry, approver=approver.person, approver_name=approver.display_name)
        record_fact(self._audit, entry)

    def _record_rejection(self, rejected: AnswerRejected) -> None:
        """Audit a rejection, or only count it if the limit of this span is reached."""
        request = rejected.request
        approver = rejected.approver
        message = rejected.why
        seen = self._rejections[approver is not None]
        now = self.system.monotonic()
        if now - seen.began >= REJECTION_SPAN:
            seen.began = now
            seen.recorded = 0
        if seen.recorded >= MAX_REJECTIONS:
            seen.left_out += 1
            return
        seen.recorded += 1
        if seen.left_out:
            message = f"{message} {seen.left_out} more before this one were not recorded."
            seen.left_out = 0
        entry = LogEntry(AuditEvent.ANSWER_REFUSED, "unknown", account_name(self.account), "unknown")
        if request is not None:
            known = {"principal": request.principal, "account": account_name(request.account), "tool": request.tool}
            entry = replace(entry, **known, target=request.target, grant=request.id, principal_name=request.person)
        self._record(replace(entry, message=message), approver)
