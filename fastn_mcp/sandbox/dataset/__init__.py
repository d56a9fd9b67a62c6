"""The account that the sandbox begins with: the examples of Fastn's documentation, made consistent.

Every timestamp is relative to midnight UTC, so that each process of a day has the same account. What the rest of the
day brings follows from it: see `runs.pass_time`.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime

from fastn_mcp.sandbox.dataset import account, connectors, customers, executions, workflows
from fastn_mcp.sandbox.state import SandboxState

Dataset = Callable[[datetime, random.Random], SandboxState]
"""Makes an account as of a moment. The same randomness gives the same account."""


def dataset(now: datetime, randomness: random.Random) -> SandboxState:
    """A fresh account as of midnight UTC of the day of `now`."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    state = SandboxState(randomness)
    customers.add_customers(state, midnight)
    connectors.add_connectors(state, midnight)
    connectors.add_connections(state, midnight)
    workflows.add_workflows(state, midnight)
    workflows.add_triggers(state, midnight)
    executions.add(state, midnight)
    customers.add_people(state, midnight)
    account.add_audit_log(state, midnight)
    account.add_billing(state, midnight)
    return state
