"""The server over HTTP, with raw requests, hostile bodies and incomplete requests."""

import json
import os
import signal
import socket
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.command_line import error_line, run_command
from support.ports import free_port
from support.raw_client import HTTP_HEADERS, META, in_era, search
from support.server_process import BEARER, HTTP_TOKEN, each_era, running, started
from support.team_world import MODERN, modern, reply_of

CANARY = "C4N4RY"
LIST = modern("list_customers")
HEADERS = BEARER | HTTP_HEADERS


@pytest.fixture(scope="module")
def served(isolated: dict[str, str]) -> Generator[str]:
    port = free_port()
    with running("--sandbox", "--http", f"127.0.0.1:{port}", port=port, env=isolated):
        yield f"http://127.0.0.1:{port}"


def ask(served: str, body: object, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.post(f"{served}/mcp", content=content, headers=HEADERS | headers, timeout=20, verify=False)


def request(method: str = "tools/call", *, era: str = MODERN, **params: Any) -> dict[str, Any]:
    meta = {"_meta": META} if era == MODERN else {}
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params | meta}


def alive(served: str) -> None:
    reply = reply_of(ask(served, request(name="list_customers", arguments={"limit": 1}), **LIST))
    assert len(reply["result"]["structuredContent"]["data"]) == 1


def test_legacy_request_is_answered_without_a_session(served: str) -> None:
    """MCP 2025-11-25. Stateless, so that any replica can answer; no session id is issued."""
    hello = request(
        "initialize",
        era="2025-11-25",
        protocolVersion="2025-11-25",
        capabilities={},
        clientInfo={"name": "bytes", "version": "1"},
    )
    for body in (hello, request(era="2025-11-25", name="list_customers", arguments={"limit": 1})):
        response = ask(served, body)
        assert response.status_code == 200
        assert "mcp-session-id" not in response.headers
        assert "result" in reply_of(response)


def test_current_request_is_answered_as_json(served: str) -> None:
    """MCP 2026-07-28."""
    response = ask(served, request(name="list_customers", arguments={"limit": 1}), **LIST)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert reply_of(response)["result"]["resultType"] == "complete"


