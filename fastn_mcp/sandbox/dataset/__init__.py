"""The account that the sandbox begins with: the examples of Fastn's own documentation, made to fit together.

Every timestamp is relative to midnight UTC, so that each process of a day has the same account. What the rest of the
day brings follows from it: see `runs.pass_time`.
"""

import random
from datetime import UTC, datetime

from fastn_mcp.sandbox.dataset import (
    audit,
    billing,
    connections,
    connectors,
    customers,
    executions,
    large,
    people,
    triggers,
)
from fastn_mcp.sandbox.dataset import workflows as workflows_
from fastn_mcp.sandbox.size import Size
from fastn_mcp.sandbox.state import State

INJECTION = executions.INJECTION


def dataset(now: datetime, randomness: random.Random, size: Size = Size.SMALL) -> State:
    """A fresh account as of midnight UTC of the day of `now`."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    state = State(randomness)
    for resource in (customers, connectors, connections, workflows_, triggers, executions, people, audit):
        resource.add(state, midnight)
    billing.add(state, midnight, size)
    if size is Size.LARGE:
        large.add(state, midnight)
    return state
