"""Tests of find: names with typos, in another case or in sentences, on a small and a large account."""

import re
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pytest
from find_queries import SEARCHES, Expected, Search
from large_account import large_account
from pydantic_core import to_json
from support.behaviour import Filtering, Paging
from support.faulty_sandbox import Status
from support.many_names import large, listing, uuid
from support.tokens import tokens
from support.world import World

from fastn_mcp.account.entries import LISTS, MAX_PAGES, entry, read_contents
from fastn_mcp.errors import Forbidden, NotSent
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.find import NEXT, RUN, Find
from fastn_mcp.procedures.ranking import Index, leaders, units
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.workflows import ListExecutions

_GLOBEX = "5c4bc270-6e5f-4523-afd7-6538d17c6c3a"


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    """An account that is read once a minute."""
    made = World(tmp_path, snapshot_seconds=60)
    yield made
    made.close()


@pytest.fixture
def large_world(tmp_path: Path) -> Generator[World]:
    made = World(tmp_path, begin=large_account, snapshot_seconds=60)
    yield made
    made.close()


async def search_for(world: World, query: str, **more: Any) -> dict[str, Any]:
    return await world.ask(Find(query=query, **more))


async def search_in(world: World, source: Any, query: str, **more: Any) -> dict[str, Any]:
    """Search the rows of another source than the sandbox."""
    return (await Find(query=query, **more).run(world.context(source))).model_dump()


def first(answer: dict[str, Any]) -> tuple[str, str]:
    return answer["found"][0]["kind"], answer["found"][0]["name"]


