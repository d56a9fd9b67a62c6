"""What doctor says of an account that misbehaves, and that it does no more than look. In this process, with a clock."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from clinic import LOOKS, named, sandbox_in, unlike, visit
from faulty_sandbox import FaultySandbox, Garbage, Redirect, Reset, Status
from hypothesis import given
from hypothesis import strategies as st
from world import Clock

from fastn_mcp.client.http import Answer
from fastn_mcp.doctor.check import Check, CheckGroup, CheckResult, DoctorExit, exit_of
from fastn_mcp.doctor.probe import MOST, Probe, check_form
from fastn_mcp.doctor.reads import READS, compare, listing_of, record_of
from fastn_mcp.doctor.runner import DoctorReport
from fastn_mcp.doctor.writes import WRITES
from fastn_mcp.errors import FastnError, NotSent
from fastn_mcp.sandbox.app import VARIANTS
from fastn_mcp.sandbox.behaviour import Accepts, Behaviour, Envelope, Paging, RetryAfter
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.customers import GetCustomer, ListCustomers
from fastn_mcp.tools.operation import Request
from fastn_mcp.tools.workflows import ListWorkflows

pytestmark = pytest.mark.anyio

WELL = {CheckResult.OK, CheckResult.SKIPPED}


@pytest.fixture
def clock() -> Clock:
    return Clock()


def nothing_but_looks(sandbox: FaultySandbox) -> None:
    assert sandbox.requests
    assert {heard.method for heard in sandbox.requests} <= LOOKS


@pytest.mark.parametrize("guise", VARIANTS)
async def test_in_every_guise_nothing_but_looks_arrives(guise: str, clock: Clock) -> None:
    """Issue 7: a write is never made, whatever the account is like; and a visit is bounded."""
    sandbox = sandbox_in(guise, clock)
    kept = ("customers", "connectors", "connections", "workflows", "triggers", "users", "roles", "secrets")
    before = copy.deepcopy({name: sandbox.state.rows[name] for name in kept})
    found = await visit(sandbox, clock, api_key=VARIANTS[guise].key)
    nothing_but_looks(sandbox)
    assert {name: sandbox.state.rows[name] for name in kept} == before
    assert found.sent == len(sandbox.requests) < 70
    assert found.exit == (DoctorExit.FINE if guise == "usual" else DoctorExit.DIFFERENCES)
    assert {c.name for c in found.checks if c.group in (CheckGroup.READS, CheckGroup.WRITES)} == {
        o.tool_name() for o in CATALOG
    }


def test_every_operation_is_read_or_asked_for() -> None:
    """Ours: the loop is over the catalogue, and none is in neither part."""
    assert set(READS) | set(WRITES) == set(CATALOG)
    assert {operation.route.method for operation in READS} == {"GET"}
    for operation in READS:
        assert len(operation.route.parameters) <= 1
        assert (listing_of(operation) is None) == (not operation.route.parameters)


@given(st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "get", "TRACE", "CONNECT", ""]), st.booleans())
async def test_whatever_could_change_something_is_not_sent(method: str, has_body: bool) -> None:
    """Issue 7, ours: the one way to Fastn lets through GET and OPTIONS without a body."""
    sent: list[Request] = []
    probe = Probe(_Answering(sent), Clock().system())
    with pytest.raises(NotSent, match="doctor sends no"):
        await probe(Request(method, "/api/v1/customers", body={} if has_body else None))
    with pytest.raises(NotSent):
        await probe(Request("GET", "/api/v1/customers", body={}))
    assert (sent, probe.sent) == ([], 0)


async def test_a_visit_is_bounded() -> None:
    """Ours."""
    sent: list[Request] = []
    probe = Probe(_Answering(sent), Clock().system())
    for _ in range(MOST):
        await probe(Request("GET", "/"))
    with pytest.raises(NotSent, match=f"{MOST} requests at most"):
        await probe(Request("GET", "/"))
    assert len(sent) == MOST


class _Answering:
    def __init__(self, sent: list[Request], headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        self._sent = sent
        self._answer = Answer(status, headers or {}, b"{}")

    async def __call__(self, request: Request) -> Answer:
        self._sent.append(request)
        return self._answer

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("style", RetryAfter)
async def test_it_goes_at_the_pace_that_the_limit_allows(style: RetryAfter, clock: Clock) -> None:
    """Issue 7: it honours rate limits, waits for the next minute, and finds the same."""
    sandbox = FaultySandbox(clock.now, behaviour=Behaviour(rate_limit=15, retry_after=style))
    began = clock.at
    found = await visit(sandbox, clock)
    assert unlike(found) == {}
    assert 60 <= (clock.at - began).total_seconds() <= 300


async def test_a_limit_that_opens_late_ends_the_visit_and_says_so(clock: Clock) -> None:
    """Ours: nobody waits for an hour before a terminal."""
    sandbox = FaultySandbox(clock.now)
    sandbox.faults.add(Status(status=429, retry_after=3600, path=ListWorkflows.route.path, times=None))
    found = await visit(sandbox, clock)
    assert (named(found, "authentication").verdict, found.exit) == (CheckResult.FAILED, DoctorExit.CANNOT_WORK)
    assert named(found, "authentication").next == "Run doctor again in some minutes."
    sandbox = FaultySandbox(clock.now)
    sandbox.faults.add(Status(status=429, retry_after=3600, path=ListCustomers.route.path, times=None))
    check = named(await visit(sandbox, clock), "list_customers")
    assert (check.verdict, check.next) == (CheckResult.SKIPPED, "Run doctor again in some minutes.")


BROKEN: dict[str, tuple[Any, str, str]] = {
    "an error": (Status(status=500, times=None), "500", "later"),
    "no JSON": (Garbage(times=None), "is not JSON", "--report"),
    "a redirect": (Redirect(to="https://evil.example/x", times=None), "redirect (302)", "base_url"),
    "a quota": (Status(status=402, times=None), "402", "later"),
    "a refusal": (Status(status=422, message="C4N4RY", times=None), "422", "--report"),
    "another 401": (Status(status=401, times=None), "401", "Check the key's permissions"),
    "a reset": (Reset(times=None), "No answer", "FASTN_DEADLINE"),
    "nothing there": (Status(status=404, times=None), "404 at /api/v1/customers", "[routes] list_customers"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_an_operation_that_does_not_work_is_said_with_what_to_do(what: str, clock: Clock) -> None:
    """Issue 7: each line says what was seen and what to do; what Fastn says of an error is not repeated."""
    fault, seen, then = BROKEN[what]
    sandbox = FaultySandbox(clock.now)
    sandbox.faults.add(fault.model_copy(update={"path": ListCustomers.route.path, "method": "GET"}))
    if what == "nothing there":
        for path in ("/api/v1/orgs", "/api/v1/organizations"):
            sandbox.faults.add(fault.model_copy(update={"path": path}))
    found = await visit(sandbox, clock)
    check = named(found, "list_customers")
    assert (check.verdict, found.exit) == (CheckResult.FAILED, DoctorExit.DIFFERENCES)
    assert seen in check.seen
    assert then in check.next
    assert "C4N4RY" not in check.seen + check.next
    skipped = named(found, "get_customer")
    assert (skipped.verdict, "list_customers" in skipped.seen) == (CheckResult.SKIPPED, True)
    nothing_but_looks(sandbox)


async def test_where_no_operation_answers_it_cannot_work(clock: Clock) -> None:
    """Ours: exit code 2."""
    sandbox = FaultySandbox(clock.now)
    for operation in READS:
        sandbox.faults.add(Garbage(path=operation.route.path, times=None))
    assert (await visit(sandbox, clock)).exit is DoctorExit.CANNOT_WORK


async def test_a_key_that_is_refused_names_what_was_tried_and_no_other_host_is_asked(clock: Clock) -> None:
    """Ours (THREATS T7): Fastn's other hosts are named to the person; a key goes to no other origin."""
    sandbox = FaultySandbox(clock.now)
    found = await visit(sandbox, clock, api_key="fsk_live_C4N4RY")
    check = named(found, "authentication")
    assert (check.verdict, found.exit) == (CheckResult.FAILED, DoctorExit.CANNOT_WORK)
    for said in ("x-fastn-api-key with X-fastn-Test-Mode: 401", "Authorization: Bearer without X-fastn-Test-Mode: 401"):
        assert said in check.seen
    assert "Fastn is also known at api.fastn.dev (with --auth bearer), live.gcp.fastn.ai" in check.next
    assert "FASTN_SPACE_ID" in check.next
    assert "FASTN_SPACE_ID" not in named(await visit(sandbox, clock, api_key="k", env="live"), "authentication").next
    assert "C4N4RY" not in repr(found.checks)
    assert not any(c.group in (CheckGroup.READS, CheckGroup.WRITES) for c in found.checks)


