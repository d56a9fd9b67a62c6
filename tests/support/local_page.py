"""The local approval page without a browser: the address that a browser would be given, and forms filled in."""

import re
import stat
import time
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client

from fastn_mcp.ledger.approval_request import Vote
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import FILE, SqliteStore
from support.page_visitor import hidden, posted_by
from support.server_process import TLS, body
from support.stores import close

CANARY = "canary-4711-typed"


def recording_browser(folder: Path) -> tuple[str, Path]:
    """Install a browser command that only records the address it is given."""
    opened = folder / "opened"
    script = folder / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" >> {opened}\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return f"{script} %s", opened


async def globex(client: Client) -> dict[str, Any]:
    return body(await client.call_tool("list_customers", {"search": "Globex Exports"}))["data"][0]


async def approve_form(address: str, request: str = "", **typed: str) -> tuple[dict[str, str], str, str]:
    """Approve a request, or the only one, on the page that a key file opens.

    Return the form that the file posts, and both pages.
    """
    page_url, keys = posted_by(address)
    async with httpx2.AsyncClient(verify=TLS, timeout=30, follow_redirects=True) as person:
        entered = await person.post(page_url, data=keys, headers={"Origin": "null"})
        url = entered.url.join(re.findall(r"url=([^\"]+)", entered.text)[0])
        page = await person.get(url.copy_set_param("request", request))
        forms = re.finditer(r'<form class="approve"[^>]*action="([^"]*)".*?</form>', page.text, re.DOTALL)
        (form,) = (each for each in forms if request in each[0])
        for name in typed:
            assert f'name="{name}"' in form[0]
        origin = f"{page.url.scheme}://{page.url.netloc.decode()}"
        answer = hidden(form[0]) | typed | {"extent": "once"}
        sent = await person.post(str(page.url.join(form[1])), data=answer, headers={"Origin": origin})
        assert sent.status_code == 200, sent.text
    return keys, page.text, sent.text


async def approve_on_page(address: str, client: str = "mcp") -> dict[str, str]:
    """Approve on the page that a key file opens, which names the client. Return the form that the file posts."""
    keys, page, _ = await approve_form(address, name="Globex Exports")
    assert "Globex Exports" in page
    named = client if client.isalnum() else f"&#34;{client}&#34;"
    assert f'Requested by <bdi class="plain">{named}</bdi>' in page
    return keys


def env_state(env: dict[str, str]) -> str:
    """Return the content of the audit log."""
    return (Path(env["FASTN_STATE_DIR"]) / "audit.jsonl").read_text()


async def approve_all(env: dict[str, str]) -> int:
    """Approve what waits, through the ledger as the page and the terminal do. Return how much that was."""
    ledger, now = Ledger(SqliteStore(str(Path(env["FASTN_STATE_DIR"]) / FILE))), time.time()
    waiting = await ledger.waiting(now)
    for request in waiting:
        assert await ledger.decide(request, Vote("terminal", True, now), "terminal") is not None
    close(ledger)
    return len(waiting)


async def typed_on_the_page(address: str, field: str) -> str:
    """Approve on the page that a key file opens, and type the secret. Return what the page showed."""
    _, page, after = await approve_form(address, **{f"secret.{field}": CANARY})
    assert f'name="secret.{field}" type="password" required' in page
    return page + after
