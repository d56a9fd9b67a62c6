"""Secrets in arguments and in Fastn's responses never leave a server process: over stdio and HTTP.

A canary is a secret that occurs nowhere else. One is put into arguments, another into all responses of Fastn.
"""

import json
import logging
import sys
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from mcp import Client, MCPError
from mcp.client import Transport
from mcp.client.stdio import stdio_client
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import CallToolResult, LoggingMessageNotificationParams, PromptReference, ResourceTemplateReference
from support import fastn_process, server_process
from support.fastn_process import held
from support.folder_texts import files
from support.forkserver import forked
from support.policy_files import ALLOWS, policy_file
from support.ports import free_port, running_program
from support.raw_client import answers_to, introducing, message
from support.server_process import (
    BEARER,
    ERAS,
    HTTP,
    Person,
    Upstream,
    approving,
    each_transport_and_era,
    over_http,
    stdio,
)

from fastn_mcp.redaction import REDACTED
from fastn_mcp.server.log import JsonLines

SENT = "kAnar13nvogel-sent-41"
HELD_BY_FASTN = "kAnar13nvogel-held-42"
CANARIES = (SENT, HELD_BY_FASTN, *(b64encode(f"user:{canary}".encode()).decode() for canary in (SENT, HELD_BY_FASTN)))
SECRETS = held(SENT)


def environment(upstream: str, folder: Path) -> dict[str, str]:
    folders = {"FASTN_CONFIG_DIR": str(folder / "config"), "FASTN_STATE_DIR": str(folder / "state")}
    return server_process.environment(Upstream(upstream)) | folders | {"FASTN_LOG_LEVEL": "debug"}


@asynccontextmanager
async def server(transport: str, upstream: str, folder: Path) -> AsyncGenerator[Transport]:
    """Start a server whose stderr and state are in the folder; over HTTP it also logs to a file."""
    env = environment(upstream, folder)
    with (folder / "stderr").open("a", encoding="utf-8") as errors:
        if transport == "stdio":
            yield cast(Transport, stdio_client(stdio(env), errors))
            return
        port = free_port()
        env |= {"FASTN_LOG_FILE": str(folder / "server.log"), "FASTN_POLICY": str(policy_file(folder, ALLOWS))}
        with running_program(forked("--http", f"127.0.0.1:{port}"), port, env, errors):
            yield over_http(f"http://127.0.0.1:{port}/mcp", BEARER)


