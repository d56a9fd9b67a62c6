"""What becomes of a call, for every fault and every method: how often it is sent, and what is said of it."""

from typing import Any

import pytest
from fake_fastn import Clock, Fastn, Step, client, says

from fastn_mcp.client.http import NotSentError, ResponseLost, UnreadableBody
from fastn_mcp.client.retry import Fate, may_repeat
from fastn_mcp.errors import FastnError
from fastn_mcp.tools.account import DeleteSecret, InviteUser
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer, UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.workflows import RunWorkflow

pytestmark = pytest.mark.anyio

CALLS: dict[str, Operation[Any]] = {
    "GET": GetCustomer(customer_id="acme"),
    "PUT": UpdateCustomer(customer_id="acme", name="Acme"),
    "DELETE": DeleteCustomer(customer_id="acme"),
    "POST": CreateCustomer(name="Acme"),
}
WRITES = ("PUT", "DELETE", "POST")

NOT_SENT = "Nothing was sent."
UNCHANGED = "Nothing was changed."
UNKNOWN = "It may or may not have happened. Do not repeat it before you have looked."
DONE = "It was done. Do not repeat it."

Expected = tuple[int, str, str]


def same(requests: int, outcome: str, known: str) -> dict[str, Expected]:
    """The same for every method."""
    return dict.fromkeys(CALLS, (requests, outcome, known))


def lost() -> dict[str, Expected]:
    """Reads fail; a write may have happened; a POST is never sent again."""
    return {
        "GET": (3, "failed", UNCHANGED),
        "PUT": (3, "unknown_outcome", UNKNOWN),
        "DELETE": (3, "unknown_outcome", UNKNOWN),
        "POST": (1, "unknown_outcome", UNKNOWN),
    }


def reads_and_writes(read: Expected, write: Expected) -> dict[str, Expected]:
    return {"GET": read} | dict.fromkeys(WRITES, write)


