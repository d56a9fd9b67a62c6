"""What `find` finds: names with typos, in another case, in sentences, on a small account and on a large one."""

import re
import warnings
from collections.abc import Iterable
from typing import Any

import pytest
from faulty_sandbox import Status
from many_names import Listing, large, uuid
from pydantic_core import to_json
from world import World

from fastn_mcp.errors import Forbidden, NotSent
from fastn_mcp.fastn.directory import LISTS, PAGES, Directory
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.catalog import BY_NAME, parse
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.find import NEXT, Find, SearchData
from fastn_mcp.procedures.ranking import units
from fastn_mcp.runtime import no_progress
from fastn_mcp.sandbox.behaviour import Filtering, Paging
from fastn_mcp.server.rendering import render
from fastn_mcp.tools.customers import CreateCustomer
from fastn_mcp.tools.workflows import ListExecutions

pytestmark = pytest.mark.anyio

_GLOBEX = "5c4bc270-6e5f-4523-afd7-6538d17c6c3a"

SMALL = [
    ("Acme Corp", "customer", "Acme Corp"),
    ("ACME CORP", "customer", "Acme Corp"),
    ("acmecorp", "customer", "Acme Corp"),
    ("acme-corp", "customer", "Acme Corp"),
    ("AKME", "customer", "Acme Corp"),
    ("john acme", "customer", "John-Acme"),
    ("john@acme.ai", "customer", "John-Acme"),
    ("Katanna", "customer", "Katana"),
    ("the globex customer", "customer", "Globex Exports"),
    ("globex's account", "customer", "Globex Exports"),
    ("hubspt", "connector", "HubSpot"),
    ("hub spot", "connector", "HubSpot"),
    ("HUBSPOT", "connector", "HubSpot"),
    ("googlesheets", "connector", "Google Sheets"),
    ("google-sheets", "connector", "Google Sheets"),
    ("gogle sheets", "connector", "Google Sheets"),
    ("tiktok shop connector", "connector", "TikTok Shop"),
    ("quick books", "connector", "QuickBooks"),
    ("zendsk", "connector", "Zendesk"),
    ("acme xero", "connection", "Xero of Acme Corp"),
    ("akme's xero connection", "connection", "Xero of Acme Corp"),
    ("widget hubspot", "connection", "HubSpot of Widget Inc"),
    ("the shopify connection of globex", "connection", "Shopify of Globex Exports"),
    ("the hubspot contacts sync", "workflow", "Sync HubSpot contacts to Cin7 customers"),
    ("why did the hubspot contact sync fail last night?", "workflow", "Sync HubSpot contacts to Cin7 customers"),
    ("the acme hubspot sync", "workflow", "Sync HubSpot contacts to Cin7 customers"),
    ("tiktok setlements", "workflow", "sync_tiktok_settlements_cin7"),
    ("process new orders", "workflow", "process-new-orders"),
    ("procesNewOrders", "workflow", "process-new-orders"),
    ("inventry", "workflow", "update-inventory"),
    ("backfill", "workflow", "orders-backfill"),
    ("hubspot to gamma", "workflow", "hubspot-discovery-deal-to-gamma-deck"),
    ("slack supabase hourly", "workflow", "Slack Messages to Supabase Hourly Sync"),
    ("daily tiktok", "trigger", "Daily TikTok sync"),
    ("the nightly contact schedule", "trigger", "Nightly contact sync"),
    ("tracking webhook", "trigger", "Tracking updates (public)"),
    ("globex paid orders", "trigger", "Paid Shopify orders"),
    ("dana", "user", "Dana Reyes"),
    ("mei tanka", "user", "Mei Tanaka"),
    ("priya@fastn.example", "user", "Priya Nair"),
    ("support role", "role", "Support read-only"),
    ("mcp key", "api_key", "MCP"),
    ("bi export", "api_key", "BI export"),
    ("stripe secret", "secret", "STRIPE_SECRET_KEY"),
    ("partner token", "secret", "PARTNER_TOKEN"),
]

