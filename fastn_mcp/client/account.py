"""An account at Fastn, as the client needs it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from fastn_mcp.errors import NoKey
from fastn_mcp.operation import Route


@dataclass(frozen=True, slots=True)
class Account:
    """Where Fastn is and who is calling. Deadlines are in seconds; `routes` are by tool name.

    `fields` are by resource: our name of a field, and the one that this account has instead.
    """

    base_url: str
    api_key: str = field(repr=False)
    auth: Literal["header", "bearer"] = "header"
    space_id: str | None = None
    tenant_id: str | None = None
    end_org_id: str | None = None
    env: str | None = None
    test_mode: Literal["auto", "on", "off"] = "auto"
    update: Literal["merge", "partial"] = "merge"
    deadline: float = 60.0
    ai_deadline: float = 300.0
    concurrency: int = 64
    routes: Mapping[str, Route] = field(default_factory=dict[str, Route])
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    dashboard_url: str | None = None
    no_key: NoKey | None = None
    """Why `api_key` cannot be sent, where it cannot: every call then fails with it."""

    @property
    def host(self) -> str:
        """Host and port, as errors name the account."""
        return urlsplit(self.base_url).netloc
