"""Tests of get_overview: the problems of the sandbox's account, and of more unusual accounts."""

import re
from datetime import timedelta
from typing import Any, cast

import pytest
from pydantic_core import to_json
from support.behaviour import Behaviour, Envelope, Filtering, Paging
from support.world import World

from fastn_mcp.errors import Forbidden, NotSent, Unauthorized
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.sandbox.state import stamp
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.checks.finding import MAX_ROWS, Severity
from fastn_mcp.procedures.checks.run_counts import run_totals
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.tools.customers import DeleteCustomer

Answer = dict[str, Any]


async def overview(world: World, hours: int = 24) -> Answer:
    return await world.ask(GetOverview(hours=hours))


def finding_about(answer: Answer, words: str) -> Answer:
    """Return the only finding with these words."""
    (found,) = [finding for finding in answer["findings"] if words in finding["what"]]
    return found


def ids(finding: Answer) -> list[str]:
    return [row["id"] for row in rows(finding)]


def rows(finding: Answer) -> list[Answer]:
    return finding.get("rows", [])


def keep_only(world: World, collection: str, *, but: str = "") -> None:
    """Drop all but the rows of one name."""
    for row in world.sandbox.state.all(collection):
        if row.get("name") != but:
            world.sandbox.state.drop(collection, row["id"])


SEEDED = [
    ("its subscription at the app has failed", "high", "triggers", "Paid Shopify orders"),
    ("was switched off by Fastn after 20 failures in a row", "high", "triggers", "Nightly contact sync"),
    ("has had 9 failures in a row", "medium", "triggers", "Daily TikTok sync"),
    ("Anybody can call 1 webhook", "medium", "triggers", "Tracking updates (public)"),
    ("1 customer waits for activation", "medium", "customers", "John-Acme"),
    ("1 API key expires within two weeks, the first in 5 days", "medium", "apiKeys", "BI export"),
    ("1 workflow failed: 1 of ", "high", "workflows", "Sync TikTok Orders to Cin7 Core"),
]


async def test_every_seeded_problem_is_found_with_its_id(world: World) -> None:
    answer = await overview(world)
    for words, severity, collection, name in SEEDED:
        finding = finding_about(answer, words)
        assert ids(finding) == [world.id_of(collection, name)]
        assert finding["severity"] == severity
    for status, name in (("FAILED", "TikTok Shop of Katana"), ("EXPIRED", "Cin7 Core of Katana")):
        finding = finding_about(answer, f"connection has the status {status}")
        assert ([row["name"] for row in rows(finding)], "more" in finding) == ([name], False)
    quotas = finding_about(answer, "quotas are at 80 %")["what"]
    assert quotas.startswith("2 quotas")
    assert "API calls per day 920 of 1,000, 92 %" in quotas
    assert "Workflows per customer 8 of 10, 80 %" in quotas


async def test_unused_keys_and_invitations_are_low_findings(world: World) -> None:
    keep_only(world, "triggers")
    keep_only(world, "connections")
    answer = await overview(world)
    keys = finding_about(answer, "have Full access")
    assert (ids(keys), keys["of"], keys["more"]["arguments"]) == (["5", "2"], 3, {"about": "access"})
    assert ids(finding_about(answer, "never been used")) == ["3"]
    assert rows(finding_about(answer, "not been accepted for over a week"))[0]["name"] == "sam@fastn.example"
    world.sandbox.state.named("apiKeys", "BI export", by="name")["expiresAt"] = stamp(world.clock.at)
    assert ids(finding_about(await overview(world), "expired.")) == ["4"]


async def test_draft_started_by_a_trigger_is_found(world: World) -> None:
    """Fastn's documentation: a workflow that was never published does not run."""
    draft = world.sandbox.state.named("workflows", "sync_tiktok_settlements_cin7")
    assert not [f for f in (await overview(world))["findings"] if "that was never published" in f["what"]]
    hourly = world.sandbox.state.named("triggers", "Hourly Slack sync", by="name")
    hourly["routes"] = [{"routeId": draft["id"]}]
    found = finding_about(await overview(world), "1 workflow that was never published")
    assert ids(found) == [draft["id"]]
    hourly["status"] = "Disabled"
    assert not [f for f in (await overview(world))["findings"] if "that was never published" in f["what"]]


