"""One server for two tenants: a real process, an OpenID provider, a Fastn per tenant, real clients."""

import json
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp import Client, MCPError
from support.audit_entries import entries
from support.command_line import run_command
from support.faulty_sandbox import FaultySandbox, HeardRequest
from support.identity_provider import Provider, listening
from support.otlp_receiver import Receiver, values
from support.ports import free_port
from support.served_sandbox import create_faulty_app
from support.server_process import over_http, running
from support.team_world import ALL, Caller, tenant

from fastn_mcp.extensions.sandbox.auth import KEY, LIVE_KEY

CALLS = 200

LIMITS = """
[limits]
calls = 4
queue = 40
grace_seconds = 1
drain_seconds = 1
"""


@dataclass
class Fastn:
    sandbox: FaultySandbox
    lines: list[str]
    """All header lines that reached it."""
    at: str = ""

    @property
    def app(self) -> Any:
        inner = create_faulty_app(self.sandbox)

        async def noting(scope: Any, receive: Any, send: Any) -> None:
            self.lines.extend(f"{name.decode()}: {value.decode()}".lower() for name, value in scope.get("headers", []))
            await inner(scope, receive, send)

        return noting

    def changes(self) -> list[HeardRequest]:
        return [request for request in self.sandbox.requests if request.method != "GET"]

    def reset(self) -> None:
        self.sandbox.reset()
        self.lines.clear()

    async def goes_wrong(self, **fault: Any) -> None:
        async with httpx2.AsyncClient() as http:
            (await http.post(f"{self.at}/__sandbox/faults", json=fault)).raise_for_status()


@dataclass
class Team:
    """The running processes, seen from outside."""

    url: str
    provider: Provider
    acme: Fastn
    globex: Fastn
    state: Path
    process: "subprocess.Popen[bytes]"

    def token(self, tenant: str, scope: str = ALL) -> str:
        return self.provider.token(sub=f"of-{tenant}", groups=[tenant], scope=scope)

    def audit(self, tenant: str) -> list[dict[str, Any]]:
        return [dict(entry) for entry in entries(self.state / "tenants" / tenant / "audit.jsonl")]

    def client(self, token: str) -> Client:
        return Client(over_http(self.url, {"authorization": f"Bearer {token}"}))

    @asynccontextmanager
    async def caller(self) -> AsyncGenerator[Caller]:
        async with httpx2.AsyncClient(base_url=self.url.removesuffix("/mcp"), timeout=30) as http:
            yield Caller(http)


@contextmanager
def a_team(folder: Path, **more: str) -> Generator[Team]:
    login, at_acme, at_globex, port = (free_port() for _ in range(4))
    url = f"http://127.0.0.1:{port}/mcp"
    provider = Provider(f"http://127.0.0.1:{login}", url)
    acme, globex = (Fastn(FaultySandbox(lambda: datetime.now(UTC)), []) for _ in range(2))
    with ExitStack() as stack:
        stack.enter_context(listening(provider.app, login))
        acme.at = stack.enter_context(listening(acme.app, at_acme))
        globex.at = stack.enter_context(listening(globex.app, at_globex))
        file = folder / "team.toml"
        file.write_text(
            f'url = "{url}"\nissuer = "{provider.issuer}"\n{LIMITS}'
            + tenant("acme", groups=["acme"], api_key_file="acme.key", base_url=acme.at, mode="guarded")
            + tenant("globex", groups=["globex"], api_key_env="KEY_OF_GLOBEX", base_url=globex.at, mode="guarded")
        )
        file.chmod(0o600)
        (folder / "acme.key").write_text(f"{KEY}\n")
        env = {
            "FASTN_CONFIG": os.devnull,
            "FASTN_CONFIG_DIR": str(folder),
            "FASTN_STATE_DIR": str(folder / "state"),
            "KEY_OF_GLOBEX": LIVE_KEY,
            "FASTN_API_KEY": "fsk_test_of_nobody",  # variables for one account must not reach another
            "FASTN_MODE": "unattended",
        } | more
        command = ("--http", f"127.0.0.1:{port}", "--team", str(file))
        process = stack.enter_context(running(*command, port=port, env=env))
        yield Team(url, provider, acme, globex, folder / "state", process)


