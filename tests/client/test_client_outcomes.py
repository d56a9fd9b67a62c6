"""Outcome of a call for every fault and every method: its number of requests, and its error."""

from typing import Any

import pytest
from support.clock import Clock
from support.fake_fastn import Fastn, Step, client, error_of, reply
from support.outcome_table import (
    BROKEN,
    LOST,
    NOT_SENT,
    REDIRECTS,
    STATUSES,
    TOO_LARGE,
    UNCERTAIN,
    UNCHANGED,
    UNKNOWN,
    UNREADABLE,
    ByMethod,
    same,
)

from fastn_mcp.client.exchange import NotSentError, ResponseLost, UnreadableBody
from fastn_mcp.client.retry import AttemptOutcome, may_retry
from fastn_mcp.tools.access import DeleteSecret, InviteUser
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer, UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.workflows import RunWorkflow

CALLS: dict[str, Operation[Any]] = {
    "GET": GetCustomer(customer_id="acme"),
    "PUT": UpdateCustomer(customer_id="acme", name="Acme"),
    "DELETE": DeleteCustomer(customer_id="acme"),
    "POST": CreateCustomer(name="Acme"),
}

TABLE: dict[str, tuple[Step, ByMethod]] = {
    "connection refused": (NotSentError("ConnectError"), same(3, "not_sent", NOT_SENT)),
    "connection lost": (ResponseLost("ReadError"), LOST),
    "429, wait 2 s": (reply(429, headers={"Retry-After": "2"}), same(3, "rate_limited")),
    "429, wait 15 s": (reply(429, headers={"Retry-After": "15"}), same(3, "rate_limited")),
    "429, wait 16 s": (reply(429, headers={"Retry-After": "16"}), same(1, "rate_limited")),
    "429 for a quota": (reply(429, {"code": "QUOTA_EXCEEDED"}), same(1, "quota_exceeded")),
    "401 with its code": (reply(401, {"code": "AUTH-001"}), same(1, "unauthorized")),
    "401 of a connection": (reply(401, {"error": {"code": "CONN-401"}}), same(1, "failed")),
    "401 of a connector": (reply(401, {"code": "CONNECTOR_AUTH"}), same(1, "failed")),
    "503, wait 3 s": (reply(503, headers={"Retry-After": "3"}), LOST),
    "500 without JSON": (reply(500, b"<html>"), LOST),
    "599": (reply(599), LOST),
    **{str(status): (reply(status), same(1, "failed")) for status in (300, 304)},
    **{str(status): (reply(status), expected) for status, expected in (STATUSES | REDIRECTS).items()},
    "200 that breaks off": (reply(200, unreadable=UnreadableBody.BROKEN), BROKEN),
    "200 without end": (reply(200, unreadable=UnreadableBody.TOO_LARGE), TOO_LARGE),
    "200 packed": (reply(200, unreadable=UnreadableBody.PACKED), UNREADABLE),
    "200 that is a page": (reply(200, b"<html>log in</html>"), UNCERTAIN),
    "200 that is a text": (reply(200, b"maintenance"), UNCERTAIN),
    "200 of half a JSON": (reply(200, b' {"id": "a", "name"'), UNREADABLE),
    "400 that breaks off": (reply(400, unreadable=UnreadableBody.BROKEN), same(1, "invalid")),
}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("fault", TABLE)
async def test_persistent_fault_has_the_outcome_of_the_table(fault: str, method: str) -> None:
    step, expected = TABLE[fault]
    requests, outcome, known = expected[method]
    fastn = Fastn(step)
    error = await error_of(client(fastn), CALLS[method])
    assert (len(fastn.requests), error.outcome, error.known) == (requests, outcome, known)
    assert fastn.requests == [CALLS[method].request()] * requests
    assert error.next_step
    data = error.data()
    assert known in str(data["message"])
    settled = outcome in ("unknown_outcome", "applied_unreadable")
    assert ("settle" in data) == settled
    if settled:
        arguments: dict[str, str] = {} if method == "POST" else {"customer_id": "acme"}
        tool = "list_customers" if method == "POST" else "get_customer"
        assert data["settle"] == {"tool": tool, "arguments": arguments}
        assert tool in error.next_step
        assert "failed" not in str(error)


