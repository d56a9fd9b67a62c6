"""Tests of injected faults."""

import gzip

import pytest
from pydantic_core import from_json
from support.behaviour import Behaviour
from support.direct_sandbox import Answer, Fastn
from support.faulty_sandbox import (
    DeepNesting,
    Delivery,
    Drip,
    EchoKey,
    ErrorShape,
    Fault,
    FaultMoment,
    Garbage,
    GzipBomb,
    Hang,
    Huge,
    LoneSurrogate,
    NotANumber,
    Redirect,
    Reset,
    Status,
    Truncate,
)

from fastn_mcp.sandbox.auth import KEY
from fastn_mcp.sandbox.server import SandboxRequest
from fastn_mcp.tools.billing import GetBilling
from fastn_mcp.tools.connectors import DeleteConnection
from fastn_mcp.tools.customers import CreateCustomer, ListCustomers
from fastn_mcp.tools.workflows import GetWorkflow, ListWorkflows, RunWorkflow

SLACK = "wf_b5880b29eb25"
CREATE = CreateCustomer(name="Initech")


def is_created(fastn: Fastn) -> bool:
    return fastn.sandbox.state.first("customers", "name", "Initech") is not None


def answer_with(fastn: Fastn, fault: Fault) -> Answer:
    fastn.sandbox.faults.add(fault)
    return fastn(CREATE)


def test_fault_occurs_as_often_as_given_and_in_order(fastn: Fastn) -> None:
    fastn.sandbox.faults.add(Status(status=503, times=2), Status(status=500))
    assert [fastn(GetBilling()).status for _ in range(4)] == [503, 503, 500, 200]

    fastn.sandbox.faults.add(Status(status=500, times=None))
    assert {fastn(GetBilling()).status for _ in range(5)} == {500}
    fastn.sandbox.faults.clear()
    assert fastn(GetBilling()).status == 200


def test_fault_matches_method_and_path(fastn: Fastn) -> None:
    """`*` matches anything and {name} one segment, so that the route of an operation can be given."""
    fastn.sandbox.faults.add(
        Status(status=500, method="POST"),
        Status(status=501, path=GetWorkflow.route.path),
        Status(status=502, method="GET", path="/api/v1/customers*"),
    )

    assert fastn(ListWorkflows()).status == 200
    assert fastn(GetWorkflow(workflow_id=SLACK)).status == 501
    assert fastn(ListCustomers()).status == 502
    assert fastn(RunWorkflow(workflow_id=SLACK)).status == 500
    assert fastn.sandbox.faults.waiting == []


def test_429_has_retry_after_in_seconds_as_a_date_or_none(fastn: Fastn) -> None:
    """HTTP, and Fastn's documentation: retryAfter equals Retry-After."""
    seconds = answer_with(fastn, Status(status=429, retry_after=7))
    dated = answer_with(fastn, Status(status=429, retry_after="Tue, 06 Oct 2026 09:31:00 GMT"))
    silent = answer_with(fastn, Status(status=429, code="QUOTA_EXCEEDED"))

    assert (seconds.reply.headers["retry-after"], seconds.error["retryAfter"]) == ("7", 7)
    assert dated.reply.headers["retry-after"].endswith("GMT")
    assert "retry-after" not in silent.reply.headers
    assert (seconds.error["code"], silent.error["code"]) == ("RATE_LIMITED", "QUOTA_EXCEEDED")
    assert answer_with(fastn, Status(status=599)).error["code"] == "HTTP_599"


@pytest.mark.parametrize("kind", [Status(status=500), EchoKey(), Redirect(to="https://evil.example/"), Hang(), Reset()])
def test_fault_occurs_before_or_after_the_change(fastn: Fastn, kind: Fault) -> None:
    """A client cannot tell the two apart, and must not claim to."""
    before = answer_with(fastn, kind)
    assert not is_created(fastn)

    after = answer_with(fastn, kind.model_copy(update={"moment": FaultMoment.AFTER}))

    assert is_created(fastn)
    assert after.reply.delivery == before.reply.delivery


def test_error_can_contain_the_key(fastn: Fastn) -> None:
    """A key must not reach a result, even if the server sends it."""
    answer = answer_with(fastn, EchoKey())
    without = fastn.sandbox.answer(SandboxRequest("GET", "/", {}, {}, b""))

    assert answer.status == 401
    assert KEY in answer.error["message"]
    assert answer.reply.headers["x-echo"] == KEY
    assert without.status == 401


@pytest.mark.parametrize(
    ("fault", "delivery"),
    [
        (Hang(moment=FaultMoment.AFTER), Delivery(end="hangs")),
        (Drip(seconds=0.5), Delivery(pause=0.5)),
        (Truncate(kept=9), Delivery(sent=9, end="closed")),
        (Reset(moment=FaultMoment.AFTER), Delivery(end="reset")),
        (Reset(sent=4), Delivery(sent=4, end="reset")),
        (GzipBomb(unpacked=2**20), Delivery()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_delivery_of_an_answer_is_described(fastn: Fastn, fault: Fault, delivery: object) -> None:
    assert answer_with(fastn, fault).reply.delivery == delivery
    assert is_created(fastn)


@pytest.mark.parametrize("fault", [Garbage(), NotANumber(), LoneSurrogate(), DeepNesting()], ids=lambda f: f.kind)
def test_spoiled_body_cannot_be_parsed(fastn: Fastn, fault: Fault) -> None:
    fastn.sandbox.faults.add(fault)
    request = SandboxRequest("POST", "/api/v1/customers", {}, fastn.headers, b'{"name":"Initech"}')
    reply = fastn.sandbox.answer(request)

    assert reply.status == 201
    assert is_created(fastn)
    with pytest.raises(ValueError, match=r"."):
        from_json(reply.body, allow_inf_nan=False)


@pytest.mark.parametrize("fault", [NotANumber(times=None), LoneSurrogate(times=None)], ids=lambda f: f.kind)
def test_spoiled_body_has_only_one_wrong_value(fastn: Fastn, fault: Fault) -> None:
    fastn.sandbox.faults.add(fault)

    assert fastn(GetWorkflow(workflow_id=SLACK)).data["id"] == SLACK
    fastn.sandbox.error_shape = ErrorShape.EMPTY
    assert fastn(GetWorkflow(workflow_id="nothing")).value.keys() == {"data"}
    assert fastn(DeleteConnection(connection_id=fastn.connection("acme-corp", "xero"))).status == 200


def test_body_can_exceed_the_clients_limit(fastn: Fastn) -> None:
    huge = answer_with(fastn, Huge(size=2_000_000))
    packed = answer_with(fastn, GzipBomb(unpacked=4 * 2**20)).reply

    assert len(huge.reply.body) == 2_000_000
    assert huge.data.strip("0") == ""
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < 20_000 < 4 * 2**20 < len(gzip.decompress(packed.body))


def test_rate_limit_is_checked_before_faults(fastn: Fastn) -> None:
    fastn.sandbox.behaviour = Behaviour(rate_limit=1)
    fastn(GetBilling())

    assert answer_with(fastn, Status(status=503)).status == 429
    assert len(fastn.sandbox.faults.waiting) == 1