def names(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [row["name"] for row in rows]


async def worse_places(
    world: World, account: Literal["small", "large"], searches: Sequence[Search]
) -> dict[str, list[str]]:
    """Return the queries whose hits are not where they are expected, with the first three hits."""
    worse: dict[str, list[str]] = {}
    requests: list[int] = []
    for search in searches:
        expected: Expected | None = getattr(search, account)
        if expected is None:
            continue
        world.sandbox.requests.clear()
        world.snapshot.forget("customers")
        answer = await search_for(world, search.query)
        requests.append(len(world.sandbox.requests))
        found = [f"{row['kind']} {row['name']}" for row in answer["found"][:3]]
        if not expected.is_met(found):
            worse[search.query] = found
    assert median(requests) <= 8
    assert max(requests) <= 32
    return worse


async def test_expected_hits_of_the_small_account_come_first(world: World) -> None:
    """By name, slug, email, id or part, in any case and spacing, misspelt, or in a sentence."""
    assert await worse_places(world, "small", SEARCHES) == {}


@pytest.mark.parametrize(
    "searches", [SEARCHES[::25], pytest.param(SEARCHES, marks=pytest.mark.long)], ids=["some", "all"]
)
async def test_expected_hits_of_the_large_account_come_first(large_world: World, searches: Sequence[Search]) -> None:
    """Although ten customers are called Acme, with one sync."""
    assert await worse_places(large_world, "large", searches) == {}


@pytest.mark.parametrize(
    ("query", "others"),
    [
        ("The Sync", ["Sync", "Order"]),
        ("get orders", ["Orders"]),
        ("Orders to Slack", ["Orders Slack"]),
        ("Report of last week", ["Report"]),
    ],
)
def test_whole_name_fits_best_though_it_has_words_that_mean_nothing(query: str, others: list[str]) -> None:
    index = Index([entry("workflow", {"id": f"wf_{name}", "name": name}) for name in (query, *others)])
    assert {hit.entry.name for hit in leaders(index.rank(query).of(["workflow"]))} == {query}


async def test_what_belongs_to_a_match_is_read_once_and_only_if_needed(large_world: World) -> None:
    """A name that is the whole query needs no runs of customers and no connections."""
    await search_for(large_world, "katanna")  # which reads all customers
    for query, needed in [
        ("the acme hubspot sync", ["/api/v1/executions"]),
        ("pause the acme hubspot sync", []),
        ("disconnect hubspot of acme corp", ["/api/v1/connections", "/api/v1/executions"]),
    ]:
        large_world.sandbox.requests.clear()
        await search_for(large_world, query)
        assert sorted(request.path for request in large_world.sandbox.requests) == needed


@pytest.mark.parametrize(
    ("query", "customer", "pages"),
    [
        ("nordale gmbh", "Nordale GmbH", 3),
        ("nordael gmbh", "Nordale GmbH", 22),
        ("muller sohne", "Müller & Söhne", 22),
        ("Nordale GmbH is on the phone. Their invoices are what they call about today.", "Nordale GmbH", 23),
    ],
    ids=["searched for", "misspelt", "without accents", "in the first of two sentences"],
)
async def test_customers_are_searched_for_and_read_whole_if_a_word_is_unknown(
    world: World, query: str, customer: str, pages: int
) -> None:
    """Requests are bounded, and what was read is cached for a minute."""
    source = listing(large())
    answer = await search_in(world, source, query)
    assert first(answer) == ("customer", customer)
    assert "customer" not in str(answer.get("not_searched"))
    assert source.counts()["list_customers"] <= pages + 1
    read = source.counts()["list_customers"]
    await Find(query=query).run(world.context(source))
    assert source.counts()["list_customers"] == read


@pytest.mark.parametrize("ignores", [True, False])
async def test_customers_are_read_whole_if_fastn_does_not_search(world: World, *, ignores: bool) -> None:
    source = listing(large())
    answer_to = source.__call__

    async def send(call: Operation[Any]) -> Any:
        if getattr(call, "search", None) and call.tool_name() == "list_customers":
            if ignores:
                page: Any = await answer_to(call.model_copy(update={"search": None}))
                rows = [row for row in page.rows if "nordale" in row["name"].casefold()]
                return page.model_copy(update={"rows": rows})
            return call.result([])
        return await answer_to(call)

    answer = await search_in(world, send, "nordale gmbh")
    assert first(answer) == ("customer", "Nordale GmbH")
    assert "not_searched" not in answer


async def test_customer_of_a_match_is_named_although_not_all_were_read(large_world: World) -> None:
    state = large_world.sandbox.state
    customer = state.all("customers")[-1]
    trigger = state.named("triggers", "Tracking updates (public)", "name")
    state.put("triggers", trigger | {"customerId": customer["id"]})
    answer = await search_for(large_world, "Tracking updates (public)")
    assert answer["found"][0]["customer"] == {"id": customer["id"], "name": customer["name"]}


async def test_index_is_built_once(world: World) -> None:
    context = world.context(listing(large(customers=300)))

    async def looked_at() -> int:
        before = units.cache_info()
        await Find(query="katana").run(context)
        after = units.cache_info()
        return after.hits + after.misses - before.hits - before.misses

    assert await looked_at() > 700  # names
    assert await looked_at() == 0
    context.look.snapshot.forget("customers")
    assert await looked_at() > 700  # names


async def test_rows_added_by_one_query_are_not_shared(world: World) -> None:
    rows = large(10, 1, 10, 10)
    rows["customer"] = [{"id": uuid(9, n), "name": f"Filler {n}"} for n in range(100 * MAX_PAGES)]
    rows["customer"].append({"id": uuid(8, 1), "name": "Zebulon Partners"})
    context = world.context(listing(rows))
    for _ in range(2):
        found = (await Find(query="zebulon", kind="customer").run(context)).model_dump()
        assert first(found) == ("customer", "Zebulon Partners")
    contents = await read_contents("customer", context.look)
    assert "Zebulon Partners" not in {found.name for found in contents.entries}


async def test_incomplete_kind_is_searched_by_the_rarest_words(world: World) -> None:
    """Beyond the first 3,000 customers Fastn searches, and the answer says so if that may have missed some."""
    rows = large()
    more = [{"id": uuid(9, n), "name": f"Filler {n}"} for n in range(1_200)]
    rows["customer"] += [*more, {"id": uuid(8, 1), "name": "Zephyrine Looms"}]
    rows["connection"] += [{"id": "late", "name": "default", "endOrgId": uuid(8, 1), "connectorId": uuid(2, 0)}]
    source = listing(rows)
    answer = await search_in(world, source, "the zephyrine looms customer")
    assert first(answer) == ("customer", "Zephyrine Looms")
    assert "not_searched" not in answer
    assert source.counts()["list_customers"] <= 3
    answer = await search_in(world, source, "the zephirine looms customer")
    assert first(answer) == ("customer", "Zephyrine Looms")
    assert answer["not_searched"] == ["customer: only the first 3000"]
    assert source.counts()["list_customers"] <= MAX_PAGES + 5
    answer = await search_in(world, source, "zephyrine looms hubspot")
    assert first(answer) == ("connection", "HubSpot of Zephyrine Looms")
    assert source.counts()["list_connections"] <= 3


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("Why did orders-backfill stop after maintenance, new machines, networks, storage? Check the customer Katana.",
         "Katana"),
        ("Katana customer cannot see its orders since Monday. Check the cin7 connection and the tiktok trigger",
         "Daily TikTok sync"),
        ("the daily tiktok settlements sync for Katana failed. Is the Cin7 connection expired? And who owns it",
         "Cin7 Core of Katana"),
    ],
)  # fmt: skip
async def test_name_in_a_later_sentence_is_found_too(world: World, query: str, named: str) -> None:
    assert named in names((await search_for(world, query))["found"])


