"""Tests of get_overview: the problems of the sandbox's account, and of more unusual accounts."""

import re
from datetime import timedelta
from typing import Any

import pytest
from pydantic_core import to_json
from support.behaviour import Behaviour, Envelope, Filtering, Paging
from support.faulty_sandbox import Status
from support.table_rows import table_rows
from support.world import World

from fastn_mcp.errors import FastnError, Forbidden, Unauthorized
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.batch import Done
from fastn_mcp.guard.caller import Caller
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.diagnosis.run_counts import run_totals
from fastn_mcp.procedures.overview.checks import Severity
from fastn_mcp.procedures.overview.get_overview import MAX_ROWS, GetOverview
from fastn_mcp.sandbox.state import stamp
from fastn_mcp.server.rendering import render
from fastn_mcp.tools.access import ListApiKeys, ListUsers
from fastn_mcp.tools.customers import DeleteCustomer

pytestmark = pytest.mark.anyio

Answer = dict[str, Any]


async def overview(world: World, hours: int = 24) -> Answer:
    done = await world.call(GetOverview(hours=hours))
    assert isinstance(done, Done), done
    return done.result.model_dump()


def finding_about(answer: Answer, words: str) -> Answer:
    """Return the only finding with these words."""
    (found,) = [finding for finding in answer["findings"] if words in finding["what"]]
    return found


def ids(finding: Answer) -> list[str]:
    return [row["id"] for row in rows(finding)]


def rows(finding: Answer) -> list[Answer]:
    return finding.get("rows", [])


def named(world: World, collection: str, name: str) -> str:
    return str(world.sandbox.state.named(collection, name, by="name")["id"])


def keep_only(world: World, collection: str, *, but: str = "") -> None:
    """Drop all but the rows of one name."""
    for row in world.sandbox.state.all(collection):
        if row.get("name") != but:
            world.sandbox.state.drop(collection, row["id"])


SEEDED = [
    ("subscription at the app is FAILED", "high", "triggers", "Paid Shopify orders"),
    ("switched off by the platform after 20 failures in a row", "high", "triggers", "Nightly contact sync"),
    ("with 9 failures in a row", "medium", "triggers", "Daily TikTok sync"),
    ("callable by anybody", "medium", "triggers", "Tracking updates (public)"),
    ("1 customer waiting for activation", "medium", "customers", "John-Acme"),
    ("1 API key expiring within two weeks, the first in 5 days", "medium", "apiKeys", "BI export"),
    ("1 workflow failed: 1 of ", "high", "workflows", "Sync TikTok Orders to Cin7 Core"),
]


async def test_every_seeded_problem_is_found_with_its_id(world: World) -> None:
    answer = await overview(world)
    for words, severity, collection, name in SEEDED:
        finding = finding_about(answer, words)
        assert ids(finding) == [named(world, collection, name)]
        assert finding["severity"] == severity


async def test_broken_connections_are_named_by_app_and_customer(world: World) -> None:
    answer = await overview(world)
    statuses = [f"connection with status {status}" for status in ("FAILED", "EXPIRED")]
    (failed,), (expired,) = (rows(finding_about(answer, words)) for words in statuses)
    assert (failed["name"], expired["name"]) == ("TikTok Shop of Katana", "Cin7 Core of Katana")
    assert "more" not in finding_about(answer, "FAILED:")


async def test_quotas_near_their_limit_have_numbers(world: World) -> None:
    what = finding_about(await overview(world), "quotas at 80 %")["what"]
    assert what.startswith("2 quotas")
    assert "API calls per day 920 of 1,000, 92 %" in what
    assert "Workflows per customer 8 of 10, 80 %" in what


async def test_unused_keys_and_invitations_are_low_findings(world: World) -> None:
    """Low findings come last, and are dropped first."""
    keep_only(world, "triggers")
    keep_only(world, "connections")
    answer = await overview(world)
    keys = finding_about(answer, "with Full access")
    assert (ids(keys), keys["of"], keys["more"]["arguments"]) == (["5", "2"], 3, {"about": "access"})
    assert ids(finding_about(answer, "never used; could be revoked")) == ["3"]
    assert rows(finding_about(answer, "not accepted for over a week"))[0]["name"] == "sam@fastn.example"
    world.sandbox.state.named("apiKeys", "BI export", by="name")["expiresAt"] = stamp(world.clock.at)
    assert ids(finding_about(await overview(world), "expired.")) == ["4"]