@pytest.fixture(scope="module")
def running_team(tmp_path_factory: pytest.TempPathFactory) -> Generator[Team]:
    folder = tmp_path_factory.mktemp("team")
    with a_team(folder, FASTN_LOG_FILE=str(folder / "log")) as made:
        yield made


@pytest.fixture
def team(running_team: Team) -> Team:
    running_team.acme.reset()
    running_team.globex.reset()
    return running_team


async def test_interleaved_tenants_stay_separate(team: Team) -> None:
    marks = {"acme": "Only At Acme", "globex": "Only At Globex"}
    tokens = {tenant: team.token(tenant) for tenant in marks}
    seen: dict[str, list[str]] = {tenant: [] for tenant in marks}
    earlier = {tenant: len(team.audit(tenant)) for tenant in marks}

    async def share(caller: Caller, tenant: str) -> None:
        for _ in range(CALLS // 5):
            answer = await caller.result(tokens[tenant], "list_customers", search="Only At")
            seen[tenant].append(",".join(row["name"] for row in answer["data"]))

    async with team.caller() as caller:
        for tenant in marks:
            answer = await caller.result(tokens[tenant], "create_customer", name=marks[tenant])
            assert answer["account"]["profile"] == tenant
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                for tenant in marks:
                    tasks.start_soon(share, caller, tenant)
    assert seen == {tenant: [mark] * CALLS for tenant, mark in marks.items()}
    for tenant, fastn, key in (("acme", team.acme, KEY), ("globex", team.globex, LIVE_KEY)):
        assert fastn.lines.count(f"x-fastn-api-key: {key}") > CALLS
        assert {line for line in fastn.lines if "fsk_" in line} == {f"x-fastn-api-key: {key}"}
        assert not [line for line in fastn.lines if line.startswith(("authorization", "cookie")) or "bearer" in line]
        assert not [line for line in fastn.lines if any(token.lower() in line for token in tokens.values())]
        recorded = team.audit(tenant)[earlier[tenant] :]
        assert {entry["principal"] for entry in recorded} == {f"{team.provider.issuer}|of-{tenant}"}
        others = [mark for other, mark in marks.items() if other != tenant]
        assert not [other for other in others if other in json.dumps(team.audit(tenant))]


@pytest.mark.extension("telemetry")
async def test_telemetry_names_tenants_and_no_callers(collector: Receiver, tmp_path: Path) -> None:
    with a_team(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as team:
        tokens = {tenant: team.token(tenant) for tenant in ("acme", "globex")}
        async with team.caller() as caller:
            for token in tokens.values():
                await caller.result(token, "create_customer", name="Canary")
    calls = [span for span in collector.spans if span.name == "tools/call create_customer"]
    assert [values(span.attributes)["fastn_mcp.profile"] for span in calls] == ["acme", "globex"]
    sent = [span.trace_id for span in collector.spans if span.name == "POST /api/v1/customers"]
    assert sent == [span.trace_id for span in calls]
    assert "fastn_mcp.calls.active" in collector.metrics
    exported = collector.everything()
    assert [text for text in ("Canary", "of-acme", KEY, LIVE_KEY, *tokens.values()) if text in exported] == []


async def test_excess_calls_wait_or_are_refused(team: Team) -> None:
    await team.acme.goes_wrong(kind="hang", method="GET", path="/api/v1/billing*", times=None)
    refused: list[dict[str, Any]] = []
    enough = anyio.Event()
    async with team.caller() as caller:

        async def one() -> None:
            refused.append(await caller.result(team.token("acme"), "get_quotas"))
            if len(refused) == 50 - 4 - 40:
                enough.set()

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(one)
            with anyio.fail_after(20):
                await enough.wait()
            assert "outcome" not in await caller.result(team.token("globex"), "get_quotas")
            # Before they give up, which frees slots for those that wait.
            assert len([request for request in team.acme.sandbox.requests if "billing" in request.path]) <= 4
            tasks.cancel_scope.cancel()
        # Until the cancelled calls are gone, since the next test counts Fastn's requests.
        with anyio.fail_after(20):
            while "data" not in await caller.result(team.token("acme"), "list_workflows"):
                pass
    assert {result["outcome"] for result in refused} == {"not_sent"}
    assert refused[0]["message"] == "4 calls of this account are in progress, and no more may wait. Nothing was sent."


@pytest.mark.long
async def test_shutdown_drains_and_records_unfinished_calls(tmp_path: Path) -> None:
    with a_team(tmp_path) as team:
        await team.acme.goes_wrong(kind="hang", method="POST", path="*", moment="after")

        async def hang() -> None:
            with pytest.raises((MCPError, ExceptionGroup)):
                async with team.client(team.token("acme")) as client:
                    await client.call_tool("create_customer", {"name": "Lost"})

        async with team.caller() as caller, anyio.create_task_group() as tasks:
            tasks.start_soon(hang)
            with anyio.fail_after(10):
                while not team.acme.changes():
                    await caller.http.get("/healthz")
            team.process.send_signal(signal.SIGTERM)
            with anyio.fail_after(10):
                while (ready := await caller.http.get("/readyz")).is_success:  # the signal may arrive after it
                    pass
            assert (ready.status_code, ready.json()) == (503, {"status": "leaving"})
            # Requests that still arrive during the drain are served.
            assert "outcome" not in await caller.result(team.token("globex"), "get_quotas")
            assert await anyio.to_thread.run_sync(team.process.wait, 10) == 0
        recorded = [(entry["event"], entry.get("outcome")) for entry in team.audit("acme")]
        assert recorded == [("intent", None), ("outcome", "unknown_outcome")]


HTTP = ["--http", "127.0.0.1:1", "--team", "FILE"]
WRONG: dict[str, tuple[list[str], str, str]] = {
    "no address": (["--team", "FILE"], "", "--team needs --http"),
    "a flag of one account": ([*HTTP, "--mode", "read-only"], "", "--mode belongs to one account"),
    "a command": ([*HTTP, "tools"], "", "cannot be combined with a command"),
    "a misspelt key": (
        HTTP,
        "tolsets = 1",
        "line 7: there is no key 'tolsets' in [[tenant]]",
    ),
}


def test_team_server_announces_its_addresses_and_is_ready(team: Team) -> None:
    at = team.url.removesuffix("/mcp")
    assert httpx2.get(f"{at}/healthz").json() == {"status": "ok"}
    assert httpx2.get(f"{at}/readyz").json() == {"status": "ready", "ledger": "ok", "issuer": "ok"}
    events = [json.loads(line) for line in (team.state.parent / "log").read_text().splitlines()]
    (message,) = [event["message"] for event in events if event["message"].startswith("Serving ")]
    assert f" at {at}. Clients connect to {team.url} " in message
    assert team.provider.issuer in message


@pytest.mark.parametrize("what", WRONG)
def test_configuration_error_stops_the_start_with_one_line(what: str, tmp_path: Path) -> None:
    arguments, more, problem = WRONG[what]
    file = tmp_path / "team.toml"
    file.write_text(
        'url = "https://fastn-mcp.example.com/mcp"\nissuer = "https://login.example.com"\n[[tenant]]\n'
        f'name = "a"\nsubjects = ["a"]\napi_key_env = "THE_KEY"\n{more}\n'
    )
    file.chmod(0o600)
    env = os.environ | {"FASTN_CONFIG": os.devnull, "THE_KEY": "fsk_test_1"}
    env |= dict.fromkeys(("FASTN_CONFIG_DIR", "FASTN_STATE_DIR"), str(tmp_path))
    done = run_command([str(file) if one == "FILE" else one for one in arguments], env)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert problem in line
