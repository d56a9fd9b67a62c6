"""Sandboxes in their guises for doctor, in this process or over https, and a company's proxy."""

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trustme

from fastn_mcp.build.check import Check, CheckResult
from fastn_mcp.build.composition import enabled_tools
from fastn_mcp.config.load import load
from fastn_mcp.extensions.doctor.machine import check_settings
from fastn_mcp.extensions.doctor.runner import DoctorReport, Examination
from fastn_mcp.extensions.sandbox.auth import KEY, VIEWER_KEY
from fastn_mcp.extensions.sandbox.server import InProcess
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.operation import Route
from support.behaviour import Accepts, Behaviour, Envelope, Paging
from support.clock import Clock
from support.faulty_sandbox import FaultySandbox
from support.identity_provider import listening
from support.served_sandbox import create_faulty_app

HOST = "fastn.test"
"""A name that only the company's proxy knows."""


_MOVED = {
    "/api/v1/customers": "/api/v1/orgs",
    "/api/v1/triggers": "/api/v1/app-triggers",
    "/api/v1/audit": "/api/v1/audit-log",
    "/api/v1/api-keys": "/api/v1/api-access",
    "/api/v1/billing/usage": "/api/v1/quota/usage",
    "/api/v1/billing/quotas": "/api/v1/quota/summary",
    "/api/v1/workflows/{workflow_id}/run": "/api/v1/workflows/{workflow_id}/execute",
}


def _moved() -> dict[str, Route]:
    found: dict[str, Route] = {}
    for operation in CATALOG:
        path = operation.route.path
        for old, new in _MOVED.items():
            if path == old or path.startswith(f"{old}/"):
                found[operation.tool_name()] = Route(operation.route.method, new + path.removeprefix(old))
    return found


@dataclass(frozen=True, slots=True)
class Variant:
    """Behaviour of a sandbox, the routes that differ, and its user's key."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    routes: Mapping[str, Route] = field(default_factory=dict[str, Route])
    key: str = KEY


VARIANTS = {
    "usual": Variant(),
    "bearer": Variant(Behaviour(accepts=Accepts.BEARER)),
    "test-mode": Variant(Behaviour(refuses_test_mode=True)),
    "paths": Variant(routes=_moved()),
    "fields": Variant(
        Behaviour(
            envelope=Envelope.RESULTS,
            paging=Paging.SILENT,
            fields={"id": "_id", "name": "title", "createdAt": "created_at", "updatedAt": "updated_at"},
        )
    ),
    "scopes": Variant(key=VIEWER_KEY),
}
"""Accounts that differ from the declared API as Fastn's own pages show or third parties saw, by name."""


def sandbox_in(guise: str, clock: Clock | None = None) -> FaultySandbox:
    account = VARIANTS[guise]
    now = clock.now if clock is not None else lambda: datetime.now(UTC)
    return FaultySandbox(now, behaviour=account.behaviour, routes=account.routes)


async def examine_sandbox(sandbox: FaultySandbox, clock: Clock, **values: Any) -> DoctorReport:
    """Run doctor on a sandbox in this process, with these settings."""
    settings = load({"api_key": "fsk_test_sandbox", "base_url": "http://localhost", **values}, {}, None)
    tools = enabled_tools(settings)
    account = Examination(settings, {}, tools, lambda sent: InProcess(sandbox, sent), clock.system(), lambda _: None)
    return await account.run([check_settings(settings, None)])


def check_of(found: DoctorReport, name: str) -> Check:
    """Return the check with this name."""
    (check,) = [check for check in found.checks if check.name == name]
    return check


def check_only_safe_requests(sandbox: FaultySandbox) -> None:
    """Writes are never made. One would have another method, or a body."""
    assert sandbox.requests
    assert {request.method for request in sandbox.requests} <= {"GET", "OPTIONS"}
    assert all(request.body is None for request in sandbox.requests)


def problems_of(found: DoctorReport) -> dict[str, CheckResult]:
    """Return the verdicts of the checks that differ or failed."""
    return {c.name: c.verdict for c in found.checks if c.verdict in (CheckResult.DIFFERS, CheckResult.FAILED)}


@contextmanager
def serve_sandbox(
    sandbox: FaultySandbox, certificate: trustme.LeafCert | None = None, folder: Path | None = None
) -> Generator[int]:
    """Serve the sandbox on a port of this machine; over https with a certificate, stored in the folder."""
    secure: dict[str, Any] = {}
    if certificate is not None and folder is not None:
        pem = folder / "server.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(pem)
        secure = {"ssl_certfile": str(pem), "ssl_keyfile": str(pem)}
    with listening(create_faulty_app(sandbox), **secure) as url:
        yield int(url.rpartition(":")[2])


@dataclass
class Proxy:
    """Proxy that connects any CONNECT target to this machine. `asked` are the targets, `heads` the request heads."""

    password: str | None = None
    refuses: bool = False
    port: int = 0
    asked: list[str] = field(default_factory=list[str])
    heads: list[str] = field(default_factory=list[str])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def run_proxy(proxy: Proxy) -> Generator[Proxy]:
    """Run a CONNECT proxy."""
    ready, over = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward: asyncio.StreamWriter | None = None
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split(" ", 2)
            proxy.heads.append(head)
            proxy.asked.append(f"{method} {target}")
            if (status := _refusal(proxy, method, head)) is not None:
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            else:
                there, onward = await asyncio.open_connection("127.0.0.1", int(target.rpartition(":")[2]))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_copy(reader, onward), _copy(there, writer))
        for end in (writer, onward):
            if end is not None:
                end.close()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        server = await asyncio.start_server(passing, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(15)
    try:
        yield proxy
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join(15)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError, ConnectionError):
        writer.close()


def _refusal(proxy: Proxy, method: str, head: str) -> str | None:
    if proxy.refuses or method != "CONNECT":
        return "403 Forbidden"
    if proxy.password is not None:
        wanted = base64.b64encode(proxy.password.encode()).decode()
        return None if f"Proxy-Authorization: Basic {wanted}" in head else "407 Proxy Authentication Required"
    return None


def account(port: int, guise: str, folder: Path, **more: str) -> Mapping[str, str]:
    """Return the environment of a program that uses this sandbox."""
    return {
        "FASTN_BASE_URL": f"http://127.0.0.1:{port}",
        "FASTN_API_KEY": VARIANTS[guise].key,
        "FASTN_CONFIG_DIR": str(folder),
        "FASTN_STATE_DIR": str(folder / "state"),
        **more,
    }


async def by_name(checks: AsyncIterator[Check]) -> dict[str, Check]:
    return {check.name: check async for check in checks}
