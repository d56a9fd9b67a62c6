"""An agent at the real server in its own process, before a served sandbox that other clients use too."""

import html
import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mcp import Client

from support.local_page import recording_browser, typed_on_the_page
from support.ports import free_port
from support.server_process import ERAS, OUTSIDE, Person, Upstream, body, environment, over_http, running, stdio


def id_of(upstream: Upstream, kind: str, name: str) -> str:
    rows = upstream.ask("GET", f"{kind}?limit=100")
    return next(str(row["id"]) for row in rows if name in (row["name"], row.get("slug")))


def fails(upstream: Upstream, path: str) -> None:
    """Let every read of this path fail."""
    upstream.fault(kind="status", status=400, method="GET", path=path, times=None)


@dataclass
class Agent:
    """An agent at a server, and what can be seen from outside."""

    client: Client
    upstream: Upstream
    env: dict[str, str]
    opened: Path
    """File with the pages that the browser was led to."""

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return body(await self.client.call_tool(tool, arguments))

    @property
    def sent(self) -> list[str]:
        """Changes that the server has sent."""
        requests = self.upstream.requests()
        return [f"{r['method']} {r['path']}" for r in requests if r["method"] != "GET" and OUTSIDE not in r["headers"]]

    @property
    def shown(self) -> str:
        """Text of the newest approval request."""
        ((text,),) = self.stored("SELECT text FROM requests ORDER BY created DESC LIMIT 1")
        return "\n".join(cast("list[str]", json.loads(text)))

    def stored(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(f"{self.env['FASTN_STATE_DIR']}/ledger.sqlite")) as database:
            return database.execute(statement).fetchall()

    async def type_secret(self) -> str:
        """Approve the last opened page, and type the credentials. Return what a person sees there."""
        page = await typed_on_the_page(self.opened.read_text().split()[-1], "apiKey")
        return html.unescape(page.replace('<bdi class="plain">', '"').replace("</bdi>", '"'))


@asynccontextmanager
async def agent(
    upstream: Upstream,
    folder: Path,
    version: str,
    transport: str = "stdio",
    *,
    person: Person | None = None,
    policy: str = "",
    **settings: str,
) -> AsyncGenerator[Agent]:
    browser, opened = recording_browser(folder)
    env = environment(upstream) | {"BROWSER": browser} | settings
    if policy:
        file = folder / "policy.toml"
        file.write_text(policy)
        file.chmod(0o600)
        env["FASTN_POLICY"] = str(file)
    async with AsyncExitStack() as stack:
        server: Any = stdio(env)
        if transport == "http":
            port = free_port()
            stack.enter_context(running("--http", f"127.0.0.1:{port}", port=port, env=env))
            server = over_http(f"http://127.0.0.1:{port}/mcp")
        client = await stack.enter_async_context(Client(server, mode=ERAS[version], elicitation_callback=person))
        yield Agent(client, upstream, env, opened)
