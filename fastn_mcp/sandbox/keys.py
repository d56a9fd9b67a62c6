"""API keys as they are kept: by digest, so that neither the state nor its file holds one. Pure."""

import hashlib

from pydantic import JsonValue

from fastn_mcp.sandbox.permissions import PRESETS
from fastn_mcp.sandbox.state import Row, State

KEY = "fsk_test_sandbox"
"""May do everything. A test key, so it wants `X-fastn-Test-Mode: true`."""
LIVE_KEY = "fsk_live_sandbox"
"""May do everything, and must not come with the test mode header."""
VIEWER_KEY = "fsk_test_viewer"
"""May read workflows, connectors, connections, triggers and customers, and nothing else."""

TEST_PREFIX = "fsk_test_"
LIVE_PREFIX = "fsk_live_"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def remember(state: State, row: Row, key: str) -> Row:
    """Keep `row`, and let `key` be the key that it describes."""
    described: Row = {**row, "keyPrefix": key[:9], "last4": key[-4:]}
    state.put("_keys", {"id": digest(key), "apiKeyId": row["id"]})
    return state.put("apiKeys", described)


def known(state: State, key: str) -> Row | None:
    """The API key that this is, unless it was revoked."""
    entry = state.get("_keys", digest(key))
    return None if entry is None else state.get("apiKeys", entry["apiKeyId"])


def permissions_of(row: Row) -> frozenset[str]:
    matrix: JsonValue = row.get("matrix")
    if isinstance(matrix, list):
        return frozenset(str(permission) for permission in matrix)
    return PRESETS[str(row["permissions"])]
