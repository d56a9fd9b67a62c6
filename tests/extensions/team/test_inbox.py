"""The inbox of one approver over a ledger that several tenants share and that can be lost."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import anyio.lowlevel
import pytest
from support.audit_entries import entries
from support.questions import a_question
from support.stores import change

from fastn_mcp.audit.log import AuditFile
from fastn_mcp.channels.page.inbox import InboxAccount, PendingRequest
from fastn_mcp.errors import Refused
from fastn_mcp.extensions.team.approvers import SignedInPerson, TeamInbox
from fastn_mcp.extensions.team.team_config import ApprovalsSection, ApproverRule, Team, Tenant
from fastn_mcp.extensions.team.tenants import CallerAccount, ConcurrencyLimit, TenantAccount, Tenants
from fastn_mcp.guard.approval.votes import unrecorded
from fastn_mcp.ledger.approval_request import ApprovalRequest, ShownCall
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.asker import Asker
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect

ISSUER = "https://issuer.example"
NOW = 1_795_570_835.5


class Shared(Ledger):
    """A ledger that counts its reads and can be lost right after a vote was counted."""

    lost = False

    def __init__(self, path: Path) -> None:
        super().__init__(SqliteStore(str(path)))
        self.reads = Counter[str]()

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        self.reads["waiting"] += 1
        return await super().waiting(now)

    async def find(self, approval_id: str) -> ApprovalRequest | None:
        if self.lost:
            raise LedgerLost("it is gone")
        self.reads["find"] += 1
        return await super().find(approval_id)


def grant(account: str) -> ApprovalRequest:
    return ApprovalRequest(
        id=f"g-{account}", principal=f"{ISSUER}|anna", account=account, tenant=account,
        tool="delete_workflow", target="wf_1", call="call",
        calls={"call 1": ShownCall("binding", {})}, required="confirm", expected=None,
        out_of_band=True, question=a_question(tool="delete_workflow", effect=Effect.TRASH),
        created=NOW, expires=NOW + 600,
    )  # fmt: skip


def team_of(*rules: ApproverRule, names: Sequence[str] = ("acme", "globex"), own: bool = True) -> Team:
    fields: dict[str, Any] = {"client_id": "page", "client_secret_env": "X", "own": own, "approver": list(rules)}
    approvals = ApprovalsSection.model_validate(fields)
    served = [Tenant(name=name, subjects=["nobody"]) for name in names]
    return Team(url="https://here.example/mcp", issuer=ISSUER, tenant=served, approvals=approvals)


def inbox_of_dana(*rules: ApproverRule) -> TeamInbox:
    dana = SignedInPerson(ISSUER, "dana", "Dana", None, tuple(rule.digest for rule in rules))
    return TeamInbox(team_of(*rules), dana, cast("Any", None), System())


@dataclass
class Company:
    """Several tenants on one ledger, with an approver of all of them."""

    folder: Path
    names: list[str]
    ledger: Shared = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Shared(self.folder / "ledger.db")

    @asynccontextmanager
    async def inbox(self, subject: str = "dana", names: Sequence[str] | None = None) -> AsyncGenerator[TeamInbox]:
        rule = ApproverRule(subjects=["nobody"], tenants=self.names)
        team = team_of(rule, names=self.names, own=False)
        tenants = Tenants(self._opened, team.limits, System())
        person = SignedInPerson(ISSUER, subject, subject.title(), None, (rule.digest,) if names is None else ())
        yield TeamInbox(team, person, tenants, System(), self.ledger)
        await tenants.aclose()
        await self.ledger.aclose()

    def _opened(self, tenant: Tenant, _: CallerAccount | None) -> TenantAccount:
        audit, nothing = AuditFile(self.folder / f"{tenant.name}.jsonl", System()), cast(Any, None)
        undo = cast("Any", AnyUndo())
        inbox = InboxAccount(tenant.name, self.ledger, unrecorded, nothing, tenant.name, dispatch=undo)
        return TenantAccount(nothing, inbox, audit, ConcurrencyLimit(1, 0, 0), anyio.lowlevel.checkpoint)


async def test_shared_ledger_is_read_once_for_all_tenants(tmp_path: Path) -> None:
    names = [f"t{number:02}" for number in range(20)]
    team = Company(tmp_path, names)
    async with team.inbox() as inbox:
        for name in names:
            await team.ledger.open(grant(name))
        assert [pending.request.account for pending in await inbox.waiting(NOW)] == names
        assert await inbox.find("g-t19") is not None
        assert await inbox.find("g-t20") is None
        assert team.ledger.reads == {"waiting": 1, "find": 2}


async def test_tenants_of_one_account_do_not_share_their_requests(tmp_path: Path) -> None:
    """Two tenants with the same profile have one account, each with approvers of its own."""
    team = Company(tmp_path, ["acme"])
    async with team.inbox() as inbox:
        request = replace(grant("acme"), tenant="globex")
        await team.ledger.open(request)
        assert await inbox.waiting(NOW) == []
        assert await inbox.find(request.id) is None
        with pytest.raises(Refused, match="The account of this call cannot be opened at the moment"):
            await inbox.approve(PendingRequest(request), NOW)


@pytest.mark.parametrize("yes", [True, False])
async def test_decision_is_audited_if_the_ledger_is_lost(yes: bool, tmp_path: Path) -> None:
    team = Company(tmp_path, ["acme"])
    async with team.inbox() as inbox:
        await team.ledger.open(grant("acme"))
        (pending,) = await inbox.waiting(NOW)
        team.ledger.lost = True
        await (inbox.approve(pending, NOW) if yes else inbox.decline(pending, NOW, "No."))
        with pytest.raises(LedgerLost):
            await inbox.find("g-acme")
    (line,) = entries(tmp_path / "acme.jsonl")
    assert (line["event"], line["approver"]) == ("approved" if yes else "declined", f"{ISSUER}|dana")


@pytest.mark.parametrize("person", ["dana", "anna"])
async def test_approval_is_withdrawn_by_whoever_may_decline(tmp_path: Path, person: str) -> None:
    """Anna made the call. Others have to approve it, but anybody may withdraw their own. Only Dana may undo it."""
    team = Company(tmp_path, ["acme"])
    async with team.inbox() as dana, team.inbox(person) as inbox, team.inbox("eve", ()) as eve:
        await team.ledger.open(grant("acme"))
        (pending,) = await dana.waiting(NOW)
        await dana.approve(pending, NOW)
        assert await eve.decided(5) == []
        assert await eve.find(pending.request.id) is None
        assert [each.may_undo for each in await inbox.decided(5)] == [person == "dana"]
        with pytest.raises(Refused, match="You may not undo this change"):
            await inbox.undo(pending.request.id, "c1")
        taken_back = await inbox.withdraw(pending.request, NOW, "a mistake")
        assert isinstance(taken_back, ApprovalRequest)
        assert [each.by for each in await inbox.decided(5)] == ["you"]
    line = [*entries(tmp_path / "acme.jsonl")][-1]
    assert (line["event"], line["approver"], line["message"]) == ("withdrawn", f"{ISSUER}|{person}", "a mistake")


class AnyUndo:
    """An undo that would delete what was created."""

    def __init__(self) -> None:
        self.asked = list[Asker]()

    async def preview_undo(self, change: str, asker: Asker) -> Any:  # noqa: ARG002
        return a_question(effect=Effect.DESTROY)

    async def undo(self, change: str, asker: Asker) -> bool:  # noqa: ARG002
        self.asked.append(asker)
        return False


@pytest.mark.parametrize("covers", [False, True], ids=["a rule for writes", "a rule for both"])
async def test_undo_needs_a_rule_for_what_it_does(covers: bool) -> None:
    """Not only for what was done: the undo of a create is a deletion."""
    effects = ["write", "destroy"] if covers else ["write"]
    rule = ApproverRule.model_validate({"subjects": ["nobody"], "tenants": ["acme"], "effects": effects})
    team = team_of(rule)
    digests = (rule.digest, team.tenant[1].digest)
    dana = SignedInPerson(ISSUER, "dana", "Dana", "globex", digests, ("dana", "d@x.example"))
    inbox = TeamInbox(team, dana, cast("Any", None), System())
    ledger, undo, created = (
        Ledger(SqliteStore(":memory:")),
        AnyUndo(),
        replace(grant("a"), tenant="acme", question=a_question(effect=Effect.WRITE)),
    )
    await ledger.open(created)
    await ledger.begin(replace(change(), id="chg_1", approval=created.id))
    account = InboxAccount("a", ledger, unrecorded, cast("Any", None), "acme", dispatch=cast("Any", undo))

    async def accounts() -> AsyncIterator[InboxAccount]:
        yield account

    inbox.accounts = accounts  # pyright: ignore[reportAttributeAccessIssue]
    if covers:
        assert "is waiting for your approval" in await inbox.undo(created.id, "chg_1")
        assert undo.asked == [inbox.asker("acme")]
    else:
        with pytest.raises(Refused, match="You may not undo this change"):
            await inbox.undo(created.id, "chg_1")
        assert undo.asked == []
    asked = replace(grant("a"), principal=dana.principal, question=a_question(effect=Effect.DESTROY), undoes="chg_1")
    assert (inbox.barred("acme", asked) is None) is covers
    own = replace(asked, undoes="")
    assert inbox.barred("acme", own) is not None
    assert inbox.barred("globex", own) is None


def test_approver_lifts_stops_of_their_tenants_only() -> None:
    rules = [ApproverRule(subjects=["nobody"], tenants=["acme"]), ApproverRule(subjects=["nobody"], stop=False)]
    inbox, stop = inbox_of_dana(*rules), Stop("s1", NOW, "Kim", is_operators=False)
    assert [inbox.may_stop(tenant) for tenant in ("acme", "globex", "")] == [True, False, False]
    allowed = {"tenant": "acme"}
    others: list[dict[str, str]] = [{}, {"tenant": "globex"}, {"person": "dana"}, {**allowed, "person": "dana"}]
    assert inbox.may_lift(replace(stop, **allowed))
    assert not any(inbox.may_lift(replace(stop, **each)) for each in others)


@pytest.mark.parametrize("may", [False, True])
def test_stop_of_an_operator_is_lifted_only_by_who_may(may: bool) -> None:
    rules = [ApproverRule(subjects=["nobody"], tenants=["acme"], lift_operator_stops=may), ApproverRule(groups=["g"])]
    inbox, stop = inbox_of_dana(*rules), Stop("s1", NOW, f"the terminal of {ISSUER}|kim")
    assert inbox.may_lift(replace(stop, tenant="acme")) is may
    assert not inbox.may_lift(replace(stop, tenant="globex"))
    assert inbox.may_lift(replace(stop, tenant="globex", is_operators=False))
