"""How records are stored: each as a JSON document with the layout that it was written in, under indexes, for a time.

A field of a record is stored by its type. What an earlier version wrote is read by `UPGRADES`; what a later one wrote,
or what is damaged, is `Unreadable`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter
from pydantic_core import to_jsonable_python

from fastn_mcp.errors import Refused
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, SealedSecret, declines_after
from fastn_mcp.ledger.change import BEGUN, KEPT_DAYS, Change
from fastn_mcp.ledger.stop import StopOrders
from fastn_mcp.ledger.storage_limits import (
    MAX_OPEN_BYTES,
    MAX_REQUEST_BYTES,
    RequestsFull,
    StoredBytes,
    decides_until,
    has_outcome,
    has_state,
    stored_bytes,
)
from fastn_mcp.ledger.store import Document, Write
from fastn_mcp.redaction import sanitize

DAY = 86_400.0
HISTORY = KEPT_DAYS * DAY
"""Seconds for which requests (after they expire), changes and lifted stops are kept."""

_AFTER_LAST_USE = 90 * DAY
"""Seconds for which budgets and the declines of a caller are kept after they last changed."""

_YEARS = 2 * 366 * DAY
"""Seconds for which the mark of an audit log is kept after it was last set."""

Record = TypeVar("Record")
Upgrade = Callable[[str, Any], Any]


def _without_groups(kind: str, record: Any) -> Any:
    """In layout 1 a request could need an approver of a group. One that does stays unreadable: it decides nothing."""
    if kind == "approval" and not record["second"]:
        del record["second"]
        for vote in record["votes"]:
            del vote["groups"]
    return record


UPGRADES: Sequence[Upgrade] = (_without_groups,)
"""For each layout from 1 on, how a record of it is read: from the kind of its document and the parsed record, return
the record in the next layout. A change of what is stored, also of a field's name or type, adds one at the end."""


def current_layout() -> int:
    """Return the number of the layout that this version writes."""
    return 1 + len(UPGRADES)


# --- records that are stored besides approval requests, changes and stops -----------------------------------------


@dataclass(frozen=True, slots=True)
class OpenRequest:
    expires: float
    same: str | None
    """See `same_request`."""
    size: int = 0
    """Bytes, as in `stored_bytes`."""


@dataclass(frozen=True, slots=True)
class CallerState:
    """What is counted across the requests and changes of one caller on one account (`identity.holder`).

    The bounds on what is stored for a caller are checked here: each step that changes what is counted reads and writes
    this document too.
    """

    open: Mapping[str, OpenRequest] = field(default_factory=dict[str, OpenRequest])
    """Open requests, by id; expired requests too, until the next request is opened."""
    declines: int = 0
    """Consecutive declines."""
    last_decline: float = 0.0
    requests: StoredBytes = field(default_factory=StoredBytes)
    """Bytes of all requests, including open ones."""
    changes: StoredBytes = field(default_factory=StoredBytes)

    def check_requests(self, now: float) -> None:
        """Raise `RequestsFull` if the requests take more than is stored for one caller."""
        excess = sum(each.size for each in self.open.values()) - MAX_OPEN_BYTES
        if excess > 0:
            raise RequestsFull(excess, waiting=True)
        excess = self.requests.total(now) - MAX_REQUEST_BYTES
        if excess > 0:
            raise RequestsFull(excess, waiting=False)

    def unexpired(self, now: float) -> "CallerState":
        """Return the state without open requests that have expired and records that are forgotten."""
        return replace(
            self,
            open={id_: each for id_, each in self.open.items() if each.expires > now},
            requests=self.requests.unforgotten(now),
            changes=self.changes.unforgotten(now),
        )

    def with_change(self, change: Change, text: str | None, before: str | None = None) -> "CallerState":
        """Return the state after a change was stored as this text, in place of the text before."""
        until = change.at + HISTORY
        return replace(self, changes=self.changes.removed(before, until).added(text, until))

    def same_as(self, request: ApprovalRequest) -> str | None:
        """Return the id of the open request that is the same as a new one; None if there is none."""
        same = same_request(request)
        return next((id_ for id_, each in self.open.items() if each.same == same), None) if same else None

    def opened(self, request: ApprovalRequest, text: str | None) -> "CallerState":
        """Return the state after a request was opened and stored as this text."""
        open_ = {**self.open, request.id: OpenRequest(request.expires, same_request(request), stored_bytes(text))}
        return replace(self, open=open_, requests=self.requests.added(text, request.expires + HISTORY))

    def closed(self, request: ApprovalRequest, text: str | None) -> "CallerState":
        """Return the state without a request that was stored as this text."""
        open_ = {id_: each for id_, each in self.open.items() if id_ != request.id}
        return replace(self, open=open_, requests=self.requests.removed(text, request.expires + HISTORY))

    def after(self, before: ApprovalRequest, text_before: str, request: ApprovalRequest, text: str) -> "CallerState":
        """Return the state after a request was changed from `before`, and its text from `text_before`."""
        caller = self.closed(before, text_before)
        if request.state is RequestState.OPEN:
            caller = caller.opened(request, text)
        else:
            caller = replace(caller, requests=caller.requests.added(text, request.expires + HISTORY))
        change = declines_after(before, request)
        if change is None:
            return caller
        if change == 0:
            return replace(caller, declines=0, last_decline=0.0)
        return replace(caller, declines=caller.declines + change, last_decline=request.decided or 0.0)