async def test_draft_started_by_a_trigger_is_found(world: World) -> None:
    """Fastn's documentation: a workflow that was never published does not run."""
    draft = world.sandbox.state.named("workflows", "sync_tiktok_settlements_cin7")
    assert not [f for f in (await overview(world))["findings"] if "but never published" in f["what"]]
    hourly = world.sandbox.state.named("triggers", "Hourly Slack sync", by="name")
    hourly["routes"] = [{"routeId": draft["id"]}]
    found = finding_about(await overview(world), "1 workflow started by triggers but never published")
    assert ids(found) == [draft["id"]]
    hourly["status"] = "Disabled"
    assert not [f for f in (await overview(world))["findings"] if "but never published" in f["what"]]


async def test_approvals_alone_are_read_without_a_request(world: World) -> None:
    """Whoever waits for a decision may look often. The overview of the account leaves out what was decided."""
    for name in ("Katana", "Globex Exports"):
        deletion = DeleteCustomer(customer_id=named(world, "customers", name))
        assert isinstance(await world.call(deletion), PendingApproval)
    (first, _) = await world.ledger.waiting(world.clock.at.timestamp())
    await world.ledger.void(first.id, RequestState.DECLINED, world.clock.at.timestamp())
    world.sandbox.requests.clear()
    done = await world.call(GetOverview(about="approvals"))
    assert isinstance(done, Done)
    answer = done.result.model_dump()
    assert world.sandbox.requests == []
    assert answer["guard"]["decided"][0]["state"] == "declined"
    assert len(answer["guard"]["waiting"]) == 1
    assert (answer["findings"], answer["not_checked"]) == ([], [])
    assert "decided" not in (await overview(world))["guard"]


@pytest.mark.parametrize("hours", [24, 720])
async def test_findings_are_sorted_and_continued(world: World, hours: int) -> None:
    answer = await overview(world, hours)
    order = [finding["severity"] for finding in answer["findings"]]
    assert order == sorted(order, key=["high", "medium", "low"].index)
    assert "next_cursor" not in answer
    if hours == 720:
        failed = finding_about(answer, "failed:")
        assert (failed["of"], len(rows(failed))) == (4, MAX_ROWS[Severity.HIGH])
        assert failed["more"] == {"tool": "get_overview", "arguments": {"about": "workflows", "hours": 720}}


async def test_rows_of_all_pages_are_all_rows(large_world: World) -> None:
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        done = await large_world.call(GetOverview(about="connections", cursor=cursor))
        assert isinstance(done, Done)
        answer: Any = render(GetOverview(), done.result, {})
        assert "left_out" not in answer
        seen += [row["name"] for row in table_rows(answer["data"]["table"])]
        cursor = answer["data"].get("next_cursor")
        if cursor is None:
            break
    state = large_world.sandbox.state
    names = {str(row["id"]): row["name"] for row in state.all("customers")}
    broken = [row for row in state.all("connections") if row["status"] != "ACTIVE"]
    assert sorted(seen) == sorted(f"{row['connector']['name']} of {names[str(row['endOrgId'])]}" for row in broken)


async def test_quotas_say_whose_they_are_and_when_they_reset(world: World) -> None:
    world.sandbox.state.named("billing", "billing", by="id")["credits"] = {
        "used": 49, "included": 50, "resetsAt": "2026-12-01T00:00:00Z",
    }  # fmt: skip
    answer = await overview(world)
    (near, workflows) = rows(finding_about(answer, "quotas at 80 %"))
    assert (near["name"], near["whose"], near["resets"]) == ("API calls per day", "the account", "not said by Fastn")
    assert workflows["whose"] == "not said by Fastn", "it is the quota of some customer"
    (credits_,) = rows(finding_about(answer, "AI credits"))
    assert credits_["resets"].startswith("2026-12-01T00:00:00Z (in ")


