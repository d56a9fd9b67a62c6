"""A row of Fastn's audit log. Pure."""

from datetime import datetime

from pydantic import JsonValue

from fastn_mcp.sandbox.state import Row, State, stamp


def record(
    state: State,
    now: datetime,
    actor: str,
    action: str,
    resource: tuple[str, JsonValue],
    outcome: str = "Success",
    customer: JsonValue = None,
) -> Row:
    """Append what `actor` did to a resource, which is a type and an id."""
    kind, key = resource
    row: Row = {
        "id": state.next_number("audit"),
        "timestamp": stamp(now),
        "actor": actor,
        "actorType": "service_account" if actor.startswith("apikey:") else "agent" if actor == "agent" else "user",
        "action": action,
        "resource": {"type": kind, "id": key},
        "endOrgId": customer,
        "scope": "Customer" if customer else "Organisation-wide",
        "outcome": outcome,
    }
    return state.put("audit", row)
