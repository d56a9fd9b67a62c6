"""What a person reads about each call: what happens, what is permanently lost, the button, and the exact call."""

import re
from dataclasses import replace
from typing import Any, NamedTuple, cast

import pytest
from pydantic import JsonValue
from support.example_calls import example
from support.questions import a_question
from support.situations import question_about
from support.stores import grant
from support.values import not_none

from fastn_mcp.account.dependence import Dependence, Dependents, Unchecked
from fastn_mcp.account.typed_argument import TypedArgument, TypedField
from fastn_mcp.guard.questions import by_power
from fastn_mcp.guard.sentences.catalog import describe_list, phrase
from fastn_mcp.guard.undo import RULES
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.documents import load, write
from fastn_mcp.ledger.question import FieldChange, Question
from fastn_mcp.ledger.store import Document
from fastn_mcp.records.labels import Names
from fastn_mcp.records.platform import NO_CUSTOMER, WEBHOOK_KEY, WEBHOOK_PUBLIC
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.catalog import CATALOG, OPERATIONS
from fastn_mcp.tools.fields import Known
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

CHANGING = [operation for operation in CATALOG if operation.effect is not Effect.READ]
BACK = "It can be changed back."
NOBODY = Dependence()
VALUE = TypedArgument("value", (TypedField("value"),))


def used_by(
    *counted: tuple[str, int, tuple[str, ...]], more: bool = False, unchecked: tuple[str, ...] = ()
) -> Dependence:
    gaps = tuple(Unchecked(kind, "Forbidden.") for kind in unchecked)
    users = (Dependents(kind, count, tuple({"name": name} for name in names), more) for kind, count, names in counted)
    return Dependence(tuple(users), gaps)


def question_of(
    tool: str,
    arguments: dict[str, Any],
    row: dict[str, Any] | None = None,
    users: Dependence = NOBODY,
    names: Names | None = None,
    effect: Effect | None = None,
    undoes: str = "",
    typed: TypedArgument | None = None,
) -> Question:
    call: Operation[Any] = OPERATIONS[tool].model_validate(arguments)
    target = None if row is None else OPERATIONS[tool].returns.model_validate(row) if row else FastnObject()
    return question_about(call, effect or call.effective, "test", target, users, "", names or {}, undoes, typed)


def sentences_of(*args: Any, **options: Any) -> dict[str, Any]:
    """Return the sentences, without what is empty."""
    data = cast("dict[str, Any]", question_of(*args, **options).says())
    data["facts"] = tuple((name, fact) for name, fact in data["facts"])
    return {name: value for name, value in data.items() if value}


@pytest.mark.parametrize("operation", CHANGING, ids=lambda operation: operation.tool_name())
def test_every_changing_tool_has_complete_sentences(operation: Any) -> None:
    fields: dict[str, Any] = {"slug": "acme", "type": "webhook", "routes": [], "status": "Active"}
    target = FastnObject.model_validate({"id": "one", "name": "Acme", **fields})
    there = None if operation.route.method == "POST" and "{" not in operation.route.path else target
    call = example(operation, **({"status": "Disabled"} if operation.tool_name() == "update_trigger" else {}))
    says = question_about(call, call.effective, "test", there, NOBODY)
    assert re.fullmatch(r"[A-Z][a-z]+ .+\.", says.title)
    assert says.button
    assert says.brief
    assert not says.lost or operation.effect is Effect.DESTROY
    assert says.lost or says.then
    # Two words of ours may not contradict each other: who reads "again" or "back" can also undo it.
    is_undoable = RULES[operation.tool_name()].by is not None
    promises = re.search(
        r"can be (deleted|changed back|created again|moved to Trash afterwards)|can revoke it", says.then
    )
    assert bool(promises) is is_undoable or operation.tool_name() in ("create_connection", "ai_build")
    # Our own words never hold a quotation mark, so that what stands between two is not ours.
    for text in (says.title, says.button, says.brief, says.lost, says.then, says.unchecked):
        assert text.replace('\\"', "").count('"') % 2 == 0


CUSTOMER = {"id": "c1", "name": "Globex", "plan": "Free", "externalRef": None, "adminEmail": None}
SHOP = {"id": "x1", "name": "default", "connector": {"name": "TikTok Shop"}, "endOrgId": "c1"}
HOURLY = {
    "id": "t1",
    "name": "Daily sync",
    "type": "scheduler",
    "status": "Active",
    "schedule": "0 15 * * *",
    "timezone": "UTC",
}
FLOW = {"id": "w1", "name": "stock-levels", "status": "active", "code": "old()", "description": None}
KATANA: Names = {"customer": {"c1": "Katana"}, "workflow": {"w1": "stock-levels"}, "connector": {"k1": "Shopify"}}
TEST_KEY = (
    "Anyone with this key can use it. A test key is not a sandbox: it acts on your live connections. "
    "You can revoke it at any time."
)
AGAIN = "itself can be created again, under a new id."
FIRES = "It is live once created. It can be deleted, but its runs cannot be undone."


class Case(NamedTuple):
    """The sentences of one call. `brief` is `first` without its full stop unless it is given.

    Without a `button` both are those of another case of the tool, and not compared again.
    """

    tool: str
    arguments: dict[str, Any]
    first: str
    button: str = ""
    brief: str = ""
    lost: str = ""
    then: str = ""
    unchecked: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    row: dict[str, Any] | None = None
    users: Dependence = NOBODY
    names: Names | None = None
    effect: Effect | None = None
    typed: TypedArgument | None = None

    def sentences(self) -> dict[str, Any]:
        parts = {"first": self.first, "lost": self.lost, "then": self.then, "unchecked": self.unchecked}
        parts |= {"facts": self.facts}
        if self.button:
            parts |= {"button": self.button, "brief": self.brief or self.first.removesuffix(".")}
        return {name: part for name, part in parts.items() if part}


