"""Record the intent of a call before it is sent, and its outcome afterwards."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from pydantic import JsonValue

from fastn_mcp.audit.log import AuditEvent, AuditFile, LogEntry, about, named, showable, written
from fastn_mcp.client.cost import spent
from fastn_mcp.errors import Declined, FastnError
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.identity import account_name
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.question import Question
from fastn_mcp.policy.asker import Asker
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import quote
from fastn_mcp.runtime import System
from fastn_mcp.tools.related_reads import own_label
from fastn_mcp.tools.tool import Effect, Tool

log = logging.getLogger(__name__)


class Watch(Protocol):
    """Observer of the events in this process. Never raises."""

    def entry(self, line: Mapping[str, JsonValue]) -> None:
        """Handle an audit entry, or an unrecorded event of the same form without `n` and `hash`."""
        ...

    def read(self) -> None:
        """Handle a read."""
        ...


async def record_expired(
    requests: Ledger,
    account: str,
    now: float,
    record: Callable[[AuditEvent, ApprovalRequest, str | None], None],
) -> None:
    """Close the expired requests of an account and record each once, by the process that closed it."""
    for request in await requests.expire(account, now):
        record(AuditEvent.EXPIRED, request, None)


def record_fact(audit: AuditFile, entry: LogEntry) -> None:
    """Record what has happened already: a failure is only logged. The next send is audited too, or refused."""
    try:
        audit.record(entry)
    except FastnError as error:
        what = " ".join(filter(None, (entry.event.value, entry.outcome)))
        log.error("the entry %s of %s could not be audited: %s", what, entry.tool, error.what)


def decision_entry(event: AuditEvent, request: ApprovalRequest, by: str, message: str | None = None) -> LogEntry:
    """Return an entry about a request: decided by a person on the channel `by`, or ended without a decision."""
    question = request.question
    name = None if question.target is None else question.name
    return LogEntry(
        event,
        request.principal,
        account=account_name(request.account),
        tool=request.tool,
        target=request.target,
        arguments=None if question.calls else showable(question.arguments),
        effect=question.effect.value,
        decision=request.required,
        approved_by=None if event in (AuditEvent.EXPIRED, AuditEvent.STOPPED) else by,
        grant=request.id,
        message=message,
        principal_name=request.person,
        client=request.client or None,
        client_name=request.client_name or None,
        name=named(name),
    )


class Recorder:
    """Records calls on one account. Reads are not recorded because they change nothing."""

    def __init__(self, audit: AuditFile, account: str, system: System, watch: Watch | None = None) -> None:
        """Send unrecorded events to `watch`; the audit log sends it the recorded ones."""
        self._audit = audit
        self._account = account
        self._system = system
        self._watch = watch

    async def anchor(self) -> None:
        """Store the newest audit entry in the ledger. Raises a `Refused` if that or the export fails."""
        self._audit.check_exported()
        await self._audit.anchor()

    async def settle(self) -> None:
        """Store the newest audit entry after a call. Failures are logged."""
        await self._audit.settle()

    def read(self) -> None:
        """Report a read to `watch`."""
        if self._watch is not None:
            self._watch.read()

    def waits(self, call: Tool[Any], caller: Caller, question: Question) -> None:
        """Report a call that waits for a decision. Its request is already recorded, perhaps by another process."""
        if self._watch is not None:
            entry = about(AuditEvent.ASKED, call, caller.asker, self._account)
            known = replace(entry, effect=question.effect.value, name=named(question.name), arguments=None)
            self._watch.entry(written(known, self._system))

    def intent(self, current: Evaluation, change: Change, asker: Asker) -> str | None:
        """Record that a call is about to be sent, and return its entry. Raises a `Refused` if that fails."""
        if current.effect is Effect.READ:
            return None
        code, _, _ = change.approved_by.partition(": ")
        return self._audit.record(
            replace(
                about(AuditEvent.INTENT, current.call, asker, self._account),
                **_in_effect(current),
                effect=current.effect.value,
                decision=current.verdict.decision.value,
                rule=current.verdict.rule,
                approved_by=code,
                grant=_grant_of(change),
                name=named(current.name),
                change=change.id,
            )
        )

    def outcome(
        self,
        current: Evaluation,
        change: Change,
        asker: Asker,
        *,
        intent: str,
        outcome: str,
        began: float,
        message: str | None = None,
        result: FastnObject | None = None,
    ) -> None:
        """Record the outcome of a call whose `intent` was recorded when the monotonic clock read `began`."""
        id_ = _id(result)
        has_new_name = current.name is None and id_ is not None and current.call.target in (None, id_)
        label = own_label(current.call, result) if has_new_name else None
        cost = spent.get()
        entry = replace(
            about(AuditEvent.OUTCOME, current.call, asker, self._account),
            effect=current.effect.value,
            grant=_grant_of(change),
            of=intent,
            outcome=outcome,
            duration_ms=round((self._system.monotonic() - began) * 1000, 1),
            requests=None if cost is None else cost.unrecorded(),
            message=message,
            target=current.call.target or id_,
            name=named(str(label)) if label else None,
        )
        record_fact(self._audit, replace(entry, arguments=None))

    def asked(self, evaluation: Evaluation, request: ApprovalRequest) -> None:
        """Record an approval request."""
        verdict = evaluation.verdict
        entry = about(AuditEvent.ASKED, evaluation.tool, request.asker, self._account)
        facts = {"decision": verdict.decision.value, "rule": verdict.rule, "effect": evaluation.effect.value}
        facts |= {} if evaluation.is_list else _in_effect(evaluation)
        self._audit.record(replace(entry, grant=request.id, name=named(evaluation.name), **facts))

    def agreed(self, tool: Tool[Any], request: ApprovalRequest, by: str) -> None:
        """Record the approval of a list, whose calls are sent one by one. Raises a `Refused`."""
        agreed = about(AuditEvent.AGREED, tool, request.asker, self._account)
        self._audit.record(replace(agreed, decision=request.required, approved_by=by, grant=request.id, arguments=None))

    def decided(self, event: AuditEvent, request: ApprovalRequest, note: str | None, by: str = "local_page") -> None:
        """Record a decision on a channel, by default the approval page, or an expired request."""
        record_fact(self._audit, decision_entry(event, request, by, note))

    def not_sent(self, call: Tool[Any], caller: Caller, error: FastnError) -> None:
        """Record why a call was not sent."""
        event = AuditEvent.DECLINED if isinstance(error, Declined) else AuditEvent.REFUSED
        rule = error.facts.get("rule")
        note = error.facts.get("note")
        self._audit.record(
            replace(
                about(event, call, caller.asker, self._account),
                effect=call.effective.value,
                rule=rule if isinstance(rule, str) else None,
                outcome=error.outcome,
                message=f"{error.what} The person's note: {quote(note)}" if note else error.what,
            )
        )


def _grant_of(change: Change) -> str | None:
    """Return the approval of a change, with the place of its call in a list, or that it is a temporary approval."""
    if not change.approval:
        return None
    if change.approved_by.startswith("temporary_approval"):
        return f"{change.approval}.temporary"
    return f"{change.approval}.{change.number}" if change.number else change.approval


def _in_effect(current: Evaluation) -> dict[str, str]:
    """Return the environment and the customer of the request, as far as they are known."""
    effective = {"environment": current.resolved.environment, "customer": current.resolved.customer}
    return {name: ", ".join(each.values) for name, each in effective.items() if each.values}


def _id(result: FastnObject | None) -> str | None:
    """Return the id of the created resource, if the response has one."""
    value: object = getattr(result, "id", None)
    return str(value) if isinstance(value, (str, int)) else None