async def test_the_style_that_changes_least_is_taken(clock: Clock) -> None:
    """Ours: the one that is set, then the other header, then the other test mode."""
    sandbox = FaultySandbox(clock.now, behaviour=Behaviour(accepts=Accepts.HEADER))
    found = await visit(sandbox, clock, auth="bearer", test_mode="off", api_key="fsk_test_sandbox")
    assert found.proposal.settings == {"auth": "header", "test_mode": "on"}
    assert named(found, "authentication").next == "Set auth and test_mode as proposed below."


async def test_a_host_that_is_another_s_is_said(clock: Clock) -> None:
    """Ours: nothing at Fastn's paths; a redirect, which is never followed; an error of the host's."""
    for fault, seen in (
        (Status(status=404, times=None), "Nothing is at the paths of Fastn's API (404)."),
        (Redirect(to="https://new.example/C4N4RY", times=None), "Every request is redirected (302)"),
        (Status(status=503, times=None), "Fastn answers with an error (503)."),
        (Reset(times=None), "The connection breaks"),
    ):
        sandbox = FaultySandbox(clock.now)
        sandbox.faults.add(fault)
        found = await visit(sandbox, clock)
        check = named(found, "authentication")
        assert (check.verdict, found.exit) == (CheckResult.FAILED, DoctorExit.CANNOT_WORK)
        assert seen in check.seen
        assert check.next
        assert "C4N4RY" not in repr(check)
    sandbox.faults.clear()
    sandbox.faults.add(Redirect(to="https://new.example/C4N4RY", times=None))
    assert named(await visit(sandbox, clock), "authentication").here == "To new.example."