CASES = [
    Case(
        "create_customer",
        {"name": "Globex"},
        first='Create customer "Globex".',
        button='Create "Globex"',
        then="It can be deleted afterwards.",
    ),
    Case(
        "create_customer",
        {"name": "Globex", "admin_email": "a@b.c"},
        first='Create customer "Globex" and invite "a@b.c" as its administrator.',
        button='Create "Globex" and invite "a@b.c"',
        brief='Create customer "Globex"',
        then=(
            'It can be deleted afterwards. An invitation e-mail to "a@b.c" goes out immediately and cannot be recalled.'
        ),
    ),
    Case(
        "create_customer",
        {"name": "Globex", "plan": "Growth", "extra": {"owner": "Ann", "seat": 1}},
        first='Create customer "Globex" and set "owner" and "seat", which are not documented.',
        then="It can be deleted afterwards.",
        unchecked="Its name or slug may be taken: Fastn may overwrite something.",
        row={},
    ),
    Case(
        "create_customer",
        {"name": "Globex", "plan": "Growth"},
        first='Overwrite the existing customer "Globex".',
        button='Overwrite "Globex"',
        brief='Overwrite customer "Globex"',
        then='The name or slug is taken by "c1". The earlier values can be restored.',
        row=CUSTOMER,
    ),
    Case(
        "update_customer",
        {"customer_id": "c1", "name": "Globex Exports"},
        first='Rename customer "Globex" to "Globex Exports".',
        button='Rename "Globex"',
        brief='Update customer "Globex"',
        then=BACK,
        row=CUSTOMER,
    ),
    Case(
        "update_customer",
        {"customer_id": "c1", "external_ref": "r", "admin_email": "a@b.c", "extra": {"x": 1}},
        first=(
            'Change 2 fields of customer "Globex": external ref and admin email and set "x", which is not documented.'
        ),
        then=(
            'The rest can be changed back. An invitation e-mail to "a@b.c" goes out immediately and cannot be recalled.'
        ),
        unchecked='The current "x" (not returned by Fastn) will be lost.',
        row=CUSTOMER,
    ),
    Case(
        "delete_customer",
        {"customer_id": "c1"},
        first='Delete customer "Globex".',
        button='Delete "Globex"',
        lost='Its connection "Shopify" and its secret "TOKEN" are permanently lost.',
        then=f"Its triggers may stop. The customer {AGAIN}",
        facts=(("History", "2 runs"),),
        row=CUSTOMER,
        users=used_by(
            ("connections", 1, ("Shopify of Globex",)), ("secrets", 1, ("TOKEN",)), ("executions", 2, ("a", "b"))
        ),
    ),
    Case(
        "create_connector",
        {"name": "Cin7", "slug": "cin7"},
        first='Create private connector "Cin7".',
        button='Create "Cin7"',
        brief='Create connector "Cin7"',
        then="It can be deleted afterwards.",
    ),
    Case(
        "update_connector",
        {"connector_id": "k1", "domain": "b.example"},
        first='Change the domain of connector "Cin7" from "a.example" to "b.example".',
        button='Update "Cin7"',
        brief='Update connector "Cin7"',
        then=f"The change stays in test until it is published. 3 connections use it. {BACK}",
        row={"id": "k1", "name": "Cin7", "domain": "a.example"},
        users=used_by(("connections", 3, ("A", "B", "C"))),
    ),
    Case(
        "delete_connector",
        {"connector_id": "k1"},
        first='Delete connector "Cin7".',
        button='Delete "Cin7"',
        lost=(
            'Its actions and events are permanently lost, and the credentials of its connections "A", "B" and "C";'
            " their owners have to authorise again."
        ),
        then='5 workflows stop. Trigger "t" stops. Too little is known to create it again.',
        unchecked="Workflows that use it were not checked.",
        row={"id": "k1", "name": "Cin7"},
        users=used_by(
            ("connections", 3, ("A", "B", "C")),
            ("workflows", 5, ("x", "y", "z")),
            ("triggers", 1, ("t",)),
            unchecked=("workflows",),
        ),
    ),
    Case(
        "create_connection",
        {"connector_id": "k1", "customer_id": "c1", "credentials": {"token": "hunter2"}},
        first='Connect "Shopify" for customer "Katana".',
        button='Connect "Shopify of Katana"',
        brief='Connect "Shopify of Katana"',
        then="Workflows can use it immediately. It can be deleted afterwards.",
        facts=(("Connector", "visibility not known; sends to an unknown address"),),
        names=KATANA,
    ),
    Case(
        "create_connection",
        {"connector_id": "k2"},
        first='Connect "k2" for your own account (no customer). You enter its credentials.',
        button="Connect it",
        brief='Connect "k2"',
        then="Workflows can use it immediately. It can be deleted afterwards.",
        facts=(("Connector", "could not be read; sends to an unknown address"),),
        typed=TypedArgument("credentials", (TypedField("token"),)),
    ),
    Case(
        "create_connection",
        {"connector_id": "k2"},
        first='Connect "k2" for your own account (no customer). You enter its credentials, if it takes any.',
        then="Workflows can use it immediately. It can be deleted afterwards.",
        unchecked="Which credentials it takes was not checked.",
        facts=(("Connector", "could not be read; sends to an unknown address"),),
        typed=TypedArgument("credentials", (), is_certain=False),
    ),
    Case(
        "create_connection",
        {"connector_id": "k2"},
        first='Connect "k2" for your own account (no customer).',
        then="It can be deleted afterwards.",
        facts=(("Connector", "could not be read; sends to an unknown address"),),
    ),
    Case(
        "delete_connection",
        {"connection_id": "x1"},
        first='Delete connection "TikTok Shop of Katana".',
        button='Delete "TikTok Shop of Katana"',
        lost='Its credentials are permanently lost. "Katana" has to authorise again.',
        then='Triggers "a" and "b" stop.',
        unchecked="Workflows that use it were not checked.",
        row=SHOP,
        users=used_by(("triggers", 2, ("a", "b")), unchecked=("workflows",)),
        names=KATANA,
    ),
    Case(
        "create_workflow",
        {"name": "stock-levels"},
        first='Create workflow "stock-levels" as a draft.',
        button='Create "stock-levels"',
        brief='Create workflow "stock-levels"',
        then=(
            "It does not run until Fastn, or a person in the dashboard, publishes it. It can be moved to Trash"
            " afterwards."
        ),
    ),
    Case(
        "create_workflow",
        {"name": "stock-levels", "code": "new()"},
        first='Overwrite the existing workflow "stock-levels".',
        button='Overwrite "stock-levels"',
        brief='Overwrite workflow "stock-levels"',
        then='The name or slug is taken by "w1".',
        unchecked="The current code (not returned by Fastn) will be lost.",
        row={"id": "w1", "name": "stock-levels"},
    ),
    Case(
        "update_workflow",
        {"workflow_id": "w1", "code": "new()"},
        first='Change the code of workflow "stock-levels".',
        button='Update "stock-levels"',
        brief='Update workflow "stock-levels"',
        then=f"Fastn may or may not publish the new code, within minutes. {BACK}",
        facts=(("Status", "active"),),
        row=FLOW,
    ),
    Case(
        "delete_workflow",
        {"workflow_id": "w1"},
        first='Move workflow "stock-levels" to Trash.',
        button='Move "stock-levels" to Trash',
        brief='Move workflow "stock-levels" to Trash',
        then=(
            'Its trigger "Daily sync" stops. A workflow can be restored, with its slug and history, only in the'
            " dashboard (Settings > Trash)."
        ),
        unchecked="Other callers were not checked.",
        facts=(("Status", "active"),),
        row=FLOW,
        users=used_by(("triggers", 1, ("Daily sync",)), unchecked=("other callers",)),
    ),
    Case(
        "run_workflow",
        {"workflow_id": "w1", "customer_id": "c1", "environment": "live", "input": {"since": "x"}},
        first='Run workflow "stock-levels" now in the live environment for customer "Katana".',
        button='Run "stock-levels" in live',
        brief='Run "stock-levels" in live',
        then='Its effects in "shopify" and "cin7" cannot be undone from here.',
        facts=(
            ("Status", "active"),
            ("Input", '"{\\"since\\":\\"x\\"}"'),
        ),
        row={**FLOW, "connectors": [{"slug": "shopify", "mode": "SAAS"}, "cin7"]},
        names=KATANA,
    ),
    Case(
        "run_workflow",
        {"workflow_id": "w1", "customer_ref": "acme", "installation_id": "inst_1", "environment": "qa"},
        first='Run workflow "stock-levels" now in the "qa" environment for customer "acme" as installed by "inst_1".',
        button='Run "stock-levels" in "qa"',
        brief='Run "stock-levels" in "qa"',
        then="Its effects in other systems cannot be undone from here.",
        facts=(("Status", "active"),),
        row=FLOW,
    ),
    Case(
        "create_trigger",
        {
            "name": "Hourly",
            "type": "scheduler",
            "schedule": "0 * * * *",
            "timezone": "Europe/Berlin",
            "routes": [{"routeId": "w1", "environment": "live"}, {"routeId": "w2"}],
        },
        first=(
            'Create trigger "Hourly": run workflows "stock-levels" in the live environment and "w2" every hour'
            ' ("Europe/Berlin").'
        ),
        button='Create "Hourly"',
        brief='Create trigger "Hourly"',
        then=f"{FIRES} {NO_CUSTOMER}",
        names=KATANA,
    ),
    Case(
        "create_trigger",
        {"name": "Hook", "type": "webhook", "status": "Disabled", "routes": []},
        first=(
            'Create trigger "Hook", switched off, which fires whenever its URL is called with an API key. It starts no'
            " workflow."
        ),
        then=f"It does not fire until it is switched on. It can be deleted afterwards. {WEBHOOK_KEY} {NO_CUSTOMER}",
    ),
    Case(
        "update_trigger",
        {"trigger_id": "t1", "schedule": "*/7 * * * *"},
        first='Change the schedule of trigger "Daily sync" from daily at 15:00 to on the schedule "*/7 * * * *".',
        button='Update "Daily sync"',
        brief='Update trigger "Daily sync"',
        then="The change takes effect immediately. The change can be undone; its runs cannot.",
        facts=(
            ("Schedule", '"0 15 * * * UTC"'),
            ("Status", "active"),
        ),
        row=HOURLY,
        effect=Effect.EXTERNAL,
    ),
    Case(
        "delete_trigger",
        {"trigger_id": "t1"},
        first='Delete trigger "Daily sync".',
        button='Delete "Daily sync"',
        then=f"The trigger {AGAIN}",
        unchecked="What uses it was not checked.",
        facts=(
            ("Schedule", '"0 15 * * * UTC"'),
            ("Status", "active"),
        ),
        row={**HOURLY, "routes": []},
        users=used_by(unchecked=("who uses it",)),
    ),
    Case(
        "delete_trigger",
        {"trigger_id": "t1"},
        first='Delete trigger "Hook".',
        lost="Its webhook URL is permanently lost.",
        then=f"The trigger {AGAIN}",
        facts=(("Type", "webhook"),),
        row={"id": "t1", "name": "Hook", "type": "webhook", "routes": []},
    ),
    Case(
        "invite_user",
        {"email": "sam.ode@partner.example", "role": "Admin"},
        first='Invite "sam.ode@partner.example" as "Admin".',
        button='Invite as "Admin"',
        brief='Invite "sam.ode@partner.example" as "Admin"',
        names={"role": {"Admin": "Admin"}},
        then=(
            "An invitation e-mail goes out immediately and cannot be recalled. A person's role can be changed, and"
            " their access removed, only in the dashboard (Settings > People)."
        ),
    ),
    Case(
        "create_role",
        {"name": "Auditor", "parent": "Viewer", "permissions": ["audit:read", "*", "users:write"]},
        first='Create role "Auditor" with every permission ("*").',
        button='Create role "Auditor"',
        brief='Create role "Auditor"',
        then="Roles can be changed or deleted only in the dashboard (Settings > Roles).",
        facts=(("Has fewer permissions than", '"Viewer"'),),
        names={"role": {"Viewer": "Viewer"}},
    ),
    Case(
        "create_api_key",
        {"name": "BI", "mode": "Live", "permissions": "Full access", "expires": "never"},
        first='Create a full-access Live API key "BI", without an expiry date.',
        button='Create full-access key "BI"',
        brief='Create a full-access Live API key "BI", without an expiry date',
        then=(
            "Anyone with this key can do everything in this account, including deletions. "
            "You can revoke it at any time."
        ),
        facts=(("Customers", "all"), ("IP addresses", "any")),
    ),
    Case(
        "create_api_key",
        {"name": "BI", "customers": ["c1", "c2"], "allowed_ips": ["10.0.0.1"]},
        first='Create a Test API key "BI": read only, valid for 90 days.',
        then=TEST_KEY,
        facts=(("Customers", '"Katana" and "c2"'), ("IP addresses", '"10.0.0.1"')),
        names=KATANA,
    ),
    Case(
        "create_api_key",
        {"name": "BI", "mode": "qa", "permissions": "Operator", "expires": "2027-01-01"},
        first='Create a "qa" API key "BI": role "Operator", valid until "2027-01-01".',
        then=TEST_KEY,
        facts=(("Customers", "all"), ("IP addresses", "any")),
    ),
    Case(
        "revoke_api_key",
        {"api_key_id": "4"},
        first='Revoke API key "BI".',
        button='Revoke "BI"',
        lost="It never works again.",
        then="Everything that uses it stops immediately; it was last used 2026-11-24 08:30 UTC.",
        facts=(("Mode", "live"),),
        row={"id": 4, "name": "BI", "mode": "Live", "lastUsedAt": "2026-11-24T08:30:00Z"},
    ),
    Case(
        "create_secret",
        {"name": "TOKEN", "value_from_env": "SHOP_TOKEN", "customer_id": "c1", "environment": "live"},
        first='Store secret "TOKEN" for customer "Katana" in the live environment.',
        button='Store "TOKEN"',
        brief='Store secret "TOKEN"',
        then="No other secret has this name, customer and environment. It can be deleted afterwards.",
        facts=(("Value", 'from the server\'s variable "SHOP_TOKEN"'),),
        names=KATANA,
    ),
    Case(
        "create_secret",
        {"name": "TOKEN"},
        first='Store secret "TOKEN". You enter its value.',
        then="No other secret has this name, customer and environment. It can be deleted afterwards.",
        typed=VALUE,
    ),
    Case(
        "create_secret",
        {"name": "TOKEN"},
        first='Overwrite secret "TOKEN". You enter its value.',
        button='Overwrite "TOKEN"',
        brief='Overwrite secret "TOKEN"',
        lost="The old value is permanently lost.",
        row={"id": "s1", "name": "TOKEN"},
        typed=VALUE,
    ),
    Case(
        "create_secret",
        {"name": "TOKEN", "value": "hunter2"},
        first='Overwrite secret "TOKEN".',
        lost="The old value is permanently lost.",
        row={"id": "s1", "name": "TOKEN"},
    ),
    Case(
        "create_secret",
        {"name": "TOKEN", "value": "hunter2"},
        first='Store secret "TOKEN".',
        lost="If Fastn mistakes another secret for this one, its value is permanently lost.",
        unchecked="Whether another secret has this name, customer and environment was not checked.",
        row={},
    ),
    Case(
        "delete_secret",
        {"secret_id": "s1"},
        first='Delete secret "TOKEN" of customer "Katana".',
        button='Delete "TOKEN"',
        brief='Delete secret "TOKEN"',
        lost="Its value is permanently lost; a person has to enter it again.",
        then='Workflow "partner-sync" fails.',
        unchecked="Workflows that read it were not checked.",
        facts=(("Customer", '"Katana"'),),
        row={"id": "s1", "name": "TOKEN", "customerId": "c1"},
        users=used_by(("workflows", 1, ("partner-sync",)), unchecked=("workflows that read it",)),
        names=KATANA,
    ),
    Case(
        "ai_chat",
        {"message": "What is wrong?"},
        first='Ask Fastn\'s AI: "What is wrong?".',
        button="Ask Fastn's AI",
        then="This spends AI credits. The AI asks before each change.",
    ),
    Case(
        "ai_chat",
        {"message": "approve", "session_id": "s"},
        first='Answer Fastn\'s AI: "approve".',
        button="Send this answer",
        then=(
            'Pending there: "Delete stock-levels", "{\\"a\\":1}". This spends AI credits.'
            " Its changes have to be undone by hand."
        ),
        row={"id": "s", "pending": ["Delete stock-levels", {"a": 1}]},
    ),
    Case(
        "ai_build",
        {"type": "workflow", "prompt": "Returns to Xero", "name": "returns", "approval_mode": "auto"},
        first='Let Fastn\'s AI build a workflow named "returns", and make changes without asking: "Returns to Xero".',
        button="Let it build",
        then="This spends AI credits. Its changes have to be undone by hand. What it builds can be deleted.",
    ),
    Case(
        "ai_build",
        {"type": "agent", "prompt": "x" * 203},
        first=f'Let Fastn\'s AI build a "agent": "{"x" * 200}" [3 more characters].',
        then="This spends AI credits. The AI asks before each change. What it builds can be deleted.",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case.tool}" for number, case in enumerate(CASES)])
def test_sentences_of_each_tool(case: Case) -> None:
    sentences = sentences_of(case.tool, case.arguments, case.row, case.users, case.names, case.effect, typed=case.typed)
    expected = case.sentences()
    assert {name: sentences[name] for name in sentences if case.button or name not in ("button", "brief")} == expected


def test_every_changing_tool_has_a_case() -> None:
    assert {case.tool for case in CASES} == {operation.tool_name() for operation in CHANGING}


@pytest.mark.parametrize(
    ("arguments", "row", "first"),
    [
        ({"name": "New", "plan": "Growth"}, CUSTOMER, 'Change 2 fields of customer "Globex": name and plan.'),
        ({"plan": "Free"}, CUSTOMER, 'Set the plan of customer "Globex" to the value that it already has.'),
        (
            {"plan": "Free", "external_ref": "r"},
            {},
            'Set the external ref and plan of customer "c1", which could not be read.',
        ),
        ({"external_ref": "r"}, CUSTOMER, 'Set the external ref of customer "Globex" to "r".'),
        ({"extra": {"plan": None}}, CUSTOMER, 'Clear the plan of customer "Globex", which is "Free".'),
        ({"extra": {"x": 1}}, CUSTOMER, 'Update customer "Globex" and set "x", which is not documented.'),
        ({"plan": "p" * 80}, CUSTOMER, f'Change the plan of customer "Globex" from "Free" to "{"p" * 80}".'),
        ({"plan": "p" * 81}, CUSTOMER, 'Change the plan of customer "Globex".'),
        ({"plan": "Growth"}, {**CUSTOMER, "plan": "p" * 81}, 'Change the plan of customer "Globex".'),
        ({"plan": "Growth"}, {**CUSTOMER, "plan": ["Free"]}, 'Change the plan of customer "Globex".'),
        ({"plan": "Growth"}, {**CUSTOMER, "plan": {"a": 1}}, 'Change the plan of customer "Globex".'),
        ({"plan": "Growth"}, {**CUSTOMER, "plan": 7}, 'Change the plan of customer "Globex" from "7" to "Growth".'),
    ],
)
def test_update_names_its_field_with_values_or_counts_fields(
    arguments: dict[str, Any], row: dict[str, Any], first: str
) -> None:
    """A long value or one with parts is left to the list of changes."""
    sentences = sentences_of("update_customer", {"customer_id": "c1", **arguments}, row)
    assert sentences["first"] == first
    if first.endswith("which changes nothing."):
        assert {*sentences} <= {"first", "button", "brief", "facts"}, "nothing is lost, and nothing can be changed back"


def test_status_is_described_as_a_switch() -> None:
    def first(row: dict[str, Any] = HOURLY, **arguments: Any) -> str:
        return sentences_of("update_trigger", {"trigger_id": "t1", **arguments}, row)["first"]

    off = {**HOURLY, "status": "Disabled"}
    same = sentences_of("update_trigger", {"trigger_id": "t1", "status": "Active"}, HOURLY, effect=Effect.EXTERNAL)
    assert "then" not in same, "it fires as before"
    unread = sentences_of("update_trigger", {"trigger_id": "t1", "status": "Active"}, {}, effect=Effect.EXTERNAL)
    assert unread["then"].startswith("It is live from then on.")
    assert first(status="Disabled") == 'Switch off trigger "Daily sync".'
    assert first(off, status="Active") == 'Switch on trigger "Daily sync".'
    assert first(off, status="enabled") == 'Change the status of trigger "Daily sync" from "Disabled" to "enabled".'
    assert first(status="inactive") == 'Change the status of trigger "Daily sync" from "Active" to "inactive".'
    assert first(status="Paused") == 'Change the status of trigger "Daily sync" from "Active" to "Paused".'
    assert first(off, status="Active", name="x") == 'Switch on trigger "Daily sync" and rename it to "x".'
    assert (
        first(off, status="Active", schedule="0 9 * * *", timezone="CET")
        == 'Switch on trigger "Daily sync" and run it daily at 09:00 ("CET").'
    )
    assert (
        first(status="Disabled", timezone="CET")
        == 'Switch off trigger "Daily sync" and change the timezone of it from "UTC" to "CET".'
    )
    assert (
        first(off, status="Active", schedule="0 9 * * *", name="x")
        == 'Switch on trigger "Daily sync" and change 2 fields of it: name and schedule.'
    )
    assert (
        first(schedule="0 9 * * *", timezone="CET") == 'Change 2 fields of trigger "Daily sync": schedule and timezone.'
    )


def _known(operation: Any, name: str) -> tuple[str, ...]:
    marks: list[Any] = operation.model_fields[name].metadata if name in operation.model_fields else []
    return next((mark.values for mark in marks if isinstance(mark, Known)), ())


_UNKNOWN_STATUSES = {"enabled", "off", "Dis\u017fabled"}
_STATUSES = sorted({value for each in CATALOG for value in _known(each, "status")} | _UNKNOWN_STATUSES)
_WITH_STATUS = [each for each in CHANGING if "status" in each.model_fields]
_REQUIRED: dict[str, dict[str, Any]] = {
    "create_trigger": {"name": "T", "type": "webhook", "routes": []},
    "update_trigger": {"trigger_id": "t1"},
    "update_workflow": {"workflow_id": "w1"},
}


@pytest.mark.parametrize("status", _STATUSES)
@pytest.mark.parametrize("operation", _WITH_STATUS, ids=lambda operation: operation.tool_name())
def test_undocumented_status_is_never_called_switched_on_or_off(operation: Any, status: str) -> None:
    row = {"id": "x", "name": "X", "status": "Active", "publishedVersion": "v1"}
    is_create = operation.tool_name().startswith("create_")
    call = operation.model_validate({**_REQUIRED[operation.tool_name()], "status": status})
    sentences = " ".join(question_of(operation.tool_name(), call.arguments(), None if is_create else row).summary())
    is_known = status.casefold() in map(str.casefold, _known(operation, "status"))
    assert any(said in sentences.lower() for said in ("switch off", "switch on", "switched")) <= is_known
    if not is_known:
        assert call.effective is Effect.EXTERNAL
        live = ("It is live once created.", "It is live from then on.", "takes effect immediately")
        assert any(words in sentences for words in live) or "workflow" in operation.tool_name()


def test_only_a_trigger_that_may_fire_is_said_to_fire() -> None:

    def then(row: dict[str, Any], effect: Effect, **arguments: Any) -> str:
        return sentences_of("update_trigger", {"trigger_id": "t1", **arguments}, row, effect=effect)["then"]

    off = {**HOURLY, "status": "Disabled"}
    back = "The change can be undone; its runs cannot."
    fires = f"The change takes effect immediately. {back}"
    assert then(HOURLY, Effect.EXTERNAL, timezone="CET") == fires
    assert then(off, Effect.EXTERNAL, status="Active") == f"It is live from then on. {back}"
    assert then(off, Effect.EXTERNAL, timezone="CET") == BACK
    assert then(HOURLY, Effect.WRITE, schedule="0 15 * * 1") == BACK
    hook = {**HOURLY, "type": "webhook", "authentication": "API_KEY"}
    called = f"It fires whenever anyone calls its URL. {WEBHOOK_PUBLIC}"
    public = f"It is live from then on. {called} {back}"
    changed = f"The change takes effect immediately. {called} {back}"
    assert then(hook, Effect.EXTERNAL, authentication="NONE") == changed
    assert (
        then({**hook, **off, "type": "webhook", "authentication": {"type": "NONE"}}, Effect.EXTERNAL, status="Active")
        == public
    )


@pytest.mark.parametrize(
    ("given", "when"),
    [
        ({"type": "scheduler"}, "on a schedule"),
        ({"type": "scheduler", "schedule": "0 9 * * *"}, "daily at 09:00"),
        ({"type": "scheduler", "schedule": "@daily"}, 'on the schedule "@daily"'),
        ({"type": "webhook", "authentication": "NONE"}, "whenever anyone calls its URL"),
        ({"type": "webhook", "authentication": "NONE_"}, "whenever its URL is called, perhaps by anyone"),
        ({"type": "webhook", "authentication": "API_KEY"}, "whenever its URL is called with an API key"),
        ({"type": "webhook"}, "whenever its URL is called with an API key"),
        ({"type": "app_event"}, "whenever its app reports something"),
        ({"type": "app_event", "events": ["a", "b", "c"]}, 'whenever its app reports "a" or "b" or "c"'),
    ],
)
def test_new_trigger_says_when_it_fires(given: dict[str, Any], when: str) -> None:
    arguments = {"name": "T", "routes": [{"workflowId": "w1", "environment": "qa"}], **given}
    first = sentences_of("create_trigger", arguments)["first"]
    assert first == f'Create trigger "T": run workflow "w1" in the "qa" environment {when}.'


def test_new_trigger_of_an_undocumented_type_is_named_by_its_type() -> None:
    arguments: dict[str, Any] = {"name": "T", "type": "Poll", "routes": []}
    running = arguments | {"routes": [{"workflowId": "w1", "environment": "qa"}]}
    first = [sentences_of("create_trigger", each)["first"] for each in (running, arguments)]
    assert first == [
        'Create trigger "T" of type "Poll": run workflow "w1" in the "qa" environment.',
        'Create trigger "T" of type "Poll". It starts no workflow.',
    ]


@pytest.mark.parametrize(
    ("permissions", "can"),
    [
        (["workflows:read"], "with 1 permission, read-only"),
        (["workflows:read", "usage:view"], "with 2 permissions, all of them read-only"),
        (["workflows:read", "workflows:run"], "with 2 permissions"),
        (["users:write"], 'with 1 permission, a powerful one: "users:write"'),
        (["a:b", "workflows:*", "usage:view"], 'with 3 permissions, 2 of them powerful: "workflows:*" and "a:b"'),
        ([" *:* ", "usage:view"], 'with every permission ("*")'),
        (["*.*"], 'with every permission ("*")'),
    ],
)
def test_role_is_described_by_its_strongest_permissions(permissions: list[str], can: str) -> None:
    """An unknown permission counts as powerful."""
    assert sentences_of("create_role", {"name": "R", "permissions": permissions})["first"] == f'Create role "R" {can}.'


def test_permissions_are_shown_the_most_powerful_first() -> None:
    """Everything, then unknown ones, then changes, then reads."""
    given: list[JsonValue] = ["workflows:read", "secrets:read", "workflows.run", "customers:own", "*", "Usage:VIEW", 7]
    ordered = ["*", "secrets:read", "customers:own", 7, "workflows.run", "workflows:read", "Usage:VIEW"]
    assert by_power("permissions", given) == ordered
    assert by_power("scopes", given) == ordered
    assert by_power("role", {"permissions": given, "names": given}) == {"permissions": ordered, "names": given}


@pytest.mark.parametrize(
    ("users", "lost"),
    [
        (NOBODY, ""),
        (used_by(("connections", 2, ("A", "B"))), 'Its connections "A" and "B" are permanently lost.'),
        (used_by(("secrets", 12, ("A", "B", "C"))), "Its 12 secrets are permanently lost."),
        (used_by(("secrets", 3, ("A", "B", "C")), more=True), "Its secrets (at least 3) are permanently lost."),
        (used_by(("secrets", 1, ("A",)), more=True), "Its secrets (at least 1) are permanently lost."),
        (used_by(unchecked=("secrets",)), "All its secrets are permanently lost."),
        (
            used_by(("secrets", 1, ("A",)), unchecked=("secrets", "connections", "triggers")),
            'All its connections, its secret "A" and all its other secrets are permanently lost.',
        ),
        (used_by(("triggers", 1, ("A",))), ""),
    ],
)
def test_deleting_a_customer_names_what_is_lost(users: Dependence, lost: str) -> None:
    """What could not be checked counts as lost."""
    assert sentences_of("delete_customer", {"customer_id": "c1"}, CUSTOMER, users).get("lost", "") == lost


def test_record_that_cannot_be_created_again_is_lost() -> None:
    """A new id alone is no loss of data; a record that could not be read is one."""
    assert (
        sentences_of("delete_customer", {"customer_id": "c1"}, None)["lost"]
        == "The customer itself is permanently lost."
    )


@pytest.mark.parametrize(
    ("users", "credentials"),
    [
        (NOBODY, ""),
        (
            used_by(("connections", 1, ("A",))),
            ', and the credentials of its connection "A"; its owner has to authorise again',
        ),
        (
            used_by(("connections", 1, ("A",)), more=True),
            ", and the credentials of its connections (at least 1); their owners have to authorise again",
        ),
        (used_by(unchecked=("connections",)), ", and the credentials of all its connections"),
    ],
)
def test_deleting_a_connector_names_the_lost_credentials(users: Dependence, credentials: str) -> None:
    whole = {"id": "k1", "name": "Cin7", "slug": "cin7"}
    sentences = sentences_of("delete_connector", {"connector_id": "k1"}, whole, users)
    assert sentences["lost"] == f"Its actions and events are permanently lost{credentials}."
    assert sentences["then"] == f"The connector {AGAIN}"


def test_verb_agrees_with_the_number_of_users() -> None:
    def then(users: Dependence) -> str:
        row = {"id": "k1", "name": "Cin7", "domain": "a"}
        return sentences_of("update_connector", {"connector_id": "k1", "domain": "b"}, row, users)["then"].split(". ")[
            1
        ]

    assert then(used_by(("connections", 1, ("A",)))) == "1 connection uses it"
    assert then(used_by(("connections", 2, ("A", "B")))) == "2 connections use it"
    assert then(used_by(("connections", 1, ("A",)), more=True)) == "At least 1 connection use it"


@pytest.mark.parametrize(
    ("states", "stopping"),
    [
        (("live", "switched off"), 'Its trigger "0" stops. '),
        (("live", "broken"), 'Its triggers "0" and "1" stop. '),
        (("switched off",), ""),
    ],
)
def test_only_what_is_not_off_already_stops(states: tuple[str, ...], stopping: str) -> None:
    rows = tuple({"name": str(number), "state": state} for number, state in enumerate(states))
    triggers = Dependence((Dependents("triggers", len(rows), rows),))
    sentences = sentences_of("delete_workflow", {"workflow_id": "w"}, {"id": "w", "name": "W"}, triggers)
    assert sentences["then"].startswith(f"{stopping}A workflow can be restored, with its slug and history")
    unread = Dependence((Dependents("workflows", 5, (), states={"live": 3, "never published": 2}),))
    assert "3 workflows stop. " in sentences_of("delete_connector", {"connector_id": "c"}, None, unread)["then"]


def test_deleting_a_connection_names_who_has_to_authorise_again() -> None:
    row = {"id": "x1", "name": "Main", "connector": {"name": "Slack"}}
    sentences = sentences_of("delete_connection", {"connection_id": "x1"}, row)
    assert sentences["lost"] == "Its credentials are permanently lost. A person has to authorise again."
    by_id = sentences_of("delete_connection", {"connection_id": "x1"}, {**row, "endOrgId": "c9"})
    assert by_id["lost"] == 'Its credentials are permanently lost. "c9" has to authorise again.'
    by_row = sentences_of(
        "delete_connection", {"connection_id": "x1"}, {**row, "endOrgId": "c9", "endOrg": {"name": "Nine"}}
    )
    assert by_row["lost"] == 'Its credentials are permanently lost. "Nine" has to authorise again.'


def test_update_names_values_that_cannot_be_restored() -> None:
    row = {"id": "k1", "name": "Cin7", "authMethods": [{"type": "BEARER", "config": {"token": "hunter2"}}]}
    methods = {"auth_methods": [{"type": "BASIC"}]}
    only = sentences_of("update_connector", {"connector_id": "k1", **methods}, row)
    assert only["lost"] == "The current auth methods will be lost."
    assert only["then"] == "The change stays in test until it is published."
    more = sentences_of("update_connector", {"connector_id": "k1", **methods, "name": "x"}, row)
    assert more["then"] == "The change stays in test until it is published. The rest can be changed back."
    hidden = sentences_of("update_connector", {"connector_id": "k1", "domain": "b", "description": "d"}, row)
    assert hidden["unchecked"] == "The current description and domain (not returned by Fastn) will be lost."
    assert "lost" not in hidden


def test_run_names_at_most_five_apps() -> None:
    nameless: list[Any] = ["a", {}]
    for apps in ([], [{"mode": "SAAS"}], nameless, ["a"] * 6, "shopify", None):
        sentences = sentences_of("run_workflow", {"workflow_id": "w1"}, {**FLOW, "connectors": apps})
        assert sentences["then"] == "Its effects in other systems cannot be undone from here."
    five = sentences_of("run_workflow", {"workflow_id": "w1"}, {**FLOW, "connectors": [{"name": "A", "slug": "a"}] * 5})
    assert five["then"].count('"A"') == 5


def test_long_name_is_left_out_of_the_button() -> None:
    for length, on_button in ((40, f'Delete "{"n" * 40}"'), (41, "Delete this customer")):
        sentences = sentences_of("delete_customer", {"customer_id": "c1"}, {"id": "c1", "name": "n" * length})
        assert sentences["button"] == on_button
        assert sentences["first"] == f'Delete customer "{"n" * length}".'
    role = sentences_of("create_role", {"name": "n" * 41, "permissions": ["usage:view"]})
    assert role["button"] == "Create this role"
    key = sentences_of("create_api_key", {"name": "n" * 41})
    assert key["button"] == "Create this key"
    assert sentences_of("invite_user", {"email": "a@b.c", "role": "r" * 38})["button"] == f'Invite as "{"r" * 38}"'
    assert sentences_of("invite_user", {"email": "a@b.c", "role": "r" * 39})["button"] == "Invite this person"


def test_undo_names_the_change_that_it_reverts() -> None:
    sentences = sentences_of("delete_customer", {"customer_id": "c1"}, CUSTOMER, undoes="the change made 2 hours ago")
    assert sentences == {
        "first": 'Undo the change made 2 hours ago: delete customer "Globex".',
        "button": 'Undo: Delete "Globex"',
        "brief": 'Undo: Delete customer "Globex"',
        "then": f"Its triggers may stop. The customer {AGAIN}",
    }


def test_sentences_are_stored_and_loaded() -> None:
    question = question_of("create_api_key", {"name": "BI"})
    stored = not_none(write(replace(grant(), question=question), "g1").value)
    assert load(ApprovalRequest, Document("approval g1", stored, 1)).question == question
    assert question.summary() == [question.title, question.then, "Customers: all. IP addresses: any."]
    assert a_question(title="F.", lost="L.", then="T.", unchecked="U.").summary() == ["F.", "L. T. U."]
    assert a_question(title="F.").summary() == ["F."]


def test_batch_names_the_calls_that_lose_data() -> None:
    plain = a_question(title="Rename it.", button="Change", brief="Change it", then="Back.")
    lost = a_question(title="Delete it.", brief="Delete it", lost="Gone.", unchecked="Not checked: x.", number=3)
    revoked = a_question(title="Revoke it.", brief="Revoke it", lost="Never.", number=4)
    assert describe_list([plain]) == Question(title="Make 1 change.", button="Make this change", brief="Make 1 change")
    assert describe_list([plain, lost]) == Question(
        title="Make 2 changes. Call 3 cannot be fully undone.",
        button="Make these 2 changes",
        brief="Make 2 changes",
        lost="3: Gone.",
        then="The calls are sent in this order.",
        unchecked="Call 3 was not fully checked.",
    )
    three = describe_list([replace(lost, number=1), replace(plain, number=2), revoked])
    assert three.title == "Make 3 changes. Calls 1 and 4 cannot be fully undone."
    assert three.lost == "1: Gone. 4: Never."
    run = a_question(title="Run it.", brief="Run it", then="No undo.", has_undo=False, number=1)
    assert describe_list([run, lost]).title == (
        "Make 2 changes. Call 1 cannot be undone from here. Call 3 cannot be fully undone."
    )
    gone = replace(lost, number=2, has_undo=False)
    assert describe_list([run, gone]).title == "Make 2 changes. Calls 1 and 2 cannot be undone from here."
    assert phrase([lost, lost], 3) == "2 deletions"
    assert phrase([lost, revoked], 3) == "2 changes"
    assert phrase([], 2) == "2 changes"


IN_TEST = {"workflow_id": "w1", "environment": "test"}
FURTHER: list[tuple[str, dict[str, Any], dict[str, Any] | None, dict[str, str]]] = [
    ("update_workflow", {"workflow_id": "w1", "status": "inactive"}, FLOW, {"first": 'off workflow "stock-levels".'}),
    ("run_workflow", {"workflow_id": "w1", "environment": "live"}, FLOW, {"first": "now in the live environment."}),
    ("run_workflow", IN_TEST, {**FLOW, "connectors": ["cin7"]}, {"then": 'in "cin7" cannot'}),
    ("run_workflow", IN_TEST, {**FLOW, "connectors": [{"name": "X", "slug": "x"}, *"abcd"]}, {"then": '"X", "a", "b"'}),
    ("create_role", {"name": "R", "permissions": ["x.y:read", "api_keys.v2:write"]}, None, {"first": "keys.v2:write"}),
    ("ai_build", {"type": "connector", "prompt": "it"}, None, {"first": 'build a connector: "it".'}),
    ("ai_chat", {"message": "go", "approval_mode": "auto"}, None, {"button": "Let it act without asking"}),
    ("delete_trigger", {"trigger_id": "t1"}, {"id": "t1", "type": "app event"}, {"lost": "The trigger itself is"}),
    ("delete_secret", {"secret_id": "s1"}, {"id": "s1", "name": "T"}, {"first": 'Delete secret "T".'}),
    ("revoke_api_key", {"api_key_id": "k1"}, {"id": "k1", "name": "K"}, {"then": "uses it stops immediately."}),
    (
        "revoke_api_key",
        {"api_key_id": "k1"},
        {"id": "k1", "lastUsed": "2026-11-20T10:00:00Z"},
        {"then": "immediately; it was last used 2026-11-20 10:00 UTC."},
    ),
    ("delete_workflow", {"workflow_id": "w1"}, {**FLOW, "name": "n" * 41}, {"button": "Move this workflow to Trash"}),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "arguments", "row", "ends"), FURTHER)
