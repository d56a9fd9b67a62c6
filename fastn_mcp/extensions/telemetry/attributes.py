"""Names of spans, metrics and attributes, and the values that may leave the process.

The vocabulary is closed: names of tools, effects and outcomes. No argument, id, name or text of an account, and no key.
Names without `fastn_mcp.` are OpenTelemetry's conventions for MCP, GenAI and HTTP clients. docs/observability.md
describes each attribute.
"""

import re
from dataclasses import dataclass

from mcp.types.methods import SPEC_CLIENT_METHODS, SPEC_CLIENT_NOTIFICATION_METHODS

TOOL = "gen_ai.tool.name"
METHOD = "mcp.method.name"
ERROR = "error.type"
STATUS_CODE = "rpc.response.status_code"
PROFILE = "fastn_mcp.profile"
EFFECT = "fastn_mcp.effect"
OUTCOME = "fastn_mcp.outcome"
REQUESTS = "fastn_mcp.requests"

ATTRIBUTES = {
    "operation": "fastn_mcp.operation",
    "effect": EFFECT,
    "outcome": OUTCOME,
    "decision": "fastn_mcp.decision",
    "rule": "fastn_mcp.rule",
    "approved_by": "fastn_mcp.approved_by",
    "channel": "fastn_mcp.channel",
    "calls": "fastn_mcp.batch.calls",
    "cause": "fastn_mcp.wait.cause",
    "seconds": "fastn_mcp.wait.seconds",
    "method": "http.request.method",
    "template": "url.template",
    "address": "server.address",
    "port": "server.port",
    "status": "http.response.status_code",
    "resent": "http.request.resend_count",
    "error": ERROR,
}
"""Attribute for each fact given to `System.span`. Other facts are not exported."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument."""

    name: str
    kind: str
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


MCP_DURATION = Metric(
    "mcp.server.operation.duration",
    "histogram",
    "s",
    description="How long an MCP request took.",
    attributes=(METHOD, TOOL, "mcp.protocol.version", "network.transport", ERROR, STATUS_CODE),
    bounds=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
)
CALLED = Metric(
    "fastn_mcp.calls",
    "counter",
    "{call}",
    description="Tool calls, by outcome.",
    attributes=(TOOL, EFFECT, OUTCOME, PROFILE),
)
SENT = Metric(
    REQUESTS,
    "counter",
    "{request}",
    description="Requests of tool calls to Fastn; each attempt counts.",
    attributes=(TOOL, EFFECT, PROFILE),
)
ACTIVE = Metric("fastn_mcp.calls.active", "updowncounter", "{call}", "Tool calls in progress.")
DECIDED = Metric(
    "fastn_mcp.decisions",
    "counter",
    "{decision}",
    description="The guard's decisions about changing calls.",
    attributes=("fastn_mcp.operation", EFFECT, "fastn_mcp.decision", "fastn_mcp.approved_by", OUTCOME, PROFILE),
)
ASKED = Metric(
    "fastn_mcp.question.duration",
    "histogram",
    "s",
    description="How long a call waited for a person at a form.",
    attributes=("fastn_mcp.channel", PROFILE),
    bounds=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600),
)
REQUESTED = Metric(
    "http.client.request.duration",
    "histogram",
    "s",
    description="How long a request to Fastn took; each attempt counts.",
    attributes=(
        "http.request.method",
        "url.template",
        "server.address",
        "server.port",
        "http.response.status_code",
        ERROR,
        PROFILE,
    ),
    bounds=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
)
RETRIED = Metric(
    "fastn_mcp.retries",
    "counter",
    "{retry}",
    description="Requests to Fastn that were sent again.",
    attributes=("fastn_mcp.operation", PROFILE),
)
WAITED = Metric(
    "fastn_mcp.wait.duration",
    "histogram",
    "s",
    description="How long calls wait before they are sent, or sent again.",
    attributes=("fastn_mcp.wait.cause", PROFILE),
    bounds=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
REMAINING = Metric(
    "fastn_mcp.rate_limit.remaining",
    "gauge",
    "{request}",
    description="Requests that Fastn's rate limit still allows, by its last answer.",
    attributes=(PROFILE,),
)

METRICS = (MCP_DURATION, CALLED, SENT, ACTIVE, DECIDED, ASKED, REQUESTED, RETRIED, WAITED, REMAINING)

OTHER_METHOD = "_OTHER"

METHODS = SPEC_CLIENT_METHODS | SPEC_CLIENT_NOTIFICATION_METHODS
"""Methods of MCP. Any other is reported as `OTHER_METHOD`, as a client can send any text."""

_OF_A_PERSON = ("client_form", "local_page", "terminal", "verified", "four_eyes")
_APPROVED_BY = frozenset({"policy", "plan", "temporary_approval", *_OF_A_PERSON})
_IN_A_FILE = re.compile(r"line (\d+)(?:: (\w+))?")


def approved_by(by: str) -> str:
    """Return what permitted a call; `OTHER_METHOD` if that is not a known value."""
    return by if by in _APPROVED_BY else OTHER_METHOD


def rule(name: str) -> str:
    """Return a rule by its line only: a policy file names customers, and its path may name a person."""
    match = _IN_A_FILE.search(name)
    return name if match is None else f"{match[2] or 'plan'}, line {match[1]}"
