"""Accounts with other field names, another test mode, or unreadable certificates."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import Clock
from support.fake_fastn import Fastn, client, reply

from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import HttpExchange, NotSentError, TransportFactory, headers, to_wire
from fastn_mcp.client.proxy_and_tls import TransportOptions
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import InvalidArgument, NotSent
from fastn_mcp.records.rows import row_of
from fastn_mcp.tools.billing import GetUsage
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import Request
from fastn_mcp.tools.workflows import UpdateWorkflow

NAMES = {"customers": {"id": "orgId", "name": "title"}}


async def test_rows_have_our_field_names_beside_the_accounts() -> None:
    row = {"orgId": "c1", "title": "Acme", "name": None, "plan": "Free"}
    fastn = Fastn(reply(200, {"data": [row, {"id": "own", "orgId": "c2"}, "text"]}))
    page = await client(fastn, fields=NAMES).send(ListCustomers())
    assert [row.get("id") for row in page.rows] == ["c1", "own", None]
    assert page.rows[0] == {**row, "id": "c1"}
    row: Any = await client(Fastn(reply(200, {"data": {"orgId": "c1"}})), fields=NAMES).send(
        GetCustomer(customer_id="c1")
    )
    assert row_of(row) == {"orgId": "c1", "id": "c1"}


async def test_filters_apply_to_our_field_names() -> None:
    rows = [{"id": 1, "state": "ACTIVE"}, {"id": 2, "state": "FAILED"}]
    fastn = Fastn(reply(200, {"data": rows}))
    page = await client(fastn, fields={"connections": {"status": "state"}}).send(ListConnections(status="FAILED"))
    assert ([row["id"] for row in page.rows], page.not_checked) == ([2], None)


async def test_bodies_have_the_accounts_field_names_only() -> None:
    fastn = Fastn(reply(201, {"data": {"orgId": "c1"}}))
    created: Any = await client(fastn, fields=NAMES).send(CreateCustomer(name="Acme", plan="Free"))
    assert (created.id, fastn.requests[0].body) == ("c1", {"title": "Acme", "plan": "Free"})
    fastn = Fastn(reply(200, {"data": {"orgId": "c1", "title": "Acme", "region": "EU"}}))
    await client(fastn, fields=NAMES, update="merge").send(UpdateCustomer(customer_id="c1", name="Initech"))
    assert [request.method for request in fastn.requests] == ["GET", "PUT"]
    assert fastn.requests[1].body == {"orgId": "c1", "title": "Initech", "region": "EU"}


async def test_extra_takes_our_name_of_a_field_that_the_account_spells_otherwise() -> None:
    fastn = Fastn(reply(200, {"data": {}}))
    account = client(fastn, fields={"workflows": {"maxRuns": "max_runs"}}, update="partial")
    account.check(UpdateWorkflow(workflow_id="w1", extra={"maxRuns": 5}))
    with pytest.raises(InvalidArgument, match="max_runs is this account's name for maxRuns"):
        account.check(UpdateWorkflow(workflow_id="w1", extra={"max_runs": 5}))


async def test_other_requests_are_not_renamed() -> None:
    fastn = Fastn(reply(200, {"data": {"title": "x"}}))
    usage = await client(fastn, fields=NAMES).send(GetUsage())
    assert usage.model_dump(exclude_unset=True) == {"title": "x"}
    fastn = Fastn(reply(204))
    gone = await client(fastn, fields=NAMES).send(DeleteCustomer(customer_id="c1"))
    assert gone.model_dump() == {"id": "c1", "deleted": True}
    assert fastn.requests[0].body is None


@given(st.dictionaries(st.text(), st.integers()), st.dictionaries(st.text(), st.text()))
def test_renamed_body_keeps_other_fields(body: dict[str, Any], names: dict[str, str]) -> None:
    renamed = to_wire(Request("PUT", "/", body=body), names).body
    assert renamed is not None
    assert {n: v for n, v in body.items() if n not in names and n not in names.values()}.items() <= renamed.items()


async def test_unreadable_certificates_send_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, transport_factory: TransportFactory
) -> None:
    """Found at the first request, as startup reads none; the error names the next step."""
    account = Settings(base_url="https://127.0.0.1:9", api_key="k")
    options = TransportOptions(ca_file=tmp_path / "none.pem")
    exchange = HttpExchange(account.base_url, headers(account), options, transport_factory)
    with pytest.raises(NotSentError, match="the trusted certificates cannot be read: FileNotFoundError"):
        await exchange(Request("GET", "/"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    sender = FastnClient(account, HttpExchange(account.base_url, headers(account)), Clock().system())
    with pytest.raises(NotSent, match="Check FASTN_CA_FILE and SSL_CERT_FILE"):
        await sender.send(GetUsage())
    await sender.aclose()