async def test_a_refusal_that_everybody_gets_says_nothing_of_the_key(clock: Clock) -> None:
    """Ours: a 403 where nobody else gets in says that the key was known; one that comes without a key too does not."""
    sandbox = FaultySandbox(clock.now)
    sandbox.faults.add(Status(status=401, times=1), Status(status=403, times=1))
    assert named(await visit(sandbox, clock), "authentication").verdict is CheckResult.OK
    sandbox.faults.add(Status(status=403, times=None))
    assert named(await visit(sandbox, clock), "authentication").verdict is CheckResult.FAILED


async def test_an_account_that_asks_for_no_key_is_said(clock: Clock) -> None:
    """Ours: somebody ought to know."""
    sandbox = FaultySandbox(clock.now)
    sandbox.faults.add(Status(status=200, path=ListWorkflows.route.path, times=1))
    assert "without a key" in named(await visit(sandbox, clock), "authentication").seen


def test_what_kind_of_key_it_is_is_told_by_its_beginning_alone() -> None:
    """Issue 7: the format and the mode, never the key."""
    assert check_form("fsk_test_C4N4RY").seen == "A test key (fsk_test_)."
    assert check_form("fsk_live_C4N4RY").seen == "A live key (fsk_live_)."
    other = check_form("C4N4RY")
    assert (other.verdict, "fsk_test_" in other.next) == (CheckResult.OK, True)
    assert "C4N4RY" not in repr([check_form("fsk_test_C4N4RY"), check_form("fsk_live_C4N4RY"), other])


@pytest.mark.parametrize("envelope", Envelope)
@pytest.mark.parametrize("paging", [Paging.SILENT, Paging.TOTAL_AND_CURSOR])
async def test_every_known_envelope_is_named_and_no_difference(
    envelope: Envelope, paging: Paging, clock: Clock
) -> None:
    """Issue 7: the envelope is compared; those that are read as well need nothing to be done."""
    found = await visit(FaultySandbox(clock.now, behaviour=Behaviour(envelope=envelope, paging=paging)), clock)
    assert unlike(found) == {}
    assert found.observed["list_workflows"].shape is not None
    assert found.observed["list_workflows"].shape.envelope == envelope.value
    said = named(found, "list_workflows").seen
    assert ("which is read as well" in said) == (envelope is not Envelope.DATA)