_SAME_REQUEST = ("call", "calls", "required", "principal", "account")
"""Fields by which two open out-of-band requests are the same."""


def same_request(request: ApprovalRequest) -> str | None:
    """Return a digest of what makes two open requests the same; None for one in a form."""
    if not request.out_of_band:
        return None
    fields = to_jsonable_python([getattr(request, name) for name in _SAME_REQUEST])
    same = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(same.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Typed:
    """What approvers typed for a request, sealed."""

    expires: float
    by_approver: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ListedCalls:
    """Id and outcome of the newest change of each call of a list, by the id of the call."""

    calls: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])

    def newest(self, call_id: str) -> str:
        """Return the id of the newest change of a call; empty if there is none."""
        return self.calls[call_id][0] if call_id in self.calls else ""

    def outcome(self, call_id: str) -> str:
        return self.calls[call_id][1] if call_id in self.calls else ""

    def with_change(self, change: Change) -> "ListedCalls":
        return ListedCalls({**self.calls, change.call_id: (change.id, change.outcome)})


@dataclass(frozen=True, slots=True)
class BudgetUse:
    count: int = 0


@dataclass(frozen=True, slots=True)
class RateUses:
    times: tuple[float, ...] = ()

    def within(self, seconds: float, now: float) -> list[float]:
        """Return the uses of the last `seconds`, oldest first."""
        return sorted(at for at in self.times if at > now - seconds)


@dataclass(frozen=True, slots=True)
class Mark:
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class AuditMark:
    n: int
    head: str


# --- how they are written and read --------------------------------------------------------------------------------


class Unreadable(Refused):
    """A document that is damaged, or that another version wrote. It decides nothing."""

    def __init__(self, key: str) -> None:
        kind, _, id_ = key.partition(" ")
        self.kind = kind
        self.id = sanitize(id_[:64])
        """Id of the record."""
        next_step = "A person has to update this server, or restore the ledger (docs/operations.md)."
        if kind == "approval":
            next_step = "A person has to update this server, or wait until the approval has expired."
        super().__init__(f"The stored {kind} {self.id} cannot be read.", next_step)


class NewerLayout(Refused):
    """A newer version has written to the ledger, so that this one cannot tell what its own changes would break."""

    def __init__(self) -> None:
        super().__init__(
            "The ledger was written by a newer version of fastn-mcp.", "Reading still works. Update this server."
        )


@dataclass(frozen=True, slots=True)
class _Kind:
    """How records of a type are stored."""

    name: str
    """First word of the key."""
    indexes: Callable[[Any, str], Mapping[str, float]] = lambda _record, _text: {}
    """Score by index, of a record that is stored as this text."""
    until: Callable[[Any], float | None] = lambda _: None
    """Unix seconds from which it is forgotten."""
    lifetime: float | None = None
    """Seconds for which a store with a clock of its own keeps it."""
    is_secret: bool = False


def _of_request(request: ApprovalRequest, _text: str) -> dict[str, float]:
    indexes = {f"call {request.call}": request.expires}
    if request.state is RequestState.OPEN:
        indexes[f"open {request.account}"] = request.expires
        if request.out_of_band:
            indexes["waiting"] = request.expires
    else:
        indexes["decided"] = request.decided or request.created
        indexes[f"decided {request.holder}"] = decides_until(request)
    if request.permit_until:
        indexes["permits"] = request.permit_until
        indexes[f"permits {request.holder}"] = request.permit_until
    return indexes


def _of_change(change: Change, text: str) -> dict[str, float]:
    indexes = {f"changes {change.account}": change.at}
    if change.approval:
        indexes[f"approved {change.approval}"] = change.at
    if change.outcome == BEGUN:
        indexes["under way"] = change.at
    if change.unsettled_until:
        indexes[f"unsettled {change.repeat_id}"] = change.unsettled_until
    if has_outcome(change):
        kept = "states" if has_state(change, text) else "settled"
        indexes[f"{kept} {change.holder}"] = change.at
    return indexes


_KINDS: dict[type[Any], _Kind] = {
    ApprovalRequest: _Kind("approval", _of_request, lambda request: request.expires + HISTORY, HISTORY),
    CallerState: _Kind("caller", lifetime=_AFTER_LAST_USE),
    Typed: _Kind("typed", lambda typed, _text: {"typed": typed.expires}, lambda typed: typed.expires, is_secret=True),
    Change: _Kind("change", _of_change, lambda change: change.at + HISTORY, HISTORY),
    ListedCalls: _Kind("list", lifetime=HISTORY),
    StopOrders: _Kind("stops"),
    BudgetUse: _Kind("budget", lifetime=_AFTER_LAST_USE),
    RateUses: _Kind("rate"),
    Mark: _Kind("mark", until=lambda mark: mark.until + DAY),
    AuditMark: _Kind("audit", lifetime=_YEARS),
}
"""How records of each type are stored."""