PASSING = {
    "connection refused": NotSentError("ConnectTimeout"),
    "connection lost": ResponseLost("RemoteProtocolError"),
    "429": reply(429),
    "503": reply(503, headers={"Retry-After": "1"}),
    "408": reply(408),
}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("fault", PASSING)
async def test_transient_fault_is_retried_if_safe(fault: str, method: str) -> None:
    fastn = Fastn(PASSING[fault], PASSING[fault], reply(200, {"id": "acme", "name": "Acme"}))
    if method == "POST" and fault not in ("connection refused", "429"):
        assert (await error_of(client(fastn), CALLS[method])).outcome == "unknown_outcome"
        assert len(fastn.requests) == 1
        return
    result = await client(fastn).send(CALLS[method])
    assert result.model_dump() == {"id": "acme", "name": "Acme"}
    assert fastn.requests == [CALLS[method].request()] * 3


@pytest.mark.parametrize("first", [ResponseLost("ReadError"), reply(500), reply(503), reply(408)])
async def test_retried_delete_with_404_is_gone(first: Step) -> None:
    """The first attempt may have deleted it; in any case it is not there."""
    result = await client(Fastn(first, reply(404))).send(CALLS["DELETE"])
    assert result.model_dump() == {"id": "acme", "deleted": True, "outcome": "gone"}


@pytest.mark.parametrize("first", [NotSentError("ConnectError"), reply(429)])
async def test_delete_with_404_after_an_unsent_attempt_is_not_found(first: Step) -> None:
    assert (await error_of(client(Fastn(first, reply(404))), CALLS["DELETE"])).outcome == "not_found"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    "then",
    [reply(409), reply(412), reply(400), reply(401), reply(403), reply(429, headers={"Retry-After": "60"}), reply(501),
     reply(302), NotSentError("ConnectError"), reply(402)],
)  # fmt: skip
async def test_retried_write_stays_unknown_after_a_rejection(method: str, then: Step) -> None:
    """The lost first attempt may have been applied, so the outcome stays unknown."""
    fastn = Fastn(reply(503), then)
    error = await error_of(client(fastn), CALLS[method])
    assert (error.outcome, error.known) == ("unknown_outcome", UNKNOWN)
    assert error.facts["settle"] == {"tool": "get_customer", "arguments": {"customer_id": "acme"}}


async def test_retried_read_has_the_error_of_its_last_attempt() -> None:
    error = await error_of(client(Fastn(reply(503), reply(403, {"message": "no"}))), CALLS["GET"])
    assert (error.outcome, error.facts) == ("forbidden", {"fastn": {"status": 403, "message": "no"}})


@pytest.mark.parametrize("method", CALLS)
async def test_rate_limit_after_a_lost_attempt_does_not_claim_nothing_was_sent(method: str) -> None:
    limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(Clock().now().timestamp()) + 60)}
    fastn = Fastn(reply(500, headers=limit))
    error = await error_of(client(fastn), CALLS[method])
    assert len(fastn.requests) == 1
    expected = ("rate_limited", UNCHANGED) if method == "GET" else ("unknown_outcome", UNKNOWN)
    assert (error.outcome, error.known) == expected


@pytest.mark.parametrize(
    ("call", "settle"),
    [
        (RunWorkflow(workflow_id="wf"), {"tool": "list_executions", "arguments": {"workflow_id": "wf"}}),
        (DeleteSecret(secret_id="s"), {"tool": "list_secrets", "arguments": {}}),
        (InviteUser(email="a@b.c", role="Viewer"), {"tool": "list_users", "arguments": {}}),
        (AiChat(message="hi"), None),
    ],
)
async def test_lost_response_names_the_read_that_settles_it(call: Operation[Any], settle: object) -> None:
    error = await error_of(client(Fastn(ResponseLost("ReadError"))), call)
    assert error.facts.get("settle") == settle
    if settle is None:
        assert error.next_step == "Check in the Fastn dashboard."


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST", "PATCH", "HEAD"])
def test_only_idempotent_methods_are_retried_after_a_lost_response(method: str) -> None:
    """No assumption about PATCH, which an account's route may use."""
    assert may_retry(method, AttemptOutcome.UNKNOWN) == (method in ("GET", "PUT", "DELETE"))
    assert may_retry(method, AttemptOutcome.NOT_SENT)
    assert may_retry(method, AttemptOutcome.THROTTLED)
    assert not may_retry(method, AttemptOutcome.ANSWERED)