@pytest.mark.parametrize("query", ["Globex Export workflows", "workflows of Globx Exports"])
async def test_workflows_of_a_misspelt_customer_are_found(world: World, query: str) -> None:
    assert {"orders-backfill", "process-new-orders"} <= {*names((await search_for(world, query))["found"])}


async def test_kind_limits_reads_and_matches(world: World) -> None:
    answer = await search_for(world, "hubspot", kind="workflow")
    assert {row["kind"] for row in answer["found"]} == {"workflow"}
    assert {request.path for request in world.sandbox.requests} == {
        "/api/v1/workflows",
        "/api/v1/triggers",
        "/api/v1/executions",
    }
    answer = await search_for(world, "akme", kind="connection")
    assert sorted(names(answer["found"])) == ["Shopify of Acme Corp", "Slack of Acme Corp", "Xero of Acme Corp"]
    assert len(world.sandbox.requests) == 6


async def test_id_is_read_directly(world: World) -> None:
    execution = (await world.rows(ListExecutions(limit=1)))[0].id
    connection = (await search_for(world, "acme xero"))["found"][0]["id"]
    for query, kind, calls in [
        ("wf_e5047fb2a8c3", "workflow", 2),
        (f"why did {execution} fail?", "execution", 1),
        (_GLOBEX, "customer", 3),
        (connection, "connection", 1),
    ]:
        world.sandbox.requests.clear()
        answer = await search_for(world, query)
        assert [row["kind"] for row in answer["found"]] == [kind]
        assert answer["found"][0]["score"] == 100
        assert len(world.sandbox.requests) <= calls + 1
        assert not [request for request in world.sandbox.requests if request.path == "/api/v1/users"]
    assert (await search_for(world, connection))["found"][0]["name"] == "Xero of Acme Corp"
    assert (await search_for(world, execution))["found"][0]["workflow_id"].startswith("wf_")


@pytest.mark.parametrize("query", ["東京", "電力"])
async def test_two_letters_of_a_name_without_spaces_are_found(world: World, query: str) -> None:
    row = world.sandbox.state.named("customers", "acme-corp")
    world.sandbox.state.put("customers", row | {"id": "tokyo", "name": "東京電力株式会社", "slug": "tokyo"})
    assert first(await search_for(world, query)) == ("customer", "東京電力株式会社")


async def test_beginning_of_an_id_without_digits_is_found(world: World) -> None:
    row = world.sandbox.state.named("workflows", "process-new-orders")
    world.sandbox.state.put("workflows", row | {"id": "wf_abcdef012345", "name": "Letters", "slug": "letters"})
    assert first(await search_for(world, "wf_abcd")) == ("workflow", "Letters")


