"""What the audit log keeps of a call, from the question to its outcome."""

from collections.abc import Generator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import JsonValue
from support import stores
from support.audit_entries import entries
from support.decisions import allowed
from support.stores import grant
from support.world import World, batch_of

from fastn_mcp.audit.log import AuditEvent, AuditFile, Unwritten
from fastn_mcp.errors import Declined, Refused
from fastn_mcp.guard.approval_form import Decline
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.policy.asker import Asker
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.runtime import System
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer
from fastn_mcp.tools.tool import Effect


def recorded(world: World) -> list[dict[str, JsonValue]]:
    """Its entries, without what the chain adds, and without the account and the caller, which are those of all."""
    lines = list(entries(world.audit_path))
    assert [entry["n"] for entry in lines] == list(range(1, len(lines) + 1))
    assert {(entry["principal"], entry["account"]) for entry in lines} == {("local", "test")}
    told = ("n", "time", "prev", "hash", "principal", "account", "digest")
    return [{name: value for name, value in entry.items() if name not in told} for entry in lines]


def entry(event: str, tool: str, **more: JsonValue) -> Mapping[str, JsonValue]:
    return {"event": event, "tool": tool, **more}


async def test_call_is_recorded_with_approver_and_outcome(world: World) -> None:
    globex = world.id_of("customers", "Globex Exports")
    with world.act_before_changes(lambda _: world.clock.sleep(1.2504)):
        await world.call(CreateCustomer(name="Initech", plan="Free"))
        await world.call(DeleteCustomer(customer_id=globex), world.form())
        await world.call(CreateCustomer(name="Initech"))
    write = {"effect": "write", "decision": "allow", "rule": "mode guarded: write", "approved_by": "policy"}
    write["name"] = "Initech"
    typed = {"effect": "destroy", "decision": "typed", "rule": "mode guarded: destroy"}
    target: dict[str, JsonValue] = {"target": globex, "arguments": {"customer_id": globex}, "name": "Globex Exports"}
    ended = {"duration_ms": 1250.4}
    assert recorded(world) == [
        entry("intent", "create_customer", arguments={"name": "Initech", "plan": "Free"}, change="chg_t2", **write),
        entry(
            "outcome",
            "create_customer",
            target=world.id_of("customers", "Initech"),
            effect="write",
            of="1",
            outcome="done",
            **ended,
        ),
        entry("asked", "delete_customer", grant="ap_t3", **target, **typed),
        entry(
            "intent", "delete_customer", grant="ap_t3", approved_by="client_form", change="chg_t4", **target, **typed
        ),
        entry(
            "outcome",
            "delete_customer",
            target=globex,
            effect="destroy",
            grant="ap_t3",
            of="4",
            outcome="done",
            **ended,
        ),
        entry("intent", "create_customer", arguments={"name": "Initech"}, change="chg_t5", **write),
        entry(
            "outcome",
            "create_customer",
            effect="write",
            of="6",
            outcome="conflict",
            message="The call conflicts with the current state (409).",
            **ended,
        ),
    ]


async def test_refusal_is_recorded_with_its_reason(world: World) -> None:
    await world.call(CreateSecret(name="TOKEN", value="hunter2"), world.form(Decline("not\nnow")))
    await world.call(DeleteCustomer(customer_id="gone"), world.form())
    secret: JsonValue = {"name": "TOKEN", "value": "[hidden-by-fastn-mcp]"}
    assert recorded(world) == [
        entry(
            "asked",
            "create_secret",
            name="TOKEN",
            arguments=secret,
            environment="test, live",
            effect="access",
            decision="confirm",
            rule="mode guarded: access",
            grant="ap_t2",
        ),
        entry(
            "declined",
            "create_secret",
            arguments=secret,
            effect="access",
            outcome="declined",
            message='A person declined this call. The person\'s note: "not\\u{a}now"',
        ),
        entry(
            "refused",
            "delete_customer",
            target="gone",
            arguments={"customer_id": "gone"},
            effect="destroy",
            outcome="not_found",
            message="No customer with this id, or the server's API key has no access to it.",
        ),
    ]


