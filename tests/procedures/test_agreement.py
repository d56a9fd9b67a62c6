"""Tests that no answer contradicts another: overview, diagnosis, lists, dependents and previews of one account."""

import random
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from large_account import large_account
from support.table_rows import table_rows
from support.world import World

from fastn_mcp.extensions.sandbox.executions import execution, no_connection, out_of_memory, timed_out
from fastn_mcp.extensions.sandbox.server import dataset
from fastn_mcp.extensions.sandbox.state import Row, SandboxState
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.catalog import TOOLS
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.find_dependents import FindDependents
from fastn_mcp.procedures.overview.get_overview import SUBJECTS, GetOverview
from fastn_mcp.records.formats import age
from fastn_mcp.records.labels import ACCOUNT
from fastn_mcp.tools.connectors import DeleteConnector, ListConnections
from fastn_mcp.tools.customers import DeleteCustomer
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.workflows import ListExecutions

pytestmark = pytest.mark.no_cover  # each tool has its own tests

Answer = dict[str, Any]
HOURS = 72


def changed(seed: int) -> Callable[[datetime, random.Random], SandboxState]:
    """Return the small account with other states and up to some hundred other runs."""

    def begin(now: datetime, randomness: random.Random) -> SandboxState:
        state = dataset(now, randomness)
        chance = random.Random(seed)  # noqa: S311 it is to be repeatable
        for row in state.all("connections"):
            row["status"] = chance.choice(["ACTIVE", "ACTIVE", "EXPIRED", "FAILED", "INACTIVE"])
            row["authType"] = chance.choice(["OAUTH_2", "API_KEY", "BASIC", None])
        for row in state.all("triggers"):
            row["status"] = chance.choice(["Active", "Active", "Disabled"])
            if row["type"] == "app_event":
                row["subscriptionStatus"] = chance.choice(["ACTIVE", "FAILED"])
        for row in state.all("workflows"):
            row["status"] = chance.choice(["active", "active", "inactive"])
        workflows, customers = state.all("workflows"), state.all("customers")
        for _ in range(chance.randrange(20 * seed, 120 * seed)):
            workflow, customer = chance.choice(workflows), chance.choice([None, *customers])
            begun = now - timedelta(minutes=chance.randrange(10, 60 * 24 * 6))
            owner = None if customer is None else str(customer["id"])
            status = chance.choice(["completed", "completed", "failed", "failed", "timeout", "cancelled"])
            errors: list[Any] = [no_connection("shopify", owner or "x"), out_of_memory(), {"message": "odd"}]
            error = chance.choice(errors)
            error = timed_out(30_000) if status == "timeout" else error if status == "failed" else None
            key = state.short_id("exec")
            state.put(
                "executions", execution(key, workflow, status, begun, 900, "webhook", endOrgId=owner, error=error)
            )
        return state

    return begin


ACCOUNTS: dict[str, Callable[[datetime, random.Random], SandboxState]] = {
    "small": dataset,
    "large": large_account,
    **{f"changed {seed}": changed(seed) for seed in range(2, 5)},
}


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.long if name in ("large", "changed 3", "changed 4") else ())
        for name in ACCOUNTS
    ]
)
def account(request: pytest.FixtureRequest, tmp_path: Path) -> Generator["Account"]:
    world = World(tmp_path, begin=ACCOUNTS[request.param])
    yield Account(world)
    world.close()


