"""Other hosts of Fastn's API, and where each setting came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastn_mcp.config.addresses import named_by
from fastn_mcp.config.load import Resolved
from fastn_mcp.config.model import KEY_SETTINGS, SOURCES, ConfigFile, Settings
from fastn_mcp.doctor.check import Check, CheckGroup, CheckResult
from fastn_mcp.errors import SettingsError
from fastn_mcp.tools.catalog import AnyOperation
from fastn_mcp.tools.operation import Route


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


THE_FILE, THE_PROFILE = "the file", "its profile"

_PLAIN = ("base_url", "auth", "test_mode", "mode", "env", "profile", "update")
"""The settings whose values the person at the terminal is shown."""


def origins(
    resolved: Resolved, flags: Mapping[str, object], environment: Mapping[str, str], file: ConfigFile
) -> dict[str, str]:
    """The settings that are set, in the words of whoever would change them."""
    settings = resolved.settings
    found = {name: THE_FILE for name in file.top if name not in KEY_SETTINGS}
    found |= {name: THE_PROFILE for name in file.profiles.get(settings.profile, {}) if name not in KEY_SETTINGS}
    for source in SOURCES:
        if environment.get(source.variable) and source.field != "api_key":
            found[source.field] = source.variable
        if flags.get(source.field) is not None:
            found[source.field] = str(source.flag)
    named = named_by(environment, settings.base_url)
    if "proxy" not in found and named is not None:
        found["proxy"] = named[0]
    # The place of a key may be a path.
    found["api_key"] = resolved.key if not {"/", "\\"} & set(resolved.key) else "a file"
    return found


def check(settings: Settings, found: Mapping[str, str], file: Path | None) -> Check:
    """Which settings are set, and by what."""
    said = ", ".join(f"{name} ({origin})" for name, origin in sorted(found.items()))
    values = ", ".join(f"{name} {getattr(settings, name)}" for name in _PLAIN if getattr(settings, name) is not None)
    here = values + (f"; the file is {file}" if file is not None else "; no file")
    return Check(CheckGroup.SETTINGS, "settings", CheckResult.OK, f"Set: {said or 'nothing'}.", here=here)


def wrong(error: SettingsError, file: Path | None) -> Check:
    """What is missing or wrong. Where the file lies is nobody's but the person's at the terminal."""
    own = "" if file is None else str(file)
    seen, then = (text.replace(own, "the file") if own else text for text in (error.what, error.next_step))
    here = f"The file is {own}." if seen != error.what else ""
    return Check(
        CheckGroup.SETTINGS, "settings", CheckResult.FAILED, seen, then or "Correct it, and run doctor again.", here
    )
