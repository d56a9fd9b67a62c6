"""Tests of profiles: changes name their profile, and approvals are valid only for one account."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.clock import Clock
from support.decisions import moved
from support.direct_sandbox import Fastn
from support.faulty_sandbox import FaultySandbox
from support.policy_files import CONFIRMING
from support.sensible_calls import sensible
from support.stores import close
from support.world import FormNow, yes

from fastn_mcp.audit.log import FILE as AUDIT
from fastn_mcp.build.composition import AccountParts, account_of, assemble
from fastn_mcp.build.startup import Process, Sandboxed
from fastn_mcp.config.model import Settings
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.guard.approval_form import PendingApproval, form_text
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import FILE as LEDGER
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.undo_change import ListChanges
from fastn_mcp.runtime import System
from fastn_mcp.server.rendering import render
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

ALONE = Caller(Asker(), None)
ACME = {"profile": "acme", "env": "test", "tenant_id": "t-1"}


class Desk:
    """Profiles that share one folder and one account of the sandbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "sandbox.json"
        self.fastn = Fastn(FaultySandbox(System().now, file=self.file))

    def parts(self, **settings: Any) -> AccountParts:
        chosen = Settings.model_validate({"api_key": KEY, "base_url": "http://localhost", **settings})
        state = self.folder / "state"
        return assemble(chosen, Policy(rules=CONFIRMING), state, Process({}, Sandboxed(self.file)))

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "state" / AUDIT).read_text().splitlines()]

    async def approve(self) -> None:
        ledger = Ledger(SqliteStore(str(self.folder / "state" / LEDGER)))
        now = System().now().timestamp()
        for grant in await ledger.waiting(now):
            assert await moved(ledger, grant.id, [RequestState.OPEN], RequestState.APPROVED, now, by="terminal")
        close(ledger)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_profile_is_in_request_result_and_audit_of_every_change(desk: Desk) -> None:
    changes = [call for call in sensible(desk.fastn) if call.effect is not Effect.READ]
    parts = desk.parts(**ACME)
    named = "acme at localhost, environment test, tenant t-1"
    assert account_of(parts.settings) == named
    for call in changes:
        form = FormNow(yes, Clock(), is_terminal=True)
        assert (await parts.dispatch.preview(call, ALONE)).data_for_agent()["account"] == named
        done = await parts.dispatch(call, Caller(Asker(), form))
        assert isinstance(done, Done), call.tool_name()
        assert named in form_text(form.asked[-1]), call.tool_name()
        body: Any = render(call, done.result, parts.label, parts.dispatch.receipt(done.change))
        assert body["account"] == {"profile": "acme", "host": "localhost", "environment": "test"}, call.tool_name()
    await parts.aclose()
    entries = desk.audit()
    for call in changes:
        assert {"asked", "intent", "outcome"} <= {e["event"] for e in entries if e["tool"] == call.tool_name()}
    assert {entry["account"] for entry in entries} == {named}


OTHERS = {
    "another profile": {"profile": "globex"},
    "another environment": {"env": "live"},
    "another tenant": {"tenant_id": "t-2"},
    "another space": {"space_id": "s-2"},
    "another organisation": {"end_org_id": "o-2"},
    "another path": {"base_url": "http://localhost/base"},
    "another key of the same name": {"api_key": "fsk_test_viewer"},
}


@pytest.mark.parametrize("what", OTHERS)
async def test_approval_is_bound_to_the_account(what: str, desk: Desk) -> None:
    call: Operation[Any] = next(c for c in sensible(desk.fastn) if c.tool_name() == "create_customer")
    ours, theirs = desk.parts(**ACME), desk.parts(**(ACME | OTHERS[what]))
    assert isinstance(await ours.dispatch(call, ALONE), PendingApproval)
    await desk.approve()
    assert isinstance(await theirs.dispatch(call, ALONE), PendingApproval)
    assert isinstance(await ours.dispatch(call, ALONE), Done)
    assert isinstance(await ours.dispatch(call, ALONE), PendingApproval)
    await ours.aclose()
    await theirs.aclose()


async def test_changes_are_listed_by_profile(desk: Desk) -> None:
    call: Operation[Any] = next(c for c in sensible(desk.fastn) if c.tool_name() == "update_customer")
    ours, theirs = desk.parts(**ACME), desk.parts(**(ACME | {"profile": "globex"}))
    form = FormNow(yes, Clock(), is_terminal=True)
    assert isinstance(await ours.dispatch(call, Caller(Asker(), form)), Done)
    for parts, count in ((ours, 1), (theirs, 0)):
        listed = await parts.dispatch(ListChanges(), ALONE)
        assert isinstance(listed, Done)
        assert len(listed.result.model_dump()["changes"]) == count
        await parts.aclose()