class Account:
    """An account, and what the tools answer on it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.has_rows_of_runs = len(world.sandbox.state.all("customers")) < 100
        """Whether the sandbox stores each run, and not only series of them."""
        self.since = (world.clock.at - timedelta(hours=HOURS)).isoformat(timespec="seconds")

    async def call(self, call: Tool[Any]) -> Answer:
        return await self.world.ask(call)

    async def rows(self, call: Any) -> list[Row]:
        found: list[Row] = []
        cursor: str | None = None
        while True:
            done = await self.world.expect(
                Done, call.model_copy(update={"limit": 100, "cursor": cursor, "detail": "full"})
            )
            page: Any = done.result
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def overview(self, about: Any) -> list[tuple[str, Answer]]:
        """Return all rows of a table, each with the finding that it is of."""
        rows: list[Answer] = []
        first = page = await self.call(GetOverview(hours=HOURS, about=about))
        while True:
            rows += table_rows(page["table"])
            if (cursor := page.get("next_cursor")) is None:
                break
            page = await self.call(GetOverview(hours=HOURS, about=about, cursor=cursor))
        findings = [finding["what"] for finding in first["findings"]]
        return [(findings[row.get("finding", 1) - 1] if findings else "", row) for row in rows]

    async def failed(self, **filters: Any) -> tuple[int, int]:
        counts = [
            (await self.call(ListExecutions(since=self.since, status=status, limit=1, **filters)))["total"]
            for status in ("failed", "timeout", None)
        ]
        return counts[0] + counts[1], counts[2]

    async def read_failures(self, answer: Answer) -> list[Row]:
        """Return the failed runs that an answer counts: all, or those since the time that it says."""
        failed, timed_out = [
            await self.rows(ListExecutions(since=self.since, status=status)) for status in ("failed", "timeout")
        ]
        since = answer["runs"].get("failures_since", self.since).partition(" (")[0]
        return [run for run in failed + timed_out if run["createdAt"] >= since]


def of(runs: Answer) -> tuple[int, int]:
    """Return the number of failed runs and of all runs of a diagnosis or an overview."""
    return runs["failed"] + runs["timeout"], runs["all"]


async def test_numbers_of_runs_agree(account: Account) -> None:
    whole = await account.failed()
    assert of((await account.call(GetOverview(hours=HOURS)))["runs"]) == whole
    everything = await account.call(Diagnose(hours=HOURS))
    assert of(everything["runs"]) == whole
    others = [
        int(re.findall(r": ([\d,]+) runs?$", other)[0].replace(",", "")) for other in everything.get("other_causes", [])
    ]
    read = await account.read_failures(everything)
    is_whole = "older failed runs" not in str(everything.get("not_checked"))
    assert not is_whole or len(read) == whole[0]
    by_workflow, by_customer = (Counter(run[name] for run in read) for name in ("workflowId", "endOrgId"))
    assert sum(cause["runs"] for cause in everything["causes"]) + sum(others) == len(read)
    failing = [row for _, row in await account.overview("workflows") if row.get("failed")]
    assert sum(by_workflow.values()) == sum(by_workflow[row["id"]] for row in failing)
    for row in failing[:3]:
        expected = await account.failed(workflow_id=row["id"])
        assert row["failed"] == by_workflow[row["id"]]
        assert not is_whole or row["failed"] == expected[0]
        diagnosis = await account.call(Diagnose(workflow_id=row["id"], hours=HOURS))
        assert of(diagnosis["runs"]) == expected
        assert diagnosis["workflow"]["name"] == row["name"]
        completed = diagnosis["runs"]["completed"]
        assert completed == row["completed"] if is_whole else completed >= row["completed"]
        last = diagnosis["runs"]["last_success"]
        assert row["last_success"] == "none found" or row["last_success"].partition(" (")[0] in last
    of_customers = {row["name"]: row for _, row in await account.overview("customers")}
    for name, row in [(name, row) for name, row in of_customers.items() if row.get("failed") and "id" in row][:3]:
        assert row["failed"] == by_customer[row["id"]], name
        assert not is_whole or row["failed"] == (await account.failed(customer_id=row["id"]))[0], name
    affected = {found["customer"] for cause in everything["causes"] for found in cause["affected"]} - {
        "your own account"
    }
    for name in sorted(affected)[:3]:
        diagnosis = await account.call(Diagnose(customer_id=name, hours=HOURS))
        assert diagnosis["customer"]["name"] == name
        assert of(diagnosis["runs"]) == await account.failed(customer_id=diagnosis["customer"]["id"])


async def test_failures_since_a_success_are_those_of_the_list(account: Account) -> None:
    """ "since when" is the first failure after the last success, of that workflow and customer."""
    ids = {str(row["name"]): str(row["id"]) for row in account.world.sandbox.state.all("customers")}
    everything = await account.call(Diagnose(hours=HOURS))
    read = {run["id"] for run in await account.read_failures(everything)}
    for cause in everything["causes"]:
        for found in cause["affected"]:
            if "since" not in found or found["customer"] not in ids:
                continue
            runs = await account.rows(
                ListExecutions(workflow_id=found["workflow_id"], customer_id=ids[found["customer"]])
            )
            since_success: list[Row] = []
            for run in runs:  # newest first
                if run["status"] == "completed":
                    break
                since_success += [run] if run["status"] in ("failed", "timeout") else []
            if found["since"].endswith(" or earlier"):
                since_success = [run for run in since_success if run["id"] in read]
            first = datetime.fromisoformat(str(since_success[-1]["createdAt"]))
            assert found["since"].startswith(f"{first:%Y-%m-%dT%H:%M:%S}Z")


async def test_connections_that_do_not_work_agree(account: Account) -> None:
    """States, names and remedies, in lists, overview, diagnosis, dependents and previews."""
    state = account.world.sandbox.state
    customers = {str(row["id"]): str(row["name"]) for row in state.all("customers")}
    found = await account.overview("connections")
    for status in ("FAILED", "EXPIRED", "INACTIVE"):
        listed = await account.rows(ListConnections(status=status))
        labels = [
            f"{row['connector']['name']} of {customers.get(str(row['endOrgId']), 'your own account')}" for row in listed
        ]
        shown = [row["name"] for what, row in found if f" {status}:" in what]
        assert Counter(shown) == Counter(labels)
        assert all(what.startswith(f"{len(listed)} connection") for what, _ in found if f" {status}:" in what)
        for row in [row for row in listed if row["endOrgId"]][:2]:
            diagnosis = await account.call(Diagnose(customer_id=str(row["endOrgId"]), hours=HOURS))
            of_customer = await account.rows(ListConnections(customer_id=str(row["endOrgId"])))
            label = f"{row['connector']['name']} of {customers[str(row['endOrgId'])]}"
            assert (label, status) in [(shown["what"], shown["status"]) for shown in diagnosis["connections"]]
            assert len(diagnosis["connections"]) == min(len(of_customer), 5)
            await dependents_agree(account, "customer", str(row["endOrgId"]), len(of_customer))
            connector = str(row["connectorId"])
            await dependents_agree(
                account, "connector", connector, len(await account.rows(ListConnections(connector_id=connector)))
            )


async def dependents_agree(account: Account, kind: Any, key: str, connections: int) -> None:
    """Check that dependents and the preview of a deletion name as many connections as the list."""
    answer = await account.call(FindDependents.model_validate({f"{kind}_id": key}))
    used = {use["kind"]: use["count"] for use in answer["used_by"]}
    assert used.get("connections", 0) == connections
    deletion = DeleteCustomer(customer_id=key) if kind == "customer" else DeleteConnector(connector_id=key)
    preview = await account.world.preview(deletion)
    assert {use["kind"]: use["count"] for use in preview.data_for_agent().get("used_by", [])} == used


def records(account: Account) -> dict[str, Row]:
    """Return the rows of everything by id."""
    state = account.world.sandbox.state
    kinds = ("executions", "customers", "connectors", "connections", "workflows", "triggers", "users", "secrets")
    return {str(row["id"]): row for kind in (*kinds, "apiKeys", "billing") for row in state.all(kind)}


def parts(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the objects and texts in an answer, each with the name of its field. Tables are yielded as rows."""
    if isinstance(value, dict):
        if {"columns", "rows"} <= cast("Answer", value).keys():
            yield from parts(table_rows(value), name)
            return
        yield name, value
        for key, item in cast("Answer", value).items():
            yield from parts(item, key)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from parts(item, name)
    else:
        yield name, value