async def test_approvals_alone_are_read_without_a_request(world: World) -> None:
    """Whoever waits for a decision may look often. The overview of the account leaves out what was decided."""
    for name in ("Katana", "Globex Exports"):
        deletion = DeleteCustomer(customer_id=world.id_of("customers", name))
        await world.expect(PendingApproval, deletion)
    (first, _) = await world.ledger.waiting(world.clock.at.timestamp())
    await world.ledger.void(first.id, RequestState.DECLINED, world.clock.at.timestamp())
    world.sandbox.requests.clear()
    answer = await world.ask(GetOverview(about="approvals"))
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


async def test_quotas_say_whose_they_are_and_when_they_reset(world: World) -> None:
    world.sandbox.state.named("billing", "billing", by="id")["credits"] = {
        "used": 49, "included": 50, "resetsAt": "2026-12-01T00:00:00Z",
    }  # fmt: skip
    answer = await overview(world)
    (near, workflows) = rows(finding_about(answer, "quotas are at 80 %"))
    assert (near["name"], near["whose"], near["resets"]) == (
        "API calls per day",
        "the account",
        "each day; Fastn does not say at which hour",
    )
    assert workflows["whose"] == "Fastn does not say", "it is the quota of some customer"
    (credits_,) = rows(finding_about(answer, "AI credits"))
    assert credits_["resets"].startswith("2026-12-01T00:00:00Z (in ")


async def test_answer_is_small(world: World) -> None:
    answer = await world.rendered(GetOverview(hours=720))
    assert len(to_json(answer).decode()) < 6_500
    assert "left_out" not in answer
    assert len(world.sandbox.requests) <= 30
    assert world.changes == []


async def test_account_counts_and_plan(world: World) -> None:
    answer = await overview(world)
    runs = [row for row in world.sandbox.state.all("executions") if str(row["createdAt"]) <= stamp(world.clock.at)]
    assert answer["counts"] == {
        "customers": 5, "connectors": 15, "connections": 8, "workflows": 9, "triggers": 7, "users": 6, "api_keys": 5,
        "secrets": 4, "executions": len(runs),
    }  # fmt: skip
    assert answer["account"] == {
        "profile": "default", "host": "localhost", "key_ends": KEY[-4:], "key_id": "5", "permissions": "Full access",
    }  # fmt: skip
    assert KEY not in str(answer)
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
        await world.expect(Done, cast(Any, wanted.call))
    if behaviour.paging is Paging.TOTAL_AND_CURSOR and behaviour.filtering is Filtering.IGNORED:
        assert answer["runs"] == usual["runs"]  # counted in the newest runs
    elif behaviour.paging not in (Paging.TOTAL, Paging.TOTAL_AND_CURSOR) or behaviour.filtering is Filtering.IGNORED:
        assert "runs" not in answer
        assert "success rate" in str(answer["not_checked"])
    everything = usual["counts"] | {"executions": answer["counts"].get("executions")}
    assert answer["counts"] == {name: count for name, count in everything.items() if count is not None}
    assert "1 connection has the status FAILED" in str(answer["findings"])


async def test_unfiltered_runs_are_reported_as_only_the_newest(world: World) -> None:
    """Older failed runs may be beyond the pages that are read."""
    world.behave(filtering=Filtering.IGNORED)
    assert finding_about(await overview(world, 720), "failed:")["what"].startswith("4 workflows failed: 31 of 342 runs")
    state = world.sandbox.state
    completed = next(row for row in state.all("executions") if row["status"] == "completed")
    for number in range(450):
        at = stamp(world.clock.at - timedelta(minutes=number))
        state.put("executions", completed | {"id": f"exec_y{number}", "createdAt": at})
    answer = await overview(world, 720)
    finding = finding_about(answer, "failed:")
    assert finding["what"].startswith("At least "), "rows that Fastn did not filter do not tell how far they reach"
    assert "failures_since" not in answer
    assert all(str(row["failed"]).startswith("at least ") for row in finding["rows"])
    assert "at most" in str(finding["rows"][0]["success_rate"])
    assert any("failures are counted in those" in gap["why"] for gap in answer["not_checked"])


async def test_forbidden_kind_is_not_checked_and_the_rest_is_reported(world: World) -> None:
    world.refuse("/api/v1/users", "/api/v1/api-keys")
    answer = await overview(world)
    (gap,) = answer["not_checked"]
    assert sorted(gap["what"].split(", ")) == ["API keys", "users"]
    assert "(403)" in gap["why"]
    assert "users" not in answer["counts"]
    assert len(answer["findings"]) >= 9


