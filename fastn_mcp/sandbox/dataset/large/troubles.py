"""Why runs of a large account fail: a connection broke or is gone, a workflow waits too long or wants too much memory.

What went wrong is told as it was then, whatever becomes of the connection.
"""

import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import cast

from fastn_mcp.sandbox.dataset.large.workflows import tenant_apps
from fastn_mcp.sandbox.failures import no_connection, out_of_memory, timed_out, unusable
from fastn_mcp.sandbox.past import Trouble, milliseconds
from fastn_mcp.sandbox.state import Row, State, moment

Connected = Mapping[str, Mapping[str, Row]]
"""The customers' connections by the slug of the app and the id of the customer."""

_AT_ONCE = 1_900
"""Milliseconds of a run that fails where it begins."""

_SLOW, _GREEDY = 3, 2
"""So many workflows wait too long, and so many take too much memory."""


def connected_since(when: datetime, connections: list[Row]) -> Connected:
    """Those that were there already."""
    found: dict[str, dict[str, Row]] = {}
    for row in connections:
        if moment(str(row["createdAt"])) <= when:
            found.setdefault(str(cast(Row, row["connector"])["slug"]), {})[str(row["endOrgId"])] = row
    return found


class Troubles:
    """What goes wrong in an account at `now`."""

    def __init__(
        self, state: State, now: datetime, randomness: random.Random, workflows: list[Row], connected: Connected
    ) -> None:
        self._state = state
        self._now = now
        self._connected = connected
        self._own = self._slow(randomness, workflows) | self._greedy(workflows)

    def of(self, workflow: Row, customer: str) -> Trouble | None:
        """What goes wrong when this workflow runs for this customer."""
        for app in tenant_apps(workflow):
            connection = self._connected.get(app, {}).get(customer)
            if connection is None:
                since = milliseconds(self._now - timedelta(days=12))
                return Trouble(status="failed", error=no_connection(app, customer), duration=_AT_ONCE, since=since)
            if connection["status"] != "ACTIVE":
                actions = cast("list[Row]", self._state.named("connectors", app)["actions"])
                error = unusable(app, str(actions[0]["slug"]), str(connection["id"]))
                since = milliseconds(moment(str(connection["expiresAt"])))
                return Trouble(status="failed", error=error, duration=_AT_ONCE, since=since)
        return self._own.get(str(workflow["id"]))

    def _slow(self, randomness: random.Random, workflows: list[Row]) -> dict[str, Trouble]:
        """An app answers slowly since a week ago, and some runs do not end in time."""
        standard = [row for row in workflows if row["executionTier"] == "STANDARD" and row["status"] == "active"]
        since = milliseconds(self._now - timedelta(days=8))
        return {
            str(row["id"]): Trouble(status="timeout", error=timed_out(limit), duration=limit, since=since, share=0.2)
            for row in randomness.sample(standard, _SLOW)
            if isinstance(limit := row["timeoutMs"], int)
        }

    def _greedy(self, workflows: list[Row]) -> dict[str, Trouble]:
        """The largest orders do not fit into memory. The other backfills are sometimes called off."""
        long = [row for row in workflows if row["executionTier"] == "LONG"]
        memory = Trouble(status="failed", error=out_of_memory(), duration=540_000, share=0.3)
        called_off = Trouble(status="cancelled", error=None, duration=41_000, share=0.05)
        return {str(row["id"]): memory if place < _GREEDY else called_off for place, row in enumerate(long)}