DATED = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d:\d\d)Z)?(?: \(([^()]+)\))?")
KINDS = {"customer": "customers", "workflow": "workflows", "connector": "connectors"}


def check_facts(account: Account, answer: Answer, known: dict[str, Row]) -> None:
    """Check the names, ids and dates in an answer against the account's rows."""
    state, now = account.world.sandbox.state, account.world.clock.at
    names = {kind: {str(row["name"]) for row in state.all(rows)} | {ACCOUNT} for kind, rows in KINDS.items()}
    times = {str(value)[:19] for row in known.values() for _, value in parts(row) if isinstance(value, str)}
    times |= {f"{now:%Y-%m-%dT%H:%M:%S}"}
    days = {time[:10] for time in times} | {f"{now - timedelta(hours=HOURS):%Y-%m-%d}"}
    for name, part in parts(answer):
        if isinstance(part, dict):
            fields = cast("Answer", part)
            row = known.get(str(fields.get("id")))
            if row is not None and "name" in fields and "createdBy" in row and "connectorId" not in row:
                assert str(fields["name"]).startswith(str(row["name"])), fields
            if row is not None and "status" in fields and "workflowId" not in row:
                assert str(fields["status"]).upper() == str(row["status"]).upper(), fields
        elif isinstance(part, str):
            if name in names and part not in known:
                assert part in names[name] or part in ("other customers", *KINDS), (name, part)
            for day, time, ago in DATED.findall(part) if account.has_rows_of_runs else ():
                assert f"{day}T{time}" in times if time else day in days, (name, part)
                if re.search(r"^\d.* (day|month)s? ago|^\d.* hours? ago", ago) or (time and ago.endswith(" ago")):
                    at = datetime.fromisoformat(f"{day}T{time or '00:00:00'}+00:00")
                    later = [timedelta(seconds=1)] if time else [timedelta(hours=hour) for hour in range(25)]
                    assert ago in {age(at + each, now) for each in (timedelta(), *later)}, (name, part)


