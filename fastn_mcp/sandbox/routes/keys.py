"""Routes of API keys and secrets."""

import json
import re
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from fastn_mcp.sandbox.auth import ALL, PRESETS, remember
from fastn_mcp.sandbox.reply import Nothing, One, Outcome, invalid
from fastn_mcp.sandbox.request_context import RouteContext
from fastn_mcp.sandbox.routes.resource import FLAG, NUMBER, TEXT, TEXTS, Resource
from fastn_mcp.sandbox.state import Row, stamp
from fastn_mcp.tools.account import CreateApiKey, CreateSecret, DeleteSecret, RevokeApiKey

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


def create_api_key(desk: RouteContext, call: CreateApiKey) -> Outcome:
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


def revoke(desk: RouteContext, call: RevokeApiKey) -> Outcome:
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


SECRETS = Resource(
    "secrets",
    "secret",
    settable={"name": TEXT, "value": TEXT, "type": TEXT, "customerId": TEXT, "environment": TEXT},
    unique=(),
)

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def create_secret(desk: RouteContext, call: CreateSecret) -> Outcome:
    SECRETS.check(desk.body)
    if _NAME.fullmatch(call.name) is None:
        raise invalid("name", "UPPER_SNAKE_CASE")
    kind = next((k for k in ("Text", "JSON") if k.casefold() == (call.type or "Text").casefold()), None)
    if kind is None:
        raise invalid("type", "Text or JSON")
    if call.value is None:
        raise invalid("value", "is required")
    if kind == "JSON" and not _is_json(call.value):
        raise invalid("value", "is no JSON")
    if call.environment not in (None, "test", "live"):
        raise invalid("environment", "test or live")
    if call.customer_id is not None and desk.state.get("customers", call.customer_id) is None:
        raise invalid("customerId", "there is no such customer")
    given: Row = {
        "name": call.name,
        "type": kind,
        "customerId": call.customer_id,
        "environment": call.environment,
        "scope": "customer" if call.customer_id else "org",
        "updatedAt": desk.time,
    }
    scope = ("name", "customerId", "environment")
    same = [row for row in desk.state.all("secrets") if all(row[part] == given[part] for part in scope)]
    if same:
        desk.audit("secret.update", "secret", same[0]["id"], call.customer_id)
        return One(desk.state.put("secrets", same[0] | given))
    row: Row = {"id": desk.state.short_id("sec"), **given, "createdAt": desk.time}
    desk.audit("secret.create", "secret", row["id"], call.customer_id)
    return One(desk.state.put("secrets", row), 201)


def delete(desk: RouteContext, call: DeleteSecret) -> Outcome:
    SECRETS.remove(desk, SECRETS.find(desk, call.secret_id))
    return Nothing()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
