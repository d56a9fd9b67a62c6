"""Three replicas behind nginx with one Valkey and an OpenID provider: nothing is lost, doubled or mixed up.

To run for a minute: FLEET_SECONDS=60 make test ARGS="tests/end_to_end/test_fleet.py -s"
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.crowd import Book, visited
from support.crowd_audit import problems
from support.fleet import Fleet, a_fleet
from support.team_world import META, modern, request
from support.valkey_server import ValkeyServer

from fastn_mcp.audit.log import AuditFile
from fastn_mcp.build.ledger import ledger_at
from fastn_mcp.guard.approval.terminal_approvals import TerminalApprovals
from fastn_mcp.runtime import System

pytestmark = [pytest.mark.long, pytest.mark.anyio]

SECONDS = float(os.environ.get("FLEET_SECONDS", "15"))
CLIENTS = 200
KILLS_EVERY = min(10.0, SECONDS / 4)
"""Seconds."""
REPEATS = 50
CALLS = 200
NO_FORMS: dict[str, Any] = {**META, "io.modelcontextprotocol/clientCapabilities": {}}


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Generator[Fleet]:
    with a_fleet(tmp_path_factory.mktemp("fleet"), valkey.url()) as made:
        yield made


async def workflow(fleet: Fleet) -> str:
    """Return the id of a workflow that runs, which is the same in each account."""
    async with fleet.caller() as caller:
        found = await caller.result(fleet.token("acme"), "list_workflows", search="process-new-orders")
    return found["data"][0]["id"]


def desk(fleet: Fleet, folder: Path) -> TerminalApprovals:
    """Return the approvals of a terminal on the same ledger, where a person decides."""
    return TerminalApprovals(
        ledger_at(fleet.ledger, folder, System()), AuditFile(folder / "audit.jsonl", System()), System()
    )


async def killing(fleet: Fleet, until: float) -> None:
    """Kill and restart one replica after another."""
    for replica in fleet.replicas * 100:
        await anyio.sleep(KILLS_EVERY)
        if time.monotonic() >= until:
            return
        replica.kill()
        replica.start()


async def test_fleet_loses_nothing_while_replicas_are_killed(fleet: Fleet, tmp_path: Path) -> None:
    person, book, runs = desk(fleet, tmp_path), Book(), await workflow(fleet)
    began = time.monotonic()
    await visited(fleet, person, book, runs, CLIENTS, SECONDS, partial(killing, fleet))
    summary = Counter(kills=sum(replica.killed for replica in fleet.replicas), **book.calls)
    found = await problems(fleet, book, person.ledger, summary)
    await person.ledger.aclose()
    sys.stdout.write(f"\n{CLIENTS} clients, {time.monotonic() - began:.0f} s: {dict(summary)}\n")
    assert found == []
    for what in ("kills", "rows", "approved and made", "begun on one and finished on another"):
        assert summary[what] > 0, what


async def test_fifty_repeats_over_three_replicas_send_one_request(fleet: Fleet, tmp_path: Path) -> None:
    person, runs, results = desk(fleet, tmp_path), await workflow(fleet), list[dict[str, Any]]()
    body = request("run_workflow", {"workflow_id": runs, "input": {"of": "fifty"}}, _meta=NO_FORMS)
    token = fleet.token("acme", "fifty")
    async with fleet.caller() as caller:

        async def call() -> None:
            answer = (await caller.ask(token, body, **modern("run_workflow"))).json()
            results.append(answer["result"]["structuredContent"])

        await call()
        assert results.pop()["status"] == "approval_required"
        waiting = await person.ledger.waiting(person.system.timestamp())
        (grant,) = [one for one in waiting if one.principal.endswith("|acme-fifty")]
        assert "Approved" in await person.approve(grant)
        async with anyio.create_task_group() as tasks:
            for _ in range(REPEATS):
                tasks.start_soon(call)
    await person.ledger.aclose()
    assert len(results) == REPEATS
    assert sum("done" in result for result in results) == 1
    assert {result["outcome"] for result in results if "done" not in result} <= {"refused", "approval_required"}
    heard = [request for request in fleet.fastns["acme"].heard() if request["body"] == {"input": {"of": "fifty"}}]
    assert len(heard) == 1


async def test_interleaved_tenants_over_three_replicas_stay_separate(fleet: Fleet) -> None:
    seen: dict[str, list[str]] = {tenant: [] for tenant in fleet.fastns}
    tokens = {tenant: fleet.token(tenant, "reader") for tenant in seen}
    async with fleet.caller() as caller:
        for tenant in seen:
            await caller.result(tokens[tenant], "create_customer", name=f"Only At {tenant}")

        async def share(tenant: str) -> None:
            for _ in range(CALLS // 10):
                found = await caller.result(tokens[tenant], "list_customers", search="Only At")
                seen[tenant].append(json.dumps([row["name"] for row in found["data"]]))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                for tenant in seen:
                    tasks.start_soon(share, tenant)
    assert seen == {tenant: [f'["Only At {tenant}"]'] * CALLS for tenant in seen}
