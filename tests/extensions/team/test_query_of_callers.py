# ruff: noqa: S608 - statements are what is tested
"""The tool `query` over HTTP: what a caller's statement reads is of their tenant, and of the tools that it has."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from support.team_world import ALL, HEAD, Caller, TeamWorld, tenant

from fastn_mcp.procedures.query.statement_process import IS_AVAILABLE

pytestmark = pytest.mark.skipif(not IS_AVAILABLE, reason="statements run where their memory is limited")

OFF = ["list_secrets", "list_users"]
TENANTS = tenant("acme", subjects=["anna", "amir"], api_key_env="ACME_KEY", mode="guarded") + tenant(
    "globex", subjects=["gus"], api_key_env="GLOBEX_KEY", exclude_tools=OFF
)
SECRETS = "select name from secrets"
CUSTOMERS = "select name from customers order by name"


async def rows(caller: Caller, token: str, statement: str) -> list[Any]:
    answer = await caller.result(token, "query", sql=statement)
    return [row[0] for row in answer["data"]["rows"]]


async def test_callers_never_see_tables_of_others(tmp_path: Path) -> None:
    """With statements at the same time, again and again, while their rows are kept."""
    team = TeamWorld(tmp_path, HEAD + TENANTS)
    async with team.served() as caller:
        anna = team.provider.token(scope=ALL)
        amir = team.provider.token(sub="amir", scope="fastn:read")
        gus = team.provider.token(sub="gus", scope=ALL)
        await caller.result(anna, "create_customer", name="Only of Acme")
        secrets = await rows(caller, anna, SECRETS)
        assert secrets

        async def ask_as_globex() -> None:
            for statement in (SECRETS, "select email from users", f"{CUSTOMERS}, (select 1 from secrets)"):
                answer = await caller.result(gus, "query", sql=statement)
                assert "Disabled here by the setting exclude_tools." in answer["message"]
                assert not any(secret in str(answer) for secret in secrets)
            assert "Only of Acme" not in await rows(caller, gus, CUSTOMERS)

        async def ask_as_acme(token: str) -> None:
            assert await rows(caller, token, SECRETS) == secrets
            assert "Only of Acme" in await rows(caller, token, CUSTOMERS)

        for _ in range(3):
            async with anyio.create_task_group() as group:
                group.start_soon(ask_as_globex)
                group.start_soon(ask_as_acme, anna)
                group.start_soon(ask_as_acme, amir)


async def test_statement_needs_the_scope_that_reads(tmp_path: Path) -> None:
    team = TeamWorld(tmp_path, HEAD + TENANTS)
    async with team.served() as caller:
        answer = await caller.call(team.provider.token(scope="fastn:write"), "query", sql=CUSTOMERS)
    assert answer.status_code == 403