class Listener:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.logged: list[str] = []
        self.progress: list[str] = []

    async def logs(self, params: LoggingMessageNotificationParams) -> None:
        self.logged.append(str(params.data))

    async def progresses(self, progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG002
        self.progress.append(message or "")

    def everything(self) -> list[str]:
        return [*self.texts, *self.logged, *self.progress]


async def call(client: Client, listener: Listener, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        result = await client.call_tool(tool, arguments, progress_callback=listener.progresses)
    except MCPError as error:
        listener.texts.append(f"{error} {error.error}")
        return {}
    assert isinstance(result, CallToolResult)
    listener.texts.append(result.model_dump_json())
    return result.structured_content or {}


def calls(customer: str, workflow: str, connector: str) -> list[tuple[str, dict[str, Any]]]:
    """Return calls with secrets in each argument that takes one: sent, previewed, and refused for each reason."""
    change = {"customer_id": customer, "name": "Another", "extra": {"metadata": SECRETS}}
    return [
        ("create_secret", {"name": "CANARY", "value": SENT}),
        ("create_secret", {"name": "CANARY_2", "value": SENT, "dry_run": True}),
        ("create_secret", {"name": "CANARY_3", "value": {"text": SENT}}),
        ("create_secret", {"name": "CANARY_4", "value": SENT, "password": SENT}),
        ("run_workflow", {"workflow_id": workflow, "input": {"password": SENT, "token": SENT, "deep": [SECRETS]}}),
        ("run_workflow", {"workflow_id": "wf_unknown", "input": {"password": SENT}}),
        ("create_customer", {"name": "Canary", "slug": "canary", "extra": SECRETS}),
        ("update_workflow", {"workflow_id": workflow, "name": "New", "extra": SECRETS}),
        ("update_customer", change),
        ("update_customer", {**change, "dry_run": True}),
        ("update_customer", {**change, "customer_id": "cus_unknown"}),
        ("create_connection", {"connector_id": connector, "credentials": {"user": SENT, "deep": [{"any": SENT}]}}),
        ("create_connection", {"connector_id": connector, "credentials": SENT}),
        ("apply_changes", {"changes": [{"tool": "update_customer", "arguments": change}]}),
        ("get_quotas", {}),
        ("get_overview", {}),
        ("get_customer", {"customer_id": customer}),
        ("list_customers", {"detail": "full"}),
        ("list_connections", {"detail": "csv"}),
        ("list_secrets", {"detail": "full"}),
        ("list_executions", {"detail": "full"}),
        ("list_changes", {}),
        ("find", {"query": f"token={HELD_BY_FASTN}"}),
    ]


@each_transport_and_era
async def test_canary_never_leaves_the_server(era: str, transport: str, tmp_path: Path) -> None:
    port, listener, person = free_port(), Listener(), Person(approving)
    upstream = f"http://127.0.0.1:{port}"
    folder = tmp_path / "server"
    folder.mkdir()
    modern = era == "2026-07-28"
    with running_program([sys.executable, fastn_process.__file__, str(port), HELD_BY_FASTN], port):
        async with server(transport, upstream, folder) as there:
            more: dict[str, Any] = {"log_level": "debug"} if modern else {}
            async with Client(
                there, mode=ERAS[era], elicitation_callback=person, logging_callback=listener.logs, **more
            ) as client:
                if not modern:
                    with pytest.warns(MCPDeprecationWarning):
                        await client.set_logging_level("debug")  # pyright: ignore[reportDeprecated]
                rows: dict[str, str] = {}
                for tool in ("list_customers", "list_workflows", "list_connectors"):
                    answer = await call(client, listener, tool, {})
                    assert "data" in answer, answer
                    rows[tool] = answer["data"][0]["id"]
                for tool, arguments in calls(*rows.values()):
                    if (transport, modern) == ("http", False) and tool == "create_secret" and len(arguments) == 2:
                        arguments |= {"dry_run": True}  # no form in this version: the call would wait for the page
                    await call(client, listener, tool, arguments)
                customer = f"fastn://customers/{rows['list_customers']}"
                listener.texts.append((await client.read_resource(customer)).model_dump_json())
                for reference, name in (
                    (ResourceTemplateReference(uri="fastn://customers/{customer_id}"), "customer_id"),
                    (PromptReference(name="triage_failed_runs"), "workflow_id"),
                ):
                    for typed in ("", "token", HELD_BY_FASTN):
                        try:
                            result = await client.complete(reference, {"name": name, "value": typed})
                            listener.texts.append(result.model_dump_json())
                        except MCPError as error:
                            listener.texts.append(str(error))
        reached = HTTP.get(f"{upstream}/heard").text
    assert SENT in reached
    seen = {**files(folder), "client": "\n".join(listener.everything()), "person": "\n".join(person.asked)}
    for where, text in seen.items():
        for canary in CANARIES:
            assert canary not in text, (where, text[max(text.index(canary) - 200, 0) :][:300])
    assert any("503" in text for text in listener.progress)
    assert any("503" in text for text in listener.logged) or (transport, modern) == ("http", False)
    log = "".join(text for where, text in seen.items() if where.endswith(("stderr", ".log")))
    assert '"logger": "fastn_mcp.client", "message": "Fastn answered 503.' in log
    assert any(where.endswith("audit.jsonl") and REDACTED in text for where, text in seen.items())


def test_canary_in_a_frame_before_the_first_request_is_not_logged(tmp_path: Path) -> None:
    """At debug level the SDK logs such frames in full, and it logs malformed ones."""
    early = [message(None, f"notifications/{number}", value=SENT) for number in range(200)]
    frames = [
        *(line.replace(b'"id": null, ', b"") for line in early),
        *introducing(),
        message(None, "notifications/progress", progress=SENT).replace(b'"id": null, ', b""),
        message(2, "tools/call", name="create_secret", arguments=[SENT]),
        message(3, "tools/call", arguments={"value": SENT}),
        json.dumps({"jsonrpc": "1.0", "id": 4, "method": {"value": SENT}}).encode(),
        f'{{"value": "{SENT}" no JSON'.encode(),
    ]
    answers, done = answers_to(*frames, flags=("--sandbox",), env=environment("http://127.0.0.1:9", tmp_path))
    assert "result" in answers["hello"]
    assert b"dropped 'notifications/progress': malformed params" in done.stderr
    for text in (*files(tmp_path).values(), done.stderr.decode()):
        assert SENT not in text


@pytest.mark.parametrize("mode", ERAS.values())
async def test_result_rejected_by_the_sdk_is_logged_without_content(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Pydantic's message quotes the value. The log has the class and the place of the error."""

    async def broken(*_: object) -> Any:
        return {"content": SENT, "structuredContent": SENT}

    async with Client(Server("broken", on_call_tool=broken), mode=mode) as client:
        with pytest.raises(MCPError, match="invalid result"):
            await client.session.call_tool("any", {})
    lines = [JsonLines(()).format(record) for record in caplog.records if record.levelno >= logging.ERROR]
    assert any("returned an invalid result" in line and "ValidationError" in line for line in lines)
    assert not [line for line in lines if SENT in line or "input_value" in line]


def test_exception_text_is_logged_only_if_it_certainly_holds_no_data() -> None:
    lines: list[str] = []
    for logger in ("asyncio", "mcp.server.runner", "fastn_mcp.guard"):
        try:
            try:
                raise ValueError(SENT)
            except ValueError as error:
                raise ExceptionGroup("several", [KeyError(SENT), TypeError(SENT)]) from error
        except ExceptionGroup as group:
            raised = (type(group), group, group.__traceback__)
            message = "it failed" if logger.startswith("fastn_mcp") else f"it failed: {group!r}"
            record = logging.LogRecord(logger, logging.ERROR, "", 0, message, (), raised)
            inner = logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "%s", (ValueError(SENT),), None)
            lines += [JsonLines(()).format(record), JsonLines(()).format(inner)]
    assert all(SENT not in line for line in lines)
    for name in ("builtins.ValueError", "builtins.KeyError", "builtins.TypeError", "builtins.ExceptionGroup"):
        assert sum(name in line for line in lines) == 3
    refused = (ConnectionRefusedError, ConnectionRefusedError(111, "Connection refused"), None)
    line = JsonLines(()).format(logging.LogRecord("fastn_mcp.x", logging.ERROR, "", 0, "it failed", (), refused))
    assert "builtins.ConnectionRefusedError: [Errno 111] Connection refused" in line