async def test_each_id_of_a_query_is_read(world: World) -> None:
    state = world.sandbox.state
    orders, katana = state.named("workflows", "process-new-orders"), state.named("customers", "katana-customer")
    answer = await search_for(world, f"does {orders['id']} run for {katana['id']}? {orders['id']} or wf_000000000000")
    assert names(answer["found"]) == ["process-new-orders", "Katana"]
    assert (answer["first_lacks"], "ambiguous" in answer) == (["wf_000000000000"], False)


async def test_ids_that_were_not_read_are_said(world: World) -> None:
    orders, user = world.id_of("workflows", "process-new-orders"), "b4c89194-db69-4955-aaa8-188a76808311"
    world.refuse(f"/api/v1/workflows/{orders}")
    others = ["exec_000000000000", "wf_000000000000", "exec_000000000001"]
    answer = await search_for(world, " ".join([_GLOBEX, orders, user, *others]))
    assert names(answer["found"]) == ["Globex Exports"]
    assert answer["first_lacks"] == others[:1]
    refused, *alone = sorted(answer["not_searched"], key=lambda gap: "alone" in gap)
    assert refused == f"{orders}: forbidden"
    assert alone == [f"{key}: search for it alone" for key in (*others[1:], user)]


async def test_unknown_execution_finds_nothing_and_searches_nothing(world: World) -> None:
    """Runs are too many to list, so they are found only by their exact id."""
    answer = await search_for(world, "exec_000000000000")
    assert answer == {"found": [], "next": ["list_executions(workflow_id, since)"]}
    assert len(world.sandbox.requests) == 1
    world.sandbox.faults.add(Status(status=403, path="/api/v1/executions/*"))
    answer = await search_for(world, "exec_000000000000")
    assert answer["not_searched"] == ["exec_000000000000: forbidden"]


async def test_key_is_found_by_its_number_alone(large_world: World) -> None:
    """Key 1 is not key 14. The audit log calls it apikey:1."""
    for query in ("key 1", "apikey:1", "what did key 1 do?"):
        (key,) = (await search_for(large_world, query))["found"]
        assert (key["kind"], key["id"], key["name"]) == ("api_key", "1", "Workflow")


async def test_equal_matches_are_ambiguous(world: World) -> None:
    state = world.sandbox.state
    state.put("customers", state.named("customers", "acme-customer") | {"status": "Active"})
    answer = await search_for(world, "acme")
    assert sorted(names(answer["found"][:2])) == ["Acme Corp", "John-Acme"]
    assert "first 2" in answer["ambiguous"]
    assert "ambiguous" not in await search_for(world, "Acme Corp")
    twins = listing({kind: [] for kind in LISTS} | {"customer": [{"id": n, "name": "Acme Corp"} for n in "ab"]})
    answer = await search_in(world, twins, "Acme Corp")
    assert [row["score"] for row in answer["found"]] == [100, 100]
    assert "first 2" in answer["ambiguous"]


async def test_draft_and_pending_customer_are_no_alternatives(world: World) -> None:
    """They cannot be meant where another one can, unless the query says so. Alone they are found."""
    assert "ambiguous" not in await search_for(world, "acme")
    assert "ambiguous" in await search_for(world, "acme, pending activation")
    live = {"name": "Order export", "slug": "order-export", "status": "active", "publishedVersion": "v1"}
    draft = {"id": "wf_2", "name": "Order exports", "slug": "x", "status": "draft", "publishedVersion": None}
    rows = {kind: list[Any]() for kind in LISTS} | {"workflow": [draft, live | {"id": "wf_1"}]}
    for query in ("the order exports", "order-exports"):
        answer = await search_in(world, listing(rows), query)
        assert ("ambiguous" in answer, answer["found"][0]["id"]) == (False, "wf_2")  # named as it is
    answer = await search_in(world, listing(rows), "orders export")
    assert ("ambiguous" in answer, answer["found"][0]["id"]) == (False, "wf_1")
    answer = await search_in(world, listing(rows), "orders export draft")
    assert "ambiguous" in answer
    rows["workflow"].append(live | {"id": "wf_3", "slug": "other"})
    answer = await search_in(world, listing(rows), "orders export")
    assert "first 2" in answer["ambiguous"]
    assert {row["id"] for row in answer["found"][:2]} == {"wf_1", "wf_3"}
    rows["workflow"] = [draft]
    answer = await search_in(world, listing(rows), "orders export")
    assert (answer["found"][0]["id"], answer["found"][0]["state"]) == ("wf_2", "never published")


