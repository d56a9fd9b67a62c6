"""Checks of doctor on accounts that differ, in this process and with a fake clock; it sends only GET and OPTIONS."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.behaviour import Accepts, Behaviour, Envelope, Paging
from support.clock import Clock
from support.doctor_runs import VARIANTS, check_of, check_only_safe_requests, examine_sandbox, problems_of, sandbox_in
from support.faulty_sandbox import Fault, FaultySandbox, Garbage, Redirect, Reset, Status
from typing_extensions import override

from fastn_mcp.build.check import Check, CheckGroup, CheckResult
from fastn_mcp.client.exchange import Answer
from fastn_mcp.errors import NotSent
from fastn_mcp.extensions.doctor.operations import READS, WRITES, compare, record_of
from fastn_mcp.extensions.doctor.probe import MAX_REQUESTS, Probe, check_form
from fastn_mcp.extensions.doctor.proposal import DoctorExit
from fastn_mcp.extensions.doctor.runner import DoctorReport
from fastn_mcp.extensions.sandbox.server import SandboxRequest
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.customers import GetCustomer, ListCustomers
from fastn_mcp.tools.operation import Request
from fastn_mcp.tools.workflows import ListWorkflows


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def examine_with(clock: Clock, *faults: Fault) -> DoctorReport:
    """Run doctor on an account with these faults."""
    sandbox = FaultySandbox(clock.now)
    sandbox.faults.add(*faults)
    return await examine_sandbox(sandbox, clock)


@pytest.mark.parametrize("guise", VARIANTS)
async def test_doctor_sends_only_safe_requests_in_every_guise(guise: str, clock: Clock) -> None:
    sandbox = sandbox_in(guise, clock)
    resources = ("customers", "connectors", "connections", "workflows", "triggers", "users", "roles", "secrets")
    before = copy.deepcopy({name: sandbox.state.rows[name] for name in resources})
    report = await examine_sandbox(sandbox, clock, api_key=VARIANTS[guise].key)
    check_only_safe_requests(sandbox)
    assert {name: sandbox.state.rows[name] for name in resources} == before
    assert report.sent == len(sandbox.requests) < 70
    assert report.exit == (DoctorExit.FINE if guise == "usual" else DoctorExit.DIFFERENCES)
    assert {c.name for c in report.checks if c.group in (CheckGroup.READS, CheckGroup.WRITES)} == {
        o.tool_name() for o in CATALOG
    }


@pytest.mark.parametrize(
    ("date", "seen"),
    [
        ("Wed, 25 Nov 2026 08:59:57 GMT", "It agrees with this machine's within 5 seconds."),
        ("Sat, 28 Nov 2026 09:00:00 GMT", "It is 72 h ahead of this machine's. Approvals, plans,"),
        ("yesterday", None),
        (None, None),
    ],
)
async def test_clock_of_fastn_is_compared_with_this_machines(date: str | None, seen: str | None, clock: Clock) -> None:
    class Dated(FaultySandbox):
        @override
        def answer(self, request: SandboxRequest) -> Answer:
            reply = super().answer(request)
            return replace(reply, headers={**reply.headers, **({"date": date} if date else {})})

    report = await examine_sandbox(Dated(clock.now), clock)
    checks = {check.name: check for check in report.checks}
    if seen is None:
        assert "Fastn's clock" not in checks
    else:
        assert checks["Fastn's clock"].finding.startswith(seen)
        assert report.exit is (DoctorExit.FINE if "agrees" in seen else DoctorExit.DIFFERENCES)


def test_every_operation_is_a_read_or_a_write() -> None:
    assert set(READS) | set(WRITES) == set(CATALOG)
    assert {operation.route.method for operation in READS} == {"GET"}
    for operation in READS:
        assert len(operation.route.parameters) <= 1


@given(st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "get", "TRACE", "CONNECT", ""]), st.booleans())
async def test_probe_refuses_what_could_change_something(method: str, has_body: bool) -> None:
    sent: list[Request] = []
    probe = Probe(_Answering(sent), Clock().system())
    with pytest.raises(NotSent, match="doctor sends no"):
        await probe(Request(method, "/api/v1/customers", body={} if has_body else None))
    with pytest.raises(NotSent):
        await probe(Request("GET", "/api/v1/customers", body={}))
    assert (sent, probe.sent) == ([], 0)


async def test_number_of_requests_is_bounded() -> None:
    sent: list[Request] = []
    probe = Probe(_Answering(sent), Clock().system())
    for _ in range(MAX_REQUESTS):
        await probe(Request("GET", "/"))
    with pytest.raises(NotSent, match=f"{MAX_REQUESTS} requests at most"):
        await probe(Request("GET", "/"))
    assert len(sent) == MAX_REQUESTS


class _Answering:
    def __init__(self, sent: list[Request], headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        self._sent = sent
        self._answer = Answer(status, headers or {}, b"{}")

    async def __call__(self, request: Request) -> Answer:
        self._sent.append(request)
        return self._answer

    async def aclose(self) -> None:
        pass


async def test_doctor_waits_for_the_rate_limit(clock: Clock) -> None:
    sandbox = FaultySandbox(clock.now, behaviour=Behaviour(rate_limit=15))
    began = clock.at
    report = await examine_sandbox(sandbox, clock)
    assert problems_of(report) == {}
    assert 60 <= (clock.at - began).total_seconds() <= 300


async def test_doctor_stops_if_the_rate_limit_opens_late(clock: Clock) -> None:
    late, after = Status(status=429, retry_after=3600, times=None), "Run doctor again in some minutes."
    report = await examine_with(clock, late.model_copy(update={"path": ListWorkflows.route.path}))
    check = check_of(report, "authentication")
    assert (check.verdict, check.next, report.exit) == (CheckResult.FAILED, after, DoctorExit.CANNOT_WORK)
    report = await examine_with(clock, late.model_copy(update={"path": ListCustomers.route.path}))
    check = check_of(report, "list_customers")
    assert (check.verdict, check.next) == (CheckResult.SKIPPED, after)


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
async def test_failing_operation_is_reported_with_the_next_step(what: str, clock: Clock) -> None:
    fault, seen, then = BROKEN[what]
    sandbox = FaultySandbox(clock.now)
    sandbox.faults.add(fault.model_copy(update={"path": ListCustomers.route.path, "method": "GET"}))
    if what == "nothing there":
        for path in ("/api/v1/orgs", "/api/v1/organizations"):
            sandbox.faults.add(fault.model_copy(update={"path": path}))
    report = await examine_sandbox(sandbox, clock)
    check = check_of(report, "list_customers")
    assert (check.verdict, report.exit) == (CheckResult.FAILED, DoctorExit.DIFFERENCES)
    assert seen in check.finding
    assert then in check.next
    assert "C4N4RY" not in check.finding + check.next
    skipped = check_of(report, "get_customer")
    assert (skipped.verdict, "the list of customers" in skipped.finding) == (CheckResult.SKIPPED, True)
    check_only_safe_requests(sandbox)


async def test_doctor_cannot_work_if_no_operation_answers(clock: Clock) -> None:
    report = await examine_with(clock, *(Garbage(path=operation.route.path, times=None) for operation in READS))
    assert report.exit is DoctorExit.CANNOT_WORK


async def test_refused_key_lists_the_styles_and_is_sent_to_no_other_host(clock: Clock) -> None:
    """Fastn's other hosts are named to the person; a key goes to no other origin."""
    sandbox = FaultySandbox(clock.now)
    report = await examine_sandbox(sandbox, clock, api_key="fsk_live_C4N4RY")
    check = check_of(report, "authentication")
    assert (check.verdict, report.exit) == (CheckResult.FAILED, DoctorExit.CANNOT_WORK)
    for expected in (
        "x-fastn-api-key with X-fastn-Test-Mode: 401",
        "Authorization: Bearer without X-fastn-Test-Mode: 401",
    ):
        assert expected in check.finding
    assert "Fastn is also known at api.fastn.dev (with --auth bearer), live.gcp.fastn.ai" in check.next
    assert "FASTN_SPACE_ID" in check.next
    assert (
        "FASTN_SPACE_ID"
        not in check_of(await examine_sandbox(sandbox, clock, api_key="k", env="live"), "authentication").next
    )
    assert "C4N4RY" not in repr(report.checks)
    assert not any(c.group in (CheckGroup.READS, CheckGroup.WRITES) for c in report.checks)


