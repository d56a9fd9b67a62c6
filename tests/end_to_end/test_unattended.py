"""An unattended run with a signed plan, through a real client and server, whatever the agent tries."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from support.server_process import ERAS, Person, Upstream, approving, body, each_era, environment, stdio
from support.signed_plans import plan_text, sign_plan

from fastn_mcp.build.composition import plan_account_of
from fastn_mcp.config.load import load


class Run:
    def __init__(self, upstream: Upstream, folder: Path) -> None:
        self.upstream = upstream
        self.plan = folder / "plan.toml"
        self.report = folder / "report.json"
        self.keys = folder / "plan-keys.toml"
        self.environment = environment(upstream)

    def sign(self, targets: list[str], seconds: float = 3_600) -> None:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        allowed = "".join(f'[[allow]]\ntool = "delete_customer"\ntarget = "{target}"\n' for target in targets)
        account = plan_account_of(load({}, self.environment, None))
        sign_plan(self.plan, plan_text(account.name, allowed, until), account)

    def server(self, era: str, person: Person | None = None) -> Client:
        flags = ("--mode", "unattended", "--plan", str(self.plan), "--report", str(self.report))
        env = self.environment | {"FASTN_PLAN_KEYS": str(self.keys)}
        return Client(stdio(env, *flags), mode=ERAS[era], elicitation_callback=person)

    def deletions(self) -> list[str]:
        return [change.rsplit("/", 1)[1] for change in self.upstream.changes() if change.startswith("DELETE")]


@pytest.fixture
def run(upstream: Upstream, tmp_path: Path) -> Run:
    return Run(upstream, tmp_path)


def together(*targets: str) -> dict[str, Any]:
    changes = [{"tool": "delete_customer", "arguments": {"customer_id": target}} for target in targets]
    return {"changes": changes}


@each_era
async def test_plan_allows_exactly_its_calls_and_the_report_lists_all(era: str, run: Run, upstream: Upstream) -> None:
    first, second, third, *_ = (row["id"] for row in upstream.ask("GET", "customers"))
    run.sign([first, second])
    person = Person(approving)
    outcomes: list[str] = []

    async def attempt(client: Client, tool: str, arguments: dict[str, Any]) -> None:
        answer = body(await client.call_tool(tool, arguments))
        outcomes.append("done" if "done" in answer else answer["outcome"])

    async with run.server(era, person) as client, anyio.create_task_group() as group:
        for target in [first, second, third] * 4:
            group.start_soon(attempt, client, "delete_customer", {"customer_id": target})
        group.start_soon(attempt, client, "delete_workflow", {"workflow_id": "wf_0d93ee5b1f62"})
        group.start_soon(attempt, client, "create_api_key", {"name": "mine", "permissions": "Full access"})
        group.start_soon(attempt, client, "undo_change", {"change_id": "chg_1"})
        group.start_soon(attempt, client, "update_customer", {"customer_id": first, "plan": "Free"})
        group.start_soon(attempt, client, "apply_changes", together(second, third))
    assert sorted(run.deletions()) == sorted([first, second])
    assert outcomes.count("done") == 2
    report = json.loads(run.report.read_text())
    text = json.dumps(report)
    assert report["counts"]["done"] == 2
    assert "no plan" in text
    # All but the undo of an unknown change, which made no call.
    tried = sum(report["counts"][group] for group in ("done", "refused", "failed"))
    assert tried == sum(map(len, report["calls"].values())) == len(outcomes) - 1
    async with run.server(era, person) as client:
        for target in (first, second, third):
            await attempt(client, "delete_customer", {"customer_id": target})
    assert sorted(run.deletions()) == sorted([first, second])
    assert person.asked == []
