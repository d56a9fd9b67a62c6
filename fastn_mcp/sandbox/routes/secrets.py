"""Secrets. A value goes in and never comes out; it is not even kept."""

import json
import re

from fastn_mcp.sandbox.desk import Desk
from fastn_mcp.sandbox.reply import Nothing, One, Outcome, invalid
from fastn_mcp.sandbox.routes.fields import TEXT
from fastn_mcp.sandbox.routes.resource import Resource
from fastn_mcp.sandbox.state import Row
from fastn_mcp.tools.secrets import CreateSecret, DeleteSecret

SECRETS = Resource(
    "secrets",
    "secret",
    settable={"name": TEXT, "value": TEXT, "type": TEXT, "customerId": TEXT, "environment": TEXT},
    unique=(),
)

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def create(desk: Desk, call: CreateSecret) -> Outcome:
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


def delete(desk: Desk, call: DeleteSecret) -> Outcome:
    SECRETS.remove(desk, SECRETS.find(desk, call.secret_id))
    return Nothing()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