LAYOUT = "layout"
"""Key of the document that says by its layout which one is the newest in the store."""


def key_of(record: type[Any], *id_: str) -> str:
    """Return the key of a record's document: its kind, then its id. Ids of several parts cannot collide."""
    return f"{_KINDS[record].name} {id_[0] if len(id_) == 1 else json.dumps(id_)}"


def is_of(record: type[Any], document: Document) -> bool:
    """Return whether a document is of this kind of record."""
    return document.key.partition(" ")[0] == _KINDS[record].name


@dataclass(frozen=True, slots=True)
class _Stored(Generic[Record]):
    """What a document says. It is strict, and forbids unknown fields in the record and in its parts."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    layout: int
    record: Record


@cache
def _adapter(record: type[Any]) -> TypeAdapter[_Stored[Any]]:
    """Return what encodes and decodes the documents of a type of record."""
    return TypeAdapter(_Stored[record])  # pyright: ignore[reportInvalidTypeForm] - one for each type at run time


def write(record: object, *id_: str) -> Write:
    """Return what stores a record under its id. Raises `ValueError` if it could not be read again."""
    kind = _KINDS[type(record)]
    adapter = _adapter(type(record))
    value = adapter.dump_json(_Stored(current_layout(), record)).decode()
    adapter.validate_json(value)
    return Write(
        key_of(type(record), *id_),
        value,
        indexes=kind.indexes(record, value),
        until=kind.until(record),
        lifetime=kind.lifetime,
        is_secret=kind.is_secret,
    )


def deletion(record: type[Any], *id_: str) -> Write:
    """Return what deletes a record."""
    return Write(key_of(record, *id_), None, is_secret=_KINDS[record].is_secret)


def load(record: type[Record], document: Document) -> Record:
    """Return a record as it was stored. Raises `Unreadable`."""
    try:
        is_current = document.value.startswith(f'{{"layout":{current_layout()},')
        value = document.value if is_current else _upgraded(document)
        return _adapter(record).validate_json(value).record
    except Exception:  # also of an upgrade that meets what it does not know
        raise Unreadable(document.key) from None


def _upgraded(document: Document) -> str:
    """Return the text of a document in the current layout. Raises an error if it is not of this or an earlier one."""
    stored = json.loads(document.value)
    layout = stored["layout"]
    record = stored["record"]
    if type(layout) is not int or not 1 <= layout <= current_layout():
        raise ValueError("of no known layout")
    for upgrade in UPGRADES[layout - 1 :]:
        record = upgrade(document.key.partition(" ")[0], record)
    return json.dumps({"layout": current_layout(), "record": record})


Documents = Mapping[str, Document]
"""Documents by key."""


def loaded(record: type[Record], documents: Documents, key: str) -> Record | None:
    """Return the record of a document, None if there is none. Raises `Unreadable`."""
    return load(record, documents[key]) if key in documents else None


def listed_write(change: Change, listed: ListedCalls) -> Sequence[Write]:
    """Return what stores the outcome of a change in its list, if it is in one."""
    if not change.list_id:
        return ()
    return (replace(write(listed.with_change(change), change.list_id), until=change.at + HISTORY),)


@dataclass(frozen=True, slots=True)
class RequestDocuments:
    """The documents that change with an approval request: itself, its caller's, and what was typed for it."""

    approval_id: str
    holder: str

    @property
    def key(self) -> str:
        return key_of(ApprovalRequest, self.approval_id)

    @property
    def keys(self) -> list[str]:
        return [self.key, key_of(CallerState, self.holder), key_of(Typed, self.approval_id)]

    def writes(
        self, documents: Documents, before: ApprovalRequest, after: ApprovalRequest, secret: SealedSecret | None = None
    ) -> list[Write]:
        """Return what stores a request that was changed, with what is counted of its caller and typed for it."""
        stored = write(after, after.id)
        writes = [stored]
        _, caller_key, typed_key = self.keys
        caller = loaded(CallerState, documents, caller_key) or CallerState()
        counted = caller.after(before, documents[self.key].value, after, stored.value or "")
        if counted != caller:
            writes.append(write(counted, self.holder))
        if after.is_over and typed_key in documents:
            writes.append(deletion(Typed, after.id))
        elif secret is not None and not after.is_over:
            typed = loaded(Typed, documents, typed_key)
            by_approver = {**(typed.by_approver if typed else {}), secret.approver: secret.text}
            writes.append(replace(write(Typed(after.expires, by_approver), after.id), lifetime=secret.lifetime))
        return writes


def layout_write(layout: Document | None) -> Write | None:
    """Return what records that the store holds the current layout; None if it is recorded.

    Raises `NewerLayout` if the store holds a newer one, and `Unreadable`.
    """
    current = f'{{"layout": {current_layout()}}}'
    if layout is None:
        return Write(LAYOUT, current)
    if layout.value == current:
        return None
    try:
        number = json.loads(layout.value)["layout"]
        is_newer = number > current_layout()
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Unreadable(layout.key) from None
    if is_newer:
        raise NewerLayout
    return None if number == current_layout() else Write(LAYOUT, current)