async def test_answer_is_small(world: World) -> None:
    call = GetOverview(hours=720)
    done = await world.call(call)
    assert isinstance(done, Done)
    answer = render(call, done.result, {})
    assert len(to_json(answer).decode()) < 6_500
    assert "left_out" not in answer
    assert len(world.sandbox.requests) <= 30
    assert world.changes == []


async def test_counts_and_plan(world: World) -> None:
    answer = await overview(world)
    runs = [row for row in world.sandbox.state.all("executions") if str(row["createdAt"]) <= stamp(world.clock.at)]
    assert answer["counts"] == {
        "customers": 5, "connectors": 15, "connections": 8, "workflows": 9, "triggers": 7, "users": 6, "api_keys": 5,
        "secrets": 4, "executions": len(runs),
    }  # fmt: skip
    assert answer["now"] == "2026-11-25T09:00:00Z"
    assert answer["plan"]["name"] == "Free"
    assert (answer["plan"]["credits_used"], answer["plan"]["credits_included"]) == (38, 50)
    runs = answer["runs"]
    assert (runs["hours"], runs["failed"], runs["timeout"]) == (24, 1, 0)
    assert runs["success_rate"] == f"{100 * runs['completed'] / (runs['completed'] + 1):.1f} %"
    assert answer["not_checked"] == []


STRANGE = [
    Behaviour(envelope=envelope, paging=paging, filtering=filtering)
    for envelope, paging, filtering in [
        (Envelope.DATA_DATA, Paging.TOTAL, Filtering.HEEDED),
        (Envelope.ITEMS, Paging.CURSOR, Filtering.HEEDED),
        (Envelope.RESULTS, Paging.SILENT, Filtering.HEEDED),
        (Envelope.BARE, Paging.IGNORED, Filtering.HEEDED),
        (Envelope.DATA, Paging.TOTAL_AND_CURSOR, Filtering.IGNORED),
        (Envelope.BARE, Paging.IGNORED, Filtering.IGNORED),
    ]
]


@pytest.mark.parametrize("behaviour", STRANGE, ids=str)
async def test_calls_for_more_are_valid_and_numbers_never_guessed(world: World, behaviour: Behaviour) -> None:
    usual = await overview(world, 720)
    world.sandbox.requests.clear()
    world.sandbox.behaviour = behaviour
    answer = await overview(world, 720)
    assert len(world.sandbox.requests) <= 60
    for finding in (finding for finding in answer["findings"] if "more" in finding):
        wanted = parse(TOOLS, finding["more"]["tool"], finding["more"]["arguments"])
        assert isinstance(await world.call(wanted.call), Done)
    if behaviour.paging is Paging.TOTAL_AND_CURSOR and behaviour.filtering is Filtering.IGNORED:
        assert answer["runs"] == usual["runs"]  # counted in the newest runs
    elif behaviour.paging not in (Paging.TOTAL, Paging.TOTAL_AND_CURSOR) or behaviour.filtering is Filtering.IGNORED:
        assert "runs" not in answer
        assert "success rate" in str(answer["not_checked"])
    everything = usual["counts"] | {"executions": answer["counts"].get("executions")}
    assert answer["counts"] == {name: count for name, count in everything.items() if count is not None}
    assert "1 connection with status FAILED" in str(answer["findings"])


async def test_unfiltered_runs_are_reported_as_only_the_newest(world: World) -> None:
    """Older failed runs may be beyond the pages that are read."""
    world.sandbox.behaviour = Behaviour(filtering=Filtering.IGNORED)
    assert finding_about(await overview(world, 720), "failed:")["what"].startswith("4 workflows failed: 31 of 342 runs")
    state = world.sandbox.state
    completed = next(row for row in state.all("executions") if row["status"] == "completed")
    for number in range(450):
        at = stamp(world.clock.at - timedelta(minutes=number))
        state.put("executions", completed | {"id": f"exec_y{number}", "createdAt": at})
    answer = await overview(world, 720)
    finding = finding_about(answer, "failed:")
    assert finding["what"].startswith("At least ")
    assert all(str(row["failed"]).startswith("at least ") for row in finding["rows"])
    assert "at most" in str(finding["rows"][0]["success_rate"])
    assert any("failures are counted in those" in gap["why"] for gap in answer["not_checked"])


