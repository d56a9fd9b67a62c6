"""What must hold whatever happens. Each invariant is a method that says it in its first line.

1. Nothing but a read reaches Fastn without an approval that was used for it, or an `allow` of the policy.
2. An approval that was used has a change for each use.
3. No call of a list is begun twice, and no change is sent by two calls.
4. Nothing is sent after the client has cancelled the call.
5. A stop voids what was approved before it, whatever the clocks say, and nothing is sent while it holds.
6. A stop, a use, a limit or a change that cannot be read sends nothing.
7. A sign-in whose scopes are too narrow sends nothing.
8. A change that a killed process has begun is told as unknown, and never sent again by itself.
9. Journal before log before send; the log's chain verifies; limits hold; what people declined stays declined.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fastn_mcp.ledger.change import NEVER_REPEATED
from support.guard_machine.damage import Damage
from support.guard_machine.deployment import Deployment
from support.guard_machine.model import GuardModel, KnownApproval, key_of_call
from support.guard_machine.records import AgentAnswer, AgentCall, ApprovalRecord, ChangeRecord, SentChange
from support.guard_machine.vocabulary import (
    BUDGETS,
    DESTROY_LIMIT,
    DESTROY_SECONDS,
    EFFECTS,
    IDEMPOTENT,
    LIMITED,
    POLICIES,
    SCOPES,
    SKEW,
    TEMPORARY_SECONDS,
    UNSETTLED_SECONDS,
)

MAX_ATTEMPTS = 3
"""Times that the client sends one change at most."""

_UNKNOWN = "unknown_outcome"

_HISTORY_UNREAD = "Not checked: recent changes by this server"


class Invariants:
    """Compares what reached Fastn, what is stored and what was answered with the machine's own account of it."""

    def __init__(self, deployment: Deployment, model: GuardModel) -> None:
        self._deployment = deployment
        self._model = model
        self._checked = 0
        """Number of the sent changes that were checked."""

    # --- each change that reached Fastn ----------------------------------------------------------------------------

    def check_sent(self) -> None:
        """Check the changes that reached Fastn since the last time."""
        new = self._deployment.sent[self._checked :]
        self._checked = len(self._deployment.sent)
        for sent in new:
            self.documents_were_readable(sent)
            self.store_was_working(sent)
            self.is_recorded_before_it_is_sent(sent)
            self.is_permitted(sent)
            self.is_not_stopped(sent)
            self.is_not_cancelled(sent)
            self.is_within_scopes(sent)

    def is_recorded_before_it_is_sent(self, sent: SentChange) -> None:
        """A change is in the journal and its intent in the audit log before it reaches Fastn."""
        assert sent.intent is not None, f"a change was sent without an intent in the audit log: {sent}"
        assert sent.change is not None, f"a change was sent without an entry in the journal: {sent}"
        assert sent.change.outcome == "begun", f"a change was sent whose entry in the journal has ended: {sent}"

    def is_permitted(self, sent: SentChange) -> None:
        """A change is sent by the policy alone, by an approval that was used for it, or by a temporary approval."""
        if not sent.grant:
            self.is_allowed_by_policy(sent)
            return
        known = self._model.approvals.get(sent.grant_id)
        record = sent.approval
        assert known is not None, f"sent with an approval that nobody was asked for: {sent}"
        assert record is not None, f"sent with an approval that is not stored: {sent}"
        assert known.call.principal == sent.call.principal, f"sent with the approval of another person's call: {sent}"
        assert known.call.policy == sent.call.policy, f"sent under another policy than was approved: {sent}"
        if sent.is_temporary:
            self.is_within_temporary_approval(sent, known)
            return
        self.is_as_shown(sent, known)
        self.is_approved(sent, known, record)
        self.is_not_declined(sent, known)
        known.used_at = known.used_at or sent.time

    def is_allowed_by_policy(self, sent: SentChange) -> None:
        """Without an approval, the policy allows the effect, and the call is not one whose outcome is unknown."""
        allowed = POLICIES[sent.call.policy].allowed
        assert EFFECTS.get(sent.tool) in allowed, f"sent without an approval: {sent}"
        lost = self._model.lost_calls.get(key_of_call(sent.call))
        if lost is None or sent.method in IDEMPOTENT:
            return
        is_unsettled = lost.at < sent.call.began and sent.call.time - lost.time < UNSETTLED_SECONDS - SKEW
        assert not is_unsettled, f"a call whose outcome is unknown was repeated by itself: {sent}"

    def is_approved(self, sent: SentChange, known: KnownApproval, record: ApprovalRecord) -> None:
        """The approval is of this call, was used for it, and enough people gave it."""
        assert key_of_call(known.call) == key_of_call(sent.call), f"sent with the approval of another call: {sent}"
        assert sent.change is not None, f"sent without a change: {sent}"
        assert sent.change.call_id in record.used, f"sent before its approval was used for this call: {sent}"
        needed = 2 if record.required == "four_eyes" else 1
        given = len(known.approved_by)
        assert given >= needed, f"sent with {given} of {needed} approvals by people: {sent}"

    def is_as_shown(self, sent: SentChange, known: KnownApproval) -> None:
        """What a call changes is as it was when people were asked."""
        call = sent.call
        arguments: Mapping[str, Any] = call.arguments
        if call.is_list:
            assert sent.change is not None, f"sent without a change: {sent}"
            arguments = call.arguments["changes"][sent.change.number - 1]["arguments"]
        for value in arguments.values():
            target = str(value)
            is_as_shown = call.renames.get(target, 0) <= known.renames.get(target, 0)
            assert is_as_shown, f"sent although its target has changed since it was approved: {sent}"

    def is_not_declined(self, sent: SentChange, known: KnownApproval) -> None:
        """No person declined the request before it was used, and the same call does not stay declined."""
        refused_at = known.refused_at
        assert refused_at is None or refused_at > sent.begun_at, f"sent although a person declined it: {sent}"
        key = key_of_call(sent.call)
        for other in self._model.approvals.values():
            if other.refused_at is None or other.refused_at > sent.call.began or key_of_call(other.call) != key:
                continue
            is_declined = sent.call.time < other.declined_until - SKEW
            assert not is_declined, f"sent although the same call stays declined: {sent}"

    def is_within_temporary_approval(self, sent: SentChange, known: KnownApproval) -> None:
        """A temporary approval is given by all, begins with the first use, ends, and covers the same call only."""
        given = known.approved_by.values()
        assert given, f"sent as if it were approved for a while: {sent}"
        assert all(given), f"sent as if it were approved for a while: {sent}"
        assert not known.is_revoked, f"sent after its temporary approval was revoked: {sent}"
        assert known.used_at is not None, f"sent before its temporary approval began: {sent}"
        is_over = sent.time - known.used_at > TEMPORARY_SECONDS + 2 * SKEW
        assert not is_over, f"sent after its temporary approval: {sent}"
        assert key_of_call(known.call) == key_of_call(sent.call), f"sent with the approval of another call: {sent}"
        effect = EFFECTS.get(sent.tool)
        assert effect not in ("access", "destroy"), f"sent by a temporary approval, which is not given for it: {sent}"

    def is_not_stopped(self, sent: SentChange) -> None:
        """No stop holds, and none was ordered since the approval was asked for, whatever the clocks of both say.

        A stop that is ordered after the last look may come too late.
        """
        known = self._model.approvals.get(sent.grant_id)
        for stop in self._model.stops:
            if sent.call.principal not in stop.principals or stop.at > sent.stops_read_at:
                continue
            is_lifted = stop.lifted_at is not None and stop.lifted_at < sent.at
            assert is_lifted, f"sent while changes are stopped: {sent}"
            assert known is None or known.opened_at > stop.at, f"sent with an approval that a stop made void: {sent}"

    def is_not_cancelled(self, sent: SentChange) -> None:
        """Nothing is sent after the client has cancelled the call."""
        cancelled_at = sent.call.cancelled_at
        assert cancelled_at is None or sent.at < cancelled_at, f"sent after the client cancelled the call: {sent}"

    def is_within_scopes(self, sent: SentChange) -> None:
        """A sign-in sends only what its scopes permit."""
        needed = SCOPES[EFFECTS.get(sent.tool, "write")]
        scopes = sent.call.scopes
        assert scopes is None or needed in scopes, f"sent beyond the scopes of the sign-in: {sent}"

    # --- what could not be read ------------------------------------------------------------------------------------

    def store_was_working(self, sent: SentChange) -> None:
        """Nothing is sent after a step of the ledger failed that a decision needs."""
        failed_at = sent.call.failed_at
        is_before = failed_at is None or sent.at < failed_at
        assert is_before, f"sent although {sent.call.failed_step} failed in the store: {sent}"

    def documents_were_readable(self, sent: SentChange) -> None:
        """No stop, approval, caller, limit, list or change that the decision needs was unreadable."""
        for damage in self._model.damages:
            if damage.repaired_at is None or damage.repaired_at > sent.at:
                needs = self._needs(sent, damage)
                assert not needs, f"sent although the stored {damage.documents} cannot be read: {sent}"

    def _needs(self, sent: SentChange, damage: Damage) -> bool:
        """Whether a change was sent although the decision on it needs what was unreadable by then."""
        change = sent.change
        match damage.documents:
            case "stops":
                return damage.at < sent.stops_read_at
            case "approvals":
                return damage.at < sent.begun_at and sent.grant_id in damage.ids
            case "callers":
                return damage.at < sent.begun_at
            case "lists":
                return damage.at < sent.begun_at and change is not None and change.list_id in damage.ids
            case "limits":
                is_limited = EFFECTS.get(sent.tool) in (*BUDGETS, "destroy")
                return damage.at < sent.begun_at and sent.call.policy == LIMITED and is_limited
            case "changes":
                return damage.at < sent.call.began and change is not None and _repeats(sent, change, damage)

    # --- what is stored --------------------------------------------------------------------------------------------

    async def check_stored(self) -> None:
        """Check all that is stored and logged. Every document has to be readable."""
        changes = await self._deployment.changes()
        approvals = await self._deployment.approvals()
        self.changes_are_sent_once()
        self.limits_hold()
        self.list_calls_begin_once(changes)
        self.used_approvals_have_changes(approvals, changes)
        self.logged_changes_are_stored(changes)
        self.audit_chain_verifies()
        self.people_decide()

    def changes_are_sent_once(self) -> None:
        """An approval permits one change of each call. One call sends a change, and again only if that is safe."""
        changes_by_grant = dict[str, set[str]]()
        sent_by_change = dict[str, list[SentChange]]()
        for sent in self._deployment.sent:
            if sent.change is None:
                continue
            sent_by_change.setdefault(sent.change.id, []).append(sent)
            if sent.grant and not sent.is_temporary:
                changes_by_grant.setdefault(sent.grant, set()).add(sent.change.id)
        for grant, ids in changes_by_grant.items():
            assert len(ids) == 1, f"the approval {grant} was used for {len(ids)} changes"
        for attempts in sent_by_change.values():
            calls = {id(sent.call) for sent in attempts}
            assert len(calls) == 1, f"a change was sent by {len(calls)} calls: {attempts}"
            assert len(attempts) <= MAX_ATTEMPTS, f"a change was attempted {len(attempts)} times: {attempts}"
            perhaps_made = [sent for sent in attempts[:-1] if sent.response != "429"]
            is_safe = not perhaps_made or attempts[0].method in IDEMPOTENT
            assert is_safe, f"sent again although it may have been made: {attempts}"

    def limits_hold(self) -> None:
        """No person's calls exceed a budget or the rate of deletions, over both processes."""
        budget_uses = dict[tuple[str, str], set[str]]()
        destroyed = dict[str, dict[str, float]]()
        for sent in self._deployment.sent:
            if sent.call.policy != LIMITED or sent.change is None or sent.tool not in EFFECTS:
                continue
            principal = sent.call.principal
            effect = EFFECTS[sent.tool]
            budget_uses.setdefault((principal, effect), set()).add(sent.change.id)
            if effect == "destroy":
                destroyed.setdefault(principal, {}).setdefault(sent.grant_id, sent.time)
        for (principal, effect), ids in budget_uses.items():
            limit = BUDGETS.get(effect)
            assert limit is None or len(ids) <= limit, f"{len(ids)} {effect} calls of {principal}, limit {limit}"
        for principal, times in destroyed.items():
            for start in times.values():
                until = start + DESTROY_SECONDS - 2 * SKEW
                within = [time for time in times.values() if start <= time < until]
                message = f"{len(within)} approvals that destroy in {DESTROY_SECONDS} s, of {principal}"
                assert len(within) <= DESTROY_LIMIT, message

    def list_calls_begin_once(self, changes: Sequence[ChangeRecord]) -> None:
        """Each call of a list is made, or may have been made, once."""
        made = Counter((change.list_id, change.call_id) for change in changes if change.list_id and change.is_final)
        twice = [place for place, count in made.items() if count > 1]
        assert not twice, f"calls of a list that were begun twice: {twice}"

    def used_approvals_have_changes(
        self, approvals: Mapping[str, ApprovalRecord], changes: Sequence[ChangeRecord]
    ) -> None:
        """Each use of an approval has a change: both are stored in one commit."""
        begun = {(change.approval_id, change.call_id) for change in changes}
        for approval in approvals.values():
            without_change = [call_id for call_id in approval.used if (approval.id, call_id) not in begun]
            assert not without_change, f"an approval was used without a change: {approval}"

    def logged_changes_are_stored(self, changes: Sequence[ChangeRecord]) -> None:
        """Each intent in the audit log has an entry in the journal."""
        ids = {change.id for change in changes}
        for entry in self._deployment.audit_entries():
            if entry["event"] == "intent":
                assert entry["change"] in ids, f"an intent without an entry in the journal: {entry}"

    def audit_chain_verifies(self) -> None:
        """The chain of the audit log is whole."""
        problem = self._deployment.audit_problem()
        assert problem is None, f"the audit log does not verify: {problem}"

    def people_decide(self) -> None:
        """An answer that no person can have given decides nothing."""
        by_programs = self._model.program_declines
        assert not by_programs, f"a program's answer declined a call: {by_programs}"

    # --- what is told ----------------------------------------------------------------------------------------------

    def begun_calls_are_told_as_unknown(self, answer: AgentAnswer, begun: Sequence[ChangeRecord]) -> None:
        """A repeated list tells the calls of it that an earlier process has begun as unknown."""
        for change in begun:
            if change.list_id and change.list_id == answer.data.get("batch"):
                row = answer.data["calls"][change.number - 1]
                assert row["outcome"] == _UNKNOWN, f"a call that may have been made is told otherwise: {row}"

    def begun_changes_are_listed_as_unknown(self, answer: AgentAnswer, begun: Sequence[ChangeRecord]) -> None:
        """The list of changes tells those that a killed process has begun as unknown."""
        rows = {row["change_id"]: row for row in answer.data["changes"]}
        for change in begun:
            row = rows[change.id]
            assert row["outcome"] == _UNKNOWN, f"a change that may have been made is listed otherwise: {row}"

    def unread_history_is_told(self, call: AgentCall, approvals: Mapping[str, ApprovalRecord]) -> None:
        """People read that the history of a record could not be read, before they approve the call."""
        for approval_id in call.opened:
            text = approvals[approval_id].text
            is_told = any(_HISTORY_UNREAD in line for line in text)
            assert is_told, f"people are not told that the history was not read: {text}"


def _repeats(sent: SentChange, change: ChangeRecord, damage: Damage) -> bool:
    """Whether a change repeats one that was unreadable: of the same list, or unsettled and not safe to repeat."""
    for unreadable in damage.changes:
        if unreadable.outcome not in NEVER_REPEATED:
            continue
        if change.list_id and change.list_id == unreadable.list_id:
            return True
        is_same = unreadable.call_id == change.call_id and not change.list_id
        is_unsettled = unreadable.unsettled_until > sent.call.time + SKEW
        if is_same and is_unsettled and sent.method not in IDEMPOTENT:
            return True
    return False