async def test_names_and_dates_are_those_of_the_rows(account: Account) -> None:
    """In every subject of the overview, in diagnoses of each kind, in searches and in previews of deletions."""
    known, state = records(account), account.world.sandbox.state
    one = {kind: str(state.all(f"{kind}s")[0]["id"]) for kind in ("customer", "connector", "workflow", "trigger")}
    calls: list[Tool[Any]] = [GetOverview(hours=HOURS), Diagnose(hours=HOURS)]
    calls += [GetOverview(about=about, hours=HOURS) for about in SUBJECTS]
    calls += [Diagnose.model_validate({f"{kind}_id": key, "hours": HOURS}) for kind, key in one.items()]
    calls += [Find(query=key) for key in one.values()] + [Find(query="sync orders", limit=20)]
    for call in calls:
        check_facts(account, await account.call(call), known)
    for kind in ("customer", "connector", "workflow", "trigger"):
        deletion: Any = TOOLS[f"delete_{kind}"].model_validate({f"{kind}_id": one[kind]})
        preview = await account.world.preview(deletion)
        check_facts(account, preview.data_for_agent(), known)


async def test_state_of_each_connection_agrees(account: Account) -> None:
    """In searches, lists, the overview and the diagnosis of its customer."""
    rows = account.world.sandbox.state.all("connections")
    table = Counter(what.partition("status ")[2].partition(":")[0] for what, _ in await account.overview("connections"))
    assert table == Counter(str(row["status"]) for row in rows if row["status"] != "ACTIVE")
    for row in rows[:4]:
        (hit,) = (await account.call(Find(query=str(row["id"]))))["found"]
        listed = await account.rows(ListConnections(customer_id=row["endOrgId"], connector_id=str(row["connectorId"])))
        (same,) = [each for each in listed if each["id"] == row["id"]]
        assert hit["status"] == same["status"] == row["status"]
