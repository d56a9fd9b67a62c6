"""A team whose server machines call: a workload of an issuer like GitHub's, and a client of the team's own provider."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from fastn_mcp.build.composition import account_of, plan_account_of
from fastn_mcp.extensions.team.oidc import IssuerKeys
from fastn_mcp.runtime import System
from support.audit_entries import entries
from support.identity_provider import AUDIENCE, Provider
from support.policy_files import policy_file
from support.signed_plans import plan_text, sign_plan
from support.team_world import ALL, HEAD, TENANTS, TeamWorld
from support.values import not_none

GITHUB = "https://token.actions.githubusercontent.com"
CREATE = '[[allow]]\ntool = "create_customer"\narguments = { name = "Initech" }\ncount = 2\n'


def machine(name: str, *facts: str) -> str:
    """Return the entry of a machine of acme that follows the nightly plan, with the facts by which it is known."""
    lines = ("[[machine]]", f'name = "{name}"', *facts, 'tenant = "acme"', 'plan = "nightly.toml"')
    return "\n".join(("", *lines, 'plan_keys = "plan-keys.toml"', ""))


MACHINES = machine(
    "nightly-report",
    f'issuer = "{GITHUB}"',
    'claims = { repository = "acme/reports", ref = ["refs/heads/main", "refs/tags/v*"], environment = "production" }',
) + machine("billing", 'client_id = "billing-agent"')


def github_claims(repository: str = "acme/reports", ref: str = "refs/heads/main", **more: Any) -> dict[str, Any]:
    """Return the claims that GitHub documents for a job's token, of which `environment` is only in some."""
    owner = repository.partition("/")[0]
    return {
        "sub": f"repo:{repository}:environment:production", "aud": AUDIENCE, "repository": repository, "ref": ref,
        "environment": "production", "repository_owner": owner, "repository_id": "74", "actor": "anna",
        "event_name": "schedule", "workflow": "nightly", "runner_environment": "github-hosted", "run_id": "30433642",
        "job_workflow_ref": f"{repository}/.github/workflows/nightly.yml@{ref}", "jti": "example-id",
        "scope": None, "azp": None,
    } | {name.rstrip("_"): value for name, value in more.items()}  # fmt: skip


@dataclass
class MachineWorld:
    folder: Path
    machines: str = MACHINES
    tenants: str = TENANTS
    mode: str = "guarded"
    """Of the tenant whose machines these are, as its `rules`."""
    rules: str = ""
    system: System = field(default_factory=System)

    def __post_init__(self) -> None:
        self.github = Provider(GITHUB, AUDIENCE, self.system.timestamp)
        provider = Provider(now=self.system.timestamp)
        settings = f'mode = "{self.mode}"'
        if self.rules:
            policy_file(self.folder, self.rules)
            settings += '\npolicy = "policy.toml"'
        text = HEAD + self.tenants.replace('mode = "guarded"', settings, 1) + self.machines
        self.world = TeamWorld(self.folder, text, provider, system=self.system)
        transport = httpx2.ASGITransport(app=self.github.app)
        self.world.opening.workload_keys[GITHUB] = IssuerKeys(GITHUB, self.system, transport)
        self.sign()

    def sign(self, allow: str = CREATE, until: datetime | None = None, begins: datetime | None = None) -> None:
        settings = self.world.opening.settings(not_none(self.world.team.named("acme")))
        until = until or self.system.now() + timedelta(days=30)
        text = plan_text(account_of(settings), allow, until, begins)
        sign_plan(self.folder / "nightly.toml", text, plan_account_of(settings))

    def workload(self, **claims: Any) -> str:
        """Return a token as GitHub issues it."""
        return self.github.token(header={"typ": "JWT"}, **github_claims(**claims))

    def client(self, client: str = "billing-agent", **claims: Any) -> str:
        """Return a token by client credentials, as oidc-provider, Okta and Cognito issue it."""
        held: dict[str, Any] = {"sub": client, "azp": None, "client_id": client, "scope": None} | claims
        return self.world.provider.token(**held)

    def person(self, **claims: Any) -> str:
        held: dict[str, Any] = {"sub": "anna", "scope": ALL} | claims
        return self.world.provider.token(**held)

    def audit(self) -> list[dict[str, Any]]:
        file = self.folder / "tenants" / "acme" / "audit.jsonl"
        return [dict(entry) for entry in entries(file)] if file.exists() else []
