"""Thirty jobs through FastMCP's OpenAPI bridge, one tool for each operation, by the calls that the jobs need there.

The assumptions favour the bridge: Fastn honours every filter, a page holds a hundred rows, and the agent makes no
unnecessary call and reads only what the answer needs. Counting and joining rows cost nothing, and no call is confirmed.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import anyio.from_thread
import anyio.to_thread
from account import KEY, Account
from jobs import LAST_NIGHT
from jobs import THIRTY as OURS
from mcp import Client, StdioServerParameters
from scripted import Meter, Outcome, price
from support.server_process import Person, approving

from fastn_mcp.tools.catalog import CATALOG

ROOT = Path(__file__).parents[2]

Row = dict[str, Any]


class Api:
    """The tools of the bridge, by the request that each makes. Runs in a thread beside the client."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def call(self, method: str, path: str, body: Row | None = None, headers: Row | None = None, **query: Any) -> Any:
        path = f"/api/v1{path}"
        operation = next(o for o in CATALOG if o.route.method == method and o.route.match(path) is not None)
        arguments = {**(operation.route.match(path) or {}), **query, **(body or {}), **(headers or {})}
        result = anyio.from_thread.run(self._meter.call, operation.tool_name(), arguments)
        if result.is_error:
            raise RuntimeError(f"{method} {path}: {self._meter.texts[-1][:400]}")
        text = self._meter.texts[-1]
        return json.loads(text).get("data") if text.startswith("{") else None

    def get(self, *path: str, **query: Any) -> Any:
        return self.call("GET", "/" + "/".join(quote(part, safe="") for part in path), **query)

    def pages(self, path: str, most: int = 100, **query: Any) -> Iterator[Row]:
        """Yield all rows of a list, or those of the first pages."""
        for number in range(most):
            rows = self.get(path, limit=100, offset=100 * number, **query)
            yield from rows
            if len(rows) < 100:
                return

    def named(self, path: str, name: str, **query: Any) -> Row:
        """Return the row with a name, by searching."""
        return next(row for row in self.get(path, search=name, **query) if row["name"] == name)

    def replace(self, path: str, row: Row, fields: str, **changes: Any) -> None:
        """Send a whole row back with changes, since `PUT` replaces."""
        self.call("PUT", f"/{path}/{row['id']}", {name: row[name] for name in fields.split() if name in row} | changes)


async def done(account: Account, chosen: Sequence[int], python: Path) -> tuple[dict[str, int], dict[int, Outcome]]:
    """Return the price of each tool of the bridge, which `python` has installed, and the outcome of each job.

    Its document describes operations in the words of Fastn's API reference, and no argument, as the reference.
    """
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "openapi.json"
        command = [sys.executable, str(ROOT / "packaging" / "generate" / "openapi_document.py"), account.url]
        document.write_bytes((await anyio.run_process(command)).stdout)
        env = {**os.environ, "OPENAPI": str(document), "BASE_URL": account.url, "KEY": KEY}
        bridge = str(ROOT / "benchmarks" / "peers" / "fastmcp_bridge.py")
        person = Person(approving)
        async with Client(StdioServerParameters(command=str(python), args=[bridge], env=env)) as client:
            listed = {tool.name: price(tool) for tool in (await client.list_tools()).tools}
            jobs = [job.number for job in OURS if job.number in chosen]
            return listed, {number: await _do(client, person, account, number) for number in jobs}


async def _do(client: Client, person: Person, account: Account, number: int) -> Outcome:
    account.reset()
    meter, job, problems = Meter(client, person), OURS[number - 1], list[str]()
    try:
        await anyio.to_thread.run_sync(JOBS[number], Api(meter))
    except Exception as error:  # whatever a bridge's answer leads to is the outcome of the job
        problems.append(f"{type(error).__name__}: {error}")
    judged = job.problems(account.sent(), account.rows, "\n".join(meter.texts))
    return meter.outcome([*problems, *judged], account.requests())


def ago(hours: int) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def onboard(api: Api) -> None:
    api.get("customers", search="Nordlicht Bikes")
    made = api.call("POST", "/customers", {"name": "Nordlicht Bikes", "adminEmail": "ops@nordlicht.example"})
    api.get("customers", made["id"])


def broken_connections(api: Api) -> None:
    broken = [row for status in ("EXPIRED", "FAILED") for row in api.pages("connections", status=status)]
    for owner in {row["endOrgId"] for row in broken}:
        api.get("customers", owner)
    list(api.pages("executions", most=3, status="failed", since=ago(24)))


