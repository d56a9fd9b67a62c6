"""The account that the sandbox begins with: the examples of Fastn's own documentation, made to fit together.

Deterministic: the same `now` and the same randomness give the same account. Nothing is read, nothing is imported late.
"""

import random
from datetime import datetime

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
    """A fresh account at `now`."""
    state = State(randomness)
    for resource in (customers, connectors, connections, workflows_, triggers, executions, people, billing, audit):
        resource.add(state, now)
    if size is Size.LARGE:
        large.add(state, now)
    return state
