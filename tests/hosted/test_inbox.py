"""What waits for one person, over a ledger that several tenants share, and that is lost at a bad moment. Issue 8."""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastn_mcp.guard.audit.log import Audit, AuditFile, entries
from fastn_mcp.guard.ledger.ledger import Grant, Ledger, LedgerLost, Vote
from fastn_mcp.guard.ledger.sqlite import SqliteLedger
from fastn_mcp.hosted.inbox import Approvals, ApproverRights, ApproverRule, SignedInPerson, TeamInbox
from fastn_mcp.hosted.team_config import Match, SecretRef, Team, TeamLimits, Tenant
from fastn_mcp.hosted.tenants import CallerAccount, Tenants
from fastn_mcp.hosted.tokens import Trust
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect

pytestmark = pytest.mark.anyio

ISSUER = "https://issuer.example"
NOW = 1_795_570_835.5


class Shared(SqliteLedger):
    """A ledger that counts what is read of it, and can be lost as soon as a vote was counted."""

    lost = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.reads = Counter[str]()

    async def waiting(self, now: float) -> list[Grant]:
        self.reads["waiting"] += 1
        return await super().waiting(now)

    async def find(self, grant: str) -> Grant | None:
        self.reads["find"] += 1
        return await super().find(grant)

    async def votes(self, grant: str) -> list[Vote]:
        if self.lost:
            raise LedgerLost("it is gone")
        return await super().votes(grant)


@dataclass
class Account:
    """An account about whose calls people decide."""

    account: str
    ledger: Ledger
    audit: Audit

    def effect_of(self, tool: str, arguments: Mapping[str, Any]) -> Effect | None:  # noqa: ARG002
        return None

    async def aclose(self) -> None:
        """It has nothing of its own."""


def grant(account: str) -> Grant:
    return Grant(
        id=f"g-{account}", principal=f"{ISSUER}|anna", account=account, tool="delete_workflow", target="wf_1",
        call="call", binding="binding", asks="confirm", expected=None, scope=False, elsewhere=True,
        card={"effect": "trash"}, lines=("delete_workflow",), created=NOW, expires=NOW + 600,
    )  # fmt: skip


@dataclass
class Company:
    """As many tenants on one ledger, and an approver of all of them."""

    folder: Path
    names: list[str]
    ledger: Shared = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Shared(self.folder / "ledger.db")

    @asynccontextmanager
    async def inbox(self) -> AsyncGenerator[TeamInbox]:
        nobody = Match(frozenset({"nobody"}), (), {})
        rule = ApproverRule(nobody, frozenset(self.names), frozenset(effect.value for effect in Effect))
        approvals = Approvals("https://here.example/approvals", "page", SecretRef(None, "X"), (), False, 60.0, (rule,))
        served = tuple(Tenant(name, nobody, False, None, {}, {}) for name in self.names)
        trust = Trust(ISSUER, "fastn", "https://here.example", ("RS256",), 0.0)
        team = Team("https://here.example/mcp", trust, (), (), "groups", TeamLimits(), served, approvals)
        standing = ApproverRights(approvals, SignedInPerson(ISSUER, "dana", "Dana", None, (rule.name,)))
        tenants = Tenants(self._opened, team.bounds, System())
        yield TeamInbox(standing, team, tenants, self.ledger.revision, System())
        await tenants.aclose()
        await self.ledger.aclose()

    def _opened(self, tenant: Tenant, _: CallerAccount | None) -> Account:
        return Account(tenant.name, self.ledger, AuditFile(self.folder / f"{tenant.name}.jsonl", System()))


async def test_what_waits_on_a_ledger_that_tenants_share_is_read_once_for_all(tmp_path: Path) -> None:
    """Issue 9: an approver of many tenants does not read what waits of all of them for each."""
    names = [f"t{number:02}" for number in range(20)]
    team = Company(tmp_path, names)
    async with team.inbox() as inbox:
        for name in names:
            await team.ledger.open(grant(name))
        assert [lying.grant.account for lying in await inbox.waiting(NOW)] == names
        assert await inbox.find("g-t19") is not None
        assert await inbox.find("g-t20") is None
        assert team.ledger.reads == {"waiting": 1, "find": 2}


@pytest.mark.parametrize("yes", [True, False])
async def test_a_decision_that_counts_is_recorded_though_the_ledger_is_lost_at_once(yes: bool, tmp_path: Path) -> None:
    """THREATS T24: who approved what stands in the audit, whatever comes after."""
    team = Company(tmp_path, ["acme"])
    async with team.inbox() as inbox:
        await team.ledger.open(grant("acme"))
        (lying,) = await inbox.waiting(NOW)
        team.ledger.lost = True
        with pytest.raises(LedgerLost):
            await (inbox.approve(lying, NOW) if yes else inbox.decline(lying, NOW, "No."))
    (line,) = entries(tmp_path / "acme.jsonl")
    assert (line["event"], line["approver"]) == ("approved" if yes else "declined", f"{ISSUER}|dana")