async def test_trigger_is_found_by_the_workflow_that_it_starts(world: World) -> None:
    """A schedule may have any name. It comes with its workflow, and they are not alternatives."""
    state = world.sandbox.state
    state.put("triggers", state.named("triggers", "Hourly Slack sync", "name") | {"name": "Timer 17"})
    answer = await search_for(world, "pause the slack to supabase sync")
    timer = next(row for row in answer["found"] if row["name"] == "Timer 17")
    assert "Slack Messages to Supabase Hourly Sync" in timer["starts"]
    assert "ambiguous" not in answer
    answer = await search_for(world, "the slack to supabase sync")
    assert first(answer) == ("workflow", "Slack Messages to Supabase Hourly Sync")
    started_by = answer["found"][0].get("started_by", [])
    assert "Timer 17" in names([*started_by, *answer["found"]])
    assert "ambiguous" not in answer


async def test_workflows_are_found_by_the_customer_that_they_run_for(large_world: World) -> None:
    """By its triggers, its runs and its connections; each says which, and how the last run ended."""
    for query in ("the orders of Globex Exports", "orders of Globex Exports do not arrive"):
        answer = await search_for(large_world, query, limit=20)
        rows = {row["name"]: row for row in answer["found"]}
        assert rows["process-new-orders"]["runs_for"][0]["name"] == "Globex Exports"  # by the trigger
        assert rows["orders-backfill"]["runs_for"][0]["last_run"].startswith("failed")  # by a run
        assert rows["Sync Shopify orders to Notion"]["may_run_for"][0]["name"] == "Globex Exports"  # by connections
        assert rows["Paid Shopify orders"]["state"] == "broken"
        assert names(answer["found"][:2]) == ["orders-backfill", "process-new-orders"]
        assert "first 2" in answer["ambiguous"]  # not the trigger of one of them
    only = await search_for(large_world, "orders of Globex Exports", kind="workflow")
    assert {"process-new-orders", "orders-backfill"} <= set(names(only["found"]))
    state = large_world.sandbox.state
    del state.rows["triggers"][str(state.named("triggers", "Paid Shopify orders", "name")["id"])]
    large_world.clock.pass_(61)
    answer = await search_for(large_world, "the orders of Globex Exports", limit=20)
    assert "process-new-orders" not in names(answer["found"])


@pytest.mark.parametrize(
    ("query", "kind", "read"),
    [
        ("the Slack connector", None, {"connectors"}),
        ("pause the hourly slack sync", None, {"triggers", "workflows"}),
        ("sync_tiktok_settlements_cin7", None, {"workflows", "triggers"}),  # it was never published: it has no last run
        ("the stripe secret key", None, {"secrets", "api-keys"}),
        ("Shop events", "trigger", {"triggers", "workflows"}),  # a workflow of it, for its name
    ],
)
async def test_name_of_a_kind_that_is_asked_for_is_looked_for_in_that_kind(
    large_world: World, query: str, kind: Any, read: set[str]
) -> None:
    assert (await search_for(large_world, query, kind=kind))["found"]
    assert {request.path.split("/")[3] for request in large_world.sandbox.requests} == read


@pytest.mark.parametrize(
    ("query", "kind", "read"),
    [
        ("Gamma", "connector", {"connectors": ["", "gamma"]}),
        ("Acme Corp", "customer", {"customers": ["", "corp"]}),  # what has the whole name has each word of it
        ("Slack Xero Gmail", "connector", {"connectors": [""] * 4}),
    ],
)
async def test_long_list_is_searched_where_that_takes_fewer_requests(
    large_world: World, query: str, kind: Any, read: dict[str, list[str]]
) -> None:
    await search_for(large_world, query, kind=kind)
    heard = [(each.path.split("/")[3], each.query.get("search", "")) for each in large_world.sandbox.requests]
    assert heard == [(path, search) for path, searches in read.items() for search in searches]