async def test_key_style_that_changes_least_is_chosen(clock: Clock) -> None:
    sandbox = FaultySandbox(clock.now, behaviour=Behaviour(accepts=Accepts.HEADER))
    report = await examine_sandbox(sandbox, clock, auth="bearer", test_mode="off", api_key="fsk_test_sandbox")
    assert report.proposal.settings == {"auth": "header", "test_mode": "on"}
    assert check_of(report, "authentication").next == "Set auth and test_mode as proposed below."


@pytest.mark.parametrize(
    ("fault", "seen", "here"),
    [
        (Status(status=404, times=None), "Nothing is at the paths of Fastn's API (404).", ""),
        (Redirect(to="https://new.example/C4N4RY", times=None), "Every request is redirected (302)", "To new.example."),
        (Status(status=503, times=None), "Fastn answers with an error (503).", ""),
        (Garbage(times=None), "The answer (200) is not JSON", ""),
        (Reset(times=None), "The connection breaks", ""),
    ],
)
async def test_foreign_host_is_reported(fault: Fault, seen: str, here: str, clock: Clock) -> None:
    report = await examine_with(clock, fault)
    check = check_of(report, "authentication")
    assert (check.verdict, report.exit, check.here) == (CheckResult.FAILED, DoctorExit.CANNOT_WORK, here)
    assert seen in check.finding
    assert check.next
    assert "C4N4RY" not in repr(check)


