"""The state of a resource is the same in every tool that reports it."""

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.table_rows import table_rows
from support.world import World

from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.find_dependents import FindDependents
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.records.rows import FastnObject, Row
from fastn_mcp.records.states import State, connection_state, switched_off, trigger_state, workflow_state
from fastn_mcp.tools.connectors import DeleteConnector, ListConnections
from fastn_mcp.tools.tool import Effect, Tool
from fastn_mcp.tools.triggers import UpdateTrigger
from fastn_mcp.tools.workflows import UpdateWorkflow

LIVE, OFF, BROKEN, DRAFT, UNKNOWN = State.LIVE, State.OFF, State.BROKEN, State.DRAFT, State.UNKNOWN

Case = tuple[dict[str, Any], State]

CONNECTIONS: list[Case] = [
    ({"status": "ACTIVE"}, LIVE),
    ({"status": "active"}, LIVE),
    ({"status": "INACTIVE"}, OFF),
    ({"status": "EXPIRED"}, BROKEN),
    ({"status": "Failed"}, BROKEN),
    ({"status": "PENDING"}, UNKNOWN),
    ({"status": None}, UNKNOWN),
    ({}, UNKNOWN),
]
WORKFLOWS: list[Case] = [
    ({"status": "active", "publishedVersion": "v1"}, LIVE),
    ({"status": "Active"}, LIVE),
    ({"status": "draft", "publishedVersion": "v2"}, LIVE),
    ({"status": "draft", "published_version": 3}, LIVE),
    ({"status": "draft", "publishedVersion": {"id": "wv_1"}}, LIVE),
    ({"status": "draft", "publishedVersion": None}, DRAFT),
    ({"status": "NOT_PUBLISHED"}, DRAFT),
    ({"status": "Draft", "publishedVersion": "Unpublished"}, DRAFT),
    ({"status": "inactive", "publishedVersion": "v1"}, OFF),
    ({"status": " INACTIVE"}, OFF),
    ({"status": "active", "publishedVersion": None}, UNKNOWN),
    ({"status": "active", "version": "Unpublished"}, UNKNOWN),
    ({"status": "disabled"}, UNKNOWN),
    ({}, UNKNOWN),
]
TRIGGERS: list[Case] = [
    ({"status": "Active"}, LIVE),
    ({"status": "active", "subscriptionStatus": "Subscribed"}, LIVE),
    ({"status": "ACTIVE", "subscription_status": "FAILED"}, BROKEN),
    ({"status": "Active", "subscriptionStatus": "NOT_SUBSCRIBED"}, BROKEN),
    ({"subscriptionStatus": "Failed"}, BROKEN),
    ({"status": "Active", "subscriptionStatus": "PENDING"}, UNKNOWN),
    ({"status": "Paused"}, UNKNOWN),
    ({}, UNKNOWN),
    ({"status": "disabled", "subscriptionStatus": "FAILED"}, OFF),
    ({"status": "Disabled", "consecutiveFailures": "12"}, OFF),
    ({"status": "Disabled", "statusHistory": [
        {"status": "Disabled", "by": "platform", "at": 1795597200000},
        {"status": "Disabled", "by": "ana", "at": "2026-11-01T00:00:00Z"},
    ]}, OFF),
    ({"status": "Disabled", "consecutiveFailures": 20, "statusHistory": [
        {"to": "disabled", "actor": {"name": "System"}, "timestamp": "2026-11-20T00:00:00"},
        {"to": "disabled", "actor": {"name": "ana"}, "timestamp": "1795597200"},
    ]}, OFF),
]  # fmt: skip