async def test_batch_is_recorded_as_one_request_and_each_call(world: World) -> None:
    katana = world.id_of("customers", "Katana")
    change: JsonValue = {"tool": "delete_customer", "arguments": {"customer_id": katana}}
    await world.call(batch_of(world.deletion("Katana")), world.form())
    typed = {"effect": "destroy", "decision": "typed", "rule": "mode guarded: destroy"}
    assert recorded(world) == [
        entry("asked", "apply_changes", arguments={"changes": [change]}, grant="ap_t2", **typed),
        entry("agreed", "apply_changes", decision="typed", approved_by="client_form", grant="ap_t2"),
        entry(
            "intent",
            "delete_customer",
            target=katana,
            name="Katana",
            arguments={"customer_id": katana},
            approved_by="client_form",
            grant="ap_t2.1",
            change="chg_t3",
            **typed,
        ),
        entry(
            "outcome",
            "delete_customer",
            target=katana,
            effect="destroy",
            grant="ap_t2.1",
            of="3",
            outcome="done",
            duration_ms=0.0,
        ),
    ]


NOW = datetime(2026, 11, 25, 1, 40, 35, tzinfo=UTC)
LOCAL = Caller(Asker(client_name="Claude Code"), None)
SYSTEM = System(now=lambda: NOW, monotonic=lambda: 1.0)


class Observer:
    """What happened in this process."""

    def __init__(self) -> None:
        self.entries: list[Mapping[str, JsonValue]] = []
        self.reads = 0

    def entry(self, line: Mapping[str, JsonValue]) -> None:
        self.entries.append(line)

    def read(self) -> None:
        self.reads += 1


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def log(tmp_path: Path) -> Generator[AuditFile]:
    log = AuditFile(tmp_path / "audit.jsonl", SYSTEM)
    yield log
    log.close()


@pytest.fixture
def recorder(log: AuditFile, observer: Observer) -> Recorder:
    return Recorder(log, "default", SYSTEM, observer)


@pytest.fixture
def unwritable(tmp_path: Path) -> Recorder:
    """A recorder whose log cannot be written."""
    (tmp_path / "a file").touch()
    return Recorder(AuditFile(tmp_path / "a file" / "audit.jsonl", SYSTEM), "default", SYSTEM)


def last(log: AuditFile) -> dict[str, JsonValue]:
    """The newest entry, without what the chain adds."""
    *_, entry = entries(log.path)
    return {name: value for name, value in entry.items() if name not in ("n", "time", "prev", "hash", "digest")}


def test_unrecorded_outcome_is_logged(
    recorder: Recorder, unwritable: Recorder, log: AuditFile, caplog: pytest.LogCaptureFixture
) -> None:
    """A call is not sent if its intent cannot be recorded."""
    call = CreateCustomer(name="Acme")
    current, change = allowed(call), stores.change()
    entry = recorder.intent(current, change, Asker())
    assert entry is not None
    unwritable.outcome(current, change, Asker(), intent=entry, outcome="done", began=0.0)
    unwritable.decided(AuditEvent.APPROVED, grant(), None)
    assert caplog.messages == [
        (
            "the entry outcome done of create_customer could not be audited: The audit log cannot be written (File"
            " exists)."
        ),
        "the entry approved of delete_customer could not be audited: The audit log cannot be written (File exists).",
    ]
    assert [record.exc_info for record in caplog.records] == [None, None]
    with pytest.raises(Unwritten):
        unwritable.intent(current, change, Asker())
    assert last(log)["event"] == "intent"


def test_read_is_observed_and_not_recorded(recorder: Recorder, log: AuditFile, observer: Observer) -> None:
    recorder.read()
    assert recorder.intent(allowed(GetCustomer(customer_id="cus_1")), stores.change(), Asker()) is None
    assert observer.reads == 1
    assert not log.path.exists()


def test_waiting_call_is_observed_and_not_recorded_again(
    recorder: Recorder, unwritable: Recorder, log: AuditFile, observer: Observer
) -> None:
    shown: Any = SimpleNamespace(effect=Effect.DESTROY, name="Acme")
    call = DeleteCustomer(customer_id="cus_1")
    recorder.waits(call, LOCAL, shown)
    (waits,) = observer.entries
    assert {name: value for name, value in waits.items() if name != "digest"} == {
        "time": "2026-11-25T01:40:35.000Z",
        "event": "asked",
        "principal": "local",
        "client_name": "Claude Code",
        "account": "default",
        "tool": "delete_customer",
        "target": "cus_1",
        "effect": "destroy",
        "name": "Acme",
    }
    assert not log.path.exists()
    unwritable.waits(call, LOCAL, shown)
    unwritable.read()