def why_it_failed(api: Api) -> None:
    (workflow,) = api.get("workflows", search="Acme HubSpot sync")
    failed = api.get("executions", workflowId=workflow["id"], status="failed", since=ago(72), limit=20)
    api.get("executions", workflowId=workflow["id"], status="completed", limit=1)
    run = api.get("executions", failed[0]["id"])
    api.get("connections", endOrgId=run["endOrgId"])
    api.get("customers", run["endOrgId"])
    list(api.pages("triggers"))
    api.get("audit", resourceId=workflow["id"])


def run_for_one(api: Api) -> None:
    (workflow,) = api.get("workflows", search="slack-messages-to-supabase")
    acme = next(row for row in api.get("customers", search="Acme Corp") if row["name"] == "Acme Corp")
    run = api.call("POST", f"/workflows/{workflow['id']}/run", {"input": {}}, {"x-end-org-id": acme["id"]})
    key = run.get("executionId") or run["id"]
    while api.get("executions", key)["status"] != "completed":
        pass


def pause_and_reschedule(api: Api) -> None:
    trigger = next(row for row in api.pages("triggers") if row["name"] == "Hourly Slack sync")
    ours = ("id", "createdAt", "createdBy", "updatedAt", "updatedBy", "version", *api_only(trigger))
    kept = {name: value for name, value in trigger.items() if name not in ours}
    for changes in ({"status": "Disabled"}, {"status": "Active", "schedule": "*/15 * * * *"}):
        api.call("PUT", f"/triggers/{trigger['id']}", kept | changes)


def api_only(trigger: Row) -> list[str]:
    """What Fastn shows and does not take back."""
    return [name for name in trigger if name not in ("name", "type", "status", "routes", "schedule", "timezone")]


def weekly_report(api: Api) -> None:
    week = ago(168)
    for status in ("completed", "failed", "timeout"):
        api.get("executions", status=status, since=week, limit=1)
    failed = list(api.pages("executions", most=3, status="failed", since=week))
    failed += api.pages("executions", most=1, status="timeout", since=week)
    often = sorted({row["workflowId"] for row in failed}, key=lambda key: -sum(r["workflowId"] == key for r in failed))
    for workflow in often[:8]:
        for status in ("completed", "failed", "timeout"):
            api.get("executions", workflowId=workflow, status=status, since=week, limit=1)
    api.get("billing", "quotas")


def quota(api: Api) -> None:
    api.get("billing", "quotas")
    api.get("billing", "usage")


def keys(api: Api) -> None:
    unused = next(row for row in api.pages("api-keys") if row["name"] == "TEST")
    api.call("POST", "/api-keys", {"name": "BI team", "permissions": "Viewer", "expires": "30d"})
    api.call("DELETE", f"/api-keys/{unused['id']}")


def rotate(api: Api) -> None:
    globex = next(row for row in api.get("customers", search="Globex Exports") if row["name"] == "Globex Exports")
    api.call(
        "POST", "/secrets", {"name": "STRIPE_SECRET_KEY", "value": "sk_live_of_nobody", "customerId": globex["id"]}
    )
    api.get("secrets", customerId=globex["id"])


def people(api: Api) -> None:
    api.get("roles")
    api.call("POST", "/users/invite", {"email": "sam.rivera@fastn.example", "role": "Operator"})
    permissions = ["workflows:read", "executions:read"]
    api.call("POST", "/roles", {"name": "Support, sees runs", "parent": "Operator", "permissions": permissions})


def who_did_it(api: Api) -> None:
    (workflow,) = api.get("workflows", search="slack-messages-to-supabase")
    api.get("audit", resourceId=workflow["id"], limit=20)
    api.get("audit", actor="apikey:1", limit=3)
    api.get("audit", since=LAST_NIGHT, limit=20)


def offboard(api: Api) -> None:
    widget = next(row for row in api.get("customers", search="Widget Inc") if row["name"] == "Widget Inc")
    api.get("connections", endOrgId=widget["id"])
    api.get("secrets", customerId=widget["id"])
    api.get("executions", endOrgId=widget["id"], limit=1)
    list(api.pages("triggers"))
    api.call("DELETE", f"/customers/{widget['id']}")


def uses_of_slack(api: Api) -> None:
    slack = next(row for row in api.get("connectors", search="slack") if row["name"] == "Slack")
    api.get("connections", connectorId=slack["id"])
    list(api.pages("workflows"))
    list(api.pages("triggers"))


def build(api: Api) -> None:
    wanted = {"type": "workflow", "prompt": "Sync Shopify orders to Xero", "connectors": ["shopify", "xero"]}
    session = api.call("POST", "/ai/build", wanted | {"approvalMode": "manual"})["sessionId"]
    for message in ("status?", "approve", "status?"):
        api.call("POST", "/ai/chat", {"message": message, "sessionId": session})


