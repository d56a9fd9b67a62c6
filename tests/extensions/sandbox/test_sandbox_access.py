"""Tests of authentication, permissions and rate limits of the sandbox."""

import pytest
from support.behaviour import Behaviour
from support.clock import Clock
from support.direct_sandbox import Fastn
from support.faulty_sandbox import FaultySandbox

from fastn_mcp.extensions.sandbox.auth import KEY, LIVE_KEY, ROLES, VIEWER_KEY, VIEWER_PERMISSIONS
from fastn_mcp.extensions.sandbox.server import SandboxRequest
from fastn_mcp.tools.access import CreateApiKey, QueryAuditLog, RevokeApiKey
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.billing import GetBilling
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, ListCustomers
from fastn_mcp.tools.workflows import ListExecutions, ListWorkflows

LIST = "/api/v1/workflows"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_fastn_api_key": LIVE_KEY}, 200),
        ({"authorization": f"Bearer {LIVE_KEY}"}, 200),
        ({"x_fastn_api_key": KEY, "x_fastn_test_mode": "true"}, 200),
        ({"x_fastn_api_key": KEY}, 401),
        ({"x_fastn_api_key": LIVE_KEY, "x_fastn_test_mode": "true"}, 401),
        ({}, 401),
        ({"x_fastn_api_key": "fsk_live_unknown"}, 401),
        ({"authorization": f"Basic {LIVE_KEY}"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"x_fastn_api_key": ""}, 401),
    ],
)
def test_key_is_accepted_in_either_header_and_in_its_mode(
    sandbox: FaultySandbox, headers: dict[str, str], status: int
) -> None:
    """Fastn's reference: either header, 401 otherwise. Its documentation: test mode for exactly the test keys."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = sandbox.answer(SandboxRequest("GET", LIST, {}, named, b""))

    assert reply.status == status
    assert ("AUTH_INVALID" in reply.body.decode()) == (status == 401)


def test_viewer_key_may_only_read(sandbox: FaultySandbox) -> None:
    """Fastn's documentation: a viewer reads no executions and no settings, and changes nothing."""
    viewer = Fastn(sandbox, VIEWER_KEY)
    before = len(sandbox.state.all("customers"))

    assert [viewer(call).status for call in (ListWorkflows(), ListCustomers())] == [200, 200]
    refused = (ListExecutions(), GetBilling(), CreateCustomer(name="Initech"), QueryAuditLog(), AiChat(message="Hi"))
    assert [viewer(call).status for call in refused] == [403] * 5
    assert len(sandbox.state.all("customers")) == before


def test_denied_call_is_in_the_audit_log(sandbox: FaultySandbox) -> None:
    """Fastn's documentation: outcomes are Success, Failure and Denied."""
    Fastn(sandbox, VIEWER_KEY)(DeleteCustomer(customer_id="any"))

    row = sandbox.state.all("audit")[-1]
    assert (row["actor"], row["action"], row["outcome"]) == ("apikey:3", "customer.delete", "Denied")


def test_roles_have_the_documented_number_of_permissions() -> None:
    """Fastn's documentation: Owner and Admin 42, Developer 34, Operator 21, Viewer 6, End User 35."""
    counted = {name: len(held) for name, held in ROLES.items()}

    assert counted == {"Owner": 42, "Admin": 42, "Developer": 34, "Operator": 21, "Viewer": 6, "End User": 35}


def test_new_key_is_accepted_until_it_is_revoked(fastn: Fastn) -> None:
    """Fastn's documentation: revocation is immediate."""
    created = fastn(CreateApiKey(name="BI", permissions="Operator")).data
    newcomer = Fastn(fastn.sandbox, created["key"])
    assert newcomer(ListExecutions()).status == 200

    assert fastn(RevokeApiKey(api_key_id=str(created["id"]))).data == {"id": created["id"], "revoked": True}

    assert newcomer(ListExecutions()).status == 401
    assert fastn(RevokeApiKey(api_key_id=str(created["id"]))).status == 404


def test_expired_key_is_refused(fastn: Fastn, clock: Clock) -> None:
    """Fastn's documentation: AUTH_EXPIRED."""
    created = fastn(CreateApiKey(name="BI", expires="30d")).data
    clock.pass_(days=31)

    answer = Fastn(fastn.sandbox, created["key"])(ListWorkflows())

    assert (answer.status, answer.error["code"]) == (401, "AUTH_EXPIRED")