@pytest.mark.parametrize("query", ["the Slack connector of Acme", "the Slak connector", "Slack"])
async def test_name_that_is_not_all_of_the_query_is_looked_for_in_all_kinds(large_world: World, query: str) -> None:
    await search_for(large_world, query)
    read = {request.path.split("/")[3] for request in large_world.sandbox.requests}
    assert {"customers", "connectors", "workflows", "triggers", "users", "roles", "api-keys", "secrets"} <= read


async def test_kind_that_cannot_be_read_is_asked_for_once(world: World) -> None:
    world.refuse("/api/v1/workflows")
    answer = await search_for(world, "the nightly workflow")
    assert answer["not_searched"] == ["workflow: forbidden"]
    assert [request.path for request in world.sandbox.requests].count("/api/v1/workflows") == 1


async def test_last_run_is_shown_only_if_the_newest_come_first(large_world: World) -> None:
    """Fastn's order is not documented. Of the runs of a customer, not all are read, which is said."""
    answer = await search_for(large_world, "the slack to supabase sync for Acme Corp")
    assert answer["found"][0]["runs_for"][0]["last_run"].startswith("completed")
    assert answer["not_searched"] == ["runs of Acme Corp: only the first 100"]

    async def oldest_first(call: Operation[Any]) -> FastnObject:
        page: Any = await large_world.client.send(call)
        return page.model_copy(update={"rows": page.rows[::-1]}) if isinstance(call, ListExecutions) else page

    for query in ("the slack to supabase sync for Acme Corp", "the acme hubspot sync"):
        found = await Find(query=query).run(large_world.context(oldest_first))
        assert "last_run" not in to_json(found.model_dump()["found"][0]).decode()


async def test_customer_is_shown_with_its_workflows(large_world: World) -> None:
    answer = await search_for(large_world, "which workflows run for Katana?", limit=1)
    (katana,) = answer["found"]
    assert [run["name"] for run in katana["runs"]] == ["Sync TikTok Orders to Cin7 Core"]
    assert katana["runs"][0]["last_run"].startswith("failed")
    answer = await search_for(large_world, "which workflows run for Katana?")
    assert names(answer["found"][:2]) == ["Katana", "Sync TikTok Orders to Cin7 Core"]
    assert "runs" not in answer["found"][0]
    assert "runs" not in (await search_for(large_world, "Katana", limit=1))["found"][0]


async def test_runs_of_a_customer_that_cannot_be_read_are_reported(world: World) -> None:
    world.refuse("/api/v1/executions")
    answer = await search_for(world, "the orders of Globex Exports")
    assert "process-new-orders" in names(answer["found"])
    assert answer["not_searched"] == ["runs of Globex Exports: forbidden"]


async def test_one_call_finds_what_a_job_needs(large_world: World) -> None:
    run = "Run the slack to supabase sync for Acme Corp first, and report when it has finished."
    sync, key = [await search_for(large_world, query) for query in (run, "revoke TEST if it was never used")]
    assert sync["found"][0]["runs_for"][0]["name"] == "Acme Corp"
    assert (key["found"][0]["name"], key["found"][0]["lastUsed"]) == ("TEST", "never")
    assert "ambiguous" not in {*sync, *key}


async def test_next_calls_fit_the_state(world: World) -> None:
    """A draft is not run, nor is an inactive workflow; the last run of one that runs is shown."""
    state = world.sandbox.state
    row = state.named("workflows", "process-new-orders")
    answer = await search_for(world, "process-new-orders")
    assert RUN in answer["next"]
    assert answer["found"][0]["last_run"].partition(" ")[0] in ("completed", "failed", "running")
    for change in ({"status": "inactive"}, {"status": "draft", "publishedVersion": None}, {"status": "odd"}):
        state.put("workflows", row | change)
        world.clock.pass_(61)
        for query in ("process-new-orders", str(row["id"])):
            answer = await search_for(world, query)
            assert (first(answer)[1], RUN in answer["next"]) == ("process-new-orders", False)
    state.put("workflows", row | {"status": "draft"})
    world.clock.pass_(61)
    answer = await search_for(world, "process-new-orders")
    assert (answer["found"][0]["state"], RUN in answer["next"]) == ("live", True)


