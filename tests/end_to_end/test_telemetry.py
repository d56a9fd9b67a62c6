"""A real process exports telemetry to a real collector over OTLP; an unreachable collector costs nothing."""

import json
import os
import signal
import socket
import subprocess
import sys

import httpx2
import pytest
from mcp import Client
from support.command_line import run_command
from support.otlp_receiver import Receiver, values
from support.ports import free_port
from support.raw_client import META, call, ended, serving
from support.server_process import (
    ERAS,
    HTTP_TOKEN,
    KEY,
    Person,
    Upstream,
    approving,
    body,
    each_era,
    environment,
    over_http,
    running,
    stdio,
)
from support.team_world import Caller, modern, request

pytestmark = pytest.mark.extension("telemetry")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def sending(upstream: Upstream, url: str, **more: str) -> dict[str, str]:
    return environment(upstream) | {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "BROWSER": "true"} | more


async def _work(client: Client, upstream: Upstream) -> str:
    """Make a retried read and an approved change. Return the id of the changed object."""
    upstream.fault(kind="status", status=503, method="GET", path="*", message="canary of Fastn")
    target = body(await client.call_tool("list_customers", {"search": "Globex Exports"}))["data"][0]
    result = await client.call_tool("delete_customer", {"customer_id": target["id"]})
    assert body(result)["done"] == "delete_customer"
    return str(target["id"])


def _arrived(collector: Receiver, customer: str) -> None:
    spans = {span.name for span in collector.spans}
    assert {"tools/call delete_customer", "guard delete_customer", "fastn delete_customer"} <= spans
    assert "DELETE /api/v1/customers/{customer_id}" in spans
    assert collector.metrics >= {
        "mcp.server.operation.duration", "fastn_mcp.calls", "fastn_mcp.decisions", "http.client.request.duration",
        "fastn_mcp.retries", "fastn_mcp.wait.duration", "fastn_mcp.rate_limit.remaining",
    }  # fmt: skip
    (waited,) = [record for record in collector.records if "Trying again" in record.body.string_value]
    assert waited.body.string_value.startswith("Fastn answered 503. Trying again in ")
    read = next(span for span in collector.spans if span.name == "fastn list_customers")
    assert (waited.trace_id, waited.span_id) == (read.trace_id, read.span_id)
    everything = collector.everything()
    for text in (KEY, customer, "Globex", "canary"):
        assert text not in everything


@each_era
async def test_stdio_server_exports_everything_by_its_exit(era: str, upstream: Upstream, collector: Receiver) -> None:
    env = sending(upstream, collector.url, OTEL_SERVICE_NAME="our-fastn", FASTN_LOG_LEVEL="info")
    async with Client(stdio(env), mode=ERAS[era], elicitation_callback=Person(approving)) as client:
        customer = await _work(client, upstream)
    _arrived(collector, customer)
    assert collector.services == {"our-fastn"}