def test_custom_key_has_only_its_permissions(fastn: Fastn) -> None:
    """Fastn's documentation: a custom key has a matrix of permissions."""
    created = fastn(CreateApiKey(name="BI", permissions="Custom", extra={"matrix": ["executions:read"]})).data
    narrow = Fastn(fastn.sandbox, created["key"])

    assert [narrow(ListExecutions()).status, narrow(ListWorkflows()).status] == [200, 403]
    assert {"workflows:read"} <= VIEWER_PERMISSIONS


def test_every_answer_has_rate_limit_headers(fastn: Fastn) -> None:
    """Fastn's reference: rate limit headers on every response, and Retry-After only on 429."""
    fastn.sandbox.behaviour = Behaviour(rate_limit=5)

    answers = [fastn(ListWorkflows()), fastn.ask("GET", "/nowhere"), fastn(GetBilling())]

    left = [answer.reply.headers["x-ratelimit-remaining"] for answer in answers]
    assert left == ["4", "3", "2"]
    assert {answer.reply.headers["x-ratelimit-limit"] for answer in answers} == {"5"}
    assert all("retry-after" not in answer.reply.headers for answer in answers)


def test_exceeded_rate_limit_has_retry_after(fastn: Fastn, clock: Clock) -> None:
    """Fastn's reference: 429 with Retry-After in seconds, which the documented body repeats."""
    fastn.sandbox.behaviour = Behaviour(rate_limit=1)
    fastn(ListWorkflows())
    clock.pass_(seconds=20)

    refused = fastn(CreateCustomer(name="Initech"))

    assert (refused.status, refused.error["code"], refused.error["retryAfter"]) == (429, "RATE_LIMITED", 40)
    assert refused.reply.headers["retry-after"] == "40"
    assert int(refused.reply.headers["x-ratelimit-reset"]) == clock.now().timestamp() + 40
    assert fastn.sandbox.state.first("customers", "name", "Initech") is None
    clock.pass_(seconds=40)
    assert fastn(ListWorkflows()).status == 200


def test_rate_limits_are_per_key(fastn: Fastn) -> None:
    """Fastn's reference: limits are per API key, and a key can have its own."""
    created = fastn(CreateApiKey(name="BI", rate_limit_per_minute=1)).data
    slow = Fastn(fastn.sandbox, created["key"])

    assert [slow(ListWorkflows()).status, slow(ListWorkflows()).status, fastn(ListWorkflows()).status] == [
        200,
        429,
        200,
    ]


def test_last_used_is_a_time(fastn: Fastn) -> None:
    """Fastn's documentation: lastUsed is a time, or never."""
    Fastn(fastn.sandbox, VIEWER_KEY)(ListWorkflows())

    used = {row["name"]: row["lastUsed"] for row in fastn.ask("GET", "/api/v1/api-keys").data}

    assert used["TEST"] == "2026-10-06T09:30:00.000Z"


def test_unknown_path_and_method(fastn: Fastn) -> None:
    """Fastn's reference and documentation: 404 NOT_FOUND, 405 METHOD_NOT_ALLOWED; RFC 9110: Allow."""
    assert fastn.ask("GET", "/api/v1/nothing").status == 404
    assert fastn.ask("GET", "/api/v1/workflows/wf_1/run/again").status == 404
    for method, path, allowed in (
        ("DELETE", "/api/v1/workflows", "GET, POST"),
        ("PATCH", "/api/v1/workflows/wf_1", "DELETE, GET, PUT"),
    ):
        answer = fastn.ask(method, path)
        assert (answer.status, answer.reply.headers["allow"]) == (405, allowed)


def test_body_that_is_not_a_json_object_is_refused(fastn: Fastn) -> None:
    """Fastn's reference: 400 for an invalid body; Fastn's documentation: 413 for one that is too large."""
    path = "/api/v1/customers"

    assert fastn.ask("POST", path, body=b"{").status == 400
    assert fastn.ask("POST", path, body=b'{"name": NaN}').status == 400
    assert fastn.ask("POST", path, body=b'["name"]').status == 400
    assert fastn.ask("POST", path, body=b'{"name":"' + b"x" * 2**20 + b'"}').status == 413


def test_unknown_parameter_is_refused(fastn: Fastn) -> None:
    """A filter that is silently ignored answers another question."""
    assert fastn.ask("GET", "/api/v1/workflows", {"colour": "red"}).field == "colour"
    assert fastn.ask("GET", "/api/v1/billing", {"colour": "red"}).field == "colour"