def test_sentences_of_special_cases(tool: str, arguments: dict[str, Any], row: Any, ends: dict[str, str]) -> None:
    says = sentences_of(tool, arguments, row)
    for part, text in ends.items():
        assert text in says[part]
        assert says[part].endswith(text) or not text.endswith(".")
    assert not says.get("then", "").startswith(" ")


def test_permissions_are_quoted_as_names() -> None:
    names = ["api-keys:create", "x" * 2000]
    says = sentences_of("create_role", {"name": "R", "permissions": names})
    assert says["first"].endswith(f'powerful: "{names[0]}" and "{names[1]}".')


def test_overwriting_create_counts_the_users() -> None:
    row = {"id": "k1", "slug": "cin7", "name": "Cin7", "domain": "a.example"}
    users = used_by(("connections", 2, ("A", "B")))
    says = sentences_of("create_connector", {"name": "Cin7", "slug": "cin7", "domain": "b.example"}, row, users)
    taken = 'The name or slug is taken by "k1".'
    assert says["then"] == f"{taken} The earlier values can be restored. 2 connections use it."


@pytest.mark.parametrize(
    ("email", "spelled"),
    [
        ("ann@\N{CYRILLIC SMALL LETTER A}cme.com", "ann@xn--cme-5cd.com"),
        ("\N{CYRILLIC SMALL LETTER A}nn@acme.com", r"\\u0430nn@acme.com"),
        ("ann@\N{FULLWIDTH LATIN SMALL LETTER A}cme.com", "ann@acme.com"),
        ("ann@m\N{LATIN SMALL LETTER U WITH DIAERESIS}ller.example", "ann@xn--mller-kva.example"),
        ("ann@\N{CYRILLIC SMALL LETTER A}" + "c" * 80, r"ann@\\u0430" + "c" * 80),
        ("ann@acme.com", None),
    ],
)
def test_invitation_points_out_letters_that_look_like_others(email: str, spelled: str | None) -> None:
    texts = [
        sentences_of("invite_user", {"email": email, "role": "Viewer"})["first"],
        sentences_of("create_customer", {"name": "Globex", "admin_email": email})["then"],
        sentences_of("update_customer", {"customer_id": "c1", "admin_email": email}, {"id": "c1", "name": "Globex"})[
            "then"
        ],
    ]
    for text in texts:
        assert ("can look like them" in text) is (spelled is not None)
        if spelled is not None:
            assert f'Spelled out: "{spelled}".' in text


