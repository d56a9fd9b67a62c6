"""Stateful test: the account stays consistent through creations, updates, runs, deletions and undos in any order."""

import tempfile
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.world import FormNow, World, yes

from fastn_mcp.guard.batch import Done
from fastn_mcp.procedures.undo_change import UndoChange
from fastn_mcp.sandbox.state import Row
from fastn_mcp.tools.billing import GetQuotas, GetUsage
from fastn_mcp.tools.connectors import CreateConnection, DeleteConnection, ListConnections
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.workflows import CreateWorkflow, DeleteWorkflow, ListWorkflows, RunWorkflow, UpdateWorkflow

PICK = st.integers(0, 30)
NAMES = st.sampled_from(["Initech", "Hooli", "Umbrella", "Stark", "Wayne"])


class Account(RuleBasedStateMachine):
    """An account changed by tool calls, all of them approved."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._world = World(Path(self._folder.name))
        self._changes: list[str] = []
        self._deleted: set[str] = set()

    def teardown(self) -> None:
        self._world.close()
        self._folder.cleanup()

    def _rows(self, collection: str) -> list[Row]:
        return self._world.sandbox.state.all(collection)

    def _one(self, collection: str, pick: int) -> str:
        rows = self._rows(collection)
        return str(rows[pick % len(rows)]["id"])

    def _make(self, call: Any) -> Any:
        """Make an approved call, and return its outcome. A refusal of Fastn changes nothing."""

        async def make() -> Any:
            return await self._world.call(call, FormNow(yes, self._world.clock))

        outcome = anyio.run(make)
        if isinstance(outcome, Done) and outcome.change is not None:
            self._changes.append(outcome.change.id)
        return outcome

    def _read(self, call: Any) -> Any:
        outcome = self._make(call)
        assert isinstance(outcome, Done), outcome
        return outcome.result

    @rule(name=NAMES)
    def create_customer(self, name: str) -> None:
        self._make(CreateCustomer(name=name))

    @precondition(lambda self: self._rows("customers"))
    @rule(pick=PICK, name=NAMES)
    def update_customer(self, pick: int, name: str) -> None:
        self._make(UpdateCustomer(customer_id=self._one("customers", pick), name=name))

    @precondition(lambda self: self._rows("customers"))
    @rule(pick=PICK)
    def delete_customer(self, pick: int) -> None:
        self._delete(DeleteCustomer(customer_id=self._one("customers", pick)))

    @rule(name=NAMES)
    def create_workflow(self, name: str) -> None:
        self._make(CreateWorkflow(name=name.lower(), code="export default async (ctx) => ({ ok: true });"))

    @precondition(lambda self: self._rows("workflows"))
    @rule(pick=PICK, status=st.sampled_from(["active", "inactive"]))
    def switch_workflow(self, pick: int, status: str) -> None:
        self._make(UpdateWorkflow(workflow_id=self._one("workflows", pick), status=status))

    @precondition(lambda self: self._rows("workflows"))
    @rule(pick=PICK, seconds=st.integers(0, 200))
    def run_workflow(self, pick: int, seconds: int) -> None:
        self._make(RunWorkflow(workflow_id=self._one("workflows", pick)))
        self._world.clock.pass_(seconds)

    @precondition(lambda self: self._rows("workflows"))
    @rule(pick=PICK)
    def delete_workflow(self, pick: int) -> None:
        self._delete(DeleteWorkflow(workflow_id=self._one("workflows", pick)))

    @precondition(lambda self: self._rows("customers"))
    @rule(pick=PICK)
    def connect(self, pick: int) -> None:
        customer = self._one("customers", pick)
        connector = str(self._world.sandbox.state.named("connectors", "gamma")["id"])
        self._make(CreateConnection(connector_id=connector, customer_id=customer, credentials={"apiKey": "k-1"}))

    @precondition(lambda self: self._rows("connections"))
    @rule(pick=PICK)
    def delete_connection(self, pick: int) -> None:
        self._delete(DeleteConnection(connection_id=self._one("connections", pick)))

    @precondition(lambda self: self._changes)
    @rule(pick=PICK)
    def undo(self, pick: int) -> None:
        self._make(UndoChange(change_id=self._changes[pick % len(self._changes)]))

    def _delete(self, call: Any) -> None:
        (target,) = call.model_dump(exclude_none=True).values()
        if isinstance(self._make(call), Done):
            self._deleted.add(target)

    @invariant()
    def lists_hold_what_there_is(self) -> None:
        listings = (ListCustomers, "customers"), (ListWorkflows, "workflows"), (ListConnections, "connections")
        for listing, collection in listings:
            page = self._read(listing(limit=100))
            ids = {str(row["id"]) for row in page.items}
            assert ids == {str(row["id"]) for row in self._rows(collection)}
            # The id of a connection follows from what it connects: another one of the same has the same id.
            assert listing is ListConnections or not ids & self._deleted, "an id that was deleted comes back"

    @invariant()
    def counts_agree(self) -> None:
        connected = Counter(str(row["endOrgId"]) for row in self._rows("connections"))
        for customer in self._read(ListCustomers(limit=100)).items:
            assert customer["connectionsCount"] == connected[str(customer["id"])]
        quotas = self._read(GetQuotas()).model_dump()["quotas"]
        used = {(row["name"], row["scope"]): row["used"] for row in quotas}
        assert used["Connected accounts", "total"] == len(self._rows("connections"))
        month = self._world.clock.now().replace(day=1, hour=0, minute=0)
        runs = [row for row in self._rows("executions") if _at(row, "createdAt") >= month]
        history = self._world.sandbox.history.numbers(since=month)
        assert self._read(GetUsage()).model_dump()["executions"]["month"] == len(runs) + len(history)

    @invariant()
    def connections_have_their_customer_and_connector(self) -> None:
        customers, connectors = ({str(row["id"]) for row in self._rows(name)} for name in ("customers", "connectors"))
        for row in self._rows("connections"):
            assert row["endOrgId"] in customers or row["endOrgId"] is None
            assert str(row["connectorId"]) in connectors

    @invariant()
    def runs_keep_to_the_order_of_time(self) -> None:
        now = self._world.clock.now()
        for row in self._rows("executions"):
            assert _at(row, "createdAt") <= now
            if row.get("completedAt") is not None:
                # An INSTANT run ends while its call waits for the answer.
                assert _at(row, "createdAt") <= _at(row, "completedAt") <= now + timedelta(milliseconds=120)
            assert (row["status"] in ("queued", "running")) == (row.get("completedAt") is None), row


def _at(row: Row, name: str) -> datetime:
    return datetime.fromisoformat(str(row[name]))


Account.TestCase.settings = settings(max_examples=8, stateful_step_count=20)
TestAccount = Account.TestCase
