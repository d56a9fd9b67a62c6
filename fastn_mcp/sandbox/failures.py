"""How a run fails, in the words of Fastn's documentation. Pure."""

from typing import cast

from pydantic import JsonValue

from fastn_mcp.sandbox.state import Row, SandboxState


def dependency_error(state: SandboxState, app: str, action: str, customer: str | None) -> Row:
    """A pinned connection that no longer works."""
    any_of_it = (row for row in state.all("connections") if cast(Row, row["connector"])["slug"] == app)
    connection = connection_of(state, app, customer) or next(any_of_it, None)
    return unusable(app, action, str(connection["id"]) if connection else "(removed)")


def unusable(app: str, action: str, pinned: str) -> Row:
    """The same, where it is known which connection that is."""
    return {
        "tag": "Dependency Error",
        "category": "Configuration",
        "code": "CONNECTION",
        "severity": "Needs your attention",
        "headline": f"The {app} connection cannot be used",
        "failedAt": f"connector.{app}.{action}",
        "step": "Step 2 of 2",
        "diagnosis": {
            "whatHappened": f"The workflow called {action} and {app} did not accept the connection.",
            "why": "The pinned connection was revoked, expired, or belongs to another customer.",
            "howToFix": f"Let the customer connect {app} again in the widget, then run the workflow once.",
        },
        "raw": f'Pinned connection "{pinned}" is not usable or does not belong to this org for connector "{app}"',
    }


def no_connection(app: str, customer: str) -> Row:
    """A customer who never connected the app, or no longer does."""
    return {
        "tag": "Dependency Error",
        "category": "Configuration",
        "code": "CONNECTION",
        "severity": "Needs your attention",
        "headline": f"{app} is not connected",
        "failedAt": f"connector.{app}",
        "step": "Step 1 of 2",
        "diagnosis": {
            "whatHappened": f"There is no active {app} connection for this customer.",
            "why": "It was never connected, or it was disconnected.",
            "howToFix": f"Let the customer connect {app} in the widget.",
        },
        "raw": f'No active connection for connector "{app}" and end-org {customer}',
    }


def out_of_memory() -> Row:
    return {
        "category": "Configuration",
        "code": "DATA",
        "severity": "Needs your attention",
        "headline": "The workflow ran out of memory",
        "raw": "Sandbox memory limit exceeded: 512 MB of 512 MB",
    }


def timed_out(milliseconds: int) -> Row:
    return {
        "category": "Configuration",
        "code": "CONFIGURATION",
        "severity": "Needs your attention",
        "headline": "The workflow took too long",
        "raw": f"WF-TIMEOUT: no result after {milliseconds} ms",
    }


def connection_of(state: SandboxState, app: str, customer: JsonValue, status: str | None = None) -> Row | None:
    """The customer's connection to an app, of this status if one is named."""
    connector = state.first("connectors", "slug", app)
    return next(
        (
            row
            for row in state.all("connections")
            if connector is not None
            and row["connectorId"] == connector["id"]
            and row["endOrgId"] == customer
            and status in (None, row["status"])
        ),
        None,
    )
