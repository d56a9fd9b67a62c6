"""Faults that are planted in the guard and the ledger: the machine has to find each of them.

A fault replaces a named function or constant. Where that is renamed or removed, the test of the fault says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from support.guard_machine import approval_faults, sending_faults
from support.guard_machine.invariants import Invariants

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and the invariant that it breaks first in its course (`test_guard_machine_faults.py`)."""

    plant: Plant
    breaks: Callable[..., object]


FAULTS: Mapping[str, Fault] = {
    # approvals
    "nobody is asked": Fault(approval_faults.nobody_is_asked, Invariants.is_allowed_by_policy),
    "approval is not used": Fault(approval_faults.approval_is_not_used, Invariants.is_approved),
    "approval is used twice": Fault(approval_faults.approval_is_used_twice, Invariants.changes_are_sent_once),
    "approval is used before its change": Fault(
        approval_faults.approval_is_used_before_its_change, Invariants.used_approvals_have_changes
    ),
    "binding is not compared": Fault(approval_faults.binding_is_not_compared, Invariants.is_as_shown),
    "policy is not bound": Fault(approval_faults.policy_is_not_bound, Invariants.is_permitted),
    "principal is not bound": Fault(approval_faults.principal_is_not_bound, Invariants.is_permitted),
    "instant approval counts": Fault(approval_faults.instant_answer_counts, Invariants.is_approved),
    "instant decline counts": Fault(approval_faults.instant_answer_counts, Invariants.people_decide),
    "one person votes twice": Fault(approval_faults.one_person_votes_twice, Invariants.is_approved),
    "requester votes": Fault(approval_faults.requester_votes, Invariants.is_approved),
    "one vote is enough": Fault(approval_faults.one_vote_is_enough, Invariants.is_approved),
    "any form approves": Fault(approval_faults.any_form_approves, Invariants.is_approved),
    "decline does not hold": Fault(approval_faults.decline_does_not_hold, Invariants.is_not_declined),
    "newest request is found by clocks": Fault(
        approval_faults.newest_request_is_found_by_clocks, Invariants.is_not_declined
    ),
    "withdrawn approval is used": Fault(approval_faults.withdrawn_approval_is_used, Invariants.is_not_declined),
    "temporary approval does not end": Fault(
        approval_faults.temporary_approval_does_not_end, Invariants.is_within_temporary_approval
    ),
    "temporary approval is not asked for": Fault(
        approval_faults.temporary_approval_is_not_asked_for, Invariants.is_within_temporary_approval
    ),
    "history that was not read is not told": Fault(
        approval_faults.unread_history_is_not_told, Invariants.unread_history_is_told
    ),
    # sending and recording
    "journal after send": Fault(sending_faults.journal_after_send, Invariants.is_recorded_before_it_is_sent),
    "journal after log": Fault(sending_faults.journal_after_log, Invariants.logged_changes_are_stored),
    "intent is not logged": Fault(sending_faults.intent_is_not_logged, Invariants.is_recorded_before_it_is_sent),
    "log is not chained over processes": Fault(
        sending_faults.log_is_not_chained_over_processes, Invariants.audit_chain_verifies
    ),
    "stop epoch is ignored": Fault(sending_faults.stop_epoch_is_ignored, Invariants.is_not_stopped),
    "stops are compared by clocks": Fault(sending_faults.stops_are_compared_by_clocks, Invariants.is_not_stopped),
    "stops are not read before the send": Fault(
        sending_faults.stops_are_not_read_before_the_send, Invariants.is_not_stopped
    ),
    "failed read of stops is ignored": Fault(sending_faults.unreadable_stop_is_none, Invariants.store_was_working),
    "unreadable stop is none": Fault(sending_faults.unreadable_stop_is_none, Invariants.documents_were_readable),
    "failed use is ignored": Fault(sending_faults.failed_use_is_ignored, Invariants.store_was_working),
    "unreadable use is none": Fault(sending_faults.unreadable_use_is_none, Invariants.documents_were_readable),
    "unreadable change is none": Fault(sending_faults.unreadable_change_is_none, Invariants.documents_were_readable),
    "limit is counted apart": Fault(sending_faults.limit_is_counted_apart, Invariants.limits_hold),
    "rate is not counted": Fault(sending_faults.rate_is_not_counted, Invariants.limits_hold),
    "begun call is sent again": Fault(sending_faults.begun_call_is_sent_again, Invariants.list_calls_begin_once),
    "begun call is told as made": Fault(
        sending_faults.begun_call_is_told_as_made, Invariants.begun_calls_are_told_as_unknown
    ),
    "begun change is listed as it is stored": Fault(
        sending_faults.begun_change_is_listed_as_it_is_stored, Invariants.begun_changes_are_listed_as_unknown
    ),
    "cancelled call is sent": Fault(sending_faults.cancelled_call_is_sent, Invariants.is_not_cancelled),
    "scopes are not checked": Fault(sending_faults.scopes_are_not_checked, Invariants.is_within_scopes),
    "lost call is repeated": Fault(sending_faults.lost_call_is_repeated, Invariants.is_allowed_by_policy),
    "create is sent again": Fault(sending_faults.create_is_sent_again, Invariants.changes_are_sent_once),
}