def silent_triggers(api: Api) -> None:
    list(api.pages("triggers", type="app_event", status="Active"))


def orders_do_not_arrive(api: Api) -> None:
    katana = api.named("customers", "Katana")
    api.get("connections", endOrgId=katana["id"])
    failed = api.get("executions", endOrgId=katana["id"], status="failed", since=ago(72), limit=20)
    api.get("executions", endOrgId=katana["id"], status="completed", limit=1)
    api.get("executions", failed[0]["id"])
    list(api.pages("triggers"))
    api.get("audit", resourceId=failed[0]["workflowId"])


def word_for_word(api: Api) -> None:
    workflow = api.named("workflows", "Sync TikTok Orders to Cin7 Core")
    run = api.get("executions", workflowId=workflow["id"], status="failed", limit=1)[0]
    api.get("executions", run["id"])


def change_and_undo(api: Api) -> None:
    globex = api.named("customers", "Globex Exports")
    for plan in ("Growth", globex["plan"]):
        api.replace("customers", globex, "name externalRef adminEmail region quotaOverrides", plan=plan)


def rename_trigger(api: Api) -> None:
    trigger = next(row for row in api.pages("triggers") if row["name"] == "Shop events")
    trigger = api.get("triggers", trigger["id"])
    fields = "type status description routes authType auth dedupKey endOrgId connectorId connectionId"
    api.replace("triggers", trigger, fields, name="Shop events (EU)")


def prepare_trigger(api: Api) -> None:
    workflow = api.named("workflows", "orders-backfill")
    route = {"routeId": workflow["id"], "routeType": "API", "environment": "live"}
    schedule = {"schedule": "0 3 * * *", "timezone": "Europe/Berlin", "status": "Disabled"}
    api.call("POST", "/triggers", {"name": "Nightly backfill", "type": "scheduler", "routes": [route]} | schedule)


def disconnect(api: Api) -> None:
    acme, xero = api.named("customers", "Acme Corp"), api.named("connectors", "Xero")
    (connection,) = api.get("connections", endOrgId=acme["id"], connectorId=xero["id"])
    list(api.pages("workflows"))
    api.call("DELETE", f"/connections/{quote(connection['id'], safe='')}")


def throw_away(api: Api) -> None:
    api.call("DELETE", f"/workflows/{api.named('workflows', 'sync_tiktok_settlements_cin7')['id']}")


def three_customers(api: Api) -> None:
    for name in ("Hooli", "Initech", "Initrode"):
        api.call("POST", "/customers", {"name": name, "plan": "Starter"})


def what_would_be_lost(api: Api) -> None:
    katana = api.named("customers", "Katana")
    api.get("connections", endOrgId=katana["id"])
    api.get("secrets", customerId=katana["id"])
    api.get("executions", endOrgId=katana["id"], limit=1)
    list(api.pages("triggers"))


def whom_to_remind(api: Api) -> None:
    list(api.pages("customers", status="Pending Admin Activation"))


def failed_most(api: Api) -> None:
    weekly_report(api)


def on_fire(api: Api) -> None:
    day = ago(24)
    list(api.pages("executions", most=3, status="failed", since=day))
    list(api.pages("executions", most=1, status="timeout", since=day))
    for status in ("EXPIRED", "FAILED"):
        list(api.pages("connections", most=1, status=status))
    list(api.pages("triggers"))
    api.get("api-keys", limit=100)
    api.get("billing", "quotas")


def connected_apps(api: Api) -> None:
    api.get("connections", endOrgId=api.named("customers", "Acme Corp")["id"])


def describe_connector(api: Api) -> None:
    gamma = api.get("connectors", api.named("connectors", "Gamma")["id"])
    fields = "name domain iconUrl protocol category visibility authMethods actions events"
    api.replace("connectors", gamma, fields, description="Decks for sales")


def run_and_show(api: Api) -> None:
    workflow, acme = api.named("workflows", "process-new-orders"), api.named("customers", "Acme Corp")
    api.call("POST", f"/workflows/{workflow['id']}/run", {"input": {"orderId": "SO-77"}}, {"x-end-org-id": acme["id"]})


JOBS: dict[int, Callable[[Api], None]] = dict(
    enumerate(
        (
            onboard, broken_connections, why_it_failed, run_for_one, pause_and_reschedule, weekly_report, quota, keys,
            rotate, people, who_did_it, offboard, uses_of_slack, build, silent_triggers, orders_do_not_arrive,
            word_for_word, change_and_undo, rename_trigger, prepare_trigger, disconnect, throw_away, three_customers,
            what_would_be_lost, whom_to_remind, failed_most, on_fire, connected_apps, describe_connector, run_and_show,
        ),
        1,
    )
)  # fmt: skip