LARGE = [
    ("the acme hubspot sync", "workflow", "Acme HubSpot sync"),
    ("Why did our acme hubspt sync break yesterday?", "workflow", "Acme HubSpot sync"),
    ("ACME HUB SPOT SYNC", "workflow", "Acme HubSpot sync"),
    ("tiktok settlement flow", "workflow", "sync_tiktok_settlements_cin7"),
    ("process orders", "workflow", "process-new-orders"),
    ("order sync 2", "workflow", "Order sync 2"),
    ("order sync 3", "workflow", "Order sync 3"),
    ("akme corp", "customer", "Acme Corp"),
    ("the katanna customer", "customer", "Katana"),
    ("globexexports", "customer", "Globex Exports"),
    ("muller sohne", "customer", "Müller & Söhne"),
    ("MÜLLER", "customer", "Müller & Söhne"),
    ("initec", "customer", "Initech"),
    ("nordale gmbh", "customer", "Nordale GmbH"),
    ("nordael gmbh", "customer", "Nordale GmbH"),
    ("belhavn logistics", "customer", "Belhaven Logistics"),
    ("kelridge-foods", "customer", "Kelridge Foods"),
    ("googlesheets", "connector", "Google Sheets"),
    ("cin7", "connector", "Cin7 Core"),
    ("quikbooks", "connector", "QuickBooks"),
    ("the acme hubspot connection", "connection", "HubSpot of Acme Corp"),
    ("dana reys", "user", "Dana Reyes"),
    ("striep secret", "secret", "STRIPE_SECRET_KEY"),
    (uuid(1, 3), "customer", "Widget Inc"),
    ("wf_000000000001", "workflow", "sync_tiktok_settlements_cin7"),
]


SANDBOX = [
    ("the acme hubspot sync", "workflow", "Acme HubSpot sync"),
    ("ACME HUBSPOT SYNC", "workflow", "Acme HubSpot sync"),
    ("acmee hubsopt snyc", "workflow", "Acme HubSpot sync"),
    ("hub spot sync of acme", "workflow", "Acme HubSpot sync"),
    ("why did acme's hubspot sync fail last night?", "workflow", "Acme HubSpot sync"),
    ("what broke the acme hubspot sync this morning", "workflow", "Acme HubSpot sync"),
    ("the acme hubspot sync that times out", "workflow", "Acme HubSpot sync"),
    ("the tiktok orders sync that is slow", "workflow", "Sync TikTok Orders to Cin7 Core"),
    ("acme corporation", "customer", "ACME Corporation"),
    ("acme corp", "customer", "Acme Corp"),
    ("glbex exports", "customer", "Globex Exports"),
    ("Globex Exports BV", "customer", "Globex Exports BV"),
    ("north wind trader", "customer", "North Wind Traders"),
    ("atlas logistics", "customer", "Atlass Logistics"),
    ("crm-1001", "customer", "Acme Corp"),
    ("wf_b588", "workflow", "Slack Messages to Supabase Hourly Sync"),
    ("netsute", "connector", "NetSuite"),
    ("tik tok shop", "connector", "TikTok Shop"),
    ("the slack connection of acme corp", "connection", "Slack of Acme Corp"),
    ("the hourly slack sync trigger", "trigger", "Hourly Slack sync"),
    ("stripe secret key", "secret", "STRIPE_SECRET_KEY"),
    ("the BI export key", "api_key", "BI export"),
]


@pytest.fixture(scope="module")
def listing() -> Listing:
    return Listing(large())


def context_on(world: World, listing: Listing, directory: Directory | None = None) -> ProcedureContext:
    kept = world.journalling
    return ProcedureContext(
        listing, world.system, no_progress, kept.account, kept.journal, directory or Directory(world.system)
    )


async def asked(world: World, query: str, **more: Any) -> dict[str, Any]:
    done = await world.call(Find(query=query, **more))
    assert isinstance(done, Done)
    return done.result.model_dump()


def first(answer: dict[str, Any]) -> tuple[str, str]:
    return answer["found"][0]["kind"], answer["found"][0]["name"]


