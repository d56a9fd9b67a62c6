"""Names of spans, metrics and attributes, and the values that may leave the process.

A closed vocabulary: names of tools, effects, outcomes. No argument, no id, no name and no text of an account's, no key.
Names that begin otherwise than with `fastn_mcp.` are of OpenTelemetry's conventions (MCP, GenAI and HTTP client).
"""

import re
from dataclasses import dataclass

TOOL = "gen_ai.tool.name"
PROMPT = "gen_ai.prompt.name"
GEN_AI = "gen_ai.operation.name"
METHOD = "mcp.method.name"
PROTOCOL = "mcp.protocol.version"
REQUEST_ID = "jsonrpc.request.id"
STATUS_CODE = "rpc.response.status_code"
TRANSPORT = "network.transport"
ERROR = "error.type"
HTTP_METHOD = "http.request.method"
HTTP_STATUS = "http.response.status_code"
RESENT = "http.request.resend_count"
TEMPLATE = "url.template"
ADDRESS = "server.address"
PORT = "server.port"

PROFILE = "fastn_mcp.profile"
EFFECT = "fastn_mcp.effect"
OUTCOME = "fastn_mcp.outcome"
DECISION = "fastn_mcp.decision"
RULE = "fastn_mcp.rule"
CONSENT = "fastn_mcp.consent"
OPERATION = "fastn_mcp.operation"
CAUSE = "fastn_mcp.wait.cause"
SECONDS = "fastn_mcp.wait.seconds"
CHANNEL = "fastn_mcp.channel"
CALLS = "fastn_mcp.batch.calls"

ATTRIBUTES: dict[str, str] = {
    METHOD: "the MCP method; `_OTHER` for one that MCP does not have",
    TOOL: "the tool, where there is one of this name",
    PROMPT: "the prompt, likewise",
    GEN_AI: "`execute_tool`, for a call of a tool",
    PROTOCOL: "the version of MCP",
    REQUEST_ID: "the id of the client's request",
    STATUS_CODE: "the code of an error of the protocol",
    TRANSPORT: "`pipe` or `tcp`",
    ERROR: "what went wrong: an outcome, a status, a kind of error; `tool_error` for a result that is one",
    HTTP_METHOD: "the method of a request to Fastn",
    HTTP_STATUS: "the status of its answer",
    RESENT: "how often it was sent before",
    TEMPLATE: "its path, with the names of parameters instead of ids",
    ADDRESS: "Fastn's host",
    PORT: "Fastn's port",
    PROFILE: "the profile, which is the tenant's where there are several",
    EFFECT: "read, write, external, spend, access, trash or destroy",
    OUTCOME: "what became of it: `done`, `approval_required`, `previewed`, `admitted`, or the outcome of the error",
    DECISION: "what the policy says: allow, confirm, typed, out_of_band, four_eyes, deny",
    RULE: "the rule that says so, by its line where it stands in a file",
    CONSENT: "by what right it is sent: policy, plan, scope, client_form, local_page, terminal, verified, four_eyes",
    OPERATION: "the operation of Fastn's API",
    CAUSE: "`retry` or `rate_limit`",
    SECONDS: "how long it waits",
    CHANNEL: "on what a person is asked",
    CALLS: "how many calls were agreed to together",
}
"""Every attribute, and what it holds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument."""

    name: str
    kind: str
    unit: str
    says: str
    attributes: tuple[str, ...]
    bounds: tuple[float, ...] = ()


MCP_DURATION = Metric(
    "mcp.server.operation.duration",
    "histogram",
    "s",
    "How long an MCP request took.",
    (METHOD, TOOL, PROTOCOL, TRANSPORT, ERROR, STATUS_CODE),
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
)
CALLED = Metric(
    "fastn_mcp.calls", "counter", "{call}", "Calls of tools, by what became of them.", (TOOL, EFFECT, OUTCOME, PROFILE)
)
ACTIVE = Metric("fastn_mcp.calls.active", "updowncounter", "{call}", "Calls of tools that are being made now.", ())
DECIDED = Metric(
    "fastn_mcp.decisions",
    "counter",
    "{decision}",
    "What the guard decided about calls that change something.",
    (OPERATION, EFFECT, DECISION, CONSENT, OUTCOME, PROFILE),
)
ASKED = Metric(
    "fastn_mcp.question.duration",
    "histogram",
    "s",
    "How long a call waited for a person at a form.",
    (CHANNEL, PROFILE),
    (1, 2, 5, 10, 20, 30, 60, 120, 300, 600),
)
REQUESTED = Metric(
    "http.client.request.duration",
    "histogram",
    "s",
    "How long a request to Fastn took; each attempt counts.",
    (HTTP_METHOD, TEMPLATE, ADDRESS, PORT, HTTP_STATUS, ERROR, PROFILE),
    (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
)
RETRIED = Metric(
    "fastn_mcp.retries", "counter", "{retry}", "Requests to Fastn that were sent again.", (OPERATION, PROFILE)
)
WAITED = Metric(
    "fastn_mcp.wait.duration",
    "histogram",
    "s",
    "How long calls wait before they are sent, or sent again.",
    (CAUSE, PROFILE),
    (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
ROOM = Metric(
    "fastn_mcp.rate_limit.remaining",
    "gauge",
    "{request}",
    "Requests that Fastn's rate limit still allows, as it said last.",
    (PROFILE,),
)

METRICS = (MCP_DURATION, CALLED, ACTIVE, DECIDED, ASKED, REQUESTED, RETRIED, WAITED, ROOM)

SPANS: dict[str, str] = {
    "{mcp.method.name} {tool or prompt}": "an MCP request, from its arrival to its answer",
    "execute_tool {tool}": "a call that no MCP request made: of the command line, or to read a resource",
    "guard {operation}": "the guard's decision about a call that changes something, with what it reads for the preview",
    "ask {channel}": "a person is asked while the call waits",
    "fastn {operation}": "a call of Fastn's API, with all its attempts; a wait is an event `wait`",
    "{http.request.method} {url.template}": "one attempt: a request and its answer",
}
"""Every span, by what its name is made of."""

OTHER = "_OTHER"

METHODS = frozenset({
    "initialize", "ping", "server/discover", "logging/setLevel", "completion/complete", "tools/list", "tools/call",
    "prompts/list", "prompts/get", "resources/list", "resources/templates/list", "resources/read",
    "resources/subscribe", "resources/unsubscribe", "subscriptions/listen", "notifications/initialized",
    "notifications/cancelled", "notifications/progress", "notifications/roots/list_changed",
})  # fmt: skip
"""What MCP has: a client can call its method anything."""

_CONSENTS = frozenset({
    "policy", "plan", "scope", "client_form", "local_page", "terminal", "verified", "four_eyes",
})  # fmt: skip
_IN_A_FILE = re.compile(r"line (\d+)(?:: (\w+))?")


def consent(by: str) -> str:
    """By what right, in the words above."""
    return by if by in _CONSENTS else OTHER


def rule(name: str) -> str:
    """A rule by its place: a policy file names customers, and may lie in somebody's folder."""
    found = _IN_A_FILE.search(name)
    return name if found is None else f"{found[2] or 'plan'}, line {found[1]}"
