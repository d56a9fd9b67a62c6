"""The fifteen jobs by plain API calls, as an agent makes them through a bridge with one tool for each operation.

All is in the bridge's favour: Fastn heeds every filter, pages hold a hundred rows, the agent makes no call in vain and
reads no more than the same answer needs. What it has to count or to join, it does in its head.
"""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx2
from jobs import LAST_NIGHT

Row = dict[str, Any]


class Api:
    """The sandbox over HTTP. Counts the calls, and keeps the answers as they came."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx2.Client(
            base_url=f"{url}/api/v1", headers={"x-fastn-api-key": key, "X-fastn-Test-Mode": "true"}
        )
        self.answers: list[str] = []

    def call(self, method: str, path: str, body: Row | None = None, headers: Row | None = None, **query: Any) -> Any:
        answer = self._http.request(method, path, params=query, json=body, headers=headers)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:400]}")
        self.answers.append(answer.text)
        return json.loads(answer.text)["data"] if answer.text else None

    def get(self, *path: str, **query: Any) -> Any:
        return self.call("GET", "/" + "/".join(quote(part, safe="") for part in path), **query)

    def pages(self, path: str, most: int = 100, **query: Any) -> Iterator[Row]:
        """All rows of a list, or those of the first pages."""
        for number in range(most):
            rows = self.get(path, limit=100, offset=100 * number, **query)
            yield from rows
            if len(rows) < 100:
                return

    def close(self) -> None:
        self._http.close()


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


JOBS: dict[int, Callable[[Api], None]] = dict(
    enumerate(
        (
            onboard,
            broken_connections,
            why_it_failed,
            run_for_one,
            pause_and_reschedule,
            weekly_report,
            quota,
            keys,
            rotate,
            people,
            who_did_it,
            offboard,
            uses_of_slack,
            build,
            silent_triggers,
        ),
        1,
    )
)


def waited(url: str) -> None:
    """Until the sandbox answers."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            httpx2.get(url)
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the sandbox does not answer")
