"""Every fault over a real socket: requests, outcome, and what is left behind.

`tests/client/test_client_outcomes.py` has the same table for a fake exchange. Here the sandbox is served, the real HTTP
client is used, and the sandbox's data show whether an error tells the truth.
"""

import json
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import anyio
import pytest
from support.faulty_sandbox import (
    Drip,
    EchoKey,
    ErrorShape,
    Fault,
    FaultMoment,
    FaultySandbox,
    Hang,
    Redirect,
    Reset,
    Spoiled,
    Status,
    Truncate,
)
from support.identity_provider import listening
from support.outcome_table import (
    BROKEN,
    DONE,
    LOST,
    METHODS,
    REDIRECTS,
    STATUSES,
    TOO_LARGE,
    UNCERTAIN,
    UNKNOWN,
    UNREADABLE,
    ByMethod,
    reads_and_writes,
    same,
)
from support.served_sandbox import create_faulty_app

from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import HttpExchange, TransportFactory, headers
from fastn_mcp.client.transport import HttpTransport
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.records.rows import row_of
from fastn_mcp.runtime import System
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import Operation

SINK = "http://sink.invalid"
"""Where redirects point to, until a test has a socket for it."""

PATIENT, HASTY = 20.0, 1.5
"""Deadlines of a call, in seconds: what has an end must reach it, what has none must be given up."""
HANGING = 60.0
"""Seconds after which a test gives up a call that has outlived its deadline."""

ENDLESS = reads_and_writes("timeout", "unknown_outcome", UNKNOWN)
ECHOED = {status: STATUSES[status] for status in (400, 401, 403, 500)}

TABLE: dict[str, tuple[Fault, ByMethod]] = {
    **{str(status): (Status(status=status), expected) for status, expected in STATUSES.items()},
    **{
        f"401 {code}": (Status(status=401, code=code), same(1, "failed"))
        for code in ("CONN-401", "CONNECTOR_AUTH", "EVT-7", "WEBHOOK_AUTH")
    },
    **{
        f"{status} as {shape.value}": (Status(status=status, shape=shape), STATUSES[status])
        for status in (400, 500)
        for shape in ErrorShape
        if shape is not ErrorShape.CODED
    },
    **{f"{status} after the change": (Status(status=status, moment=FaultMoment.AFTER), LOST) for status in (500, 503)},
    "429, wait 2 s": (Status(status=429, retry_after=2), same(3, "rate_limited")),
    "429, wait 60 s": (Status(status=429, retry_after=60), same(1, "rate_limited")),
    "429, wait nonsense": (Status(status=429, retry_after="soon, -1"), same(3, "rate_limited")),
    "429, wait until long ago": (
        Status(status=429, retry_after="Sun, 06 Nov 1994 08:49:37 GMT"),
        same(3, "rate_limited"),
    ),
    "429, a quota": (Status(status=429, code="QUOTA_EXCEEDED"), same(1, "quota_exceeded")),
    "503, wait 3 s": (Status(status=503, retry_after=3), LOST),
    "reset before": (Reset(), LOST),
    "reset after": (Reset(moment=FaultMoment.AFTER), LOST),
    "reset within the body": (Reset(sent=10), BROKEN),
    "truncated": (Truncate(), BROKEN),
    "truncated at once": (Truncate(kept=0), BROKEN),
    "hang": (Hang(), ENDLESS),
    "hang after the change": (Hang(moment=FaultMoment.AFTER), ENDLESS),
    "drip": (Drip(), ENDLESS),
    "garbage": (Spoiled(kind="garbage"), UNCERTAIN),
    "NaN": (Spoiled(kind="nan"), UNREADABLE),
    "lone surrogate": (Spoiled(kind="lone_surrogate"), UNREADABLE),
    "deep nesting": (Spoiled(kind="deep_nesting"), UNREADABLE),
    "gzip bomb": (Spoiled(kind="gzip_bomb", size=16 * 1024 * 1024), TOO_LARGE),
    "huge": (Spoiled(kind="huge"), TOO_LARGE),
    **{f"redirect {status}": (Redirect(status=status, to=SINK), expected) for status, expected in REDIRECTS.items()},
    **{f"echo of the key, {status}": (EchoKey(status=status), expected) for status, expected in ECHOED.items()},
}


