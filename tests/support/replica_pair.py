"""Two processes of a team's server on one Valkey: their provider, their Fastn, and people at their page."""

import json
import os
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client

from fastn_mcp.extensions.sandbox.app import create_app
from fastn_mcp.extensions.sandbox.auth import KEY
from support.approval_world import APPROVERS, PAGE
from support.audit_entries import entries
from support.faulty_sandbox import FaultySandbox
from support.identity_provider import Provider, listening
from support.page_visitor import Visitor
from support.ports import free_port
from support.server_process import over_http, running
from support.team_page import result
from support.team_world import ALL, Caller, tenant

POLICY = '[defaults]\ndestroy = "out_of_band"\n'
STATE_SECRET = "s" * 32


def person(name: str) -> dict[str, Any]:
    """Return what the provider says of an approver."""
    return {"sub": name, "name": f"{name.title()} Example", "groups": ["approvers"]}


@dataclass
class Replicas:
    """The started replicas. Each has its own state folder; they share only the ledger."""

    provider: Provider
    sandbox: FaultySandbox
    site: str
    """Address of the page, whichever replica answers."""
    one: int
    other: int
    folder: Path
    processes: Mapping[int, "subprocess.Popen[bytes]"]

    def deleted(self) -> int:
        return len([request for request in self.sandbox.requests if request.method == "DELETE"])

    def token(self) -> str:
        """Return anna's token, by which her agents call."""
        return self.provider.token(
            sub="anna", name="Anna Example", email="anna@acme.example", groups=["acme"], scope=ALL, aud="the-team"
        )

    def agent(self, port: int) -> Client:
        return Client(over_http(f"http://127.0.0.1:{port}/mcp", {"authorization": f"Bearer {self.token()}"}))

    def state(self, port: int) -> Path:
        return self.folder / str(port)

    def audited(self, event: str) -> list[tuple[int, dict[str, Any]]]:
        """Return the audit entries of an event, each with its replica."""
        files = {port: self.state(port) / "tenants" / "acme" / "audit.jsonl" for port in (self.one, self.other)}
        lines = [(port, dict(line)) for port, file in files.items() if file.exists() for line in entries(file)]
        return [(port, line) for port, line in lines if line["event"] == event]

    def approved(self) -> list[tuple[int, str]]:
        """Return which replica audited whose approval."""
        return [(port, str(line["approver_name"])) for port, line in self.audited("approved")]

    @asynccontextmanager
    async def visitor(self, name: str, port: int) -> AsyncGenerator[Visitor]:
        """Return a person who is signed in at the page of one replica."""
        headers = {"host": httpx2.URL(self.site).netloc.decode()}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as http:
            visitor = Visitor(http, self.site, self._provided)
            assert (await visitor.sign_in(name)).status_code == 303
            yield visitor

    @asynccontextmanager
    async def caller(self, port: int) -> AsyncGenerator[Callable[..., Awaitable[dict[str, Any]]]]:
        """Return what calls a tool of one replica for anna, by one HTTP request each."""
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            yield partial(Caller(http).result, self.token())

    @asynccontextmanager
    async def deletion(self, kind: str, name: str) -> AsyncGenerator[list[dict[str, Any]]]:
        """Let an agent of anna's delete something by way of one replica, which asks people. Yields its results."""
        results: list[dict[str, Any]] = []
        async with self.agent(self.one) as agent, anyio.create_task_group() as tasks:
            target = (await result(agent, f"list_{kind}s", search=name))["data"][0]

            async def delete() -> None:
                results.append(await result(agent, f"delete_{kind}", **{f"{kind}_id": target["id"]}))

            tasks.start_soon(delete)
            yield results
        assert len(results) == 1

    async def _provided(self, url: str, name: str) -> str:
        self.provider.person = person(name)
        async with httpx2.AsyncClient(timeout=30) as http:
            return (await http.get(url)).headers["location"]


@contextmanager
def two_replicas(
    folder: Path, ledger: str, *, wait: int = 0, site: int | None = None, policy: str = POLICY,
    settings: Callable[[str], str] = lambda _: "", env: Mapping[str, str] | None = None, issuer: str | None = None,
) -> Generator[Replicas]:  # fmt: skip
    """Run them. `settings` returns more of the tenant's table, for an issuer; `site` is the page's port, if another.

    With `issuer` the team signs in there, and the provider is another issuer that `settings` may name.
    """
    login, fastn, one, other = (free_port() for _ in range(4))
    provider = Provider(f"http://127.0.0.1:{login}", "the-team")
    sandbox = FaultySandbox(lambda: datetime.now(UTC))
    (folder / "policy.toml").write_text(policy)
    file, hosts = folder / "team.toml", [f"127.0.0.1:{port}" for port in (site or one, one, other)]
    head = f'url = "http://{hosts[0]}/mcp"\nissuer = "{issuer or provider.issuer}"\nhosts = {json.dumps(hosts)}\n'
    acme = {"groups": ["acme"], "api_key_env": "ACME_KEY", "base_url": f"http://127.0.0.1:{fastn}", "mode": "guarded"}
    acme |= {"policy": "policy.toml", "approval_wait_seconds": wait}
    text = f'{head}audience = "the-team"\n{PAGE}{APPROVERS}{tenant("acme", **acme)}'
    file.write_text(text + settings(provider.issuer))
    for written in (file, folder / "policy.toml"):
        written.chmod(0o600)
    shared = {"FASTN_CONFIG": os.devnull, "FASTN_STATE_SECRET": STATE_SECRET, "FASTN_LEDGER": ledger}
    shared |= {"ACME_KEY": KEY, "PAGE_SECRET": "egap", **(env or {})}
    with ExitStack() as stack:
        stack.enter_context(listening(provider.app, login))
        stack.enter_context(listening(create_app(sandbox), fastn))
        processes: dict[int, subprocess.Popen[bytes]] = {}
        for port in (one, other):
            own = dict.fromkeys(("FASTN_CONFIG_DIR", "FASTN_STATE_DIR"), str(folder / str(port)))
            command = ("--http", f"127.0.0.1:{port}", "--team", str(file))
            processes[port] = stack.enter_context(running(*command, port=port, env=shared | own))
        yield Replicas(provider, sandbox, f"http://127.0.0.1:{site or one}", one, other, folder, processes)
