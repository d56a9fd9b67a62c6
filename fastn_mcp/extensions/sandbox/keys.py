"""API keys and secrets of the dataset, their rows, and the handlers of their operations."""

import json
import re
from datetime import datetime, timedelta

from fastn_mcp.extensions.sandbox.auth import ALL, KEY, LIVE_KEY, PRESETS, VIEWER_KEY, store_key
from fastn_mcp.extensions.sandbox.replies import choice, instant, invalid
from fastn_mcp.extensions.sandbox.resource import One, Resource, RouteContext, endpoint, fields
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, stamp
from fastn_mcp.tools.access import CreateApiKey, CreateSecret, DeleteSecret, ListApiKeys, ListSecrets, RevokeApiKey


def add_keys(state: SandboxState, now: datetime) -> None:
    hidden = f"fsk_live_{state.hex(32)}"
    expiring = f"fsk_live_{state.hex(32)}"
    for name, key, mode, permissions, used, expires in (
        ("Workflow", hidden, "Live", "Full access", timedelta(minutes=4), None),
        ("MCP", LIVE_KEY, "Live", "Full access", timedelta(hours=3), None),
        ("TEST", VIEWER_KEY, "Test", "Viewer", None, timedelta(days=80)),
        ("BI export", expiring, "Live", "Operator", timedelta(days=1), timedelta(days=6, seconds=-1)),
        ("Sandbox", KEY, "Test", "Full access", None, None),
    ):
        row = api_key(
            state.next_number("apiKeys"), name, mode, permissions=permissions, created=now - timedelta(days=85)
        )
        row["expiresAt"] = stamp(now + expires) if expires else None
        row["lastUsed"] = stamp(now - used) if used else None
        store_key(state, row, key)


def api_key(number: int, name: str, mode: str, permissions: str, created: datetime) -> Row:
    """Return the row of a key that was never used and never expires."""
    return {
        "id": number,
        "name": name,
        "mode": mode,
        "permissions": permissions,
        "customers": None,
        "allowedIps": [],
        "rateLimitPerMinute": None,
        "verifyCallerIdentity": False,
        "expiresAt": None,
        "lastUsed": None,
        "createdAt": stamp(created),
        "createdBy": "dana@fastn.example",
    }


API_KEYS = Resource(
    "apiKeys",
    "api_key",
    settable=fields(
        text="name mode permissions expires",
        number="rateLimitPerMinute",
        flag="verifyCallerIdentity",
        texts="matrix customers allowedIps",
    ),
)

_PERIODS = {"30d": 30, "90d": 90, "1y": 365}


endpoint(ListApiKeys, "settings:manage")(API_KEYS.list)


@endpoint(CreateApiKey, "settings:manage")
def create_api_key(context: RouteContext, call: CreateApiKey) -> One:
    API_KEYS.check(context.body)
    mode = choice("mode", call.mode or "Test", ("Test", "Live"))
    preset, matrix = _permissions(call.permissions or "Viewer", context.body.get("matrix"))
    for customer in call.customers or []:
        context.existing("customers", customer, "customers", "customer")
    row = api_key(context.state.next_number("apiKeys"), call.name, mode, permissions=preset, created=context.now)
    row |= {
        "matrix": matrix,
        "customers": call.customers or None,
        "allowedIps": call.allowed_ips or [],
        "rateLimitPerMinute": call.rate_limit_per_minute,
        "verifyCallerIdentity": bool(context.body.get("verifyCallerIdentity")),
        "expiresAt": _expiry(call.expires or "90d", context.now),
    }
    key = f"fsk_{mode.lower()}_{context.state.hex(48)}"
    stored = store_key(context.state, API_KEYS.create(context, row), key)
    answer: Row = {**stored, "key": key}
    if row["verifyCallerIdentity"]:
        answer["signingSecret"] = context.state.hex(64)
    return One(answer, 201)


@endpoint(RevokeApiKey, "settings:manage")
def revoke(context: RouteContext, call: RevokeApiKey) -> One:
    row = API_KEYS.target(context, call)
    API_KEYS.remove(context, row, "revoke")
    return One({"id": row["id"], "revoked": True})


def _permissions(preset: str, matrix: list[str] | None) -> tuple[str, list[str] | None]:
    name = choice("permissions", preset, (*PRESETS, "Custom"))
    if name != "Custom":
        return name, None
    if matrix is None or not set(matrix) <= ALL:
        raise invalid("matrix", "a list of permissions, needed for Custom")
    return name, matrix


def _expiry(text: str, now: datetime) -> str | None:
    if text == "never":
        return None
    if text in _PERIODS:
        return stamp(now + timedelta(days=_PERIODS[text]))
    when = instant("expires", text, "30d, 90d, 1y, never or a date")
    if when <= now:
        raise invalid("expires", "is over already")
    return stamp(when)


def add_secrets(state: SandboxState, now: datetime) -> None:
    partner = state.named("customers", "globex-exports")["id"]
    for name, kind, customer, environment in (
        ("SHOPIFY_API_TOKEN", "Text", None, None),
        ("STRIPE_SECRET_KEY", "Text", None, None),
        ("PARTNER_TOKEN", "Text", partner, None),
        ("GOOGLE_SA", "JSON", None, "live"),
    ):
        row = secret(state.short_id("sec"), name, kind, customer=customer, when=now - timedelta(days=140))
        row |= {"environment": environment, "updatedAt": stamp(now - timedelta(days=61))}
        state.put("secrets", row)


def secret(key: str, name: str, kind: str, customer: str | None, when: datetime) -> Row:
    """Return the row of a secret. Its value is not stored, as Fastn never shows it."""
    created = stamp(when)
    return {
        "id": key,
        "name": name,
        "type": kind,
        "customerId": customer,
        "environment": None,
        "scope": "customer" if customer else "org",
        "createdAt": created,
        "updatedAt": created,
    }


SECRETS = Resource("secrets", "secret", settable=fields(text="name value type customerId environment"), unique=())

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


endpoint(ListSecrets, "secrets:read")(SECRETS.list)
endpoint(DeleteSecret, "secrets:delete")(SECRETS.delete)


@endpoint(CreateSecret, "secrets:write")
def create_secret(context: RouteContext, call: CreateSecret) -> One:
    SECRETS.check(context.body)
    if _NAME.fullmatch(call.name) is None:
        raise invalid("name", "UPPER_SNAKE_CASE")
    kind = choice("type", call.type or "Text", ("Text", "JSON"))
    if call.value is None:
        raise invalid("value", "is required")
    if kind == "JSON" and not _is_json(call.value):
        raise invalid("value", "is not JSON")
    if call.environment not in (None, "test", "live"):
        raise invalid("environment", "test or live")
    if call.customer_id is not None:
        context.existing("customers", call.customer_id, "customerId", "customer")
    row = secret("", call.name, kind, customer=call.customer_id, when=context.now) | {"environment": call.environment}
    for same in context.state.all("secrets"):
        if all(same[part] == row[part] for part in ("name", "customerId", "environment")):
            context.audit("secret.update", "secret", same["id"], call.customer_id)
            return One(context.state.put("secrets", row | {"id": same["id"], "createdAt": same["createdAt"]}))
    row["id"] = context.state.short_id("sec")
    context.audit("secret.create", "secret", row["id"], call.customer_id)
    return One(context.state.put("secrets", row), 201)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
