"""Local HTTP is reachable by every user of the machine, and serves only those who can read its token."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from support.other_user import as_other_user, needs_two_users
from support.ports import free_port
from support.server_process import ERAS, Person, approving, body, over_http, running

from fastn_mcp.cli.serve import served_hosts

ATTACK = """
url, mode, folder = sys.argv[1:]

async def attack():
    said = {"read": []}
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                said["read"].append(open(os.path.join(at, name)).read())
            except PermissionError:
                pass
    for method in ("list_tools", "call_tool"):
        try:
            async with Client(url, mode=mode) as client:
                arguments = () if method == "list_tools" else ("list_customers", {})
                said[method] = (await getattr(client, method)(*arguments)).model_dump(mode="json")
        except BaseException as error:
            inner = error
            while getattr(inner, "exceptions", None):
                inner = inner.exceptions[0]
            said[method] = f"refused: {inner}"
    async with httpx2.AsyncClient() as http:
        plain = await http.post(url, json={"jsonrpc": "2.0", "id": 7, "method": "tools/list"})
        said["status"], said["challenge"] = plain.status_code, plain.headers.get("www-authenticate")
        said["answer"] = plain.json()
        said["health"] = (await http.get(url.replace("/mcp", "/healthz"))).json()
    print(json.dumps(said))

anyio.run(attack)
"""


def own(home: Path) -> dict[str, str]:
    folders = {"FASTN_CONFIG_DIR": str(home / "config"), "FASTN_STATE_DIR": str(home / "state")}
    return {"FASTN_CONFIG": os.devnull, "FASTN_HTTP_TOKEN": "", "FASTN_APPROVAL_WAIT_SECONDS": "0"} | folders


def bearer(home: Path) -> dict[str, str]:
    return {"authorization": f"Bearer {(home / 'state' / 'sandbox' / 'http-token').read_text().strip()}"}


@pytest.mark.long
@needs_two_users
@pytest.mark.parametrize("era", ERAS)
def test_another_user_cannot_list_tools_or_read_the_token(era: str, home: Path) -> None:
    """docs/clients.md: a real client of another user is told where the token is, and gets no further."""
    port = free_port()
    with running("--sandbox", "--http", f"127.0.0.1:{port}", port=port, env=own(home)):
        said: dict[str, Any] = json.loads(as_other_user(ATTACK, f"http://127.0.0.1:{port}/mcp", ERAS[era], str(home)))
    assert said["read"] == []
    assert said["list_tools"].startswith("refused: ")
    assert said["call_tool"].startswith("refused: ")
    assert (said["status"], said["challenge"]) == (401, 'Bearer realm="fastn-mcp"')
    assert said["answer"]["id"] == 7
    assert str(home / "state" / "sandbox" / "http-token") in said["answer"]["error"]["message"]
    assert said["health"] == {"status": "ok"}


@pytest.mark.parametrize(("host", "sent"), [("::1", "[::1]:80"), ("127.0.0.2", "127.0.0.2:80")])
def test_served_address_is_an_allowed_host(host: str, sent: str) -> None:
    """RFC 9110, section 7.2: a client sends an IPv6 address in brackets."""
    assert served_hosts(host, 80) == {sent, "localhost:80", "127.0.0.1:80"}


@pytest.mark.long
@pytest.mark.parametrize("era", ERAS)
async def test_token_is_valid_after_a_restart(era: str, home: Path) -> None:
    """A client's configuration outlives the server. Its forms are trusted, as the client has the token."""
    tokens: list[dict[str, str]] = []
    for _ in range(2):
        port = free_port()
        with running("--sandbox", "--http", f"127.0.0.1:{port}", port=port, env=own(home)):
            tokens.append(bearer(home))
            server = over_http(f"http://127.0.0.1:{port}/mcp", tokens[-1])
            async with Client(server, mode=ERAS[era], elicitation_callback=Person(approving, reading=1.1)) as client:
                assert body(await client.call_tool("list_customers", {"limit": 1}))["data"]
    assert tokens[0] == tokens[1]
    file = home / "state" / "sandbox" / "http-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


WRONG: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "empty": [("authorization", "")],
    "no scheme": [("authorization", "{token}")],
    "another scheme": [("authorization", "Basic {token}")],
    "a part of it": [("authorization", "Bearer {token:.63}")],
    "more than it": [("authorization", "Bearer {token}x")],
    "another case": [("authorization", "Bearer {swapped}")],
    "twice": [("authorization", "Bearer {token}")] * 2,
    "in another header": [("x-authorization", "Bearer {token}")],
}


def test_only_the_whole_token_is_accepted_and_only_health_is_open(home: Path) -> None:
    """RFC 6750: 401 with a challenge, with `invalid_token` only if a token was sent. No response holds the token."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running("--sandbox", "--http", f"127.0.0.1:{port}", port=port, env=own(home)), httpx2.Client() as http:
        right = bearer(home)
        token = right["authorization"].removeprefix("Bearer ")
        for what, headers in WRONG.items():
            filled = [(name, value.format(token=token, swapped=token.swapcase())) for name, value in headers]
            answer = http.post(f"{url}/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=filled)
            assert answer.status_code == 401, what
            challenge = answer.headers["www-authenticate"]
            assert re.match(r'Bearer realm="fastn-mcp"(, error="invalid_token"|$)', challenge), what
            assert ("invalid_token" in challenge) == ("authorization" in dict(filled)), what
            assert token not in answer.text + challenge
        for method in ("GET", "DELETE"):
            assert http.request(method, f"{url}/mcp").status_code == 401
        assert [http.get(url + path).status_code for path in ("/", "/.well-known/x", "/mcp%0A", "/mcp/")] == [404] * 4
        assert [http.get(url + path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        # A web page is not even told where the token is.
        foreign = http.post(f"{url}/mcp", json={}, headers={"origin": "https://evil.example"})
        assert (foreign.status_code, "http-token" in foreign.text) == (403, False)
        accept = {"accept": "application/json, text/event-stream"}
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        assert http.post(f"{url}/mcp", json=ping, headers=right | accept).status_code == 200