@pytest.mark.parametrize("tail", ["", ".evil.example", "0"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:{port}", "127.0.0.1:1", "0.0.0.0:{port}", "localhost"])
def test_foreign_host_is_rejected(host: str, tail: str, served: str) -> None:
    """421 unless the Host is exactly ours, against DNS rebinding."""
    named = host.format(port=served.rpartition(":")[2]) + tail
    ours = named == served.removeprefix("http://")
    assert ask(served, request("ping", era=""), host=named).status_code == (200 if ours else 421)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost", "http://127.0.0.1.evil:80"])
def test_foreign_origin_is_rejected(origin: str, served: str) -> None:
    """MCP: a foreign Origin gets 403 before anything is read."""
    assert ask(served, request("ping", era=""), origin=origin).status_code == 403
    assert ask(served, request("ping", era=""), origin=served).status_code == 200


def test_health_needs_no_token_and_has_no_details(served: str) -> None:
    response = httpx2.get(f"{served}/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert "server" not in response.headers


MANY_LISTS: list[object] = [[]] * 30_000


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (["failed"] * 45_000, "status: 45,000 values; at most 100 are accepted. Nothing was sent."),
        (MANY_LISTS, "30,007 lists and objects; at most 20,000 are accepted. Nothing was sent."),
    ],
)
def test_oversized_argument_is_refused_before_it_is_parsed_again(served: str, value: object, problem: str) -> None:
    answer = ask(served, request(name="list_executions", arguments={"status": value}), **LIST)
    assert answer.json()["error"]["message"] == problem


def test_invalid_http_request_is_rejected(served: str) -> None:
    """MCP: JSON by POST, at one path, of a limited size."""
    body = request(name="list_customers", arguments={"search": CANARY * 875_000})
    assert ask(served, body, **LIST).status_code == 413
    assert ask(served, body).status_code == 413
    assert ask(served, request("ping"), **{"content-type": "text/plain"}).status_code == 400
    assert httpx2.put(f"{served}/mcp", content=b"{}", headers=HEADERS).status_code == 405
    assert httpx2.get(f"{served}/", headers=HEADERS).status_code == 404
    alive(served)


HOSTILE: dict[str, str | bytes] = {
    "half a character": search(f'"{CANARY}\\ud800"'),
    "5,000 levels": search("[" * 5000 + "]" * 5000),
    "300 levels": search("[" * 300 + "]" * 300),
    "an integer of 5,000 digits": search("9" * 5000),
    "no number": search("NaN"),
    "bytes that are no UTF-8": search(f'"{CANARY}X"').encode().replace(b"X", b"\xff\xfe"),
    "half a message": '{"jsonrpc":"2.0","id":7,"method":"ping","params":{',
    "nothing": "",
    "an array": "[1]",
    "a number": "12",
    "arguments that are an array": search("1").replace('{"search":1}', f'["{CANARY}"]'),
    "an unknown argument": search(f'"{CANARY}"').replace("search", "serch"),
}


@each_era
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_body_gets_an_error(what: str, era: str, served: str) -> None:
    sent = HOSTILE[what]
    response = ask(served, in_era(sent, era), **(LIST if era == MODERN else {}))
    assert response.status_code in (200, 400)
    reply = reply_of(response)
    if "error" in reply:
        assert reply["error"]["code"] in (-32700, -32600, -32602)
    else:
        assert reply["result"]["structuredContent"]["outcome"] == "not_sent"
    assert CANARY not in response.text
    alive(served)


@pytest.mark.parametrize("id_", ["null", "1.5", "true", "{}"])
def test_request_with_invalid_id_runs_nothing(id_: str, served: str) -> None:
    """MCP: an id is a string or an integer. An error, where the SDK takes it for a notification."""
    body = search(f'"{CANARY}"', id_)
    new = ask(served, in_era(body, MODERN), **LIST)
    assert (new.status_code, reply_of(new)["error"]["code"]) == (400, -32600)
    old = ask(served, in_era(body, "2025-11-25"))
    assert old.status_code in (202, 400)
    assert CANARY not in new.text + old.text


def test_headers_must_match_the_body(served: str) -> None:
    """MCP 2026-07-28: the call is the one that a proxy saw in the headers."""
    response = ask(served, request(name="delete_customer", arguments={"customer_id": "c1"}), **LIST)
    assert response.status_code == 400
    assert reply_of(response)["error"]["code"] == -32020


@pytest.mark.parametrize(
    ("begun", "endless"),
    [
        (b"POST /mcp HTTP/1.1\r\nHost: x\r\n", b"X-Filler: " + b"a" * 4096 + b"\r\n"),
        (b"POST /mcp HTTP/1.1\r\nHost: x\r\nX-Filler: ", b"a" * 4096),
        (b"POST /" + b"a" * 100, b"a" * 4096),
        (b"POST /mcp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 4096),
        (
            b"POST /mcp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n",
            b"X-Filler: " + b"a" * 4096 + b"\r\n",
        ),
    ],
    ids=["many lines", "a long line", "an address", "a chunk's extension", "after the body"],
)
def test_endless_head_closes_the_connection(begun: bytes, endless: bytes, served: str) -> None:
    taken = 0
    with socket.create_connection(("127.0.0.1", int(served.rpartition(":")[2])), timeout=10) as client:
        client.sendall(begun)
        with suppress(BrokenPipeError, ConnectionResetError):
            while taken < 20_000_000:
                client.sendall(endless)
                taken += len(endless)
    assert taken < 10_000_000  # most of it in socket buffers on both sides
    alive(served)


@pytest.mark.parametrize("size", [1_000, 60_000])
def test_large_head_is_accepted(size: int, served: str) -> None:
    """Some access tokens are long, and a connection can carry many requests."""
    with httpx2.Client(headers={"x-filler": "a" * size}) as client:
        for _ in range(3):
            body = request(name="list_customers", arguments={"limit": 1})
            assert client.post(f"{served}/mcp", json=body, headers=HEADERS | LIST).status_code == 200


@pytest.mark.posix
def test_stopped_server_leaves_neither_a_page_nor_an_open_ledger(isolated: dict[str, str], tmp_path: Path) -> None:
    """Another program could listen at the port of the page that its file names."""
    port, state = free_port(), tmp_path / "state"
    env = isolated | {"FASTN_STATE_DIR": str(state), "BROWSER": "true", "FASTN_APPROVAL_WAIT_SECONDS": "0"}
    with started("--sandbox", "--http", f"127.0.0.1:{port}", port=port, env=env) as process:
        served = f"http://127.0.0.1:{port}"
        secret = request(name="create_secret", arguments={"name": "a", "value": "b"}, era="2025-11-25")
        assert reply_of(ask(served, secret))["result"]["structuredContent"]["status"] == "approval_required"
        assert {"page.json", "browser", "ledger.sqlite-wal"} <= {each.name for each in state.glob("sandbox/*")}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    left = {each.name for each in state.glob("sandbox/**/*") if each.is_file()}
    assert left == {"audit.jsonl", "ledger.sqlite"}


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_half_open_clients_do_not_keep_the_process(number: signal.Signals, isolated: dict[str, str]) -> None:
    port = free_port()
    with started("--sandbox", "--http", f"127.0.0.1:{port}", port=port, env=isolated) as process:
        head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {HTTP_TOKEN}\r\n"
        head += "Content-Type: application/json\r\n"
        whole = f"{head}Accept: application/json, text/event-stream\r\nContent-Length: 1000\r\n\r\n{{"
        with (
            socket.create_connection(("127.0.0.1", port)) as half_a_head,
            socket.create_connection(("127.0.0.1", port)) as half_a_body,
        ):
            half_a_head.sendall(head.encode())
            # Only a request whose body has begun is in flight and gets the grace period.
            half_a_body.sendall(whole.encode() if number is signal.SIGTERM else b"POST")
            alive(f"http://127.0.0.1:{port}")
            process.send_signal(number)
            assert process.wait(10) == 0


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:8080", "[::]:8080", "example.com:8080", "127.0.0.1", "127.0.0.1:65536", ":8080", "127.0.0.1:8²", ""],
)
def test_foreign_or_invalid_address_is_rejected(address: str, tmp_path: Path) -> None:
    env = {"FASTN_CONFIG": os.devnull, "FASTN_CONFIG_DIR": str(tmp_path), "FASTN_STATE_DIR": str(tmp_path)}
    done = run_command(["--sandbox", "--http", address], env)
    assert "--http " in error_line(done, "127.0.0.1")


@pytest.mark.extension("valkey")
def test_shared_ledger_requires_a_state_secret(isolated: dict[str, str]) -> None:
    """Fail closed. Without a shared secret a form would be lost at another replica."""
    env = isolated | {"FASTN_LEDGER": "valkey://user:canary@127.0.0.1:1/"}
    message = error_line(run_command(["--sandbox", "--http", f"127.0.0.1:{free_port()}"], env))
    assert message == (
        "The ledger is shared, but state_secret is not set: no other replica could continue an approval request."
        " Set FASTN_STATE_SECRET to the same 32 characters or more on each replica."
    )
