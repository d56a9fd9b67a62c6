"""Effect of each field of each create and update tool, in each state of its target, and the reason.

A tool or a field without a row fails. An unknown state is stricter: `UNKNOWN` is a target without any field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from support.situations import situation as make_situation

from fastn_mcp.policy.decision import MODES, Decision
from fastn_mcp.policy.policy import Policy
from fastn_mcp.records.cron import is_subset
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.runtime import System
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.operation import HARMLESS_EXTRA, UNKNOWN
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.triggers import UpdateTrigger

WRITING = [o for o in CATALOG if o.tool_name().startswith(("create_", "update_", "invite_"))]

State = tuple[FastnObject | None, int | None]
"""A target, and its number of dependents."""


def there(uses: int | None = 0, **fields: object) -> State:
    return FastnObject.model_validate({"id": "x", **fields}), uses


def each(*values: Any) -> tuple[Any, ...]:
    return values


FREE: State = (None, 0)
LOST: State = (UNKNOWN, None)


@dataclass(frozen=True)
class Table:
    """The rows of one tool: `field value: effect in each state  # why`."""

    needed: dict[str, object]
    states: Sequence[State]
    rows: Sequence[tuple[str, object, str, str]]


USED, FIVE, A3 = "write" + " external" * 4, "external " * 5, "access " * 3
NOBODY_ACTS = "nothing starts a workflow that is new or switched off"

CUSTOMER: list[tuple[str, object, str, str]] = [
    ("name", "Acme", "write", "a documented label"),
    ("external_ref", "crm-1", "write", "our own reference"),
    ("admin_email", "ana@acme.example", "access", "is invited, and administers the customer"),
    ("plan", "Free", "write", "a documented field of the account's own configuration"),
    ("extra", {"tags": ["eu"], "notes": None}, "write", "people read it, and nothing acts on it"),
    ("extra", {"description": {"users": []}}, "access", "prose is text; an object may be anything"),
    ("extra", {"customerAdmin": {"email": "a@b.c"}}, "access", "the administrator's field has no documented name"),
    ("extra", {"tier": 3}, "access", "nobody has documented it"),
]
CONNECTOR: list[tuple[str, object, str, str]] = [
    ("name", "Gamma", USED, "shown wherever it is used"),
    ("description", "d", USED, "shown wherever it is used"),
    ("domain", "gamma.example", USED, "where its requests go"),
    (
        "auth_methods",
        [{"type": "OAUTH_2", "config": {}}],
        USED,
        "how one signs in",
    ),
    (
        "auth_methods",
        [{"type": "BASIC", "enabled": True}],
        FIVE,
        "unknown key",
    ),
    (
        "extra",
        {"labels": ["crm"]},
        USED,
        "people read it, and nothing acts on it",
    ),
    ("extra", {"visibility": "Public"}, FIVE, "publishes it"),
]
TABLES: dict[str, Table] = {
    "create_customer": Table(
        {"name": "n"}, [FREE], [*CUSTOMER, ("slug", "acme", "write", "a free one overwrites nothing")]
    ),
    "update_customer": Table(
        {"customer_id": "c"},
        [there(status="Pending Admin Activation"), there(3, status="Active"), LOST],
        [("name", "Acme", "write external external", "people recognise what is in use by its name"),
         ("external_ref", "crm-1", "external " * 3, "runs find their customer by it")]
        + [(field, value, " ".join([effect] * 3), why) for field, value, effect, why in CUSTOMER[2:]]
        + [("extra", {"plan": None}, "write " * 3, "clears what may be set"),
           ("extra", {"externalRef": None}, "external " * 3, "runs no longer find the customer by it"),
           ("extra", {"adminEmail": None}, A3, "takes the administrator away")],
    ),
    "create_connector": Table(
        {"name": "n", "slug": "s"},
        # The slug is free; or taken by one in use, a public one, one that does not say; or what has it is unknown.
        [FREE, there(3, visibility="Private"), there(0, visibility="Public"), there(0), LOST],
        [*CONNECTOR, ("slug", "gamma", USED, "a taken one is overwritten"),
         ("protocol", "MCP", USED, "how it speaks")],
    ),
    "update_connector": Table(
        {"connector_id": "c"},
        [there(visibility="private "), there(3, visibility="Private"), there(visibility="Public"), there(), LOST],
        [*CONNECTOR, ("extra", {"domain": None}, USED, "clears what may be set")],
    ),
    "create_connection": Table(
        {"connector_id": "hubspot"},
        [FREE],
        [("connector_id", "hubspot", "external", "a connection reaches the app"),
         ("auth_method_id", "a", "external", "likewise"), ("name", "default", "external", "likewise"),
         ("customer_id", "c", "external", "likewise"), ("credentials", {"token": "t"}, "external", "likewise"),
         ("extra", {"tags": []}, "external", "nothing lowers an effect")],
    ),
    "create_workflow": Table(
        {"name": "n"},
        [FREE, there(status="draft"), there(status="active"), LOST],
        [(field, value, "write write external external", NOBODY_ACTS + "; a taken slug is overwritten")
         for field, value in each(("name", "n"), ("slug", "s"), ("description", "d"), ("execution_tier", "LONG"),
                              ("timeout_ms", 5), ("extra", {"labels": ["a"]}))]
        + [("code", "c", "write external external external", "the code of what is overwritten may go live")]
        + [("extra", {"status": "active"}, "external external external external", "may publish it"),
           ("extra", {"triggers": []}, "external external external external", "may fire it")],
    ),
    "update_workflow": Table(
        {"workflow_id": "w"},
        [there(status="Draft"), there(status=" INACTIVE", publishedVersion="3"), there(status="Not published"),
         there(status="active"), there(status="draft", publishedVersion="3"), there(status="running"),
         there(status="production"), there(status=None), there(), LOST],
        [(field, value, "write " * 3 + "external " * 7, NOBODY_ACTS)
         for field, value in each(("name", "n"), ("description", "d"), ("execution_tier", "LONG"), ("timeout_ms", 5),
                              ("status", "inactive"), ("status", " Inactive"), ("extra", {"timeoutMs": None}))]
        + [(field, value, "external " * 10, "Fastn may publish new code within minutes, of a draft too")
           for field, value in each(("code", "c"), ("code", ""), ("extra", {"code": None}))]
        + [("status", word, "external " * 10, "goes live, or nobody knows what it means")
           for word in ("active", "active ", "Active", "running", "production", "on", "enabled", "Draft ", "off", "")]
        + [("extra", value, "external " * 10, "nobody has documented what it does")
           for value in each({"status": None}, {"enabled": True}, {"Description": "d"})],
    ),
    "create_trigger": Table(
        {"name": "n", "type": "webhook", "routes": [], "status": "Disabled"},
        [FREE],
        [(field, value, "write", "a disabled trigger does not fire")
         for field, value in each(
             ("name", "n"), ("type", "scheduler"), ("schedule", "* * * * *"), ("timezone", "UTC"), ("events", ["e"]),
             ("connector_id", "c"), ("connection_id", "c"), ("authentication", "NONE"), ("description", "d"),
             ("status", "disabled "), ("extra", {"tags": ["a"]}), ("extra", {}),
             ("routes", [{"routeId": "w", "environment": "live", "payload": {"enabled": True}}]))]
        + [("status", word, "external", "fires, or nobody knows what it means")
           for word in (None, "Active", "Inactive", "INACTIVE", "paused", "off", "")]
        + [("routes", [{"routeId": "w", key: value}], "external", "a route may fire by a flag of its own")
           for key, value in each(("status", "Active"), ("enabled", True), ("Status", "Active"), ("active", 1))]
        + [("extra", {"enabled": True}, "external", "may enable it after all"),
           ("customer_id", "c", "external", "the field of the customer is not documented")],
    ),
    "update_trigger": Table(
        {"trigger_id": "t"},
        [there(status="Disabled", schedule="0 2 * * 1"), there(status="Active", schedule="0 2 * * 1"),
         there(status="Inactive", schedule="0 2 * * 1"), LOST],
        [(field, value, "write " * 4, "says something to people only")
         for field, value in each(("description", "d"), ("extra", {"notes": "n"}))]
        + [("name", "n", "write" + " external" * 3, "people recognise what is in use by its name"),
           ("status", "Disabled", "write " * 4, "stops it")]
        + [("status", word, "external " * 4, "fires, or nobody knows what it means")
           for word in ("Active", "Inactive", "Enabled", "off", "")]
        + [(field, value, "write" + " external" * 3, "what fires does something else, or more often")
           for field, value in each(("routes", [{"routeId": "w"}]), ("timezone", "UTC"), ("events", ["e"]),
                                ("authentication", "NONE"), ("schedule", "* * * * *"), ("schedule", "0 2 1-30 * 1"))]
        + [("schedule", "0 2 * 1-6 1", "write write write external", "fires only when it fired before")]
        + [("routes", [{"routeId": "w", "enabled": True}], "external " * 4, "a flag of its own"),
           ("extra", {"schedule": None}, "external " * 4, "nobody knows when it fires without one")],
    ),
    "create_role": Table(
        {"name": "n", "permissions": []}, [FREE],
        [(field, value, "access", "says what people may do")
         for field, value in each(("name", "n"), ("parent", "Viewer"), ("permissions", ["*"]), ("description", "d"),
                              ("extra", {"tags": []}))],
    ),
    "create_api_key": Table(
        {"name": "n"}, [FREE],
        [(field, value, "access", "opens the account")
         for field, value in each(("name", "n"), ("mode", "Test"), ("permissions", "Viewer"), ("expires", "30d"),
                              ("customers", ["c"]), ("allowed_ips", ["::1"]), ("rate_limit_per_minute", 1),
                              ("extra", {"tags": []}))],
    ),
    "create_secret": Table(
        {"name": "N", "value": "v"}, [FREE, there(name="N"), LOST],
        [(field, value, A3, "workflows act by it, and one of the same name is overwritten")
         for field, value in each(("name", "N"), ("value", "w"), ("type", "JSON"), ("customer_id", "c"),
                              ("environment", "live"), ("extra", {"tags": []}))]
        + [("value_from_env", "V", A3, "likewise")],
    ),
    "invite_user": Table(
        {"email": "a@b.c", "role": "Viewer"}, [FREE],
        [(field, value, "access", "lets a person in")
         for field, value in each(("email", "a@b.c"), ("role", "Owner"), ("extra", {"tags": []}))],
    ),
}  # fmt: skip


def test_every_field_of_every_writing_tool_has_a_row() -> None:
    """A field without a decided effect fails here, not in an account."""
    for operation in WRITING:
        table = TABLES[operation.tool_name()]
        fields = operation.model_fields.keys() - operation.ours() - {*operation.route.parameters}
        assert {field for field, *_ in table.rows} == fields, operation.tool_name()
        assert all(why for *_, why in table.rows)
    assert TABLES.keys() == {operation.tool_name() for operation in WRITING}


@pytest.mark.parametrize("operation", WRITING, ids=lambda operation: operation.tool_name())
def test_effect_of_a_field_is_that_of_its_row(operation: AnyOperation) -> None:
    table = TABLES[operation.tool_name()]
    for field, value, effects, why in table.rows:
        arguments = {**table.needed, field: value}
        if field == "value_from_env":
            del arguments["value"]
        call = operation.model_validate(arguments)
        found = [call.effect_on(*state).value for state in table.states]
        assert found == effects.split(), (field, value, why)
        assert call.effective.rank <= min(Effect(effect).rank for effect in found)
        assert {call.effective.value, *found} <= {effect.value for effect in (operation.effect, *operation.raises_to)}


@pytest.mark.parametrize("more", [{"timezone": "Asia/Tokyo"}, {"routes": [{"routeId": "w"}]}, {"events": ["e"]}])
def test_rarer_schedule_does_not_excuse_other_changes(more: dict[str, Any]) -> None:
    """Fewer runs in another zone, or of another workflow, are other runs."""
    call = UpdateTrigger.model_validate({"trigger_id": "t", "schedule": "0 2 * 1-6 1", **more})
    assert call.effect_on(*there(status="Active", schedule="0 2 * * 1")) is Effect.EXTERNAL


UNDOCUMENTED = (
    "status", "enabled", "active", "isActive", "disabled", "state", "live", "published", "publish", "publishedVersion",
    "deployed", "deploy", "visibility", "public", "shared", "scope", "role", "roles", "owner", "ownerId", "permissions",
    "users", "members", "teams", "admins", "customerAdmin", "invite", "triggers", "workflows", "connections", "secrets",
    "apiKeys", "webhookUrl", "runImmediately", "startsAt", "autoPublish", "overwrite", "upsert", "environment2", "_set",
)  # fmt: skip


@pytest.mark.parametrize("operation", WRITING, ids=lambda operation: operation.tool_name())
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "read-only"])
def test_undocumented_field_needs_approval_in_the_best_case(operation: AnyOperation, mode: Any) -> None:
    assert not HARMLESS_EXTRA & {*UNDOCUMENTED}
    table = TABLES[operation.tool_name()]
    for name in UNDOCUMENTED:
        for extra in each({name: True}, {name: None}, {name: ""}, {name.upper(): []}, {"tags": [], f"{name}_": {}}):
            call = operation.model_validate({**table.needed, "extra": extra})
            effect = call.effect_on(*table.states[0])
            verdict = Policy(mode).decide(make_situation(call, effect, System().now(), dependents=0))
            assert verdict.decision is not Decision.ALLOW, (name, extra)


@pytest.mark.parametrize(
    ("new", "old", "subset"),
    [
        ("0 2 * * 1", "0 2 * * *", True),
        ("0 2 * * *", "0 2 * * *", True),
        ("0 2 1 * *", "0 2 * * *", True),
        ("0 2 * * 7", "0 2 * * 0", True),
        ("0 2 * * 0", "0 2 * * 7", True),
        ("0 2 * * 7", "0 2 * * 1", False),
        ("*/30 * * * *", "*/15 * * * *", True),
        ("0 2 * 1-3 *", "0 2 * 1-6 *", True),
        ("*/15 * * * *", "*/30 * * * *", False),
        ("0 2,3 * * *", "0 2 * * *", False),
        ("0 2 * 1-6 *", "0 2 * 1-3 *", False),
        ("0 2 1,2 * *", "0 2 1 * *", False),
        ("0 2 * * 1-5", "0 2 * * 1", False),
        ("0 2 1-30 * 1", "0 2 * * 1", False),  # either day matches: it fires daily
        ("0 0 1 * 0-6", "0 0 1 * *", False),  # likewise
        ("0 2 1 * 1", "0 2 1 * *", False),
        ("0 2 1 * *", "0 2 1 * 1", True),  # only one of the two days
        ("0 2 1 * 1", "0 2 1-15 * 1-5", True),
        ("0 2 */2 * 1", "0 2 * * 1", False),  # in some dialects either day matches
        ("0 2 */2 * *", "0 2 * * *", True),
        ("0 2 * * */2", "0 2 * * *", True),
        ("0 2 31 2 *", "0 2 * * *", False),  # never: cronsim refuses it
        ("0 2 * * MON", "0 2 * * *", False),  # names are not portable
        ("0 2 L * *", "0 2 * * *", False),
        ("5/15 * * * *", "* * * * *", False),  # nor is a step without a range
        ("0 0 2 * * 1", "0 2 * * *", False),
        ("@daily", "0 0 * * *", False),
        ("0 2 * * 1", "@daily", False),
        ("*/0 2 * * *", "* * * * *", False),
        ("0 25 * * *", "* * * * *", False),
        ("0  2 * * 1", "0 2 * * *", False),
        ("\uff10 2 * * 1", "0 2 * * *", False),
        ("0 2 * * 1", None, False),
    ],
)  # fmt: skip
def test_schedule_is_a_subset_only_if_certain(new: str, old: str | None, subset: bool) -> None:
    """cron(5): if both day fields are restricted, either may match. An uncertain case is not a subset."""
    assert is_subset(new, old) is subset
