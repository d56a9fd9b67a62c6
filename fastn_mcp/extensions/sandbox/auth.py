"""Authentication and authorization in the sandbox: keys by digest, test mode, roles, permissions, rate limits."""

import hashlib
from collections.abc import Mapping
from datetime import datetime

from fastn_mcp.extensions.sandbox.replies import SandboxRefusal, forbidden
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, parse_stamp, stamp

KEY = "fsk_test_sandbox"
"""Test key with full access. Needs the header `X-fastn-Test-Mode: true`."""
LIVE_KEY = "fsk_live_sandbox"
"""Live key with full access. Must be sent without the test mode header."""
VIEWER_KEY = "fsk_test_viewer"
"""Test key that may only read workflows, connectors, connections, triggers and customers."""


def _permissions(**groups: str) -> frozenset[str]:
    return frozenset(f"{group}:{action}" for group, actions in groups.items() for action in actions.split())


ALL = _permissions(
    connectors="create read update delete write",
    connections="create read update delete share decrypt",
    workflows="create read update delete execute deploy_test deploy_prod",
    users="create read update invite remove",
    settings="read update manage",
    events="create read update delete replay",
    secrets="read write delete",
    executions="create read",
    widgets="create read update delete",
    unified="read execute",
)
"""Fastn's 42 permissions, in ten groups. Users' roles and keys' presets are separate, with the same names.

AI and the audit log are not among them: they are for owners and admins, which for a key means full access.
"""

VIEWER_PERMISSIONS = frozenset(
    f"{group}:read" for group in ("connectors", "connections", "workflows", "events", "widgets", "unified")
)
OPERATOR = VIEWER_PERMISSIONS | _permissions(
    connections="create update",
    workflows="execute deploy_test",
    users="read",
    settings="read",
    events="create update delete replay",
    secrets="read",
    executions="create read",
    widgets="update",
    unified="execute",
)
DEVELOPER = ALL - _permissions(
    connections="decrypt", workflows="deploy_prod", users="create update invite remove", settings="update manage"
)
END_USER = ALL - _permissions(users="create read update invite remove", settings="update manage")

PRESETS = {
    "Full access": ALL,
    "Developer": DEVELOPER,
    "Operator": OPERATOR,
    "Viewer": VIEWER_PERMISSIONS,
    "End user": END_USER,
}
ROLES = {"Owner": ALL, "Admin": ALL, **{name.title(): held for name, held in PRESETS.items() if held != ALL}}

OWNERS_ONLY = "owners and admins only"
"""In place of a permission, for operations that no permission grants."""


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def store_key(state: SandboxState, row: Row, key: str) -> Row:
    """Store the row of an API key, and the key's digest."""
    state.put("_keys", {"id": digest(key), "apiKeyId": row["id"]})
    return state.put("apiKeys", {**row, "keyPrefix": key[:9], "last4": key[-4:]})


def find_key(state: SandboxState, key: str) -> Row | None:
    """Return the row of an API key; None if it is unknown or revoked."""
    entry = state.get("_keys", digest(key))
    return None if entry is None else state.get("apiKeys", entry["apiKeyId"])


_WINDOW = 60
"""Seconds of a rate limit window."""


def key_in(headers: Mapping[str, str]) -> str | None:
    """Return the API key of a request, from one of the accepted headers."""
    key = headers.get("x-fastn-api-key")
    if key is not None:
        return key
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" and key else None


def authenticate(state: SandboxState, headers: Mapping[str, str], now: datetime) -> Row:
    """Return the row of the request's API key. Raises `SandboxRefusal`."""
    key = key_in(headers)
    row = None if key is None else find_key(state, key)
    if key is None or row is None:
        raise SandboxRefusal(401, "AUTH_INVALID", "Missing or invalid API key")
    testing = headers.get("x-fastn-test-mode", "").lower() == "true"
    if key.startswith("fsk_test_") and not testing:
        raise SandboxRefusal(401, "AUTH_INVALID", "A test key needs the header X-fastn-Test-Mode: true")
    if key.startswith("fsk_live_") and testing:
        raise SandboxRefusal(401, "AUTH_INVALID", "A live key must not come with X-fastn-Test-Mode")
    expires = row.get("expiresAt")
    if isinstance(expires, str) and parse_stamp(expires) <= now:
        raise SandboxRefusal(401, "AUTH_EXPIRED", "The API key has expired")
    # To the minute, so that reading a key does not change it each time.
    row["lastUsed"] = stamp(now.replace(second=0, microsecond=0))
    return row


def authorize(row: Row, needed: str | None) -> None:
    """Raise `SandboxRefusal` if the key lacks this permission."""
    matrix = row.get("matrix")
    held = PRESETS[row["permissions"]] if matrix is None else frozenset(matrix)
    if needed == OWNERS_ONLY and held != ALL:
        raise forbidden("This is for owners and admins")
    if needed not in (None, OWNERS_ONLY) and needed not in held:
        raise forbidden(f"The API key lacks {needed}")


class RateLimiter:
    """Rate limit by key, in fixed windows."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[int, int]] = {}

    def count(self, key: str, limit: int, now: datetime) -> tuple[SandboxRefusal | None, dict[str, str]]:
        """Count a request. Returns the refusal if the limit is exceeded, and the headers of every response."""
        window = int(now.timestamp()) // _WINDOW
        last, used = self._used.get(key, (window, 0))
        used = used + 1 if last == window else 1
        self._used[key] = (window, used)
        reset = (window + 1) * _WINDOW
        headers = {
            "x-ratelimit-limit": str(limit),
            "x-ratelimit-remaining": str(max(limit - used, 0)),
            "x-ratelimit-reset": str(reset),
        }
        if used <= limit:
            return None, headers
        wait = {"retry-after": str(reset - int(now.timestamp()))}
        return SandboxRefusal(429, "RATE_LIMITED", f"More than {limit} requests in a minute", headers=wait), headers