async def test_forbidden_kind_is_not_checked_and_the_rest_is_reported(world: World) -> None:
    for operation in (ListUsers, ListApiKeys):
        world.sandbox.faults.add(Status(status=403, path=operation.route.path, times=None))
    answer = await overview(world)
    (gap,) = answer["not_checked"]
    assert sorted(gap["what"].split(", ")) == ["API keys", "users"]
    assert "(403)" in gap["why"]
    assert "users" not in answer["counts"]
    assert len(answer["findings"]) >= 9


async def test_nothing_readable_is_an_error(world: World) -> None:
    """An empty account and an invalid key are not the same."""
    world.sandbox.faults.add(Status(status=401, times=None))
    failed = await world.call(GetOverview())
    assert isinstance(failed, Unauthorized)


async def test_empty_account_has_no_findings(world: World) -> None:
    for collection in list(world.sandbox.state.rows):
        if collection not in ("apiKeys", "billing", "usage", "quotas", "_keys"):
            world.sandbox.state.rows[collection].clear()
    world.sandbox.state.put("quotas", {"id": "quotas", "quotas": []})
    answer = await overview(world)
    assert all("API key" in finding["what"] for finding in answer["findings"])
    assert answer["counts"]["customers"] == 0


@pytest.mark.parametrize("value", [None, "text", [None, 3], {"a": {"b": [1]}}])
async def test_fields_of_another_type_cause_no_findings(world: World, value: Any) -> None:
    state = world.sandbox.state
    state.rows["_runs"].clear()
    for collection in ("customers", "connectors", "connections", "workflows", "triggers", "executions", "users"):
        for row in state.all(collection):
            for name in row.keys() - {"id", "createdAt", "endOrgId", "startedAt"}:
                row[name] = value
    for name in ("quotas", "billing"):
        state.put(name, {"id": name, "quotas": value, "plan": value, "credits": value})
    answer = await overview(world)
    assert answer["counts"]["customers"] == 5
    for finding in answer["findings"]:
        assert finding["severity"] != "high", finding


async def test_rows_with_only_an_id_cause_no_findings(world: World) -> None:
    """A key without a last use was not "never used"."""
    state = world.sandbox.state
    state.rows["_runs"].clear()
    for collection in ("customers", "connections", "workflows", "triggers", "users"):
        for row in state.all(collection):
            for name in row.keys() - {"id", "createdAt", "endOrgId"}:
                del row[name]
    for row in state.all("executions"):
        for name in row.keys() - {"id", "createdAt", "status"}:
            del row[name]
    findings = (await overview(world))["findings"]
    (found,) = [f for f in findings if not re.search("quota|API key|under way", f["what"])]
    assert found["what"].startswith("1 workflow failed: 1 ")
    assert [row["name"] for row in rows(found)] == ["A workflow"]


async def many(world: World) -> None:
    """Create a large account: every list has several pages."""
    state = world.sandbox.state
    for collection in ("customers", "connectors", "connections", "workflows", "triggers", "users", "secrets"):
        rows = state.all(collection)
        for number in range(420):
            row = dict(rows[number % len(rows)]) | {"id": f"extra:{number}"}
            state.put(collection, row | ({"slug": f"extra-{number}"} if "slug" in row else {}))
    failed = [row for row in state.all("executions") if row["status"] == "failed"]
    for number in range(300):
        at = stamp(world.clock.at - timedelta(minutes=number))
        flow = f"wf_{number % 7}"
        state.put(
            "executions",
            failed[0] | {"id": f"exec_x{number}", "createdAt": at, "workflowId": flow, "workflowName": flow},
        )