async def test_nothing_readable_is_an_error(world: World) -> None:
    """An empty account and an invalid key are not the same."""
    world.refuse("*", status=401)
    await world.expect(Unauthorized, GetOverview())


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
    for row in state.all("apiKeys"):
        del row["lastUsed"]
    state.rows["_runs"].clear()
    for collection in ("customers", "connections", "workflows", "triggers", "users"):
        for row in state.all(collection):
            for name in row.keys() - {"id", "createdAt", "endOrgId"}:
                del row[name]
    for row in state.all("executions"):
        for name in row.keys() - {"id", "createdAt", "status"}:
            del row[name]
    findings = (await overview(world))["findings"]
    assert "never used" not in str(findings)
    (found,) = [f for f in findings if not re.search("quota|API key|far longer", f["what"])]
    assert found["what"].startswith("1 workflow failed: 1 ")
    assert [row["name"] for row in rows(found)] == ["A workflow"]


async def test_large_account_without_totals_costs_bounded_requests(large_world: World) -> None:
    large_world.behave(paging=Paging.SILENT)
    answer = await overview(large_world)
    assert len(large_world.sandbox.requests) <= 60
    assert answer["counts"]["customers"] == "at least 100"
    assert finding_about(answer, "failed:")["severity"] == "high"
    assert len(to_json(answer)) < 9_200


@pytest.mark.parametrize("hours", [24, 336])
async def test_runs_that_were_not_compared_with_usual_ones_are_said_beside_those_that_hang(
    large_world: World, hours: int
) -> None:
    """The overview reads of no workflow how long it takes; a diagnosis finds that both runs hang."""
    found = finding_about(await overview(large_world, hours=hours), "far longer")
    assert found["what"] == "1 run is taking far longer than usual (10 h); so may 1 other (11 h): see diagnose."
    (queued,) = rows(found)
    assert queued["usual"] == "at most 15 min in the queue"
    for collection in ("executions", "_runs"):
        large_world.sandbox.state.drop(collection, queued["run"])
    found = finding_about(await overview(large_world), "far longer")
    assert found["what"] == "1 run has been under way for 11 h, which may be far longer than usual."


async def test_list_that_fails_halfway_keeps_its_rows(large_world: World) -> None:
    send = large_world.client.send

    async def failing(call: Any, *checks: Any) -> Any:
        if call.tool_name() == "list_connections" and call.status == "EXPIRED":
            raise Forbidden("No.")
        return await send(call, *checks)

    large_world.client.send = failing  # pyright: ignore[reportAttributeAccessIssue]
    answer = await overview(large_world)
    assert finding_about(answer, "connections have the status FAILED")
    assert {"what": "connections", "why": "No."} in answer["not_checked"]


async def test_progress_is_reported_to_the_end(world: World) -> None:
    heard: list[tuple[float, float | None]] = []

    async def report(_: str, done: float, total: float | None) -> None:
        heard.append((done, total))

    await world.dispatch(GetOverview(), Caller(Asker(), None), report)
    assert len(heard) > 8
    assert [*heard] == [(done, len(heard)) for done in range(1, len(heard) + 1)]


@pytest.mark.parametrize(
    "arguments",
    [{"hours": 0}, {"hours": 721}, {"about": "everything"}]
    + [{"cursor": cursor} for cursor in ("", "t1:3.3", "1", "1.1.1", "1.-1")],
)
def test_invalid_argument_is_refused(arguments: Answer) -> None:
    with pytest.raises(NotSent, match=next(iter(arguments))):
        parse(TOOLS, "get_overview", arguments)


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


async def test_large_account_fits_one_answer(large_world: World) -> None:
    answer = await large_world.rendered(GetOverview())
    assert len(large_world.sandbox.requests) <= 60
    assert len(to_json(answer).decode()) < 9_000
    data = answer["data"]
    state = large_world.sandbox.state
    waiting = [row for row in state.all("customers") if str(row["status"]).startswith("Pending")]
    assert f"{len(waiting)} customers wait for activation" in str(data)
    expired = [row for row in state.all("connections") if row["status"] == "EXPIRED"]
    assert f"{len(expired)} connections have the status EXPIRED" in str(data)
    runs = len(large_world.sandbox.history) + len(state.all("executions"))
    assert (data["counts"]["customers"], data["counts"]["executions"]) == (2_000, runs)
    gap = {"what": "expiry of more connections", "why": "See get_overview about expiry."}
    assert data["not_checked"] == [gap]
    assert float(data["runs"]["success_rate"].removesuffix(" %")) > 80