@pytest.mark.parametrize(
    ("change", "limit", "words"),
    [
        (FieldChange("plan", "Free", "Growth"), 80, '"plan": "Free" becomes "Growth"'),
        (FieldChange("plan", None, "Growth", is_shown=False), 80, '"plan" (not shown by Fastn) becomes "Growth"'),
        (FieldChange("p", "x" * 10, "y" * 9, is_shown=True), 8, f'"p": "{"x" * 8}" [2 more characters] becomes'),
        (FieldChange("f" * 61, 1, 2), 80, f'"{"f" * 60}" [1 more character]: 1 becomes 2'),
        (FieldChange("f" * 60, 1, 2), 80, f'"{"f" * 60}": 1 becomes 2'),
    ],
)
def test_words_of_a_change(change: FieldChange, limit: int, words: str) -> None:
    assert change.words(limit).startswith(words)


def test_json_of_what_would_be_made() -> None:
    data = question_of("create_customer", {"name": "Globex"}).data_for_agent()
    assert (data["makes"], data["call"], data["arguments"]) == ("Globex", "create_customer", {"name": "Globex"})
    assert not {"target", "costs", "because", "approval", "changes", "pending", "more_changes"} & data.keys()


def test_permissions_are_shown_strongest_first_and_whole() -> None:
    given: dict[str, Any] = {"name": "R", "permissions": [f"x{n}:read" for n in range(60)] + ["*"]}
    made = question_of("create_role", given, effect=Effect.ACCESS)
    first, *_ = cast("list[str]", made.arguments["permissions"])
    assert first == "*"
    assert "x59:read" in made.line()
    assert made.line().endswith("]."), "nothing is appended"


def test_further_facts_change_the_sentences() -> None:
    made = question_of("delete_customer", {"customer_id": "c1"}, {"id": "c1", "name": "A"})
    described = Dependence((Dependents("secrets", 1, ({"name": "TOKEN"},)),))
    further = question_of("delete_customer", {"customer_id": "c1"}, {"id": "c1", "name": "A"}, described)
    assert "TOKEN" not in made.summary()[1]
    assert 'Its secret "TOKEN" is permanently lost.' in further.summary()[1]
