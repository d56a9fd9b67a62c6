"""`fastn-mcp`: serve agents, over stdio or HTTP, and write the report of what was done."""

import json
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import click

from fastn_mcp.config.addresses import is_loopback, url_host
from fastn_mcp.config.paths import file_errors
from fastn_mcp.errors import SettingsError
from fastn_mcp.server import stdio
from fastn_mcp.server.handshake import Introduction

if TYPE_CHECKING:
    from mcp.server import Server

    from fastn_mcp.build.composition import AccountParts
    from fastn_mcp.cli.start_options import StartOptions
    from fastn_mcp.report.collector import Tally


def serve_stdio(parts: "Callable[[], AccountParts]", introduction: Introduction | None) -> None:
    """Serve one client on this process's pipes until they close. `parts` is called once it is needed."""

    async def serve(closing: ExitStack) -> None:
        async with anyio.create_task_group() as checks, AsyncExitStack() as parting:
            parting.callback(checks.cancel_scope.cancel)

            def begin(is_leaving: Callable[[], bool]) -> "Server[Any]":
                # Only here, since the introduction needs neither of them: the second imports the SDK.
                from fastn_mcp.server.handlers import build

                account = parts()
                parting.push_async_callback(account.aclose)
                account.guard.decisions.is_leaving = is_leaving
                checks.start_soon(account.guard.judge.check_customers)
                closing.enter_context(report_at_end(account))
                account.channels.begin()
                server = build(
                    account.dispatch,
                    account.tools,
                    account.label,
                    account.settings.state_secrets,
                    export_folder=account.stores.export_folder,
                )
                if account.process.telemetry is not None:
                    account.process.telemetry.observe(server)
                return server

            await stdio.serve(begin, introduction)

    with ExitStack() as closing:
        try:
            anyio.run(serve, closing)
        except ExceptionGroup as group:  # the tasks have begun when the settings are read
            error: Exception | None = group.subgroup(SettingsError)
            if error is None:
                raise
            while isinstance(error, ExceptionGroup):
                error = cast("ExceptionGroup[Exception]", error).exceptions[0]
            raise error from None


def serve_http(parts: "AccountParts", address: str, state: Path) -> None:
    """Serve clients that have the token, at `HOST:PORT`, until stopped. `state` is the folder of the token.

    Raises `SettingsError` for an address that other machines could reach.
    """
    # Imported here because stdio does not need the HTTP server.
    from fastn_mcp.build.startup import http_address, must_be_free, seal_keys
    from fastn_mcp.config import keys
    from fastn_mcp.server.handlers import build
    from fastn_mcp.server.http.app import LOCAL_LIMITS, Health, ProcessParts, application, run

    host, port = http_address(address)
    if not is_loopback(host):
        raise SettingsError(
            "Without sign-in, --http can listen on 127.0.0.1 only.",
            "Use 127.0.0.1. To serve other machines, name a team file: --team (docs/hosting.md).",
        )
    must_be_free(host, port, "Choose another port: --http HOST:PORT")
    token = keys.http_token(parts.settings, state, parts.stores.system.token)
    hosts = sorted(served_hosts(host, port))
    server = build(parts.dispatch, parts.tools, parts.label, seal_keys(parts.settings))
    if parts.process.telemetry is not None:
        parts.process.telemetry.observe(server)
    health = Health()
    parts.guard.decisions.is_leaving = lambda: health.is_leaving
    webhook = parts.channels.webhook
    webhook_routes = [] if webhook is None else webhook.mounted(f"http://{address}")
    beside = ProcessParts(health, webhook_routes, partial(_beside, parts))
    app = application(server, hosts, token, beside)
    message = f"Serving http://{address}/mcp. The bearer token for clients is in {token.place}."
    with report_at_end(parts):
        run(app, host, port, health=health, limits=LOCAL_LIMITS, announcement=message)


@asynccontextmanager
async def _beside(parts: "AccountParts") -> AsyncGenerator[None]:
    """Receive decisions from services while the application serves, and close the account after it."""
    async with aclosing(parts), anyio.create_task_group() as tasks:
        parts.channels.group.begin()
        for channel in parts.channels.external.values():
            channel.begin()
        tasks.start_soon(parts.guard.judge.check_customers)
        yield
        tasks.cancel_scope.cancel()


def served_hosts(host: str, port: int) -> set[str]:
    """Return the accepted values of `Host`. IPv6 addresses are in brackets there (RFC 9110, section 7.2)."""
    return {f"{name}:{port}" for name in (url_host(host), "localhost", "127.0.0.1")}


def begin_report(parts: "AccountParts", tally: "Tally", path: Path, script: str | None = None) -> Callable[[], None]:
    """Return a function that writes the report of this process from now on. Both raise `SettingsError`."""
    from fastn_mcp.report.writer import check, document, write  # only where there is a report

    check(path)
    file = path.absolute()
    began = parts.stores.system.now()
    about = replace(parts.about, script=script)

    def end() -> None:
        ended = parts.stores.system.now()
        requests = parts.client.requests_sent
        report = document(
            about, tally.attempts, tally.reads, head=tally.head, began=began, ended=ended, requests=requests
        )
        with file_errors(
            file, "written", f"For all calls, see the audit log: {parts.process.program.to('audit', 'report')}"
        ):
            write(file, report)

    return end


@contextmanager
def report_at_end(parts: "AccountParts") -> Generator[None]:
    """Write the report when the block ends, also on an error, if the settings name one."""
    if parts.settings.report is None or parts.process.tally is None:
        yield
        return
    end = begin_report(parts, parts.process.tally, parts.settings.report)
    try:
        yield
    finally:
        end()


@click.command(name="http-token")
@click.option("--header", is_flag=True, help="Print the header that clients send, as JSON.")
@click.pass_obj
def http_token(start: "StartOptions", header: bool) -> None:
    """Print the bearer token that --http accepts on this machine. Only you can read it."""
    from fastn_mcp.config.keys import known_http_token

    token = known_http_token(start.keyless(), start.state()).value
    click.echo(json.dumps({"Authorization": f"Bearer {token}"}) if header else token)