async def test_fields_that_are_missing_are_named(clock: Clock) -> None:
    """Issue 7: fields that the server uses, and those that lists show."""
    sandbox = FaultySandbox(clock.now, behaviour=Behaviour(fields={"status": "zustand", "plan": "tarif"}))
    found = await visit(sandbox, clock)
    assert "Missing: status." in named(found, "list_workflows").seen
    assert named(found, "list_workflows").verdict is CheckResult.DIFFERS
    customers = named(found, "list_customers")
    assert (customers.verdict, "Not seen: status, plan." in customers.seen) == (CheckResult.OK, True)


def test_another_name_is_one_that_can_only_be_the_same() -> None:
    """Ours: an id that is somebody else's must never become a row's own."""
    assert compare(ListWorkflows, {"workflow_id", "title", "state"}).renamed == {
        "id": "workflow_id",
        "name": "title",
        "status": "state",
    }
    assert compare(ListCustomers, {"orgId", "name"}).renamed == {"id": "orgId"}
    assert compare(ListWorkflows, {"orgId", "name", "status"}).renamed == {}
    assert compare(ListWorkflows, {"orgId", "name", "status"}).missing == ("id",)
    assert compare(ListConnections, {"connectorId", "endOrgId", "name", "status"}).renamed == {}
    assert compare(GetCustomer, {"uuid", "name", "created_at"}).renamed == {"id": "uuid", "createdAt": "created_at"}
    assert record_of(ListCustomers) is record_of(GetCustomer)


async def test_an_account_with_nothing_in_it_is_well(clock: Clock) -> None:
    """Ours: no rows are no difference, and what has no id is left out."""
    sandbox = FaultySandbox(clock.now)
    for collection in ("customers", "workflows", "triggers", "executions", "_runs", "secrets"):
        sandbox.state.rows[collection] = {}
    found = await visit(sandbox, clock)
    assert unlike(found) == {}
    assert "No rows to compare" in named(found, "list_customers").seen
    for tool in ("get_customer", "delete_customer", "run_workflow"):
        assert named(found, tool).verdict is CheckResult.SKIPPED


async def test_what_the_settings_leave_out_is_not_asked_for(clock: Clock) -> None:
    """Ours: --toolsets and --read-only hold for doctor too."""
    sandbox = FaultySandbox(clock.now)
    found = await visit(sandbox, clock, toolsets="workflows", read_only=True)
    assert {heard.tool for heard in sandbox.requests} == {"list_workflows", "get_workflow"}
    assert "Not offered" in named(found, "list_customers").seen
    assert found.exit is DoctorExit.FINE


MUTE = {
    "says nothing": (Status(status=204, method="OPTIONS", times=None), CheckResult.SKIPPED),
    "wants more": (Status(status=403, method="OPTIONS", times=None), CheckResult.SKIPPED),
    "breaks": (Reset(method="OPTIONS", times=None), CheckResult.SKIPPED),
}


@pytest.mark.parametrize("what", MUTE)
async def test_where_options_says_nothing_writes_are_left_alone(what: str, clock: Clock) -> None:
    """Issue 7: compared by OPTIONS or skipped, never made."""
    fault, verdict = MUTE[what]
    sandbox = FaultySandbox(clock.now)
    sandbox.faults.add(fault)
    found = await visit(sandbox, clock)
    assert {c.verdict for c in found.checks if c.group is CheckGroup.WRITES} == {verdict}
    assert found.exit is DoctorExit.FINE
    nothing_but_looks(sandbox)


async def test_where_options_says_nothing_the_reads_say_where_the_writes_are_likely_to_be(clock: Clock) -> None:
    """Ours: proposed with a note that it is not verified, since no change is made to find out."""
    sandbox = sandbox_in("paths", clock)
    sandbox.faults.add(Status(status=204, method="OPTIONS", times=None))
    found = await visit(sandbox, clock)
    assert found.proposal.routes["delete_customer"] == "DELETE /api/v1/orgs/{customer_id}"
    line = next(line for line in found.proposal.toml().splitlines() if line.startswith("delete_customer"))
    assert line.endswith("# not verified: doctor makes no change to find out")
    assert "run_workflow" not in found.proposal.routes
    again = await visit(sandbox, clock, routes=found.proposal.routes)
    assert unlike(again) == {}