@dataclass
class Served:
    """A sandbox, its address, and the transport that leads to it."""

    sandbox: FaultySandbox
    url: str
    transport_factory: TransportFactory

    def asked(self, method: str) -> int:
        return sum(request.method == method for request in self.sandbox.requests)

    def customers(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self.sandbox.state.all("customers")]

    def call(self, method: str) -> Operation[Any]:
        """Return a call that uses this HTTP method and makes a change if it can."""
        first = str(self.customers()[0]["id"])
        calls: dict[str, Operation[Any]] = {
            "GET": GetCustomer(customer_id=first),
            "PUT": UpdateCustomer(customer_id=first, name="Initech"),
            "DELETE": DeleteCustomer(customer_id=first),
            "POST": CreateCustomer(name="Initech"),
        }
        return calls[method]


@pytest.fixture(scope="module")
def serving() -> Generator[Served]:
    sandbox = FaultySandbox(lambda: datetime.now(UTC))
    options: dict[str, Any] = {"log_level": "critical", "access_log": False, "timeout_graceful_shutdown": 1}
    with listening(create_faulty_app(sandbox), **options) as url:
        yield Served(sandbox, url, HttpTransport)


@pytest.fixture
def served(serving: Served, transport_factory: TransportFactory) -> Served:
    serving.sandbox.reset()
    return replace(serving, transport_factory=transport_factory)


@pytest.fixture
def sink() -> Generator[socket.socket]:
    """Open a socket that never answers. Its port may be one at which another test still looks for a server."""
    with socket.create_server(("127.0.0.1", 0)) as unheard:
        unheard.setblocking(False)
        yield unheard
        failure = b""
        with suppress(BlockingIOError):
            while True:
                with unheard.accept()[0] as came, suppress(TimeoutError):
                    came.settimeout(1)
                    failure += came.recv(1000)
        assert failure == b""


@asynccontextmanager
async def connected(
    served: Served, deadline: float = PATIENT, auth: Literal["header", "bearer"] = "header"
) -> AsyncGenerator[tuple[FastnClient, list[float]]]:
    """Return the real client, whose waits are recorded and take no time."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await anyio.lowlevel.checkpoint()

    endpoint = Settings(base_url=served.url, api_key=KEY, auth=auth, deadline=deadline)
    exchange = HttpExchange(served.url, headers(endpoint), transport_factory=served.transport_factory)
    async with aclosing(FastnClient(endpoint, exchange, System(sleep=sleep, share=lambda: 0.5))) as client:
        yield client, waits


def all_of(error: FastnError) -> str:
    chain = [repr(link) for link in (error.__cause__, error.__context__)]
    return "\n".join([str(error), repr(error), json.dumps(error.data()), json.dumps(error.facts), *chain])


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TABLE)
async def test_fault_has_the_outcome_of_the_table(name: str, method: str, served: Served, sink: socket.socket) -> None:
    fault, expected = TABLE[name]
    requests, outcome, known = expected[method]
    where = {"to": f"http://127.0.0.1:{sink.getsockname()[1]}/"} if isinstance(fault, Redirect) else {}
    before, call = served.customers(), served.call(method)
    served.sandbox.faults.add(fault.model_copy(update={"method": method, "times": None, **where}))
    deadline = HASTY if isinstance(fault, (Hang, Drip)) else PATIENT
    async with connected(served, deadline) as (client, waits):
        with anyio.fail_after(HANGING), pytest.raises(FastnError) as caught:
            await client.send(call)
        failure = caught.value
        assert (served.asked(method), failure.outcome, failure.known) == (requests, outcome, known)
        assert len(waits) == requests - 1
        assert KEY not in all_of(failure)
        assert failure.next_step
        assert served.customers() == before or known in (UNKNOWN, DONE)
        assert served.customers() != before or known != DONE
        assert ("settle" in failure.data()) == (known in (UNKNOWN, DONE))
        served.sandbox.faults.clear()
        with anyio.fail_after(HANGING):
            assert (await client.send(ListCustomers(limit=1))).model_dump()


ONE_MORE: dict[str, tuple[int, str]] = dict.fromkeys(METHODS, (2, ""))
"""How often the sandbox is asked, and the outcome; it is empty where the call works all the same."""
NOT_A_POST = ONE_MORE | {"POST": (1, "unknown_outcome")}
DONE_BEFORE = NOT_A_POST | {"PUT": (2, "unknown_outcome")}
"""The repeated `PUT` names the version that its first attempt has replaced: a conflict, perhaps with itself."""

PASSING: dict[str, tuple[Fault, dict[str, tuple[int, str]]]] = {
    "408": (Status(status=408), NOT_A_POST),
    "500": (Status(status=500), NOT_A_POST),
    "503, wait 1 s": (Status(status=503, retry_after=1), NOT_A_POST),
    "reset before": (Reset(), NOT_A_POST),
    "429": (Status(status=429), ONE_MORE),
    "429, wait 2 s": (Status(status=429, retry_after=2), ONE_MORE),
    "500 after the change": (Status(status=500, moment=FaultMoment.AFTER), DONE_BEFORE),
    "reset after": (Reset(moment=FaultMoment.AFTER), DONE_BEFORE),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PASSING)
async def test_transient_fault_costs_one_more_request(name: str, method: str, served: Served) -> None:
    fault, expected = PASSING[name]
    requests, outcome = expected[method]
    call, before = served.call(method), len(served.customers())
    served.sandbox.faults.add(fault.model_copy(update={"method": method}))
    failure = ""
    async with connected(served) as (client, waits):
        with anyio.fail_after(HANGING):
            try:
                await client.send(call)
            except FastnError as error:
                failure = error.outcome
    assert (served.asked(method), failure) == (requests, outcome)
    assert all(0 < wait <= 2 for wait in waits)
    names = [row["name"] for row in served.customers()]
    done_once = {"GET": before, "PUT": before, "DELETE": before - 1, "POST": before + names.count("Initech")}
    assert len(names) == done_once[method]
    assert names.count("Initech") <= 1


@pytest.mark.parametrize("method", METHODS)
async def test_refused_connection_is_tried_three_times(method: str, served: Served) -> None:
    """Nothing was sent, so even a POST may be retried."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    async with connected(replace(served, url=url)) as (client, waits):
        with anyio.fail_after(HANGING), pytest.raises(FastnError) as caught:
            await client.send(served.call(method))
    assert (caught.value.outcome, caught.value.known) == ("not_sent", "Nothing was sent.")
    assert len(waits) == 2
    assert KEY not in all_of(caught.value)
    assert not served.sandbox.requests


