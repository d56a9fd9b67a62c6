"""The state of what a workflow needs to run: itself, its triggers, its connections. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from fastn_mcp.procedures.ages import age
from fastn_mcp.procedures.moments import first_moment
from fastn_mcp.tools.triggers import is_disabled

Row = Mapping[str, JsonValue]

_LONGEST_NAME = 60
_WHEN = ("at", "timestamp", "createdAt")


@dataclass(frozen=True, slots=True)
class Setup:
    """A workflow as it is set up. What is not known is empty."""

    name: str = ""
    tier: str = ""
    timeout_ms: float | None = None
    apps: tuple[str, ...] = ()
    """Slugs or ids of the connectors of its manifest."""
    cannot_run: str = ""
    """Why it cannot run at all, where that is so."""


@dataclass(frozen=True, slots=True)
class Bond:
    """A connection: of whom, to what, and whether it works."""

    id: str
    apps: frozenset[str]
    """Slug and id of its connector."""
    label: str
    """As `TikTok Shop connection of Katana`."""
    customer: str | None
    status: str

    @property
    def broken(self) -> bool:
        return self.status in ("EXPIRED", "FAILED", "INACTIVE")


@dataclass(frozen=True, slots=True)
class Starter:
    """A trigger that starts the workflow, and what is wrong with it."""

    id: str
    name: str
    kind: str
    status: str
    problem: str
    """Empty where nothing is."""
    fires: bool
    """Whether it can fire as it is."""
    at_once: bool
    """Whether somebody could switch it on again here."""


def setup(workflow: Row) -> Setup:
    """The workflow of this row."""
    timeout = workflow.get("timeoutMs")
    manifest = workflow.get("connectors")
    apps = [_app(entry) for entry in manifest] if isinstance(manifest, list) else []
    status = text(workflow, "status").casefold()
    published = workflow.get("publishedVersion", ...)
    cannot_run = ""
    if status == "draft" or published in (None, "", "Unpublished"):
        cannot_run = "it was never published (WORKFLOW_NOT_PUBLISHED); somebody has to, in the dashboard"
    elif status in ("inactive", "disabled"):
        cannot_run = f"the workflow is switched off ({status})"
    return Setup(
        name=text(workflow, "name", "slug"),
        tier=text(workflow, "executionTier").upper(),
        timeout_ms=timeout if isinstance(timeout, (int, float)) else None,
        apps=tuple(app for app in apps if app),
        cannot_run=cannot_run,
    )


def _app(entry: JsonValue) -> str:
    return text(entry, "slug", "connectorId", "id", "name") if isinstance(entry, dict) else str(entry or "")


def bonds(rows: Iterable[Row], apps: Iterable[str], names: Mapping[str, str]) -> list[Bond]:
    """The connections to these apps, those that do not work first. `names` are of customers, by id."""
    wanted = set(apps)
    found: dict[str, Bond] = {}
    for row in rows:
        nested = row.get("connector")
        connector: Row = nested if isinstance(nested, dict) else {}
        known = {text(row, "connectorId"), text(row, "connectorSlug"), text(connector, "slug"), text(connector, "id")}
        if not (known & wanted):
            continue
        customer = text(row, "endOrgId", "customerId") or None
        app = text(connector, "name", "slug") or text(row, "connectorSlug", "name")
        whose = "the account itself" if customer is None else names.get(customer, customer)[:_LONGEST_NAME]
        key = text(row, "id") or f"{app} {whose}"
        status = text(row, "status").upper() or "UNKNOWN"
        label = f"{app} connection of {whose}".strip()
        found[key] = Bond(text(row, "id"), frozenset(known - {""}), label, customer, status)
    return sorted(found.values(), key=lambda bond: not bond.broken)


def starters(rows: Iterable[Row], workflow_id: str, now: datetime) -> list[Starter]:
    """The triggers that name the workflow, those with a problem first."""
    found = [_starter(row, now) for row in rows if _mentions(row.get("routes"), workflow_id)]
    return sorted(found, key=lambda starter: not starter.problem)


def _starter(row: Row, now: datetime) -> Starter:
    status = text(row, "status") or "unknown"
    subscription = text(row, "subscriptionStatus").upper()
    failures = row.get("consecutiveFailures")
    problem, fires = "", True
    if is_disabled(status):
        problem, fires = _switched_off(row, now), False
    elif subscription not in ("", "ACTIVE", "SUBSCRIBED"):
        problem, fires = f"Active, but its subscription is {subscription}: it never fires", False
    elif row.get("manualRegistrationRequired") is True:
        problem = "its webhook has to be registered at the app by hand"
    elif isinstance(failures, int) and failures > 0:
        problem = f"{failures} consecutive failures; the platform switches it off after too many"
    kind = text(row, "type")
    return Starter(text(row, "id"), text(row, "name"), kind, status, problem, fires, is_disabled(status))


def _switched_off(row: Row, now: datetime) -> str:
    """Who switched it off, when and why, as far as its history says."""
    history = row.get("statusHistory")
    entries = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
    off = [entry for entry in entries if is_disabled(text(entry, "status"))]
    last: Row = max(off, key=lambda entry: str(first_moment(entry, *_WHEN))) if off else {}
    by = text(last, "by", "actor", "changedBy")
    when = first_moment(last, *_WHEN)
    who = " by the platform" if by.casefold() in ("platform", "system") else f" by {by}" if by else ""
    ago = "" if when is None else f" {age(when, now)}"
    reason = text(last, "reason").rstrip(".")
    return f"disabled{who}{ago}" + (f": {reason}" if reason else "")


def _mentions(value: JsonValue, wanted: str) -> bool:
    if isinstance(value, dict):
        return any(_mentions(inner, wanted) for inner in value.values())
    if isinstance(value, list):
        return any(_mentions(inner, wanted) for inner in value)
    return value == wanted


def text(row: Row, *names: str) -> str:
    """The first of these fields that is a text or a number, cut to the length of a name."""
    for name in names:
        value = row.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            return str(value)[: 256 if name.endswith("d") else 2 * _LONGEST_NAME]
    return ""
