"""A team's approval page in this process: agents whose calls wait, and people who sign in at its provider."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from fastn_mcp.runtime import System
from support.audit_entries import entries
from support.page_visitor import Visitor
from support.policy_files import policy_file
from support.team_world import ACME, ALL, NO_FORMS, Caller, TeamWorld, modern, request, tenant

PAGE = """
[approvals]
client_id = "page"
client_secret_env = "PAGE_SECRET"
"""
APPROVERS = """
[[approvals.approver]]
groups = ["approvers"]
"""
ACME_WITH_POLICY = tenant("acme", **ACME, policy="policy.toml")
SITE = "https://fastn-mcp.example.com"
PEOPLE: dict[str, dict[str, Any]] = {
    "anna": {"sub": "anna", "name": "Anna Example"},
    "amir": {"sub": "amir", "name": "Amir Example", "groups": ["approvers"]},
    "dana": {"sub": "dana", "name": "Dana Example", "groups": ["approvers"]},
    "kim": {"sub": "kim", "name": "Kim Example", "groups": ["approvers"]},
    "gina": {"sub": "gina", "name": "Gina Example", "groups": ["globex-approvers"]},
    "jun": {"sub": "jun", "name": "Jun Example", "groups": ["juniors"]},
    "both": {"sub": "both", "name": "Both Example", "groups": ["globex-approvers", "juniors"]},
    "nobody": {"sub": "nobody", "name": "Nobody Example", "groups": ["others"]},
}
"""Claims of those who can sign in."""


@dataclass
class ApprovalWorld:
    """A team's server, its provider, and a clock of both."""

    team: TeamWorld
    caller: Caller
    clock: list[datetime]
    heard: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """Query of each authorization request."""
    signs_in: dict[str, Any] = field(default_factory=dict[str, Any])
    """Claims about how people sign in, besides a fresh `auth_time` and a strong `acr`."""
    ago: int = 0
    """Seconds since the provider asked them to."""

    def wait(self, **time: float) -> None:
        self.clock[0] += timedelta(**time)

    @property
    def now(self) -> int:
        return int(self.clock[0].timestamp())

    async def provided(self, url: str, person: str) -> str:
        self.heard.append({name: values[0] for name, values in parse_qs(urlsplit(url).query).items()})
        claims = {"auth_time": self.now - self.ago, "acr": "phr"} | self.signs_in
        self.team.provider.person = PEOPLE[person] | {name: each for name, each in claims.items() if each is not None}
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self.team.provider.app)) as http:
            return (await http.get(url)).headers["location"]

    def http(self, cookies: dict[str, str] | None = None) -> httpx2.AsyncClient:
        """Return a client of the page with these cookies."""
        transport = self.caller.http._transport  # pyright: ignore[reportPrivateUsage]
        return httpx2.AsyncClient(transport=transport, base_url=SITE, cookies=cookies)

    @asynccontextmanager
    async def browser(self, person: str | None = None) -> AsyncGenerator[Visitor]:
        """Open the page, signed in if a person is named."""
        visitor = Visitor(self.http(), SITE, self.provided)
        if person is not None:
            answer = await visitor.sign_in(person)
            assert (answer.status_code, answer.headers.get("location")) == (303, "/approvals/")
        yield visitor

    async def call(
        self, tool: str, /, meta: dict[str, Any] = NO_FORMS, claims: dict[str, Any] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Have Anna's agent call a tool, or that of another caller with these claims."""
        held: dict[str, Any] = {"sub": "anna", "scope": ALL} | (claims or {})
        token = self.team.provider.token(**held)
        answered = await self.caller.ask(token, request(tool, arguments, _meta=meta), **modern(tool))
        return answered.json()["result"]["structuredContent"]

    async def delete(self, by: str = "anna", meta: dict[str, Any] = NO_FORMS, **claims: Any) -> dict[str, Any]:
        """Have an agent delete the customer Globex Exports."""
        caller = {"sub": by, **claims}
        customers = await self.call("list_customers", claims=caller, search="Globex")
        return await self.call("delete_customer", meta, caller, customer_id=customers["data"][0]["id"])

    def audit(self, event: str) -> list[dict[str, Any]]:
        lines = entries(self.team.folder / "tenants" / "acme" / "audit.jsonl")
        return [dict(entry) for entry in lines if entry["event"] == event]


@asynccontextmanager
async def serving(
    folder: Path, text: str, policy: str = "", clock: list[datetime] | None = None
) -> AsyncGenerator[ApprovalWorld]:
    """Serve a team file. Worlds of one folder and one clock are replicas of one server."""
    clock = clock or [datetime.now(UTC).replace(microsecond=0)]  # the SDK compares tokens with the time of the machine
    policy_file(folder, policy or '[defaults]\ndestroy = "typed"\n')
    environment = {
        "ACME_KEY": "fsk_test_acme", "GLOBEX_KEY": "fsk_test_globex", "PAGE_SECRET": "egap",
        "FASTN_STATE_SECRET": "s" * 32, "HOOK": "h" * 32,
    }  # fmt: skip
    team = TeamWorld(folder, text, environment=environment, system=System(now=lambda: clock[0]))
    team.provider.now = lambda: clock[0].timestamp()
    async with team.served() as caller:
        yield ApprovalWorld(team, caller, clock)
