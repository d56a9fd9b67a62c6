"""What the audit log keeps of a call, from the question to its outcome. Ours."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import JsonValue
from world import FormNow, World, yes

from fastn_mcp.guard.approval.request import Decline
from fastn_mcp.guard.audit.files import entries
from fastn_mcp.procedures.catalog import BY_NAME, parse
from fastn_mcp.tools.account import CreateSecret
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer

pytestmark = pytest.mark.anyio


def recorded(world: World) -> list[dict[str, JsonValue]]:
    """Its entries, without what the chain adds, and without the account and the caller, which are those of all."""
    found = list(entries(world.audit_path))
    assert [entry["n"] for entry in found] == list(range(1, len(found) + 1))
    assert {(entry["principal"], entry["account"]) for entry in found} == {("local", "test")}
    told = ("n", "time", "prev", "hash", "principal", "account", "digest")
    return [{name: value for name, value in entry.items() if name not in told} for entry in found]


def key(world: World, name: str) -> str:
    return str(world.sandbox.state.named("customers", name, by="name")["id"])


def entry(event: str, tool: str, **more: JsonValue) -> Mapping[str, JsonValue]:
    return {"event": event, "tool": tool, **more}


async def test_a_call_is_recorded_with_who_allowed_it_and_what_became_of_it(world: World) -> None:
    send = world.client.send

    async def slow(call: Any) -> Any:
        if call.route.method != "GET":
            world.clock.pass_(1.2504)
        return await send(call)

    world.client.send = slow  # type: ignore[method-assign, assignment]
    await world.call(CreateCustomer(name="Initech", plan="Free"))
    globex = key(world, "Globex Exports")
    await world.call(DeleteCustomer(customer_id=globex), FormNow(yes, world.clock))
    await world.call(CreateCustomer(name="Initech"))
    write = {"effect": "write", "decision": "allow", "rule": "mode guarded: write", "consent": "policy"}
    typed = {"effect": "destroy", "decision": "typed", "rule": "mode guarded: destroy"}
    target: dict[str, JsonValue] = {"target": globex, "arguments": {"customer_id": globex}, "name": "Globex Exports"}
    ended = {"duration_ms": 1250.4}
    assert recorded(world) == [
        entry("intent", "create_customer", arguments={"name": "Initech", "plan": "Free"}, change="chg_t2", **write),
        entry(
            "outcome",
            "create_customer",
            target=key(world, "Initech"),
            name="Initech",
            effect="write",
            of="1",
            outcome="done",
            **ended,
        ),
        entry("asked", "delete_customer", grant="t3", **target, **typed),
        entry("intent", "delete_customer", grant="t3", consent="client_form", change="chg_t4", **target, **typed),
        entry(
            "outcome", "delete_customer", target=globex, effect="destroy", grant="t3", of="4", outcome="done", **ended
        ),
        entry("intent", "create_customer", arguments={"name": "Initech"}, change="chg_t5", **write),
        entry(
            "outcome",
            "create_customer",
            effect="write",
            of="6",
            outcome="conflict",
            message="It conflicts with the current state (409).",
            **ended,
        ),
    ]


async def test_what_is_not_sent_is_recorded_with_why(world: World) -> None:
    await world.call(CreateSecret(name="TOKEN", value="hunter2"), FormNow(lambda _: Decline("not\nnow"), world.clock))
    await world.call(DeleteCustomer(customer_id="gone"), FormNow(yes, world.clock))
    secret: JsonValue = {"name": "TOKEN", "value": "[hidden-by-fastn-mcp]"}
    assert recorded(world) == [
        entry(
            "asked",
            "create_secret",
            name="TOKEN",
            arguments=secret,
            effect="access",
            decision="confirm",
            rule="mode guarded: access",
            grant="t2",
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
            message="No customer with this id, or this API key has no access to it.",
        ),
    ]


async def test_a_batch_is_recorded_as_one_question_and_as_each_of_its_calls(world: World) -> None:
    katana = key(world, "Katana")
    change: JsonValue = {"tool": "delete_customer", "arguments": {"customer_id": katana}}
    await world.call(parse(BY_NAME, "apply_changes", {"changes": [change]}).call, FormNow(yes, world.clock))
    typed = {"effect": "destroy", "decision": "typed", "rule": "mode guarded: destroy"}
    assert recorded(world) == [
        entry("asked", "apply_changes", arguments={"changes": [change]}, grant="t2", **typed),
        entry("agreed", "apply_changes", decision="typed", consent="client_form", grant="t2"),
        entry(
            "intent",
            "delete_customer",
            target=katana,
            name="Katana",
            arguments={"customer_id": katana},
            consent="client_form",
            grant="t2.1",
            change="chg_t3",
            **typed,
        ),
        entry(
            "outcome",
            "delete_customer",
            target=katana,
            effect="destroy",
            grant="t2.1",
            of="3",
            outcome="done",
            duration_ms=0.0,
        ),
    ]