def names(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [row["name"] for row in rows]


@pytest.mark.parametrize(("query", "kind", "name"), SMALL, ids=[query for query, _, _ in SMALL])
async def test_the_right_one_comes_first(world: World, query: str, kind: str, name: str) -> None:
    """Ours (find): by name, slug, email or part, whatever the case and spacing, misspelt, in a sentence."""
    assert first(await asked(world, query)) == (kind, name)


async def test_the_right_one_comes_first_among_thousands(world: World, listing: Listing) -> None:
    """Ours (find): on 400 connectors, 2,000 customers, 150 workflows and 3,000 connections."""
    directory = Directory(world.system)
    got = {
        query: first((await Find(query=query).run(context_on(world, listing, directory))).model_dump())
        for query, *_ in LARGE
    }
    assert got == {query: (kind, name) for query, kind, name in LARGE}


async def test_the_right_one_comes_first_on_the_large_account_of_the_sandbox(large_world: World) -> None:
    """Ours (find): where ten customers are called Acme, and one sync."""
    got = {query: first(await asked(large_world, query)) for query, *_ in SANDBOX}
    assert got == {query: (kind, name) for query, kind, name in SANDBOX}


async def test_a_large_account_is_read_once_and_within_bounds(world: World) -> None:
    """Ours (find): bounded requests; what was read is believed for a minute."""
    listing = Listing(large())
    context = context_on(world, listing)
    answer = (await Find(query="the acme hubspot sync").run(context)).model_dump()
    assert answer["searched"] == "all kinds"
    assert "incomplete" not in answer
    assert listing.counts["list_customers"] == 20
    assert listing.counts["list_connections"] == PAGES
    read = len(listing.calls)
    assert read <= 65
    await Find(query="katana").run(context)
    assert len(listing.calls) == read
    world.clock.pass_(61)
    await Find(query="katana").run(context)
    assert len(listing.calls) == 2 * read


async def test_what_was_read_is_made_ready_once(world: World, listing: Listing) -> None:
    """Issue 9: a further question looks at no name of the account anew, until something has changed."""
    context = context_on(world, listing)

    async def looked_at() -> int:
        before = units.cache_info()
        await Find(query="katana").run(context)
        after = units.cache_info()
        return after.hits + after.misses - before.hits - before.misses

    assert await looked_at() > 5_000
    assert await looked_at() == 0
    context.directory.forget("customers")
    assert await looked_at() > 5_000


async def test_one_question_does_not_change_what_was_made_ready_for_others(world: World) -> None:
    """Ours: what a search adds where not all could be read is for that question alone."""
    rows = large(10, 1, 10, 10)
    rows["customer"] = [{"id": uuid(9, n), "name": f"Filler {n}"} for n in range(100 * PAGES)]
    rows["customer"].append({"id": uuid(8, 1), "name": "Zebulon Partners"})
    context = context_on(world, Listing(rows))
    for _ in range(2):
        found = (await Find(query="zebulon", kind="customer").run(context)).model_dump()
        assert first(found) == ("customer", "Zebulon Partners")
    data = SearchData(context, ("customer",))
    await data.read()
    assert data.rank("zebulon").hits == ()


async def test_what_is_too_much_to_be_read_is_asked_for_by_its_rarest_words(world: World) -> None:
    """Ours (find): more than the first 3,000 customers; the rest is searched by Fastn, and the answer says so."""
    rows = large()
    more = [{"id": uuid(9, n), "name": f"Filler {n}"} for n in range(1_200)]
    rows["customer"] += [*more, {"id": uuid(8, 1), "name": "Zephyrine Looms"}]
    rows["connection"] += [{"id": "late", "name": "default", "endOrgId": uuid(8, 1), "connectorId": uuid(2, 0)}]
    listing = Listing(rows)
    answer = (await Find(query="the zephyrine looms customer").run(context_on(world, listing))).model_dump()
    assert first(answer) == ("customer", "Zephyrine Looms")
    assert answer["incomplete"].keys() == {"customer", "connection"}
    assert listing.counts["list_customers"] <= PAGES + 3
    answer = (await Find(query="zephyrine looms hubspot").run(context_on(world, listing))).model_dump()
    assert first(answer) == ("connection", "HubSpot of Zephyrine Looms")
    assert listing.counts["list_connections"] <= 2 * (PAGES + 4)


async def test_kind_bounds_what_is_read_and_found(world: World) -> None:
    """Ours (find): only that kind, and what its names are made of."""
    answer = await asked(world, "hubspot", kind="workflow")
    assert {row["kind"] for row in answer["found"]} == {"workflow"}
    assert answer["searched"] == ["workflow"]
    assert {heard.path for heard in world.sandbox.requests} == {"/api/v1/workflows"}
    answer = await asked(world, "akme", kind="connection")
    assert sorted(names(answer["found"])) == ["Shopify of Acme Corp", "Slack of Acme Corp", "Xero of Acme Corp"]
    assert len(world.sandbox.requests) == 4


async def test_an_id_is_read_directly(world: World) -> None:
    """Ours (find): an id is no name to be looked for; whatever it is of, few reads show it."""
    execution = (await world.rows(ListExecutions(limit=1)))[0].id
    connection = (await asked(world, "acme xero"))["found"][0]["id"]
    for query, kind, calls in [
        ("wf_e5047fb2a8c3", "workflow", 1),
        (f"why did {execution} fail?", "execution", 1),
        (_GLOBEX, "customer", 3),
        (connection, "connection", 1),
    ]:
        world.sandbox.requests.clear()
        answer = await asked(world, query)
        assert [row["kind"] for row in answer["found"]] == [kind]
        assert answer["found"][0]["score"] == 100
        assert len(world.sandbox.requests) <= calls + 1
        assert not [heard for heard in world.sandbox.requests if heard.path == "/api/v1/users"]
    assert (await asked(world, connection))["found"][0]["name"] == "Xero of Acme Corp"
    assert (await asked(world, execution))["found"][0]["workflow_id"].startswith("wf_")


async def test_ids_without_a_read_of_their_own_and_parts_of_ids_are_found_in_lists(world: World) -> None:
    """Ours (find): users, roles, secrets and keys have no GET; the beginning of an id is enough."""
    state = world.sandbox.state
    lee, partner = state.named("users", "Lee Okafor", "name"), state.named("secrets", "PARTNER_TOKEN", "name")
    assert first(await asked(world, str(lee["id"]))) == ("user", "Lee Okafor")
    assert first(await asked(world, "wf_e5047")) == ("workflow", "sync_tiktok_settlements_cin7")
    assert first(await asked(world, str(partner["id"]))) == ("secret", "PARTNER_TOKEN")


async def test_the_beginning_of_an_id_is_enough_though_it_has_no_digit(world: World) -> None:
    """Ours (find): what begins as ids do is one."""
    row = world.sandbox.state.named("workflows", "process-new-orders")
    world.sandbox.state.put("workflows", row | {"id": "wf_abcdef012345", "name": "Letters", "slug": "letters"})
    assert first(await asked(world, "wf_abcd")) == ("workflow", "Letters")


async def test_an_unknown_execution_is_none_and_searches_nothing(world: World) -> None:
    """Ours (find): there are hundreds of thousands; they are found by exact id only."""
    answer = await asked(world, "exec_000000000000")
    assert (answer["found"], answer["searched"]) == ([], ["execution"])
    assert len(world.sandbox.requests) == 1
    world.sandbox.faults.add(Status(status=403, path="/api/v1/executions/*"))
    answer = await asked(world, "exec_000000000000")
    assert (answer["searched"], answer["not_searched"]) == ([], {"execution": "forbidden"})


async def test_what_fits_equally_is_said_to_be_ambiguous(world: World) -> None:
    """Ours (find): two customers called Acme are a question to the person, no guess."""
    answer = await asked(world, "acme")
    assert sorted(names(answer["found"][:2])) == ["Acme Corp", "John-Acme"]
    assert "first 2" in answer["ambiguous"]
    assert "ambiguous" not in await asked(world, "Acme Corp")
    twins = Listing({kind: [] for kind in LISTS} | {"customer": [{"id": n, "name": "Acme Corp"} for n in "ab"]})
    answer = (await Find(query="Acme Corp").run(context_on(world, twins))).model_dump()
    assert [row["score"] for row in answer["found"]] == [100, 100]
    assert "first 2" in answer["ambiguous"]


async def test_what_the_first_lacks_is_said(world: World) -> None:
    """Ours (find): the best of what there is may not be what was meant."""
    assert (await asked(world, "the acme hubspot sync"))["first_lacks"] == ["acme"]
    assert "first_lacks" not in await asked(world, "acme xero")


async def test_nothing_is_found_by_nonsense_and_near_misses_are_no_hits(world: World) -> None:
    """Ours (find): an empty list, and at most three names that may have been meant."""
    assert (await asked(world, "zzqxv blorp"))["found"] == []
    answer = await asked(world, "Kattahna Incorporated Holdings")
    assert answer["found"] == []
    assert "Katana" in answer["did_you_mean"]
    assert len(answer["did_you_mean"]) <= 3


@pytest.mark.parametrize("status", [403, 404, 501])
async def test_a_kind_that_cannot_be_read_sinks_nothing(world: World, status: int) -> None:
    """Ours (find): the rest is looked through, and what was not is said."""
    world.sandbox.faults.add(Status(status=status, path="/api/v1/users", times=None))
    world.sandbox.faults.add(Status(status=status, path="/api/v1/customers", times=None))
    answer = await asked(world, "hubspot")
    assert first(answer) == ("connector", "HubSpot")
    assert answer["not_searched"].keys() == {"customer", "user"}
    assert not {"customer", "user"} & set(answer["searched"])


async def test_nothing_can_be_read_at_all(world: World) -> None:
    """Ours (find): no hit, and every kind among what was not looked through."""
    answer = (
        await Find(query="acme").run(context_on(world, Listing({}, dict.fromkeys(LISTS, Forbidden("no")))))
    ).model_dump()
    assert (answer["found"], answer["searched"]) == ([], [])
    assert answer["not_searched"] == dict.fromkeys(LISTS, "forbidden")


@pytest.mark.parametrize("paging", Paging)
@pytest.mark.parametrize("filtering", Filtering)
async def test_it_finds_however_fastn_pages_and_filters(world: World, paging: Paging, filtering: Filtering) -> None:
    """Ours: nothing is known of Fastn's pagination and filters."""
    world.sandbox.behaviour = world.sandbox.behaviour.model_copy(update={"paging": paging, "filtering": filtering})
    assert first(await asked(world, "acme xero")) == ("connection", "Xero of Acme Corp")
    assert len(world.sandbox.requests) <= 2 * len(LISTS)


async def test_a_change_made_here_is_seen_at_once(world: World) -> None:
    """Ours: what was read is forgotten once something of its kind is changed through here."""
    assert (await asked(world, "initech"))["found"] == []
    assert isinstance(await world.call(CreateCustomer(name="Initech", slug="initech")), Done)
    assert first(await asked(world, "initech")) == ("customer", "Initech")


async def test_the_calls_that_it_names_exist_and_take_these_arguments(world: World) -> None:
    """Ours (find): what can be done next can be done."""
    for step in (step for steps in NEXT.values() for step in steps):
        named = re.fullmatch(r"(\w+)\((\w*)\)", step)
        assert named is not None
        if named[1] in BY_NAME:
            assert not named[2] or named[2] in BY_NAME[named[1]].model_fields
        else:
            assert named[1] == "diagnose_workflow"
    answer = await asked(world, "hubspot")
    assert set(answer["next"]) == {row["kind"] for row in answer["found"]}


@pytest.mark.parametrize("query", ["hubspot", "acme", "acme connection", "fastn.example", "sync"])
async def test_an_answer_is_small(world: World, query: str) -> None:
    """Ours (find): five rows cost less than 600 tokens, unless connections' ids of 130 characters make them more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it reads its data in an old way
        import bpe_openai  # pyright: ignore[reportMissingTypeStubs]
    encode = bpe_openai.get_encoding("o200k_base").encode
    call = Find(query=query)
    done = await world.call(call)
    assert isinstance(done, Done)
    answer = render(call, done.result, {})
    connections = sum(row["kind"] == "connection" for row in done.result.model_dump()["found"])
    assert len(encode(to_json(answer).decode())) < 600 + 60 * connections


@pytest.mark.parametrize("query", ["", "  ", "?!", "x" * 501])
def test_a_query_that_asks_nothing_is_refused(query: str) -> None:
    """Ours (DESIGN 4): refused by name, and nothing is sent."""
    with pytest.raises(NotSent, match="query"):
        parse(BY_NAME, "find", {"query": query})


@pytest.mark.parametrize(
    "query", ["the", "a", "why did it fail", "customers", "日本", "1", "/ / a", "\u202eacme", "s" * 500]
)
async def test_odd_queries_get_an_answer(world: World, query: str) -> None:
    """Ours: whatever a person types."""
    assert "found" in await asked(world, query)


async def test_rows_of_any_shape_are_taken(world: World) -> None:
    """Ours: nothing is known for sure of Fastn's answers."""
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in LISTS}
    rows["customer"] = [
        {},
        {"id": 5, "name": ["x"]},
        {"name": "Nameless Id"},
        {"id": "c", "name": "x" * 5_000, "status": 7},
    ]
    rows["connection"] = [
        {"id": "u", "connector": "hubspot", "endOrgId": {"a": 1}},
        {"id": "v", "connector": {"slug": 3}},
    ]
    rows["secret"] = [{"id": True, "name": "DEEP"}]
    listing = Listing(rows)
    answer = (await Find(query="nameless").run(context_on(world, listing))).model_dump()
    assert (answer["found"][0]["id"], answer["found"][0]["name"]) == (None, "Nameless Id")
    answer = (await Find(query="deep").run(context_on(world, listing))).model_dump()
    assert first(answer) == ("secret", "DEEP")
    answer = (await Find(query="x" * 200, kind="customer").run(context_on(world, listing))).model_dump()
    assert len(answer["found"][0]["name"]) == 101


async def test_what_is_shown_is_limited_and_the_rest_counted(world: World) -> None:
    """Ours (find): 5 rows unless told, and how many more fit."""
    answer = await asked(world, "sync", kind="workflow", limit=2)
    assert len(answer["found"]) == 2
    assert answer["more"] == len((await asked(world, "sync", kind="workflow", limit=20))["found"]) - 2