@given(
    st.lists(st.sampled_from(CONNECTIONS), max_size=4),
    st.lists(st.sampled_from(WORKFLOWS), min_size=1, max_size=3),
    st.lists(st.sampled_from(TRIGGERS), max_size=4),
)
@example([case for case in CONNECTIONS if case[1] is BROKEN], WORKFLOWS[:1], [])
@settings(max_examples=10)
def test_every_tool_reports_the_same_states(
    connections: list[Case], workflows: list[Case], triggers: list[Case]
) -> None:
    """Overview, diagnosis, dependents, lists, preview and guard agree with Fastn's documentation."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            anyio.run(Account(world, connections, workflows, triggers).agrees)
        finally:
            world.close()


class Account:
    """A sandbox with exactly these rows, all of one connector. The triggers start the first workflow."""

    def __init__(self, world: World, connections: list[Case], workflows: list[Case], triggers: list[Case]) -> None:
        self.world, self.state = world, world.sandbox.state
        self.expected = {"connections": connections, "workflows": workflows, "triggers": triggers}
        for kind in (*self.expected, "users", "customers"):
            for row in self.state.all(kind):
                self.state.drop(kind, row["id"])
        self.connector = str(self.state.named("connectors", "shopify")["id"])
        of = {"connectorId": self.connector, "connector": {"id": self.connector, "slug": "shopify", "name": "Shopify"}}
        routes = [{"routeId": "wf_0", "environment": "live"}]
        common: dict[str, dict[str, Any]] = {
            "connections": of | {"endOrgId": None, "name": "default"},
            "workflows": {"connectors": [{"slug": "shopify"}]},
            "triggers": {"type": "app_event", "connectorId": self.connector, "routes": routes},
        }
        for kind, cases in self.expected.items():
            for number, (fields, _) in enumerate(cases):
                key = f"wf_{number}" if kind == "workflows" else f"{kind}-{number}"
                base = {"id": key, "name": f"{kind} {number}", "createdAt": "2026-11-01T00:00:00Z"}
                self.state.put(kind, base | common[kind] | fields)

    def count(self, kind: str, state: State) -> int:
        return sum(expected is state for _, expected in self.expected[kind])

    async def call(self, call: Tool[Any]) -> Any:
        return await self.world.ask(call)

    async def agrees(self) -> None:
        self.functions()
        self.guard()
        await self.overview()
        await self.connections()
        await self.diagnosis()
        await self.dependents()

    def functions(self) -> None:
        for kind, of in (("connections", connection_state), ("workflows", workflow_state), ("triggers", trigger_state)):
            assert [of(fields) for fields, _ in self.expected[kind]] == [state for _, state in self.expected[kind]]

    def guard(self) -> None:
        """Anything not known to be off has an external effect."""
        for fields, state in self.expected["workflows"]:
            effect = UpdateWorkflow(workflow_id="w", name="n").effect_on(record(fields), 0)
            assert (effect is Effect.WRITE) == (state in (OFF, DRAFT)), fields
        for fields, state in self.expected["triggers"]:
            effect = UpdateTrigger(trigger_id="t", events=["a"]).effect_on(record(fields), 0)
            assert (effect is Effect.WRITE) == (state is OFF), fields

    async def overview(self) -> None:
        answer = await self.call(GetOverview(hours=1))
        findings = " ".join(finding["what"] for finding in answer["findings"])
        for kind, cases in self.expected.items():
            assert answer["counts"][kind] == len(cases)
        for state in (BROKEN, OFF):
            statuses = "|".join(status.upper() for status, told in STATUSES.items() if told is state)
            found = numbers(findings, rf"(\d+) connections? (?:has|have) the status (?:{statuses}): \w")
            assert found == self.count("connections", state), findings
        assert numbers(findings, r"(\d+) triggers? (?:is|are) on but never fires?") == self.count("triggers", BROKEN)
        platform = sum(state is OFF and switched_off(row).is_platform for row, state in self.expected["triggers"])
        assert numbers(findings, r"(\d+) triggers? (?:was|were)(?: probably)? switched off by Fastn") == platform
        starts = any(state is not OFF for _, state in self.expected["triggers"])
        drafts = starts and self.expected["workflows"][0][1] is DRAFT
        assert numbers(findings, r"Triggers start (\d+) workflows? that (?:was|were) never published") == drafts
        unsaid = " ".join(gap["what"] for gap in answer["not_checked"] if "documented" in gap["why"])
        for kind in self.expected:
            assert numbers(unsaid, rf"(\d+) {kind[:-1]}s?\b") == self.count(kind, UNKNOWN)

    async def connections(self) -> None:
        """Check the reads about connections alone, and the lists that they point to."""
        answer = await self.call(GetOverview(hours=1, about="connections"))
        numbered = {number: finding["what"].upper() for number, finding in enumerate(answer["findings"], 1)}
        rows = [numbered[row.get("finding", 1)] for row in table_rows(answer["table"])]
        counts = Counter(status for what in rows for status in STATUSES if f" {status.upper()}:" in what)
        for status, state in STATUSES.items():
            rows = (await self.call(ListConnections(status=status)))["items"]
            listed = [row for row in rows if row.get("status")]  # a row without one is kept, and reported as unchecked
            assert all(connection_state(row) is state for row in listed)
            assert counts[status] == len(listed)

    async def diagnosis(self) -> None:
        answer = await self.call(Diagnose(workflow_id="wf_0"))
        state = self.expected["workflows"][0][1]
        assert ("never published" in answer["verdict"]) == (state is DRAFT)
        assert (f"The workflow is {OFF.value}" in answer["verdict"]) == (state is OFF)
        tools = Counter(trigger.get("next", {}).get("tool") for trigger in answer["triggers"])
        # One that the platform switched off leads to the runs that failed before the period.
        assert tools["update_trigger"] + tools["list_executions"] == self.count("triggers", OFF)
        assert tools["get_trigger"] == self.count("triggers", BROKEN)
        problems = " ".join(trigger.get("problem", "") for trigger in answer["triggers"])
        assert problems.count("whether it fires is not known") == self.count("triggers", UNKNOWN)
        off = [row for row, state in self.expected["triggers"] if state is OFF]
        assert problems.count("by Fastn") == sum(switched_off(row).is_platform for row in off)

    async def dependents(self) -> None:
        answer = await self.call(FindDependents(connector_id=self.connector))
        shown = await self.world.preview(DeleteConnector(connector_id=self.connector))
        uses = {use["kind"]: use["count"] for use in answer["used_by"]}
        assert uses == {use["kind"]: use["count"] for use in shown.data_for_agent().get("used_by", [])}
        assert uses == {kind: len(cases) for kind, cases in self.expected.items() if cases}
        for use in answer["used_by"]:
            states = Counter(example.get("state", LIVE.value) for example in use.get("all") or use["examples"])
            assert states == Counter(state.value for _, state in self.expected[use["kind"]])


STATUSES = {"failed": BROKEN, "expired": BROKEN, "inactive": OFF}


def record(fields: Row) -> FastnObject:
    return FastnObject.model_validate(fields)


def numbers(text: str, pattern: str) -> int:
    """Return the sum of the numbers that the pattern finds."""
    return sum(map(int, re.findall(pattern, text)))


def test_switched_off_uses_the_newest_entry() -> None:
    """Newest by time in any form, or else by position. Many failures without a name imply Fastn."""
    cases = {str(number): switched_off(row) for number, (row, state) in enumerate(TRIGGERS) if state is OFF}
    assert [(off.by, off.is_platform, off.is_presumed) for off in cases.values()] == [
        ("", False, False),
        ("", True, True),
        ("platform", True, False),
        ("ana", False, False),
    ]
    last: Row = {"statusHistory": [{"status": "Disabled", "by": name} for name in ("system", "ana")]}
    assert switched_off(last).by == "ana"
