"""Tests of find_dependents, and of the dependents in the guard's previews, which use the same rules."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic_core import to_json
from support.behaviour import Behaviour, Envelope, Filtering, Paging
from support.hostile_account import TakesSlugs
from support.world import World

from fastn_mcp.account.dependent_rows import MAX_DETAILS
from fastn_mcp.account.short_ids import ShortIds, reference_to
from fastn_mcp.errors import NotFound, NotSent
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.find_dependents import FindDependents
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.connectors import GetConnector
from fastn_mcp.tools.workflows import DeleteWorkflow, GetWorkflow, ListWorkflows, RunWorkflow

Answer = dict[str, Any]


async def dependents(world: World, kind: str, key: str) -> Answer:
    return await world.ask(FindDependents.model_validate({f"{kind}_id": key}))


def several(customers: Iterable[str]) -> FindDependents:
    return FindDependents.model_validate({"customer_id": [*customers]})


def connection_of(world: World, connector: str) -> str:
    id_ = world.id_of("connectors", connector)
    return str(world.sandbox.state.named("connections", id_, by="connectorId")["id"])


def counts(rows: list[Answer]) -> dict[str, int]:
    return {row["kind"]: row["count"] for row in rows}


def examples_of(row: Answer) -> list[Answer]:
    """Return the dependents of one kind that are named: all of them, or examples."""
    return row.get("all") or row["examples"]


def names(rows: list[Answer], kind: str) -> list[str]:
    (row,) = [row for row in rows if row["kind"] == kind]
    return sorted(example["name"] for example in examples_of(row))


@dataclass(frozen=True)
class Dependents:
    """What `find_dependents` answers about a resource: kinds and counts, names, and what was not checked."""

    kind: str
    name: str
    used: dict[str, int]
    names: dict[str, list[str]]
    may_use: dict[str, int] = field(default_factory=dict[str, int])
    not_checked: tuple[str, ...] = ()
    none: tuple[str, ...] = ()


DEPENDENTS = [
    Dependents(
        "customer", "Globex Exports", {"connections": 1, "secrets": 1, "executions": 1},
        {
            "connections": ["Shopify of Globex Exports"],
            "secrets": ["PARTNER_TOKEN"],
            "triggers": ["Paid Shopify orders"],
        },
        {"triggers": 1},
    ),
    Dependents(
        "connector", "HubSpot", {"connections": 1, "workflows": 2, "triggers": 1}, {"triggers": ["New HubSpot contact"]}
    ),
    Dependents(
        "connection", "default", {"triggers": 1}, {"triggers": ["New HubSpot contact"]}, {"workflows": 2},
        ("workflows",),
    ),
    Dependents(
        "workflow", "process-new-orders", {"triggers": 2}, {"triggers": ["Paid Shopify orders", "Shop events"]},
        not_checked=("other callers",),
    ),
    Dependents("customer", "John-Acme", {}, {}, none=("connections", "secrets", "executions", "triggers")),
    Dependents("connector", "Gamma", {"workflows": 1}, {}, none=("connections", "triggers on its events")),
    Dependents(
        "workflow", "orders-backfill", {}, {}, not_checked=("other callers",), none=("triggers",),
    ),
    # Nothing in Fastn uses a trigger, but callers of a webhook are unknown.
    Dependents("trigger", "Shop events", {}, {}, not_checked=("who uses it",)),
]  # fmt: skip


@pytest.mark.parametrize("expected", DEPENDENTS, ids=lambda expected: f"{expected.kind} {expected.name}")
async def test_dependents_of_each_kind(world: World, expected: Dependents) -> None:
    id_ = world.id_of(f"{expected.kind}s", expected.name)
    if expected.kind == "connection":
        id_ = connection_of(world, "hubspot")
    answer = await dependents(world, expected.kind, id_)
    assert counts(answer["used_by"]) == expected.used
    may_use = answer.get("may_be_used_by", [])
    assert counts(may_use) == expected.may_use
    assert {kind: names(answer["used_by"] + may_use, kind) for kind in expected.names} == expected.names
    assert [gap["what"] for gap in answer["not_checked"]] == [*expected.not_checked]
    assert answer.get("none", []) == [*expected.none]


async def test_kind_that_was_not_read_is_not_said_to_be_none(world: World) -> None:
    """Neither what Fastn refuses nor what its filter does not prove is nothing."""
    customer = world.id_of("customers", "John-Acme")
    world.refuse("/api/v1/secrets")
    answer = await dependents(world, "customer", customer)
    assert answer["none"] == ["connections", "executions", "triggers"]
    assert [gap["what"] for gap in answer["not_checked"]] == ["secrets"]


async def test_each_of_several_says_of_which_kinds_it_has_none(world: World) -> None:
    ids = [world.id_of("customers", name) for name in ("Globex Exports", "John-Acme")]
    globex, john = (await world.ask(FindDependents(customer_id=json.dumps(ids))))["used_by"]
    assert "none" not in globex
    assert john["none"] == ["connections", "secrets", "executions", "triggers"]


async def test_workflows_of_a_connector_have_state_last_run_and_triggers(world: World) -> None:
    answer = await dependents(world, "connector", world.id_of("connectors", "hubspot"))
    (workflows,) = [row for row in answer["used_by"] if row["kind"] == "workflows"]
    assert [example["state"] for example in workflows["all"]] == ["live", "live"]
    assert all(re.match(r"(completed|failed|cancelled) 2026-.* ago\)$", e["last_run"]) for e in workflows["all"])
    (contacts,) = [e["triggers"] for e in workflows["all"] if e["name"].startswith("Sync HubSpot")]
    assert "New HubSpot contact (on contact.creation)" in contacts


async def test_triggers_that_only_mention_a_workflow_do_not_depend_on_it(world: World) -> None:
    flow, other = world.id_of("workflows", "process-new-orders"), world.id_of("workflows", "update-inventory")
    for row in world.sandbox.state.all("triggers"):
        row["routes"] = [{"routeId": other, "filter": {"field": "source", "value": flow}}]
    assert (await dependents(world, "workflow", flow))["used_by"] == []
    assert (await world.ask(Diagnose(workflow_id=flow)))["triggers"] == []


async def test_triggers_with_unreadable_routes_are_not_checked(world: World) -> None:
    rows = world.sandbox.state.all("triggers")
    for row in rows:
        row["routes"] = [{"target": {"ref": "flows/1"}}]
    answer = await dependents(world, "workflow", world.id_of("workflows", "process-new-orders"))
    assert [gap["what"] for gap in answer["not_checked"]] == [f"{len(rows)} triggers", "other callers"]


async def test_secret_dependents_are_found_in_workflow_code(world: World) -> None:
    """Lists contain no code, so each workflow is read; a name built at run time is not found."""
    flow = world.sandbox.state.named("workflows", "update-inventory")
    flow["code"] = 'export default async (ctx) => fastn.secrets.get("SHOPIFY_API_TOKEN");'
    answer = await dependents(world, "secret", world.id_of("secrets", "SHOPIFY_API_TOKEN"))
    assert names(answer["may_be_used_by"], "workflows") == ["update-inventory"]
    assert [gap["what"] for gap in answer["not_checked"]] == ["workflows that read it"]
    # The secrets, the workflows, the triggers and the last run of the one that was found.
    assert len(world.sandbox.requests) == 4 + len(world.sandbox.state.all("workflows"))


async def test_workflow_reads_are_bounded_and_the_rest_is_not_checked(world: World) -> None:
    flow = world.sandbox.state.named("workflows", "update-inventory")
    for number in range(90):
        world.sandbox.state.put("workflows", flow | {"id": f"wf_{number}", "slug": f"copy-{number}"})
    answer = await dependents(world, "secret", world.id_of("secrets", "GOOGLE_SA"))
    reads = [request for request in world.sandbox.requests if request.tool == GetWorkflow.tool_name()]
    assert len(reads) == MAX_DETAILS
    assert f"{99 - MAX_DETAILS} workflows" in [gap["what"] for gap in answer["not_checked"]]


KINDS: list[tuple[str, str]] = [
    ("customer", "customers"),
    ("connector", "connectors"),
    ("connection", "connections"),
    ("workflow", "workflows"),
    ("secret", "secrets"),
    ("trigger", "triggers"),
]


async def with_references(shown: list[dict[str, Any]]) -> Any:
    """Return the dependents of a preview as an answer has them: with short ids."""
    return (await ShortIds().shortened(FastnObject.model_validate({"shown": shown}))).model_dump()["shown"]


@pytest.mark.parametrize(("kind", "collection"), KINDS)
async def test_preview_of_the_deletion_lists_the_same_dependents(world: World, kind: str, collection: str) -> None:
    for row in world.sandbox.state.all(collection):
        answer = await dependents(world, kind, str(row["id"]))
        assert "next" not in answer
        delete = TOOLS[f"delete_{kind}"].model_validate({f"{kind}_id": str(row["id"])})
        preview = await world.preview(delete)
        shown, stored = cast("dict[str, Any]", preview.data_for_agent()), cast("dict[str, Any]", preview.data())
        named = [*answer["used_by"], *answer.get("may_be_used_by", [])]
        assert named == await with_references([*stored.get("used_by", []), *stored.get("may_be_used_by", [])])
        assert answer["not_checked"] == shown.get("not_checked", []) == stored.get("not_checked", [])
        briefly = await with_references([*shown.get("used_by", []), *shown.get("may_be_used_by", [])])
        assert [examples_of(each)[:3] for each in named] == [*map(examples_of, briefly)]
        call = {"tool": "find_dependents", "arguments": {f"{kind}_id": str(row["id"])}}
        is_cut = any(len(examples_of(each)) > 3 for each in named)
        assert shown.get("dependents") == (call if is_cut else None)
        assert "dependents" not in stored
    assert world.changes == []


async def test_unreadable_runs_of_workflows_are_said_to_be_unread(world: World) -> None:
    world.refuse("/api/v1/executions", "/api/v1/triggers")
    answer = await dependents(world, "connector", world.id_of("connectors", "hubspot"))
    (workflows,) = [row for row in answer["used_by"] if row["kind"] == "workflows"]
    assert all(example.keys() == {"id", "name", "state", "last_run"} for example in workflows["all"])
    assert {example["last_run"] for example in workflows["all"]} == {"not read"}
    assert [gap["what"] for gap in answer["not_checked"]] == ["triggers"]


async def test_many_connections_are_counted_by_state_and_listed_by_a_further_call(world: World) -> None:
    state, slack = world.sandbox.state, world.id_of("connectors", "slack")
    row = state.first("connections", "connectorId", slack)
    assert row is not None
    for number in range(9):
        state.put("connections", row | {"id": f"ucl:{number}", "status": "EXPIRED" if number % 3 else "ACTIVE"})
    answer = await dependents(world, "connector", slack)
    (used,) = [row for row in answer["used_by"] if row["kind"] == "connections"]
    assert used["states"]["broken"] == 6
    assert sum(used["states"].values()) == used["count"] > len(used["examples"])
    assert all("id" not in example for example in used["examples"])
    assert used["more"] == {"tool": "list_connections", "arguments": {"connector_id": slack}}


async def test_unknown_id_is_not_found(world: World) -> None:
    for kind, collection in KINDS:
        assert isinstance(await world.call(FindDependents.model_validate({f"{kind}_id": f"no-{collection}"})), NotFound)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(envelope=Envelope.ITEMS, paging=Paging.CURSOR),
        Behaviour(envelope=Envelope.BARE, paging=Paging.IGNORED, filtering=Filtering.IGNORED),
    ],
    ids=str,
)
async def test_dependents_do_not_depend_on_envelope_paging_or_filtering(world: World, behaviour: Behaviour) -> None:
    """Except for runs, as an unfiltered list shows only the newest."""
    ids: dict[str, str] = {kind: str(world.sandbox.state.all(of)[-1]["id"]) for kind, of in KINDS}
    usual = {kind: await dependents(world, kind, id_) for kind, id_ in ids.items()}
    world.sandbox.behaviour = behaviour
    for kind, id_ in ids.items():
        answer = await dependents(world, kind, id_)
        for part in ("used_by", "may_be_used_by"):
            assert counts(answer.get(part, [])) == counts(usual[kind].get(part, [])), kind


async def test_unreadable_kind_is_not_checked_and_the_rest_is_found(world: World) -> None:
    """A 403 on one list, or on the resource itself, fails nothing else."""
    world.refuse("/api/v1/connections", GetConnector.route.path)
    answer = await dependents(world, "connector", world.id_of("connectors", "hubspot"))
    assert [gap["what"] for gap in answer["not_checked"]] == ["the resource itself", "connections"]
    assert all("(403)" in gap["why"] for gap in answer["not_checked"])
    assert names(answer["used_by"], "triggers") == ["New HubSpot contact"]


async def test_workflows_without_connectors_in_the_list_are_read_one_by_one(world: World) -> None:
    send = world.client.send

    async def less(call: Any, *checks: Any) -> Any:
        answer: Any = await send(call, *checks)
        if isinstance(call, ListWorkflows):
            rows = [{name: value for name, value in row.items() if name != "connectors"} for row in answer.rows]
            return answer.model_copy(update={"rows": rows})
        return answer

    world.client.send = less  # pyright: ignore[reportAttributeAccessIssue]
    connector = world.id_of("connectors", "hubspot")
    answer = await dependents(world, "connector", connector)
    assert counts(answer["used_by"])["workflows"] == 2
    world.refuse("/api/v1/workflows/*", status=404)
    answer = await dependents(world, "connector", connector)
    assert [gap["what"] for gap in answer["not_checked"]] == ["9 workflows"]


async def test_many_runs_are_grouped_by_workflow_and_have_a_lower_bound(world: World) -> None:
    """Three pages of 100 are read; without a total from Fastn the count is a lower bound."""
    state = world.sandbox.state
    widget = world.id_of("customers", "widget-inc")
    row = state.all("executions")[0] | {"endOrgId": widget}
    for number in range(400):
        state.put("executions", row | {"id": f"exec_x{number}"})
    count = len([row for row in state.all("executions") if row["endOrgId"] == widget])
    exact = await dependents(world, "customer", widget)
    (runs,) = [used for used in exact["used_by"] if used["kind"] == "executions"]
    assert (runs["count"], "at_least" in runs) == (count, False)
    assert sum(example["runs"] for example in runs["examples"]) == 300
    assert all(re.search(r"2026-.* ago\)$", example["last_run"]) for example in runs["examples"])
    assert runs["more"] == {"tool": "list_executions", "arguments": {"customer_id": widget}}
    assert all(example["name"] for example in runs["examples"])
    world.behave(paging=Paging.CURSOR)
    (runs,) = [
        used for used in (await dependents(world, "customer", widget))["used_by"] if used["kind"] == "executions"
    ]
    assert (runs["count"], runs["at_least"]) == (300, True)


async def test_unfiltered_total_is_not_reported(world: World) -> None:
    state = world.sandbox.state
    row = state.all("executions")[0] | {"endOrgId": None}
    for number in range(400):
        state.put("executions", row | {"id": f"exec_x{number}"})
    world.behave(filtering=Filtering.IGNORED)
    answer = await dependents(world, "customer", world.id_of("customers", "widget-inc"))
    (runs,) = [used for used in answer["used_by"] if used["kind"] == "executions"] or [None]
    assert runs is None or (runs["count"] < 100 and runs["at_least"])


async def test_truncated_list_without_dependents_is_not_checked(world: World) -> None:
    state = world.sandbox.state
    hook: dict[str, Any] = {**state.named("triggers", "Shop events", by="name"), "routes": []}
    for number in range(400):
        state.put("triggers", hook | {"id": f"t{number}", "createdAt": "2026-11-24T00:00:00.000Z"})
    world.behave(filtering=Filtering.IGNORED)
    flow = world.id_of("workflows", "process-new-orders")
    world.behave(filtering=Filtering.IGNORED)
    answer = await dependents(world, "workflow", flow)
    assert [gap["what"] for gap in answer["not_checked"]] == ["triggers", "other callers"]
    shown = (await world.preview(DeleteWorkflow(workflow_id=flow))).data_for_agent()
    assert shown["not_checked"] == answer["not_checked"]


async def test_connection_is_read_where_its_id_says_that_it_is(world: World) -> None:
    """A list of all connections would take a page for each hundred of them."""
    connector = world.id_of("connectors", "hubspot")
    connection = connection_of(world, "hubspot")
    await dependents(world, "connection", connection)
    queries = [request.query for request in world.sandbox.requests if request.path.endswith("/connections")]
    assert [query["connectorId"] for query in queries] == [connector]


async def test_connection_that_is_elsewhere_than_its_id_says_is_still_read(world: World) -> None:
    connector = world.id_of("connectors", "hubspot")
    row = world.sandbox.state.named("connections", connector, by="connectorId")
    row["connectorId"] = "moved"
    assert (await dependents(world, "connection", str(row["id"])))["of"]["id"] == reference_to(row["id"])


async def test_last_runs_of_many_workflows_are_read_in_one_page_and_ten_one_by_one(world: World) -> None:
    slack, state = world.id_of("connectors", "slack"), world.sandbox.state

    async def last_runs() -> dict[str, str]:
        answer = await dependents(world, "connector", slack)
        (workflows,) = [row for row in answer["used_by"] if row["kind"] == "workflows"]
        assert len(workflows["all"]) == workflows["count"]
        return {example["id"]: example["last_run"] for example in workflows["all"]}

    before = await last_runs()
    assert all(" ago)" in last_run for last_run in before.values())
    copy = state.named("workflows", "slack-messages-to-supabase-hourly-sync")
    for number in range(15):
        state.put("workflows", copy | {"id": f"wf_{number}", "slug": f"copy-{number}", "name": f"Copy {number}"})
    world.sandbox.requests.clear()
    after = await last_runs()
    assert {id_: after.pop(id_) for id_ in before} == before
    assert Counter(after.values()) == {
        "no run in Fastn's history": 10,
        "not read: at most 10 are read one by one": 5,
    }
    asked = [
        request.query.get("workflowId") for request in world.sandbox.requests if request.path.endswith("/executions")
    ]
    assert (asked.count(None), len(asked)) == (1, 11)


async def test_last_runs_of_a_connections_workflows_are_those_of_its_customer(large_world: World) -> None:
    """One request for all of them: runs for other customers say nothing about this connection."""
    customer = large_world.id_of("customers", "acme-corp")
    rows = [row for row in large_world.sandbox.state.all("connections") if row["endOrgId"] == customer]
    (connection,) = [str(row["id"]) for row in rows if row["connector"]["slug"] == "hubspot"]
    large_world.sandbox.requests.clear()
    (workflows,) = (await dependents(large_world, "connection", connection))["may_be_used_by"]
    assert [request.query for request in large_world.sandbox.requests if request.path.endswith("/executions")] == [
        {"limit": "100", "endOrgId": customer}
    ]
    last = {example["name"]: example["last_run"] for example in examples_of(workflows)}
    assert re.fullmatch(r"failed 2026-.* ago\) for this customer", last.pop("Acme HubSpot sync"))
    assert {*last.values()} == {"no run for this customer in the newest 100"}


async def test_last_runs_of_a_customer_are_not_guessed_from_all_runs(world: World) -> None:
    world.behave(filtering=Filtering.IGNORED)
    for run in world.sandbox.state.all("executions"):
        run.pop("endOrgId", None)
    connection = connection_of(world, "hubspot")
    (workflows,) = (await dependents(world, "connection", connection))["may_be_used_by"]
    assert {example["last_run"] for example in examples_of(workflows)} == {"not read"}


async def test_triggers_of_a_customer_take_one_request(large_world: World) -> None:
    customer = large_world.id_of("customers", "acme-corp")
    answer = await dependents(large_world, "customer", customer)
    reads = [request.query for request in large_world.sandbox.requests if request.tool == "list_triggers"]
    assert reads == [{"limit": "100", "endOrgId": customer}]
    large_world.behave(filtering=Filtering.IGNORED)
    assert (await dependents(large_world, "customer", customer))["may_be_used_by"] == answer["may_be_used_by"] != []


async def test_several_customers_are_one_brief_answer(large_world: World) -> None:
    customers = [row for row in large_world.sandbox.state.all("customers") if "acme" in str(row["slug"])][:8]
    assert len(customers) == 8
    answer = await large_world.ask(several(str(row["id"]) for row in customers))
    rows = {row["id"]: row for row in answer["used_by"]}
    assert [*rows] == [row["id"] for row in customers]
    assert {row["name"] for row in rows.values()} == {row["name"] for row in customers}
    assert len(to_json(answer)) < 4_000
    for key_, row in rows.items():
        alone = await dependents(large_world, "customer", key_)
        assert [words.partition(" ")[0] for words in row["used_by"]] == [
            f"{use['count']:,}" for use in alone["used_by"]
        ]
        assert len(row.get("may_be_used_by", [])) == len(alone.get("may_be_used_by", []))


async def test_several_are_in_words_with_states_and_last_run(world: World) -> None:
    answer = await world.ask(several(["katana-customer", "Globex Exports", "nobody"]))
    katana, globex, nobody = answer["used_by"]
    assert katana["used_by"][0] == "2 connections (2 broken)"
    assert re.fullmatch(r"\d+ executions \(last .* ago\)\)", katana["used_by"][1]), katana
    assert (globex["name"], globex["may_be_used_by"]) == ("Globex Exports", ["1 trigger (1 broken)"])
    rendered = await world.rendered(several(["Globex Exports", "katana-customer"]))
    assert '"1 secret"' in to_json(rendered).decode()  # which is not redacted
    assert nobody["id"] == "nobody"
    assert "No customer" in nobody["error"]


async def test_gaps_of_several_are_grouped_and_named(world: World) -> None:
    world.refuse("/api/v1/secrets")
    answer = await world.ask(several(["katana-customer", "globex-exports"]))
    (gap,) = answer["not_checked"]
    assert gap["what"] == "secrets of Katana, secrets of Globex Exports"


async def test_short_lists_are_read_once_for_several(world: World) -> None:
    cached = World(world.audit_path.parent, snapshot_seconds=90)
    ids = [str(row["id"]) for row in cached.sandbox.state.all("customers")]
    await cached.ask(several(ids))
    lists = [request.path for request in cached.sandbox.requests if str(request.tool).startswith("list_")]
    assert len(lists) <= 2 * len(set(lists))
    cached.close()


async def test_unknown_id_is_not_looked_for_in_all_of_a_list(large_world: World) -> None:
    unknown = "9375e42d-9510-4c95-a6a6-d9d89cf70000"
    error = await large_world.expect(NotFound, FindDependents(customer_id=unknown))
    assert error.next_step == "Find it with find or list_customers."
    assert len(large_world.sandbox.requests) == 2


async def test_resource_that_was_listed_is_not_read_again(world: World) -> None:
    cached = World(world.audit_path.parent, snapshot_seconds=90)
    await cached.call(GetOverview())
    for kind, slug in (("connector", "slack"), ("workflow", "process-new-orders"), ("customer", "katana-customer")):
        cached.sandbox.requests.clear()
        answer = await dependents(cached, kind, cached.id_of(f"{kind}s", slug))
        assert answer["of"]["name"] == cached.sandbox.state.named(f"{kind}s", slug, "slug")["name"]
        assert f"get_{kind}" not in [request.tool for request in cached.sandbox.requests]
    cached.close()


@pytest.mark.parametrize(
    ("kind", "slug"), [("customer", "katana-customer"), ("connector", "slack"), ("workflow", "process-new-orders")]
)
async def test_dependents_of_a_slug_are_those_of_the_id(tmp_path: Path, kind: str, slug: str) -> None:
    fastn = TakesSlugs()
    world = World(tmp_path, exchange=fastn.around)
    fastn.ids[slug] = world.id_of(f"{kind}s", slug)
    answer = await dependents(world, kind, slug)
    assert answer == await dependents(world, kind, fastn.ids[slug])
    assert answer["of"]["id"] == fastn.ids[slug]
    preview, same = [
        await world.preview(parse(TOOLS, f"delete_{kind}", {f"{kind}_id": typed}).call)
        for typed in (slug, fastn.ids[slug])
    ]
    assert preview.data_for_agent()["used_by"] == same.data_for_agent()["used_by"] != []


async def test_last_run_is_found_by_the_slug_of_a_workflow(tmp_path: Path) -> None:
    fastn = TakesSlugs()
    world = World(tmp_path, exchange=fastn.around)
    fastn.ids["process-new-orders"] = world.id_of("workflows", "process-new-orders")
    for typed in (*fastn.ids, *fastn.ids.values()):
        notes = (await world.preview(RunWorkflow(workflow_id=typed))).data_for_agent()["notes"]
        assert notes[-1].startswith("Last run: completed "), typed


@pytest.mark.parametrize(
    "arguments",
    [
        {"user_id": "u1"},
        {},
        {"customer_id": "a", "workflow_id": "b"},
        {"customer_id": []},
        {"customer_id": ["a"] * 21},
        {"customer_id": [""]},
        {"customer_id": ["a" * 257]},
        {"customer_id": "a" * 257},
    ],
)
def test_one_record_or_several_of_one_kind_are_wanted(arguments: Answer) -> None:
    with pytest.raises(NotSent):
        parse(TOOLS, "find_dependents", arguments)


@pytest.mark.parametrize("arguments", [{"kind": "customer", "id": "a"}, {"kind": "secret", "ids": ["a", "b"]}])
def test_kind_and_id_are_refused_with_what_to_give_instead(arguments: Answer) -> None:
    with pytest.raises(NotSent, match=r"give customer_id, .* or trigger_id in place of kind and id"):
        parse(TOOLS, "find_dependents", arguments)


async def test_several_are_a_list_or_ids_with_commas(world: World) -> None:
    ids = [world.id_of("customers", name) for name in ("Globex Exports", "Katana")]
    expected = await world.ask(several(ids))
    assert [row["id"] for row in expected["used_by"]] == ids
    for given in (json.dumps(ids), ", ".join(ids)):
        assert await world.ask(FindDependents(customer_id=given)) == expected
    world.sandbox.state.all("customers")[0]["name"] = "Books, Inc"
    assert (await dependents(world, "customer", "Books, Inc"))["of"]["name"] == "Books, Inc"
