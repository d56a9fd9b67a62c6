"""Accounts that differ from what is declared, as real ones may, for `doctor` to find.

Each is one of the differences that Fastn's own pages show, or that third parties saw.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from fastn_mcp.sandbox.auth import KEY, VIEWER_KEY
from fastn_mcp.sandbox.behaviour import Accepts, Behaviour, Envelope, ModeHeader, Paging
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.operation import Route

_MOVED = {
    "/api/v1/customers": "/api/v1/orgs",
    "/api/v1/triggers": "/api/v1/app-triggers",
    "/api/v1/audit": "/api/v1/audit-log",
    "/api/v1/api-keys": "/api/v1/api-access",
    "/api/v1/billing/usage": "/api/v1/quota/usage",
    "/api/v1/billing/quotas": "/api/v1/quota/summary",
    "/api/v1/workflows/{workflow_id}/run": "/api/v1/workflows/{workflow_id}/execute",
}


def _moved() -> dict[str, Route]:
    found: dict[str, Route] = {}
    for operation in CATALOG:
        path = operation.route.path
        for old, new in _MOVED.items():
            if path == old or path.startswith(f"{old}/"):
                found[operation.tool_name()] = Route(operation.route.method, new + path.removeprefix(old))
    return found


@dataclass(frozen=True, slots=True)
class Variant:
    """How it behaves, where its operations are, and the key that its user has."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    routes: Mapping[str, Route] = field(default_factory=dict[str, Route])
    key: str = KEY


class Guise(Enum):
    """The names by which `fastn-mcp sandbox --guise` knows them."""

    USUAL = "usual"
    BEARER = "bearer"
    TEST_MODE = "test-mode"
    PATHS = "paths"
    FIELDS = "fields"
    SCOPES = "scopes"

    def account(self) -> Variant:
        match self:
            case Guise.USUAL:
                return Variant()
            case Guise.BEARER:
                return Variant(Behaviour(accepts=Accepts.BEARER))
            case Guise.TEST_MODE:
                return Variant(Behaviour(test_mode=ModeHeader.REFUSED))
            case Guise.PATHS:
                return Variant(routes=_moved())
            case Guise.FIELDS:
                names = {"id": "_id", "name": "title", "createdAt": "created_at", "updatedAt": "updated_at"}
                return Variant(Behaviour(envelope=Envelope.RESULTS, paging=Paging.SILENT, fields=names))
            case Guise.SCOPES:
                return Variant(key=VIEWER_KEY)
