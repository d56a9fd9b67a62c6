"""The beginning of a change: what permits it is used up and counted, and the change recorded, in one step.

Each rule says why the change may not begin, or what it writes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import NEVER_REPEATED, Change
from fastn_mcp.ledger.documents import (
    BudgetUse,
    CallerState,
    Documents,
    ListedCalls,
    RateUses,
    RequestDocuments,
    key_of,
    listed_write,
    loaded,
    write,
)
from fastn_mcp.ledger.storage_limits import MAX_JOURNAL_BYTES, JournalFull
from fastn_mcp.ledger.store import Document, Write
from fastn_mcp.policy.decision import PLANNED


@dataclass(frozen=True, slots=True)
class BudgetLimit:
    """A budget in a period, such as a day, and how many uses it allows there."""

    budget: str
    period: str
    limit: int


@dataclass(frozen=True, slots=True)
class UsageRate:
    """A budget of `most` uses within any `seconds`."""

    budget: str
    most: int
    seconds: float


class StartResult(Enum):
    """Whether a change was started, or else why not. Nothing was used up or counted then."""

    STARTED = "started"
    STARTED_BEFORE = "the list has started this call before"
    UNDONE = "the change is undone, or its undo has begun"
    NO_APPROVAL = "the approval is used, has ended or is void"
    NO_PERMIT = "the temporary approval has ended"
    NO_LIMIT = "a limit is reached"
    NO_RATE = "the rate is reached"


def rate_free_at(uses: Sequence[float], most: int, seconds: float) -> float:
    """Return when a rate budget of `most` uses within any `seconds` can be used again after `uses`; 0 if now."""
    return 0.0 if len(uses) < most else uses[-most] + seconds


def count_write(count: int, budget: str, period: str) -> Write:
    """Return what stores the count of a budget. A plan can be valid for years, and its count must not end before it."""
    counted = write(BudgetUse(count), budget, period)
    return replace(counted, lifetime=None) if period == PLANNED else counted


Rule = Callable[[Documents], "StartResult | list[Write]"]


@dataclass(frozen=True, slots=True)
class ChangeStart:
    """A change that is about to begin, and what permits it."""

    change: Change
    undoes: str
    """Id of the change that it undoes, or empty."""
    limits: tuple[BudgetLimit, ...]
    rate: UsageRate | None
    approval: RequestDocuments | None
    """Documents of the approval that is used for its call."""
    temporary_approval: str
    """Id of the request whose temporary approval still has to hold, or empty."""

    @property
    def key(self) -> str:
        return key_of(Change, self.change.id)

    @property
    def _caller_key(self) -> str:
        return key_of(CallerState, self.change.holder)

    @property
    def keys(self) -> list[str]:
        """Keys of the documents that the step reads and writes."""
        keys = [self.key, self._caller_key, *(key_of(BudgetUse, each.budget, each.period) for each in self.limits)]
        if self.rate is not None:
            keys.append(key_of(RateUses, self.rate.budget))
        if self.undoes:
            keys.append(key_of(Change, self.undoes))
        if self.temporary_approval:
            keys.append(key_of(ApprovalRequest, self.temporary_approval))
        if self.change.list_id:
            keys.append(key_of(ListedCalls, self.change.list_id))
        if self.approval is not None:
            keys += self.approval.keys
        return list(dict.fromkeys(keys))

    def step(self, documents: Documents) -> tuple[StartResult, Sequence[Write]]:
        """Return whether the change begins, with all that this writes. Raises `JournalFull`."""
        if self.key in documents:
            raise ValueError("a change of this id already exists")
        rules: Sequence[Rule] = (
            self._listed,
            self._undone,
            self._permitted,
            self._approved,
            self._limited,
            self._rated,
        )
        writes: list[Write] = []
        for rule in rules:
            result = rule(documents)
            if isinstance(result, StartResult):
                return result, ()
            writes += result
        return StartResult.STARTED, self._stored(documents, writes)

    def _listed(self, documents: Documents) -> StartResult | list[Write]:
        """Begin each call of a list once."""
        if not self.change.list_id:
            return []
        listed = loaded(ListedCalls, documents, key_of(ListedCalls, self.change.list_id)) or ListedCalls()
        if listed.outcome(self.change.call_id) in NEVER_REPEATED:
            return StartResult.STARTED_BEFORE
        return [*listed_write(self.change, listed)]

    def _undone(self, documents: Documents) -> StartResult | list[Write]:
        """Undo each change once."""
        if not self.undoes:
            return []
        undone = loaded(Change, documents, key_of(Change, self.undoes))
        if undone is None or undone.undone:
            return StartResult.UNDONE
        return [write(replace(undone, undone_at=self.change.at), self.undoes)]

    def _permitted(self, documents: Documents) -> StartResult | list[Write]:
        """Require that the temporary approval still holds."""
        if not self.temporary_approval:
            return []
        giver = loaded(ApprovalRequest, documents, key_of(ApprovalRequest, self.temporary_approval))
        return [] if giver is not None and giver.permit_until > self.change.at else StartResult.NO_PERMIT

    def _approved(self, documents: Documents) -> StartResult | list[Write]:
        """Use the approval for the call."""
        if self.approval is None:
            return []
        before = loaded(ApprovalRequest, documents, self.approval.key)
        after = None if before is None else before.with_use(self.change.call_id, self.change.at)
        if before is None or after is None:
            return StartResult.NO_APPROVAL
        return self.approval.writes(documents, before, after)

    def _limited(self, documents: Documents) -> StartResult | list[Write]:
        """Count the call in each of its budgets and in its plan entry, within their limits."""
        uses = Counter((each.budget, each.period) for each in self.limits)
        counts = {id_: (loaded(BudgetUse, documents, key_of(BudgetUse, *id_)) or BudgetUse()).count for id_ in uses}
        if any(counts[each.budget, each.period] >= each.limit for each in self.limits):
            return StartResult.NO_LIMIT
        return [count_write(counts[id_] + added, *id_) for id_, added in uses.items()]

    def _rated(self, documents: Documents) -> StartResult | list[Write]:
        """Count the first use of an approval, or a call without one, in the rate."""
        if self.rate is None:
            return []
        before = None if self.approval is None else loaded(ApprovalRequest, documents, self.approval.key)
        if before is not None and before.used:
            return []
        now = self.change.at
        seconds = self.rate.seconds
        times = (loaded(RateUses, documents, key_of(RateUses, self.rate.budget)) or RateUses()).within(seconds, now)
        if len(times) >= self.rate.most:
            return StartResult.NO_RATE
        counted = write(RateUses((*times, now)), self.rate.budget)
        return [replace(counted, until=now + seconds, lifetime=seconds)]

    def _stored(self, documents: Documents, writes: Sequence[Write]) -> list[Write]:
        """Store the change, and count it for its caller, beside what the other rules write. Raises `JournalFull`."""
        stored = write(self.change, self.change.id)
        written = {each.key: Document(each.key, each.value, 0) for each in writes if each.value is not None}
        caller = loaded(CallerState, {**documents, **written}, self._caller_key) or CallerState()
        caller = caller.unexpired(self.change.at)
        counted = caller.with_change(self.change, stored.value)
        excess = counted.changes.total(self.change.at) - MAX_JOURNAL_BYTES
        if excess > 0:
            raise JournalFull(excess)
        others = [each for each in writes if each.key != self._caller_key]
        return [*others, stored, write(counted, self.change.holder)]
