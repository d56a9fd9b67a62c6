"""Where else things are known to be. Pure data, each with its evidence in Fastn's pages or public code."""

from dataclasses import dataclass

from fastn_mcp.operation import Route
from fastn_mcp.tools import AnyOperation


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The beginning of a path, what stands there instead in other places, and who says so."""

    path: str
    instead: tuple[str, ...]
    evidence: str


ELSEWHERE = (
    Elsewhere("/api/v1/customers", ("/api/v1/orgs", "/api/v1/organizations"), "third parties; the classic API"),
    Elsewhere("/api/v1/triggers", ("/api/v1/app-triggers",), "third parties"),
    Elsewhere("/api/v1/audit", ("/api/v1/audit-log",), "Fastn's documentation"),
    Elsewhere("/api/v1/api-keys", ("/api/v1/api-access",), "the classic API"),
    Elsewhere("/api/v1/billing/usage", ("/api/v1/quota/usage",), "the classic API"),
    Elsewhere("/api/v1/billing/quotas", ("/api/v1/quota/summary", "/api/v1/quota/daily"), "the classic API"),
    Elsewhere(
        "/api/v1/workflows/{workflow_id}/run",
        ("/api/v1/workflows/{workflow_id}/execute",),
        "Fastn's documentation, third parties",
    ),
    Elsewhere("/api/v1/ai/build", ("/api/v1/ai/generate", "/api/v1/ai/run"), "the classic API"),
)

OTHER_HOSTS = ("api.fastn.dev (with --auth bearer)", "live.gcp.fastn.ai", "app.fastn.dev")
"""Fastn's hosts besides the default, the likeliest first: third parties and Fastn's own package send keys there.

Named to a person, and never tried: a key goes to the host that it was given for, and to no other.
"""

CA_VARIABLES = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"),
    *("AWS_CA_BUNDLE", "PIP_CERT", "NIX_SSL_CERT_FILE"),
)
"""Where a machine names its company's certificates for other programs."""

PROXY_VARIABLES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "npm_config_https_proxy", "npm_config_proxy")
"""Where it names its proxy for other programs, or other addresses."""


def alternatives(operation: AnyOperation) -> tuple[Route, ...]:
    """The other routes that an operation may have."""
    path = operation.route.path
    return tuple(
        Route(operation.route.method, new + path.removeprefix(known.path))
        for known in ELSEWHERE
        if path == known.path or path.startswith(f"{known.path}/")
        for new in known.instead
    )