@pytest.mark.parametrize("name", [name for name in TABLE if name.startswith(("echo", "redirect", "401"))])
async def test_bearer_key_is_redacted_too(name: str, served: Served, sink: socket.socket) -> None:
    where = {"to": f"http://127.0.0.1:{sink.getsockname()[1]}/"} if isinstance(TABLE[name][0], Redirect) else {}
    served.sandbox.faults.add(TABLE[name][0].model_copy(update={"times": None, **where}))
    async with connected(served, auth="bearer") as (client, _):
        with anyio.fail_after(HANGING), pytest.raises(FastnError) as caught:
            await client.send(served.call("GET"))
    assert caught.value.outcome == TABLE[name][1]["GET"][1]
    assert KEY not in all_of(caught.value)


async def test_fault_affects_only_its_own_call(served: Served) -> None:
    """Connections are pooled, and a broken one does not break other calls."""
    ids = [str(row["id"]) for row in served.customers()]
    for fault in (
        Reset(sent=10),
        Truncate(),
        Reset(),
        Spoiled(kind="garbage"),
        Status(status=503),
        Spoiled(kind="huge"),
    ):
        served.sandbox.faults.add(fault.model_copy(update={"path": f"/api/v1/customers/{ids[0]}", "times": 3}))
    fates: dict[str, list[str]] = {one: [] for one in ids}
    async with connected(served) as (client, _):

        async def ask(one: str) -> None:
            try:
                answer = await client.send(GetCustomer(customer_id=one))
                fates[one].append("" if row_of(answer).get("id") == one else "another's")
            except FastnError as error:
                fates[one].append(error.outcome)

        with anyio.fail_after(HANGING):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    for one in ids:
                        tasks.start_soon(ask, one)
    assert set(fates[ids[0]]) <= {"", "failed", "too_large"}
    assert len(fates[ids[0]]) == 20
    assert all(fates[one] == [""] * 20 for one in ids[1:])