@pytest.mark.parametrize("paging", [Paging.TOTAL_AND_CURSOR, Paging.SILENT])
async def test_large_account_costs_bounded_requests(world: World, paging: Paging) -> None:
    await many(world)
    world.sandbox.behaviour = Behaviour(paging=paging)
    answer = await overview(world)
    assert len(world.sandbox.requests) <= 60
    assert answer["counts"]["customers"] == (425 if paging is Paging.TOTAL_AND_CURSOR else "at least 100")
    failing = finding_about(answer, "failed:")
    assert (failing["severity"], len(rows(failing))) == ("high", MAX_ROWS[Severity.HIGH])
    assert failing["what"].startswith("8 workflows failed: 301 ")
    expired = finding_about(answer, "with status EXPIRED")
    assert len(rows(expired)) >= 1
    assert expired["what"].startswith("5")
    assert len(to_json(answer)) < 7_500


async def test_list_that_fails_halfway_keeps_its_rows(world: World) -> None:
    await many(world)
    send = world.client.send

    async def failing(call: Any, *checks: Any) -> Any:
        if call.tool_name() == "list_connections" and call.status == "EXPIRED":
            raise Forbidden("No.")
        return await send(call, *checks)

    world.client.send = failing  # pyright: ignore[reportAttributeAccessIssue]
    answer = await overview(world)
    assert finding_about(answer, "connections with status FAILED")
    assert {"what": "connections", "why": "No."} in answer["not_checked"]


async def test_progress_is_reported_to_the_end(world: World) -> None:
    heard: list[tuple[float, float | None]] = []

    async def report(_: str, done: float, total: float | None) -> None:
        heard.append((done, total))

    await world.dispatch(GetOverview(), Caller(Asker(), None), report)
    assert len(heard) > 8
    assert [*heard] == [(done, len(heard)) for done in range(1, len(heard) + 1)]


async def test_period_of_zero_hours_is_refused() -> None:
    for hours in (0, 721):
        with pytest.raises(FastnError):
            parse(TOOLS, "get_overview", {"hours": hours})


@pytest.mark.parametrize(
    ("totals", "rate"),
    [
        ((500, 100, 90, 9, 1), "90.0 %"),
        ((500, 100, 0, 0, 0), None),
        ((500, 100, 100, 100, 100), None),
        ((0, 100, 90, 9, 1), "90.0 %"),
        ((None, None, 90, 9, 1), None),
        ((500, 100, 90, None, 1), None),
    ],
)
def test_success_rate_needs_plausible_totals(totals: Any, rate: str | None) -> None:
    """If Fastn ignores the status, or the period, every total is of the same runs."""
    assert run_totals(*totals).get("success_rate") == rate


async def test_key_without_a_last_use_is_not_unused(world: World) -> None:
    keep_only(world, "triggers")
    for row in world.sandbox.state.all("apiKeys"):
        del row["lastUsed"]
    assert "never used" not in str((await overview(world))["findings"])


async def test_large_account_fits_one_answer(large_world: World) -> None:
    """2,000 customers and 200,000 runs cost few requests, with exact counts."""
    done = await large_world.call(GetOverview())
    assert isinstance(done, Done)
    assert len(large_world.sandbox.requests) <= 60
    answer = render(GetOverview(), done.result, {})
    assert len(to_json(answer).decode()) < 8_000
    data: Any = answer["data"]
    state = large_world.sandbox.state
    waiting = [row for row in state.all("customers") if str(row["status"]).startswith("Pending")]
    assert f"{len(waiting)} customers waiting for activation" in str(data)
    expired = [row for row in state.all("connections") if row["status"] == "EXPIRED"]
    assert f"{len(expired)} connections with status EXPIRED" in str(data)
    runs = len(large_world.sandbox.history) + len(state.all("executions"))
    assert (data["counts"]["customers"], data["counts"]["executions"]) == (2_000, runs)
    gap = {"what": "expiry of more connections", "why": "See get_overview about expiry."}
    assert data["not_checked"] == [gap]
    assert float(data["runs"]["success_rate"].removesuffix(" %")) > 80