TABLE: dict[str, tuple[Step, dict[str, Expected]]] = {
    "connection refused": (NotSentError("ConnectError"), same(3, "not_sent", NOT_SENT)),
    "connection lost": (ResponseLost("ReadError"), lost()),
    "429": (says(429), same(3, "rate_limited", UNCHANGED)),
    "429, wait 2 s": (says(429, headers={"Retry-After": "2"}), same(3, "rate_limited", UNCHANGED)),
    "429, wait 15 s": (says(429, headers={"Retry-After": "15"}), same(3, "rate_limited", UNCHANGED)),
    "429, wait 16 s": (says(429, headers={"Retry-After": "16"}), same(1, "rate_limited", UNCHANGED)),
    "429 for a quota": (says(429, {"code": "QUOTA_EXCEEDED"}), same(1, "quota_exceeded", UNCHANGED)),
    "402": (says(402), same(1, "quota_exceeded", UNCHANGED)),
    "400": (says(400), same(1, "invalid", UNCHANGED)),
    "401": (says(401, {"code": "AUTH-001"}), same(1, "unauthorized", UNCHANGED)),
    "401 of a connection": (says(401, {"error": {"code": "CONN-401"}}), same(1, "failed", UNCHANGED)),
    "401 of a connector": (says(401, {"code": "CONNECTOR_AUTH"}), same(1, "failed", UNCHANGED)),
    "403": (says(403), same(1, "forbidden", UNCHANGED)),
    "404": (says(404), same(1, "not_found", UNCHANGED)),
    "405": (says(405), same(1, "failed", UNCHANGED)),
    "409": (says(409), same(1, "conflict", UNCHANGED)),
    "410": (says(410), same(1, "failed", UNCHANGED)),
    "412": (says(412), same(1, "conflict", UNCHANGED)),
    "413": (says(413), same(1, "invalid", UNCHANGED)),
    "415": (says(415), same(1, "invalid", UNCHANGED)),
    "418": (says(418), same(1, "failed", UNCHANGED)),
    "422": (says(422), same(1, "invalid", UNCHANGED)),
    "501": (says(501), same(1, "failed", UNCHANGED)),
    "505": (says(505), same(1, "failed", UNCHANGED)),
    **{str(status): (says(status), lost()) for status in (408, 500, 502, 503, 504, 507, 520, 524, 599)},
    "503, wait 3 s": (says(503, headers={"Retry-After": "3"}), lost()),
    "500 without JSON": (says(500, b"<html>"), lost()),
    **{str(status): (says(status), same(1, "failed", UNCHANGED)) for status in (300, 304, 307, 308)},
    **{
        str(status): (says(status), reads_and_writes((1, "failed", UNCHANGED), (1, "unknown_outcome", UNKNOWN)))
        for status in (301, 302, 303)
    },
    "200 that breaks off": (
        says(200, unreadable=UnreadableBody.BROKEN),
        reads_and_writes((3, "failed", UNCHANGED), (1, "applied_unreadable", DONE)),
    ),
    "200 without end": (
        says(200, unreadable=UnreadableBody.TOO_LARGE),
        reads_and_writes((1, "too_large", UNCHANGED), (1, "applied_unreadable", DONE)),
    ),
    "200 packed": (
        says(200, unreadable=UnreadableBody.PACKED),
        reads_and_writes((1, "failed", UNCHANGED), (1, "applied_unreadable", DONE)),
    ),
    "200 that is a page": (
        says(200, b"<html>log in</html>"),
        reads_and_writes((1, "failed", UNCHANGED), (1, "applied_unreadable", DONE)),
    ),
    "400 that breaks off": (says(400, unreadable=UnreadableBody.BROKEN), same(1, "invalid", UNCHANGED)),
}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("fault", TABLE)
async def test_a_fault_that_stays_has_the_outcome_of_the_table(fault: str, method: str) -> None:
    """Ours (DESIGN 4): retries by what may have happened, and an error that says exactly that."""
    step, expected = TABLE[fault]
    requests, outcome, known = expected[method]
    fastn = Fastn(step)
    with pytest.raises(FastnError) as caught:
        await client(fastn).send(CALLS[method])
    assert (len(fastn.requests), caught.value.outcome, caught.value.known) == (requests, outcome, known)
    assert fastn.requests == [CALLS[method].request()] * requests
    assert caught.value.next_step
    said = caught.value.data()
    assert known in str(said["message"])
    settled = outcome in ("unknown_outcome", "applied_unreadable")
    assert ("settle" in said) == settled
    if settled:
        arguments: dict[str, str] = {} if method == "POST" else {"customer_id": "acme"}
        tool = "list_customers" if method == "POST" else "get_customer"
        assert said["settle"] == {"tool": tool, "arguments": arguments}
        assert tool in caught.value.next_step
        assert "failed" not in str(caught.value)


PASSING = {
    "connection refused": NotSentError("ConnectTimeout"),
    "connection lost": ResponseLost("RemoteProtocolError"),
    "429": says(429),
    "503": says(503, headers={"Retry-After": "1"}),
    "408": says(408),
}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("fault", PASSING)
async def test_a_fault_that_passes_is_not_noticed_where_it_may_be_repeated(fault: str, method: str) -> None:
    """Ours (DESIGN 4): a POST only where nothing was done, all else whatever became of it."""
    fastn = Fastn(PASSING[fault], PASSING[fault], says(200, {"id": "acme", "name": "Acme"}))
    if method == "POST" and fault not in ("connection refused", "429"):
        with pytest.raises(FastnError, match="may or may not"):
            await client(fastn).send(CALLS[method])
        assert len(fastn.requests) == 1
        return
    result = await client(fastn).send(CALLS[method])
    assert result.model_dump() == {"id": "acme", "name": "Acme"}
    assert fastn.requests == [CALLS[method].request()] * 3


@pytest.mark.parametrize("first", [ResponseLost("ReadError"), says(500), says(503), says(408)])
async def test_a_repeated_delete_that_finds_nothing_is_gone(first: Step) -> None:
    """Ours (THREATS R6): the first attempt may have done it; in any case it is not there."""
    result = await client(Fastn(first, says(404))).send(CALLS["DELETE"])
    assert result.model_dump() == {"id": "acme", "deleted": True, "outcome": "gone"}


