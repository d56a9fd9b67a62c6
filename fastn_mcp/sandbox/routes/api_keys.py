"""API keys. A new one is shown once; a revoked one stops at once."""

from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from fastn_mcp.sandbox.desk import Desk
from fastn_mcp.sandbox.keys import remember
from fastn_mcp.sandbox.permissions import ALL, PRESETS
from fastn_mcp.sandbox.reply import One, Outcome, invalid
from fastn_mcp.sandbox.routes.fields import FLAG, NUMBER, TEXT, TEXTS
from fastn_mcp.sandbox.routes.resource import Resource
from fastn_mcp.sandbox.state import Row, stamp
from fastn_mcp.tools.api_keys import CreateApiKey, RevokeApiKey

API_KEYS = Resource(
    "apiKeys",
    "api_key",
    settable={
        "name": TEXT,
        "mode": TEXT,
        "permissions": TEXT,
        "matrix": TEXTS,
        "expires": TEXT,
        "customers": TEXTS,
        "allowedIps": TEXTS,
        "rateLimitPerMinute": NUMBER,
        "verifyCallerIdentity": FLAG,
    },
)

_PERIODS = {"30d": 30, "90d": 90, "1y": 365}


def create(desk: Desk, call: CreateApiKey) -> Outcome:
    API_KEYS.check(desk.body)
    mode = (call.mode or "Test").capitalize()
    if mode not in ("Test", "Live"):
        raise invalid("mode", "Test or Live")
    preset, matrix = _permissions(call.permissions or "Viewer", desk.body.get("matrix"))
    for customer in call.customers or []:
        if desk.state.get("customers", customer) is None:
            raise invalid("customers", "there is no such customer")
    customers: list[JsonValue] | None = [*call.customers] if call.customers else None
    allowed: list[JsonValue] = [*(call.allowed_ips or [])]
    row: Row = {
        "id": desk.state.next_number("apiKeys"),
        "name": call.name,
        "mode": mode,
        "permissions": preset,
        "matrix": matrix,
        "customers": customers,
        "allowedIps": allowed,
        "rateLimitPerMinute": call.rate_limit_per_minute,
        "verifyCallerIdentity": bool(desk.body.get("verifyCallerIdentity")),
        "expiresAt": _expiry(call.expires or "90d", desk.now),
        "lastUsed": None,
    }
    key = f"fsk_{mode.lower()}_{desk.state.hex(48)}"
    made = remember(desk.state, API_KEYS.make(desk, row), key)
    shown: Row = {**made, "key": key}
    if row["verifyCallerIdentity"]:
        shown["signingSecret"] = desk.state.hex(64)
    return One(shown, 201)


def revoke(desk: Desk, call: RevokeApiKey) -> Outcome:
    row = API_KEYS.find(desk, call.api_key_id)
    API_KEYS.remove(desk, row, "revoke")
    return One({"id": row["id"], "revoked": True})


def _permissions(preset: str, matrix: JsonValue) -> tuple[str, JsonValue]:
    if preset.casefold() == "custom":
        if not isinstance(matrix, list) or not {str(p) for p in matrix} <= ALL:
            raise invalid("matrix", "a list of permissions, needed for Custom")
        return "Custom", matrix
    found = next((name for name in PRESETS if name.casefold() == preset.casefold()), None)
    if found is None:
        raise invalid("permissions", f"one of {', '.join(PRESETS)}, Custom")
    return found, None


def _expiry(text: str, now: datetime) -> str | None:
    if text == "never":
        return None
    if text in _PERIODS:
        return stamp(now + timedelta(days=_PERIODS[text]))
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise invalid("expires", "30d, 90d, 1y, never or a date") from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    if when <= now:
        raise invalid("expires", "is over already")
    return stamp(when)
