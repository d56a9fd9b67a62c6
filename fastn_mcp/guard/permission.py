"""What permits calls: what an approval covers, and its use, in one step with the beginning of a change."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pydantic import JsonValue

from fastn_mcp.account.resolve import read_label
from fastn_mcp.client.cost import received
from fastn_mcp.client.targets import read_target
from fastn_mcp.errors import Declined, FastnError, NotSent, Refused, TargetChanged
from fastn_mcp.guard.approval_form import BY_SEVERAL, VERIFIED, sent_words, used_up
from fastn_mcp.guard.budgets import Budgets
from fastn_mcp.guard.evaluation import Evaluation, refusal
from fastn_mcp.guard.journal import IDEMPOTENT, UNSETTLED, ChangeJournal
from fastn_mcp.guard.stops import Stops
from fastn_mcp.guard.undo import without_secrets
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.change_start import StartResult, UsageRate
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision
from fastn_mcp.records.formats import stamp
from fastn_mcp.runtime import System, work_on
from fastn_mcp.tools.operation import Send
from fastn_mcp.tools.related_reads import fields_sent
from fastn_mcp.tools.tool import Effect


@dataclass(frozen=True, slots=True)
class Permission:
    """What permits the calls of an evaluation. Nothing is used up yet."""

    by: str
    """`policy`, `plan`, `temporary_approval`, or how people approved it, such as `client_form`."""
    request: ApprovalRequest | None = None
    """The request that people approved, for all calls of the evaluation."""
    given_by: ApprovalRequest | None = None
    """The request whose temporary approval covers the call."""
    has_waited: bool = False
    """Whether the calls have to be judged again, since time has passed while a person decided."""

    @property
    def detail(self) -> str:
        """The people who approved it, one per line, if they are known, or how a temporary approval was given."""
        if self.given_by is not None:
            return self.given_by.by or ""
        return "\n".join(self.request.people) if self.request is not None and self.by in (BY_SEVERAL, VERIFIED) else ""


def covers(request: ApprovalRequest, calls: Iterable[Evaluation]) -> bool:
    """Whether the request still covers these calls and was used for none of them."""
    return all(each.id not in request.used and covers_call(request, each) for each in calls)


def covers_call(request: ApprovalRequest, current: Evaluation) -> bool:
    """Whether the binding is the same, there are no more dependents, and the policy is no stricter than before."""
    before = request.calls.get(current.id)
    verdict = current.verdict
    is_stricter = Decision(request.required).rank < verdict.decision.rank
    if before is None or is_stricter:
        return False
    now = current.bound()
    is_same = before.binding == now.binding and (before.is_unsettled or not now.is_unsettled)
    return is_same and _no_more(now.dependents, before.dependents)


_RUN_KIND = "executions"
"""Past runs. Their number grows by itself while a person decides, so only the first one voids an approval."""


def _no_more(now: Mapping[str, float | None], asked_about: Mapping[str, float | None]) -> bool:
    """Whether there are no more dependents of any kind than were shown. A kind shown as not checked covers any number;
    a kind that was checked then and cannot be checked now fails."""
    for kind, count in now.items():
        before = asked_about.get(kind, 0.0)
        grows = kind.endswith(_RUN_KIND) and before
        if before is not None and (count is None or (count > before and not grows)):
            return False
    return True


class Permissions:
    """Checks what permits the calls of one account right before they are sent, and uses it up as they begin."""

    def __init__(self, budgets: Budgets, journal: ChangeJournal, ledger: Ledger, stops: Stops, system: System) -> None:
        self._budgets = budgets
        self._journal = journal
        self._ledger = ledger
        self._stops = stops
        self._system = system

    async def still_covers(self, permission: Permission, evaluation: Evaluation) -> bool:
        """Return whether what permits these calls covers them as they are now.

        An approval does not, and becomes void, if the target, its dependents or the policy changed since it was
        requested.
        """
        request = permission.request
        if request is None or (covers(request, evaluation.calls) and request.is_approved_enough):
            return True
        await self._ledger.void(request.id, RequestState.STALE, self._system.timestamp())
        return False

    async def check_stops(self, permission: Permission, asker: Asker) -> int:
        """Raise a `Refused` if a stop holds, or made the approval void. Return the epoch that the call outlives."""
        approved = permission.request or permission.given_by
        if approved is None:
            return await self._stops.check(asker)
        return await self._stops.check(asker, approved.stop_epoch, approved.asker)

    async def begin(
        self, change: Change, permission: Permission, current: Evaluation, evaluation: Evaluation, asker: Asker
    ) -> bool:
        """Use up what permits a call, count it, and record that it begins, in one step: all of it or nothing.

        False if a budget, a plan entry or a temporary approval allowed it, and is used up or has ended meanwhile: the
        call has to be judged again. Raises a `FastnError` if it may not be sent now.
        """
        request = permission.request
        verdict = current.verdict
        if request is not None and not covers_call(request, current):
            raise target_changed("Check it, then call the list again for a new approval request for the rest.")
        if request is None and verdict.decision is Decision.DENY:
            raise refusal(current, self._budgets.policy)
        if request is None and verdict.decision is not Decision.ALLOW:
            raise TargetChanged(
                f"{current.call.tool_name()} now needs an approval ({verdict.rule}); it did not when the list started.",
                "Call the list again. A person is asked about the remaining calls.",
            )
        started = await self._journal.begin(
            change,
            undoes=evaluation.undoes,
            limits=self._budgets.limits(current, asker, is_approved=request is not None),
            rate=self._rate(permission, current, evaluation, asker),
            approval_id="" if request is None else request.id,
            temporary_approval_id="" if permission.given_by is None else permission.given_by.id,
        )
        match started:
            case StartResult.STARTED:
                return True
            case StartResult.STARTED_BEFORE:
                raise NotSent(
                    "It was already begun by another process or another call of the same list.",
                    "Call the list again later to see the outcome.",
                )
            case StartResult.UNDONE:
                raise NotSent("This change has already been undone, or is being undone now.", "See list_changes.")
            case StartResult.NO_APPROVAL:
                raise await self._used_up(request)
            case StartResult.NO_RATE:
                await self._budgets.check_rate(Effect.DESTROY, asker.counted)
            case StartResult.NO_LIMIT if request is not None:
                raise _budget_used_up(current.effects)
            case _:
                pass
        return False

    def _rate(
        self, permission: Permission, current: Evaluation, evaluation: Evaluation, asker: Asker
    ) -> UsageRate | None:
        """Return the rate of deletions that a call counts in: one approval of a list once, and no call of a plan."""
        if permission.request is not None:
            return self._budgets.rate(evaluation.effect, asker)
        return self._budgets.rate(current.effect, asker) if current.verdict.permit is None else None

    async def _used_up(self, request: ApprovalRequest | None) -> FastnError:
        """Return why an approval cannot be used: it was used before, has expired or was withdrawn."""
        current = None if request is None else await self._ledger.find(request.id)
        if current is not None and current.state is RequestState.WITHDRAWN:
            return declined(current.note or "", request=current)
        return used_up()


def _budget_used_up(effects: Sequence[Effect]) -> Refused:
    named = " or ".join(each.value for each in effects)
    return Refused(f"The budget for {named} calls is used up.", "A person can raise it in the policy.")


async def new_change(
    current: Evaluation,
    permission: Permission,
    list_id: str,
    asker: Asker,
    account: str,
    read: Send,
    deadline: float,
    system: System,
    stopped: tuple[str, ...] = (),
) -> Change:
    """Return the journal entry of a call that is about to be sent, with its target as read now if it was not yet.

    `deadline` is the timeout of the call in seconds. `stopped`: the triggers that the call switches off.
    """
    call = current.call
    target = current.resolved.target
    if target is None and call.target is not None:
        with suppress(FastnError):  # the call is made, but cannot be undone
            target = await read_target(call, read)
    label = current.name or await read_label(call, target, read)
    before = None if target is None else await work_on(received(), partial(without_secrets, target))
    now = system.timestamp()
    is_idempotent = call.route.method in IDEMPOTENT
    approved = permission.request or permission.given_by
    return Change(
        id=f"chg_{system.token()}",
        principal=asker.principal,
        account=account,
        tool=call.tool_name(),
        arguments=call.shown(),
        target=call.target,
        name=str(label) if label else None,
        before=before,
        sent=fields_sent(call),
        at=now,
        approved_by=f"{permission.by}: {permission.detail}" if permission.detail else permission.by,
        repeat_id="" if is_idempotent else current.repeat_id or current.id,
        unsettled_until=0.0 if is_idempotent else now + deadline + UNSETTLED,
        stopped_triggers=stopped,
        list_id=list_id,
        number=current.number if list_id else 0,
        call_id=current.id,
        binding=current.binding,
        approval=approved.id if approved is not None else "",
    )


def target_changed(next_step: str, facts: Mapping[str, JsonValue] | None = None) -> TargetChanged:
    """Return the refusal of a call whose target, dependents or policy changed since its approval was requested."""
    return TargetChanged("The target is no longer in the state that was approved.", next_step, facts=facts)


DECLINED_NEXT_STEP = "Do not repeat it; ask what to do instead."


def declined(note: str = "", why: str = "", request: ApprovalRequest | None = None) -> Declined:
    """Return the refusal of a call that a person declined. `request`: it stays declined for as long as that lives."""
    if why:
        return Declined(
            f"{why} That counts as declined.",
            "If the person wants it after all, call again for a new approval request.",
        )
    facts: dict[str, JsonValue] = {"note": note} if note else {}
    if request is None:
        return Declined("A person declined this call.", DECLINED_NEXT_STEP, facts=facts)
    what = "A person declined this call."
    certainty = None
    if request.state is RequestState.WITHDRAWN:
        what = "A person withdrew their approval."
        certainty = sent_words(request)
    facts["declined_until"] = ends = stamp(datetime.fromtimestamp(request.expires, UTC))
    holds = f"The same call stays declined until {ends}. {DECLINED_NEXT_STEP}"
    return Declined(what, holds, certainty=certainty, facts=facts)