@pytest.mark.parametrize("first", [NotSentError("ConnectError"), says(429)])
async def test_a_delete_that_was_never_done_and_finds_nothing_is_not_found(first: Step) -> None:
    """Ours (THREATS R6): nothing of ours can have deleted it, so the id is wrong."""
    with pytest.raises(FastnError, match="No customer with this id") as caught:
        await client(Fastn(first, says(404))).send(CALLS["DELETE"])
    assert caught.value.outcome == "not_found"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    "then",
    [says(409), says(412), says(400), says(401), says(403), says(429, headers={"Retry-After": "60"}), says(501),
     says(302), NotSentError("ConnectError"), says(402)],
)  # fmt: skip
async def test_what_a_repeated_write_is_told_says_nothing_of_the_attempt_that_was_lost(method: str, then: Step) -> None:
    """Ours (THREATS R6): our own first attempt may have won, so the outcome stays unknown."""
    fastn = Fastn(says(503), then)
    with pytest.raises(FastnError) as caught:
        await client(fastn).send(CALLS[method])
    assert (caught.value.outcome, caught.value.known) == ("unknown_outcome", UNKNOWN)
    assert caught.value.facts["settle"] == {"tool": "get_customer", "arguments": {"customer_id": "acme"}}


async def test_a_repeated_read_is_told_the_last_answer() -> None:
    """Ours: a read changes nothing, so its last answer is the answer."""
    with pytest.raises(FastnError) as caught:
        await client(Fastn(says(503), says(403, {"message": "no"}))).send(CALLS["GET"])
    assert (caught.value.outcome, caught.value.facts) == ("forbidden", {"fastn": {"status": 403, "message": "no"}})


@pytest.mark.parametrize("method", CALLS)
async def test_a_used_up_limit_after_a_lost_attempt_does_not_say_that_nothing_was_sent(method: str) -> None:
    """Ours: the rate limit stops the second attempt; the first one was sent."""
    limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(Clock().now().timestamp()) + 60)}
    fastn = Fastn(says(500, headers=limit))
    with pytest.raises(FastnError) as caught:
        await client(fastn).send(CALLS[method])
    assert len(fastn.requests) == 1
    expected = ("rate_limited", UNCHANGED) if method == "GET" else ("unknown_outcome", UNKNOWN)
    assert (caught.value.outcome, caught.value.known) == expected


@pytest.mark.parametrize(
    ("call", "settle"),
    [
        (RunWorkflow(workflow_id="wf"), {"tool": "list_executions", "arguments": {"workflow_id": "wf"}}),
        (DeleteSecret(secret_id="s"), {"tool": "list_secrets", "arguments": {}}),
        (InviteUser(email="a@b.c", role="Viewer"), {"tool": "list_users", "arguments": {}}),
        (AiChat(message="hi"), None),
    ],
)
async def test_a_lost_answer_names_the_read_that_settles_it(call: Operation[Any], settle: object) -> None:
    """Ours (DESIGN 4): an unknown outcome says where to look."""
    with pytest.raises(FastnError) as caught:
        await client(Fastn(ResponseLost("ReadError"))).send(call)
    assert caught.value.facts.get("settle") == settle
    if settle is None:
        assert caught.value.next_step == "Look in the Fastn dashboard."


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST", "PATCH", "HEAD"])
def test_only_what_is_idempotent_by_its_method_is_repeated_after_a_loss(method: str) -> None:
    """Ours (THREATS R4): no assumption about PATCH, which a route of the account may bring."""
    assert may_repeat(method, Fate.UNKNOWN) == (method in ("GET", "PUT", "DELETE"))
    assert may_repeat(method, Fate.UNSENT)
    assert may_repeat(method, Fate.THROTTLED)
    assert not may_repeat(method, Fate.ANSWERED)