async def test_http_server_exports_everything_by_its_exit(upstream: Upstream, collector: Receiver) -> None:
    """W3C, SEP-414: the parent is the one in the message, else the one in the request's header."""
    port = free_port()
    env = sending(upstream, collector.url, FASTN_LOG_LEVEL="info", OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    url = f"http://127.0.0.1:{port}/mcp"
    with running("--http", f"127.0.0.1:{port}", port=port, env=env):
        async with Client(over_http(url), mode="2026-07-28", elicitation_callback=Person(approving)) as client:
            customer = await _work(client, upstream)
        async with httpx2.AsyncClient(base_url=url.removesuffix("/mcp")) as plain:
            for header, meta in ((OTHER, {"traceparent": PARENT}), (PARENT, {})):
                sent = request("get_billing", {}, _meta=META | meta)
                answer = await Caller(plain).ask(HTTP_TOKEN, sent, **modern("get_billing"), traceparent=header)
                answer.raise_for_status()
    _arrived(collector, customer)
    assert collector.services == {"fastn-mcp"}
    both, header = [span for span in collector.spans if span.name == "tools/call get_billing"]
    assert (both.trace_id.hex(), header.trace_id.hex()) == (TRACE, TRACE)
    assert [link.trace_id.hex() for link in both.links] == [OTHER[3:35]]
    assert not header.links
    assert values(header.attributes)["network.transport"] == "tcp"
    asked, answered = [span for span in collector.spans if span.name == "guard delete_customer"]
    assert [link.span_id for link in answered.links] == [asked.span_id]
    # Trace headers are not sent to Fastn.
    headers = {name for request in upstream.requests() for name in request["headers"]}
    assert "user-agent" in headers or "x-fastn-api-key" in headers
    assert not {"traceparent", "tracestate", "baggage"} & headers


def test_command_exports_its_work(upstream: Upstream, collector: Receiver) -> None:
    assert run_command(["call", "list_customers"], sending(upstream, collector.url)).returncode == 0
    assert {span.name for span in collector.spans} == {
        "execute_tool list_customers", "fastn list_customers", "GET /api/v1/customers",
    }  # fmt: skip
    assert "fastn_mcp.calls" in collector.metrics


@pytest.mark.long
@pytest.mark.parametrize("away", ["refuses", "never answers"])
@pytest.mark.parametrize("ending", ["end of input", "SIGTERM"])
def test_unreachable_collector_delays_neither_calls_nor_exit(away: str, ending: str, upstream: Upstream) -> None:
    """The SDK's own shutdown would wait half a minute for each of the three signals."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        if away == "never answers":
            deaf.listen(16)
        env = sending(upstream, f"http://127.0.0.1:{deaf.getsockname()[1]}", OTEL_BSP_SCHEDULE_DELAY="1")
        with serving(env, stderr=subprocess.DEVNULL) as server:
            assert "structuredContent" in server.asked(call(2, "get_billing"))["result"]
            if ending == "SIGTERM":
                server.process.send_signal(signal.SIGTERM)
            else:
                server.close()
            assert ended(server.process, 10) == 0


LOADED = """
import os, sys
from fastn_mcp.cli.program import cli
for variables in (
    {},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
    {"OTEL_SERVICE_NAME": "named"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
):
    os.environ.update(variables)
    try:
        cli(["--sandbox", "call", "get_billing"])
    except SystemExit as ended:
        assert not ended.code
    for name in variables:
        del os.environ[name]
    telemetry = ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "fastn_mcp.extensions.telemetry")
    loaded = [name for name in sys.modules if name.startswith(telemetry)]
    assert not loaded, (variables, loaded)
"""


def test_telemetry_is_not_loaded_without_a_collector(upstream: Upstream) -> None:
    env = os.environ | environment(upstream)
    subprocess.run([sys.executable, "-c", LOADED], env=env, check=True, timeout=60)


def _call(upstream: Upstream, **variables: str) -> "subprocess.CompletedProcess[str]":
    done = run_command(["--sandbox", "call", "get_billing"], sending(upstream, "http://127.0.0.1:9", **variables))
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, but only http/protobuf is supported: no traces are sent",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
            "OTEL_TRACES_EXPORTER is console, but only otlp is supported: no traces are sent",
        ),
        (
            {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-1"},
            "no telemetry is sent: invalid OpenTelemetry variable (ValueError)",
        ),
    ],
)
def test_unsupported_telemetry_is_only_logged(variables: dict[str, str], problem: str, upstream: Upstream) -> None:
    lines = _call(upstream, **variables).stderr.splitlines()
    assert problem in [json.loads(line)["message"] for line in lines if line.startswith("{")]


def test_missing_exporter_is_logged_and_ignored(upstream: Upstream) -> None:
    program = "import sys; sys.modules['opentelemetry.sdk'] = None; from fastn_mcp.cli.program import main; main()"
    command = [sys.executable, "-c", program, "--sandbox", "call", "get_billing"]
    env = os.environ | sending(upstream, "http://127.0.0.1:9")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60)
    assert "not installed: pip install '.[otel]' in a clone" in done.stderr