@pytest.mark.parametrize(
    ("query", "offered", "requests"),
    [
        ("failed workflows", "list_workflows()", 4),
        ("which api keys expire soon", "list_api_keys()", 1),
        ("API keys", "list_api_keys()", 1),
        ("expired connections", "list_connections()", 0),
        ("list customers", "list_customers()", 1),
        ("workflow", "list_workflows()", 10),
    ],
)
async def test_list_of_a_kind_is_offered_if_nothing_else_is_named(
    large_world: World, query: str, offered: str, requests: int
) -> None:
    """And only that kind is read, unless its word may be a name."""
    answer = await search_for(large_world, query)
    assert offered in answer["next"]
    assert not any("connection" in gap for gap in answer.get("not_searched", [])), "no kind but one was searched"
    assert len(large_world.sandbox.requests) == requests


async def test_list_of_a_kind_is_offered_if_no_match_is_of_it(world: World) -> None:
    """John-Acme waits for activation, and is not asked about."""
    answer = await search_for(world, "triggers of Acme")
    assert first(answer) == ("customer", "Acme Corp")
    customers = [request.query.get("endOrgId") for request in world.sandbox.requests if "executions" in request.path]
    assert customers == [answer["found"][0]["id"]]
    assert answer["next"][-1] == "list_triggers()"
    assert "list_triggers()" not in (await search_for(world, "the daily tiktok trigger"))["next"]
    assert "list_api_keys()" not in (await search_for(world, "which workflow calls the Shopify API"))["next"]


@pytest.mark.parametrize("query", ["key 1", "stripe secret key"])
async def test_nothing_of_an_answer_is_redacted(world: World, query: str) -> None:
    """Kinds such as `api_key` are no names of fields, whose values would be hidden."""
    world.refuse("/api/v1/roles")
    assert "hidden" not in to_json(await world.rendered(Find(query=query))).decode()


async def test_words_missing_in_the_first_match_are_reported(world: World) -> None:
    assert (await search_for(world, "the acme hubspot sync"))["first_lacks"] == ["acme"]
    assert "first_lacks" not in await search_for(world, "acme xero")


async def test_nonsense_finds_nothing_and_near_misses_are_suggestions(world: World) -> None:
    assert (await search_for(world, "zzqxv blorp"))["found"] == []
    answer = await search_for(world, "Kattahna Incorporated Holdings")
    assert answer["found"] == []
    assert "Katana" in [near["name"] for near in answer["did_you_mean"]]
    assert len(answer["did_you_mean"]) <= 3


async def test_near_misses_have_kind_id_and_status(world: World) -> None:
    """So that an active workflow is told from a draft of nearly the same name without a further call."""
    near = (await search_for(world, "zzyy tiktk", kind="workflow"))["did_you_mean"]
    assert {
        "kind": "workflow",
        "id": world.id_of("workflows", "sync-tiktok-orders-to-cin7-core"),
        "name": "Sync TikTok Orders to Cin7 Core",
        "status": "active",
    } in near
    assert ("draft", "never published") in [(each["status"], each.get("state")) for each in near]


@pytest.mark.parametrize("status", [403, 404])
async def test_unreadable_kind_is_reported_and_the_rest_searched(world: World, status: int) -> None:
    world.refuse("/api/v1/users", "/api/v1/customers", status=status)
    answer = await search_for(world, "hubspot")
    assert first(answer) == ("connector", "HubSpot")
    kinds, _, why = answer["not_searched"][0].partition(": ")
    assert (sorted(kinds.split(", ")), why) == (["customer", "user"], "forbidden" if status == 403 else "not_found")


