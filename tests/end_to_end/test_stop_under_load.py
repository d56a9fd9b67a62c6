"""`fastn-mcp stop` while a team's clients, waiting calls, batches and a planned run are at work."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from support.command_line import run_process
from support.fleet import Fleet, a_fastn, a_fleet
from support.signed_plans import plan_text, sign_plan
from support.team_world import NO_FORMS, Caller, modern, reply_of, request
from support.terminal import sitting
from support.valkey_server import ValkeyServer

from fastn_mcp.build.composition import plan_account_of
from fastn_mcp.config.load import load
from fastn_mcp.extensions.sandbox.auth import KEY

pytestmark = [pytest.mark.posix, pytest.mark.long]

CLIENTS, WAITING, BATCHES = 200, 64, 4
WAIT = 55
"""Seconds for which a call waits for a person: the most that is allowed, for a busy machine."""
QUIET = 3.0
"""Seconds after the stop in which nothing may arrive."""
MADE = {"done", "stopped", "incomplete", "broken", "unknown_outcome", "not_sent", "no ledger", "approval_required"}
"""What may become of a call: it was made, it was stopped, its replica was killed, or its wait was over before."""


@dataclass
class Users:
    """Clients of a fleet, and what became of their calls."""

    fleet: Fleet
    caller: Caller
    outcomes: "Counter[tuple[str, str]]"
    going: bool = True

    async def call(self, person: str, tool: str, **arguments: Any) -> str:
        body = request(tool, arguments, _meta=NO_FORMS) | {"id": 1}
        tenant = ("acme", "globex")[sum(map(ord, person)) % 2]
        try:
            answer = await self.caller.ask(self.fleet.token(tenant, person), body, **modern(tool))
            if not answer.is_success:
                return "broken"  # from the balancer, in place of a killed replica
            result = reply_of(answer)["result"]["structuredContent"]
        except (httpx2.TransportError, IndexError):
            return "broken"
        if "shared ledger" in result.get("message", ""):
            return "no ledger"  # a busy machine: nothing was sent
        return "done" if "done" in result else str(result["outcome"])

    async def creates(self, person: str) -> None:
        """Make changes that the policy allows, until they are stopped."""
        number = 0
        while self.going:
            number += 1
            outcome = await self.call(person, "create_customer", name=f"{person} {number}")
            self.outcomes["create", outcome] += 1
            if outcome == "stopped":
                return
            await anyio.sleep(0.5)

    async def waits(self, person: str, workflow: str) -> None:
        """Make a call that waits for a person who never decides."""
        self.outcomes["wait", await self.call(person, "run_workflow", workflow_id=workflow)] += 1

    async def batches(self, person: str) -> None:
        changes = [{"tool": "create_customer", "arguments": {"name": f"{person} {n}"}} for n in range(50)]
        self.outcomes["batch", await self.call(person, "apply_changes", changes=changes)] += 1


@contextmanager
def planned(folder: Path, at: str, ledger: Mapping[str, str]) -> Generator["subprocess.Popen[bytes]"]:
    """Run 2,000 calls that a signed plan allows, in a process of its own."""
    folder.mkdir()
    env = os.environ | ledger | {
        "FASTN_CONFIG": os.devnull, "FASTN_API_KEY": KEY, "FASTN_BASE_URL": at,
        "FASTN_PLAN_KEYS": str(folder / "plan-keys.toml"), "FASTN_STATE_DIR": str(folder / "state"),
    } | {name: value for name, value in ledger.items() if name == "FASTN_STATE_DIR"}  # fmt: skip
    plan, calls = folder / "plan.toml", folder / "calls.jsonl"
    create = {"tool": "create_customer"}
    calls.write_text(
        "".join(json.dumps(create | {"arguments": {"name": f"Planned {folder.name} {n}"}}) + "\n" for n in range(2000))
    )
    account = plan_account_of(load({}, env, None))
    allowed = '[[allow]]\ntool = "create_customer"\ncount = 2000\nwhen = { name = "Planned *" }\n'
    sign_plan(plan, plan_text(account.name, allowed), account)
    command = [sys.executable, "-m", "fastn_mcp", "--mode", "unattended", "--plan", str(plan), "run", str(calls)]
    command += ["--report", str(folder / "report.json")]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def command(name: str, env: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_process([sys.executable, "-m", "fastn_mcp", name, *arguments], os.environ | env)


def home(folder: Path) -> dict[str, str]:
    """Return the variables of a user who has nothing else on this machine."""
    return {"FASTN_CONFIG": os.devnull, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "other")}


def reported(folder: Path) -> set[str]:
    """Return the outcomes in the report of a planned run."""
    report = json.loads((folder / "report.json").read_text())
    return {call["outcome"] for calls in report["calls"].values() for call in calls}


def heard(addresses: list[str]) -> int:
    return sum(len(httpx2.get(f"{at}/heard", timeout=60).json()) for at in addresses)


async def reached(count: Callable[[], Awaitable[int]], least: int) -> None:
    with anyio.fail_after(120):
        while await count() < least:  # noqa: ASYNC110 - other processes
            await anyio.sleep(0.2)


async def at_work(fleet: Fleet, outcomes: "Counter[tuple[str, str]]", stop: Callable[[], Awaitable[None]]) -> None:
    """Let all clients call until somebody has stopped them. What became of the calls goes to `outcomes`."""
    async with fleet.caller(CLIENTS + WAITING + BATCHES) as caller, anyio.create_task_group() as tasks:
        users = Users(fleet, caller, outcomes)
        listed = await caller.result(fleet.token("acme"), "list_workflows", search="process-new-orders")
        for number in range(WAITING):
            tasks.start_soon(users.waits, f"waiting {number}", listed["data"][0]["id"])
        for number in range(CLIENTS):
            tasks.start_soon(users.creates, f"creating {number}")
        for number in range(BATCHES):
            tasks.start_soon(users.batches, f"batch {number}")
        await stop()
        users.going = False


@pytest.mark.parametrize("kills", [False, True], ids=["undisturbed", "a replica is killed"])
async def test_nothing_is_sent_after_a_stop_of_a_fleet(
    tmp_path: Path,
    valkey: ValkeyServer,
    kills: bool,
) -> None:
    ledger = {"FASTN_LEDGER": valkey.url(), **home(tmp_path), "FASTN_STATE_DIR": str(tmp_path / "operator")}
    limits = "calls = 200\nqueue = 600"
    secret = {"FASTN_STATE_SECRET": "a-secret-of-more-than-32-characters", "FASTN_LEDGER": ledger["FASTN_LEDGER"]}
    with (
        a_fleet(tmp_path, ledger["FASTN_LEDGER"], 2, limits, wait=WAIT) as fleet,
        a_fastn() as alone,
        planned(tmp_path / "plan", alone.at, secret) as plan,
    ):
        addresses = [*(fastn.at for fastn in fleet.fastns.values()), alone.at]
        outcomes, after = Counter[tuple[str, str]](), list[int]()

        async def stop() -> None:
            await reached(lambda: anyio.to_thread.run_sync(heard, addresses), 100)
            await reached(lambda: anyio.to_thread.run_sync(heard, [alone.at]), 10)
            if kills:
                await anyio.to_thread.run_sync(fleet.replicas[0].kill)
            done = await anyio.to_thread.run_sync(lambda: command("stop", ledger, "--reason", "went wrong"))
            assert done.returncode == 0, done.stderr
            after.append(heard(addresses))
            if kills:
                fleet.replicas[0].start()
                await anyio.to_thread.run_sync(fleet.replicas[0].wait)
            await anyio.sleep(QUIET)

        await at_work(fleet, outcomes, stop)
        assert [heard(addresses)] == after
        assert {outcome for _, outcome in outcomes} <= MADE, outcomes
        assert outcomes["create", "stopped"] > 0
        assert outcomes["wait", "done"] == 0
        assert outcomes["wait", "stopped"] > 0
        assert outcomes["batch", "done"] == 0
        if not kills:
            assert outcomes["batch", "incomplete"] + outcomes["batch", "stopped"] > 0
        await anyio.to_thread.run_sync(plan.wait, 120)
        assert reported(tmp_path / "plan") <= {"done", "stopped", "left", "refused"}
        assert "stopped" in reported(tmp_path / "plan")
        async with fleet.caller() as caller:
            users = Users(fleet, caller, outcomes)
            assert await users.call("somebody", "create_customer", name="Still stopped") == "stopped"
            with sitting(["-m", "fastn_mcp", "allow"], ledger) as person:
                person.answers("type allow", "allow")
                assert person.leaves()[0] == 0
            assert [heard(addresses)] == after
            assert await users.call("somebody", "create_customer", name="Allowed again") == "done"


async def test_nothing_is_sent_after_a_stop_of_two_processes_on_one_file(tmp_path: Path) -> None:
    """On SQLite: two planned runs share the state folder; one is killed."""
    shared = {"FASTN_STATE_DIR": str(tmp_path / "state")}
    with (
        a_fastn() as fastn,
        planned(tmp_path / "one", fastn.at, shared) as killed,
        planned(tmp_path / "two", fastn.at, shared) as other,
    ):
        await reached(lambda: anyio.to_thread.run_sync(heard, [fastn.at]), 20)
        done = command("stop", shared | home(tmp_path))
        assert done.returncode == 0, done.stderr
        after = heard([fastn.at])
        killed.kill()
        await anyio.sleep(QUIET)
        assert heard([fastn.at]) == after
        other.wait(120)
        assert "stopped" in reported(tmp_path / "two") <= {"done", "stopped", "left"}
        assert after < 2 * 2000