async def test_a_method_that_is_not_allowed_there_is_said(clock: Clock) -> None:
    """Ours: a path that is there, and does not take what we would send."""
    sandbox = FaultySandbox(clock.now, routes={"delete_secret": _elsewhere("delete_secret")})
    found = await visit(sandbox, clock)
    assert unlike(found) == {"delete_secret": CheckResult.DIFFERS}
    check = named(found, "delete_secret")
    assert "404 at /api/v1/secrets/{secret_id}" in check.seen
    assert '[routes] delete_secret = "DELETE /..."' in check.next
    sandbox = FaultySandbox(clock.now, routes={"delete_customer": _elsewhere("delete_customer")})
    check = named(await visit(sandbox, clock), "delete_customer")
    assert check.seen == "OPTIONS allows GET, PUT there, and not DELETE."


def _elsewhere(tool: str) -> Any:
    from fastn_mcp.tools.operation import Route

    return Route("DELETE", f"/v9/{tool}/{{{tool.removeprefix('delete_')}_id}}")


async def test_a_set_route_that_is_wrong_is_mended_by_the_declared_one(clock: Clock) -> None:
    """Ours: an account whose paths came back to what the specification says."""
    routes = {"list_customers": "GET /v0/customers", "delete_customer": "DELETE /v0/customers/{customer_id}"}
    found = await visit(FaultySandbox(clock.now), clock, routes=routes)
    assert found.proposal.routes == {
        "list_customers": "GET /api/v1/customers",
        "delete_customer": "DELETE /api/v1/customers/{customer_id}",
    }


async def test_a_scope_is_named_only_where_it_is_one(clock: Clock) -> None:
    """Issue 7: named by permission where Fastn says it; its text is otherwise somebody's data."""
    for message, said in (("You lack Workflows.execute", "Missing scope: workflows:execute."), ("acme:read", "scope.")):
        sandbox = FaultySandbox(clock.now)
        sandbox.faults.add(Status(status=403, message=message, path=ListCustomers.route.path, times=None))
        check = named(await visit(sandbox, clock), "list_customers")
        assert (check.verdict, check.seen.endswith(said)) == (CheckResult.DIFFERS, True)
        assert "acme" not in check.seen


def test_the_exit_code_says_whether_it_can_work() -> None:
    """Ours: 0, 1, 2."""

    def exit_with(*lines: tuple[CheckGroup, CheckResult]) -> DoctorExit:
        return exit_of(Check(group, "x", verdict, "") for group, verdict in lines)

    assert exit_with((CheckGroup.SETTINGS, CheckResult.OK), (CheckGroup.READS, CheckResult.SKIPPED)) is DoctorExit.FINE
    assert (
        exit_with((CheckGroup.KEY, CheckResult.DIFFERS), (CheckGroup.READS, CheckResult.OK)) is DoctorExit.DIFFERENCES
    )
    assert (
        exit_with((CheckGroup.READS, CheckResult.OK), (CheckGroup.READS, CheckResult.FAILED)) is DoctorExit.DIFFERENCES
    )
    assert (
        exit_with((CheckGroup.WRITES, CheckResult.FAILED), (CheckGroup.READS, CheckResult.OK)) is DoctorExit.DIFFERENCES
    )
    assert (
        exit_with((CheckGroup.READS, CheckResult.SKIPPED), (CheckGroup.READS, CheckResult.FAILED))
        is DoctorExit.CANNOT_WORK
    )
    for gate in (CheckGroup.SETTINGS, CheckGroup.CONNECTION, CheckGroup.KEY):
        assert exit_with((gate, CheckResult.FAILED)) is DoctorExit.CANNOT_WORK


def test_nothing_found_is_fine() -> None:
    """Ours."""
    assert DoctorReport().exit is DoctorExit.FINE
    assert issubclass(NotSent, FastnError)
