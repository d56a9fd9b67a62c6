"""A team's server in this process: its provider, its tenants on sandboxes of their own, and people who call it."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx2

from fastn_mcp.build.startup import Process, Sandboxed
from fastn_mcp.config.load import load
from fastn_mcp.extensions.team.builder import TenantBuilder
from fastn_mcp.extensions.team.oidc import IssuerKeys
from fastn_mcp.extensions.team.serve import application
from fastn_mcp.extensions.team.team_config import Team, load_team
from fastn_mcp.runtime import System
from fastn_mcp.server import log
from fastn_mcp.server.http.app import Health
from support import raw_client
from support.identity_provider import AUDIENCE, Provider
from support.raw_client import HTTP_HEADERS

MODERN = "2026-07-28"
NO_FORMS = raw_client.META
"""Of a client that can show no form."""
META: dict[str, Any] = NO_FORMS | {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}
ALL = "fastn:read fastn:write fastn:destroy fastn:admin"
"""Every scope."""
HEAD = f'url = "{AUDIENCE}"\nissuer = "https://login.example.com/realms/team"\norigins = ["https://app.example.com"]\n'


def tenant(name: str, **settings: Any) -> str:
    """Return the table of a tenant whose calls do not wait for a person, unless a setting says so."""
    lines = {"name": name, "approval_wait_seconds": 0, **settings}
    return "\n[[tenant]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in lines.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in pairs)} }}"
    return json.dumps(value)


ACME = {"subjects": ["anna", "amir"], "api_key_env": "ACME_KEY", "mode": "guarded"}
TENANTS = (
    tenant("acme", **ACME)
    + tenant("globex", groups=["globex-*"], api_key_env="GLOBEX_KEY")
    + tenant("own", claims={"tier": "own"}, caller_keys=True, mode="guarded")
)
KEYS = {"ACME_KEY": "fsk_test_acme", "GLOBEX_KEY": "fsk_test_globex"}


def written(folder: Path, text: str) -> Path:
    file = folder / "team.toml"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    return file


@dataclass
class TeamWorld:
    """Everything that a request meets, without sockets."""

    folder: Path
    text: str = HEAD + TENANTS
    provider: Provider = field(default_factory=Provider)
    environment: dict[str, str] = field(default_factory=lambda: dict(KEYS))
    health: Health = field(default_factory=Health)
    system: System = field(default_factory=System)

    def __post_init__(self) -> None:
        self.team: Team = load_team(written(self.folder, self.text))
        self.environment |= {"FASTN_CONFIG_DIR": str(self.folder), "FASTN_STATE_DIR": str(self.folder)}
        lines = log.JsonLines(())
        shared = load({"api_key": "-"}, {n: v for n, v in self.environment.items() if n == "FASTN_STATE_SECRET"}, None)
        process = Process(self.environment, Sandboxed())
        self.opening = TenantBuilder(self.team, shared, process, None, self.folder, lines, self.system)
        self.keys = IssuerKeys(self.team.issuer, self.system, httpx2.ASGITransport(app=self.provider.app))

    @asynccontextmanager
    async def served(self) -> AsyncGenerator["Caller"]:
        app = application(self.opening, self.keys, self.health)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=app), base_url="https://fastn-mcp.example.com"
            ) as http,
        ):
            yield Caller(http)


@dataclass
class Caller:
    """Sends requests of the new era, and of the old one."""

    http: httpx2.AsyncClient

    async def ask(self, token: str | None, body: object, **headers: str) -> httpx2.Response:
        sent = HTTP_HEADERS if token is None else HTTP_HEADERS | {"authorization": f"Bearer {token}"}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post("/mcp", content=content, headers=sent | headers)

    async def call(self, token: str | None, tool: str, own: str | None = None, /, **arguments: Any) -> httpx2.Response:
        """Calls a tool, in the new era; `own` is a Fastn key of the caller's."""
        key = {} if own is None else {"x-fastn-api-key": own}
        return await self.ask(token, request(tool, arguments), **modern(tool), **key)

    async def result(self, token: str, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """What the agent reads."""
        return reply_of(await self.call(token, tool, **arguments))["result"]["structuredContent"]


def reply_of(answer: httpx2.Response) -> dict[str, Any]:
    """Return the response to an MCP request, which is a stream if it took long; `IndexError` if that was cut off."""
    is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
    return json.loads(re.findall("^data: (.*)$", answer.text, re.MULTILINE)[-1] if is_stream else answer.text)


def request(tool: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments, "_meta": META} | more
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


def modern(tool: str) -> dict[str, str]:
    return {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": tool}


def challenge(response: httpx2.Response) -> dict[str, str]:
    """The parts of a Bearer challenge."""
    said = response.headers["www-authenticate"]
    assert said.startswith("Bearer ")
    pairs = [part.partition("=") for part in said.removeprefix("Bearer ").split(", ")]
    return {name: value.strip('"') for name, _, value in pairs}