@pytest.mark.parametrize(
    ("call", "result", "target", "name"),
    [
        (CreateCustomer(name="Acme"), {"id": "cus_7", "name": "Acme"}, "cus_7", "Acme"),
        (CreateCustomer(name="Acme"), {"id": 7, "name": "Acme"}, "7", "Acme"),
        (CreateCustomer(name="Acme"), {"id": True}, "True", None),
        (CreateCustomer(name="Acme"), {"name": "Acme"}, None, None),
        (CreateCustomer(name="Acme"), None, None, None),
        (DeleteCustomer(customer_id="cus_1"), {"id": "cus_1", "name": "Acme"}, "cus_1", "Acme"),
        (DeleteCustomer(customer_id="cus_1"), {"id": "cus_2", "name": "Globex"}, "cus_1", None),
    ],
)
def test_outcome_names_the_target(
    recorder: Recorder,
    log: AuditFile,
    call: CreateCustomer | DeleteCustomer,
    result: dict[str, object] | None,
    target: str | None,
    name: str | None,
) -> None:
    """By the response if it is of the same resource."""
    made = None if result is None else FastnObject.model_validate(result)
    current, change, began = allowed(call), stores.change("chg_1"), SYSTEM.monotonic()
    entry = recorder.intent(current, change, Asker())
    assert entry is not None
    recorder.outcome(
        current, change, Asker(), intent=entry, outcome="done", began=began, message="as asked", result=made
    )
    logged = last(log)
    assert (logged["of"], logged["outcome"], logged["message"], logged["duration_ms"]) == ("1", "done", "as asked", 0.0)
    assert (logged.get("target"), logged.get("name")) == (target, name)
    assert "arguments" not in logged


def test_refusal_is_recorded_with_its_rule_and_note(recorder: Recorder, log: AuditFile) -> None:
    call = DeleteCustomer(customer_id="cus_1")
    common = {
        "principal": "local",
        "client_name": "Claude Code",
        "account": "default",
        "tool": "delete_customer",
        "target": "cus_1",
        "arguments": {"customer_id": "cus_1"},
        "effect": "destroy",
    }
    recorder.not_sent(call, LOCAL, Declined("A person declined.", facts={"rule": "rule 1", "note": "not now"}))
    assert last(log) == {
        "event": "declined",
        **common,
        "rule": "rule 1",
        "outcome": "declined",
        "message": 'A person declined. The person\'s note: "not now"',
    }
    recorder.not_sent(call, LOCAL, Refused("No.", facts={"rule": 1, "note": ""}))
    assert last(log) == {"event": "refused", **common, "outcome": "refused", "message": "No."}
    anna = Caller(Asker("https://id.example|anna", "Anna <a@example.com>"), None, frozenset())
    recorder.not_sent(call, anna, Refused("No."))
    named = {**common, "principal": "https://id.example|anna", "principal_name": "Anna <a@example.com>"}
    del named["client_name"]
    assert last(log) == {"event": "refused", **named, "outcome": "refused", "message": "No."}


def test_decision_is_recorded_with_who_asked_and_by_which_client(recorder: Recorder, log: AuditFile) -> None:
    anna: dict[str, Any] = {"principal": "https://id.example|anna", "asked_by": "Anna <a@example.com>"}
    request = replace(grant(), **anna, client="client-1", client_name="Claude Code")
    for event, by in ((AuditEvent.APPROVED, "local_page"), (AuditEvent.EXPIRED, None)):
        recorder.decided(event, request, "as agreed")
        logged = last(log)
        assert (logged["event"], logged.get("approved_by"), logged["message"]) == (event.value, by, "as agreed")
        named = {name: logged[name] for name in ("principal_name", "client", "client_name")}
        assert named == {"principal_name": anna["asked_by"], "client": "client-1", "client_name": "Claude Code"}