async def test_403_without_a_key_too_proves_nothing(clock: Clock) -> None:
    """A 403 shows that the key is known only if a request without a key gets another status."""
    report = await examine_with(clock, Status(status=401, times=1), Status(status=403, times=1))
    assert check_of(report, "authentication").verdict is CheckResult.OK
    report = await examine_with(clock, Status(status=403, times=None))
    assert check_of(report, "authentication").verdict is CheckResult.FAILED


async def test_account_that_needs_no_key_is_reported(clock: Clock) -> None:
    report = await examine_with(clock, Status(status=200, path=ListWorkflows.route.path, times=1))
    assert "without a key" in check_of(report, "authentication").finding


def test_kind_of_key_is_its_prefix() -> None:
    assert check_form("fsk_test_C4N4RY").finding == "A test key (fsk_test_)."
    assert check_form("fsk_live_C4N4RY").finding == "A live key (fsk_live_)."
    other = check_form("C4N4RY")
    assert (other.verdict, "fsk_test_" in other.next) == (CheckResult.OK, True)
    assert "C4N4RY" not in repr([check_form("fsk_test_C4N4RY"), check_form("fsk_live_C4N4RY"), other])


@pytest.mark.parametrize(
    ("envelope", "paging"),
    [*((envelope, Paging.SILENT) for envelope in Envelope), (Envelope.DATA, Paging.TOTAL_AND_CURSOR)],
)
async def test_known_envelopes_are_named_and_do_not_differ(envelope: Envelope, paging: Paging, clock: Clock) -> None:
    report = await examine_sandbox(
        FaultySandbox(clock.now, behaviour=Behaviour(envelope=envelope, paging=paging)), clock
    )
    assert problems_of(report) == {}
    assert report.observed["list_workflows"].envelope == envelope.value
    message = check_of(report, "list_workflows").finding
    assert ("that is supported" in message) == (envelope is not Envelope.DATA)


async def test_missing_fields_are_named(clock: Clock) -> None:
    sandbox = FaultySandbox(clock.now, behaviour=Behaviour(fields={"status": "zustand", "plan": "tarif"}))
    report = await examine_sandbox(sandbox, clock)
    assert "Missing: status." in check_of(report, "list_workflows").finding
    assert check_of(report, "list_workflows").verdict is CheckResult.DIFFERS
    customers = check_of(report, "list_customers")
    assert (customers.verdict, "Absent fields: status, plan." in customers.finding) == (CheckResult.OK, True)


def test_renamed_field_can_only_be_the_same_one() -> None:
    """The id of another resource must never become a row's own."""
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


async def test_empty_account_is_fine(clock: Clock) -> None:
    sandbox = FaultySandbox(clock.now)
    for collection in ("customers", "workflows", "triggers", "executions", "_runs", "secrets"):
        sandbox.state.rows[collection] = {}
    report = await examine_sandbox(sandbox, clock)
    assert problems_of(report) == {}
    assert "There were no rows to compare" in check_of(report, "list_customers").finding
    for tool in ("get_customer", "delete_customer", "run_workflow"):
        assert check_of(report, tool).verdict is CheckResult.SKIPPED


async def test_operations_that_settings_exclude_are_skipped(clock: Clock) -> None:
    sandbox = FaultySandbox(clock.now)
    report = await examine_sandbox(sandbox, clock, tools="workflows", mode="read-only")
    assert {request.tool for request in sandbox.requests} == {"list_workflows", "get_workflow"}
    assert "Not enabled" in check_of(report, "list_customers").finding
    assert report.exit is DoctorExit.FINE


