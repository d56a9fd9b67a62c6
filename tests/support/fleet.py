"""A real team fleet: replica processes behind nginx, and a Fastn process per tenant.

Replicas can be killed and restarted. Each has its own state folder and audit log.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx2

from fastn_mcp.audit.chain import Report
from fastn_mcp.audit.files import verify
from fastn_mcp.extensions.sandbox.auth import KEY, LIVE_KEY
from support import fastn_process
from support.audit_entries import entries
from support.identity_provider import Provider
from support.identity_provider import listening as serving
from support.nginx_proxy import balanced
from support.ports import free_port, listening, running_program
from support.team_world import ALL, Caller, tenant

KEYS = {"acme": KEY, "globex": LIVE_KEY}

_FILE = """
url = "{url}"
issuer = "{issuer}"

[limits]
{limits}
grace_seconds = 1
"""
LIMITS = "calls = 16\nqueue = 400"


@dataclass
class Fastn:
    """The Fastn of a tenant, seen from outside."""

    at: str

    def heard(self) -> list[dict[str, Any]]:
        """Return every change it was asked for."""
        return httpx2.get(f"{self.at}/heard", timeout=30).json()


@dataclass
class Replica:
    """One of the server processes."""

    port: int
    state: Path
    command: list[str]
    env: Mapping[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    killed: int = 0

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, env=self.env, stdout=subprocess.DEVNULL)

    def wait(self) -> None:
        """Wait until it listens."""
        assert self.process is not None
        listening(self.port, self.process)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.killed += 1
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def audit(self, tenant: str) -> Iterator[dict[str, Any]]:
        """Return its audit entries of a tenant, across restarts."""
        file = self.log(tenant)
        return map(dict, entries(file)) if file.exists() else iter(())

    def chain(self, tenant: str) -> Report | None:
        return verify(file) if (file := self.log(tenant)).exists() else None

    def log(self, tenant: str) -> Path:
        return self.state / "tenants" / tenant / "audit.jsonl"


@dataclass
class ServedProvider:
    """The identity provider at its port, which can be stopped and started again."""

    provider: Provider
    port: int
    killed: int = 0
    _running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self._running.enter_context(serving(self.provider.app, self.port))

    def kill(self) -> None:
        self.killed += 1
        self.close()

    def close(self) -> None:
        self._running.close()


@dataclass
class Fleet:
    """The running processes."""

    at: str
    """Where nginx listens."""
    provider: Provider
    fastns: Mapping[str, Fastn]
    replicas: list[Replica]
    ledger: str
    login: ServedProvider

    def token(self, tenant: str, person: str = "somebody") -> str:
        return self.provider.token(sub=f"{tenant}-{person}", groups=[tenant], scope=ALL)

    @asynccontextmanager
    async def caller(self, connections: int = 100) -> AsyncGenerator[Caller]:
        """Return an HTTP client with one connection per concurrent client."""
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        async with httpx2.AsyncClient(base_url=self.at, timeout=60, limits=limits) as http:
            yield Caller(http)


@contextmanager
def a_fleet(
    folder: Path, ledger: str, count: int = 3, limits: str = LIMITS, fastns: Mapping[str, Fastn] | None = None,
    env: Mapping[str, str] = MappingProxyType({}), wait: int = 0,
) -> Generator[Fleet]:  # fmt: skip
    """Run a fleet on this ledger, with a new Fastn for each tenant unless one is given. `env` is for its replicas.

    A call waits for a person for `wait` seconds.
    """
    port, balancer = free_port(), free_port()
    at = f"http://127.0.0.1:{balancer}"
    provider = Provider(f"http://127.0.0.1:{port}", f"{at}/mcp")
    login = ServedProvider(provider, port)
    with ExitStack() as stack:
        stack.callback(login.close)
        login.start()
        fastns = fastns or {name: stack.enter_context(a_fastn()) for name in KEYS}
        file = folder / "team.toml"
        guarded: dict[str, Any] = {"approval_wait_seconds": wait, "mode": "guarded"}
        tenants = [
            tenant(name, groups=[name], api_key_env=f"KEY_OF_{name}", base_url=fastn.at, **guarded)
            for name, fastn in fastns.items()
        ]
        file.write_text(_FILE.format(url=f"{at}/mcp", issuer=provider.issuer, limits=limits) + "".join(tenants))
        file.chmod(0o600)
        replicas = [_replica(folder, number, file, ledger, env) for number in range(count)]
        for replica in replicas:
            stack.callback(replica.end)
            replica.start()
        for replica in replicas:
            replica.wait()
        stack.enter_context(balanced(folder / "nginx", balancer, [replica.port for replica in replicas]))
        yield Fleet(at, provider, fastns, replicas, ledger, login)


@contextmanager
def a_fastn() -> Generator[Fastn]:
    port = free_port()
    with running_program([sys.executable, fastn_process.__file__, str(port)], port):
        yield Fastn(f"http://127.0.0.1:{port}")


def _replica(folder: Path, number: int, file: Path, ledger: str, more: Mapping[str, str]) -> Replica:
    port, state = free_port(), folder / f"replica-{number}"
    env = {
        **more,
        "FASTN_CONFIG": os.devnull,
        "FASTN_CONFIG_DIR": str(folder),
        "FASTN_STATE_DIR": str(state),
        "FASTN_LEDGER": ledger,
        "FASTN_STATE_SECRET": "a-secret-of-more-than-32-characters",
        **{f"KEY_OF_{name}": key for name, key in KEYS.items()},
    }
    command = [sys.executable, "-m", "fastn_mcp", "--http", f"127.0.0.1:{port}", "--team", str(file)]
    return Replica(port, state, command, os.environ | env)