async def test_all_kinds_unreadable(world: World) -> None:
    answer = await search_in(world, listing({}, dict.fromkeys(LISTS, Forbidden("no"))), "acme")
    assert answer["found"] == []
    kinds, _, why = answer["not_searched"][0].partition(": ")
    assert ({*kinds.split(", ")}, why) == (LISTS.keys() - {"connection"}, "forbidden")


@pytest.mark.parametrize("paging", Paging)
async def test_matches_do_not_depend_on_paging_and_filtering(world: World, paging: Paging) -> None:
    world.behave(paging=paging, filtering=Filtering.IGNORED)
    assert first(await search_for(world, "acme xero")) == ("connection", "Xero of Acme Corp")
    assert len(world.sandbox.requests) <= 2 * len(LISTS)


async def test_next_calls_exist_with_these_arguments(world: World) -> None:
    for step in (RUN, *(step for steps in NEXT.values() for step in steps)):
        named = re.fullmatch(r"(\w+)\((\w*)\)", step)
        assert named is not None
        assert not named[2] or named[2] in TOOLS[named[1]].model_fields
        assert not re.match("delete|revoke", step)
    answer = await search_for(world, "the hubspot connector")
    assert answer["next"] == list(NEXT["connector"])


async def test_email_finds_only_what_has_it_and_is_shown(large_world: World) -> None:
    """Other names share letters with a part of it."""
    rows = large_world.sandbox.state.all("customers")
    email = next(str(row["adminEmail"]) for row in rows if str(row.get("adminEmail", "")).startswith("ivan@"))
    answer = await search_for(large_world, email.upper())
    (found,) = answer["found"]
    assert (found["email"], found["score"]) == (email, 100)
    assert "more" not in answer


async def test_run_under_way_of_a_workflow_that_is_switched_off_is_explained(world: World) -> None:
    (found,) = (await search_for(world, "orders-backfill"))["found"]
    assert found["state"] == "switched off"
    assert found["last_run"] == "queued 10 hours ago, though it is switched off: run_workflow still starts it"


@pytest.mark.parametrize("query", ["acme connection", "fastn.example"])
async def test_answer_is_small(world: World, query: str) -> None:
    """Five rows cost less than 600 tokens, except connections, whose ids have 130 characters."""
    answer = await world.rendered(Find(query=query))
    connections = sum(row["kind"] == "connection" for row in answer["data"]["found"])
    assert tokens(to_json(answer).decode()) < 600 + 60 * connections


@pytest.mark.parametrize("query", ["", "  ", "?!", "x" * 501])
def test_query_without_letters_is_refused(query: str) -> None:
    with pytest.raises(NotSent, match="query"):
        parse(TOOLS, "find", {"query": query})


async def test_unusual_queries_get_an_answer(world: World) -> None:
    for query in ("the", "a", "why did it fail", "customers", "日本", "1", "/ / a", "\u202eacme", "s" * 500):
        assert "found" in await search_for(world, query), query


async def test_unexpected_rows_are_tolerated(world: World) -> None:
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
    rows["workflow"] = [
        {"name": "Without Id"},
        {"id": "w", "name": "Odd", "connectors": ["x", {"slug": []}], "status": 5},
    ]
    rows["trigger"] = [
        {"id": "t", "name": "Clock", "routes": ["w", {"routeId": {}}, {"routeId": "w"}], "endOrgId": "c"}
    ]
    source = listing(rows)
    answer = await search_in(world, source, "nameless")
    assert (answer["found"][0]["id"], answer["found"][0]["name"]) == (None, "Nameless Id")
    answer = await search_in(world, source, "deep")
    assert first(answer) == ("secret", "DEEP")
    for query in ("orders of nameless id", "the workflow without id", "odd", "clock", f"{'x' * 200} workflows"):
        assert (await search_in(world, source, query))["found"]
    answer = await search_in(world, source, "x" * 200, kind="customer")
    assert len(answer["found"][0]["name"]) == 101


async def test_rows_are_limited_and_the_rest_counted(world: World) -> None:
    answer = await search_for(world, "sync", kind="workflow", limit=2)
    assert len(answer["found"]) == 2
    assert answer["more"] == len((await search_for(world, "sync", kind="workflow", limit=20))["found"]) - 2