@pytest.mark.parametrize("fault", [Status(status=204, times=None), Status(status=403, times=None), Reset(times=None)])
async def test_writes_are_skipped_if_options_says_nothing(fault: Fault, clock: Clock) -> None:
    report = await examine_with(clock, fault.model_copy(update={"method": "OPTIONS"}))
    assert {c.verdict for c in report.checks if c.group is CheckGroup.WRITES} == {CheckResult.SKIPPED}
    assert report.exit is DoctorExit.FINE


async def test_moved_reads_propose_the_routes_of_writes(clock: Clock) -> None:
    sandbox = sandbox_in("paths", clock)
    sandbox.faults.add(Status(status=204, method="OPTIONS", times=None))
    report = await examine_sandbox(sandbox, clock)
    assert report.proposal.routes["delete_customer"] == "DELETE /api/v1/orgs/{customer_id}"
    line = next(line for line in report.proposal.toml().splitlines() if line.startswith("delete_customer"))
    assert line.endswith("# not verified: doctor makes no change to find out")
    assert "run_workflow" not in report.proposal.routes
    again = await examine_sandbox(sandbox, clock, routes=report.proposal.routes)
    assert problems_of(again) == {}


async def test_method_that_options_does_not_allow_is_reported(clock: Clock) -> None:
    sandbox = FaultySandbox(clock.now, routes={"delete_secret": _moved_route("delete_secret")})
    report = await examine_sandbox(sandbox, clock)
    assert problems_of(report) == {"delete_secret": CheckResult.DIFFERS}
    check = check_of(report, "delete_secret")
    assert "404 at /api/v1/secrets/{secret_id}" in check.finding
    assert '[routes] delete_secret = "DELETE /..."' in check.next
    sandbox = FaultySandbox(clock.now, routes={"delete_customer": _moved_route("delete_customer")})
    check = check_of(await examine_sandbox(sandbox, clock), "delete_customer")
    assert check.finding == "OPTIONS allows GET, PUT there, and not DELETE."


def _moved_route(tool: str) -> Any:
    from fastn_mcp.tools.operation import Route

    return Route("DELETE", f"/v9/{tool}/{{{tool.removeprefix('delete_')}_id}}")


async def test_wrong_route_setting_is_replaced_by_the_declared_route(clock: Clock) -> None:
    routes = {"list_customers": "GET /v0/customers", "delete_customer": "DELETE /v0/customers/{customer_id}"}
    report = await examine_sandbox(FaultySandbox(clock.now), clock, routes=routes)
    assert report.proposal.routes == {
        "list_customers": "GET /api/v1/customers",
        "delete_customer": "DELETE /api/v1/customers/{customer_id}",
    }


@pytest.mark.parametrize(
    ("message", "scope"), [("You lack Workflows.execute", "scope: workflows:execute."), ("acme:read", "scope.")]
)
async def test_missing_scope_is_named_only_if_it_is_a_permission(message: str, scope: str, clock: Clock) -> None:
    """Other text in Fastn's message may be somebody's data."""
    fault = Status(status=403, message=message, path=ListCustomers.route.path, times=None)
    check = check_of(await examine_with(clock, fault), "list_customers")
    assert (check.verdict, check.finding) == (CheckResult.DIFFERS, f"403. Missing {scope}")


FINE, DIFFERENCES, CANNOT_WORK = DoctorExit
OK, DIFFERS, FAILED, SKIPPED = CheckResult


@pytest.mark.parametrize(
    ("checks", "code"),
    [
        ([], FINE),
        ([(CheckGroup.SETTINGS, OK), (CheckGroup.READS, SKIPPED)], FINE),
        ([(CheckGroup.KEY, DIFFERS), (CheckGroup.READS, OK)], DIFFERENCES),
        ([(CheckGroup.READS, OK), (CheckGroup.READS, FAILED)], DIFFERENCES),
        ([(CheckGroup.WRITES, FAILED), (CheckGroup.READS, OK)], DIFFERENCES),
        ([(CheckGroup.READS, SKIPPED), (CheckGroup.READS, FAILED)], CANNOT_WORK),
        *([((gate, FAILED),), CANNOT_WORK] for gate in (CheckGroup.SETTINGS, CheckGroup.CONNECTION, CheckGroup.KEY)),
    ],
)
def test_exit_code_says_whether_it_can_work(checks: Sequence[tuple[CheckGroup, CheckResult]], code: DoctorExit) -> None:
    assert DoctorReport(checks=[Check(group, "x", verdict, "") for group, verdict in checks]).exit is code
