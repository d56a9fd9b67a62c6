"""The account that the sandbox begins with: the examples of Fastn's documentation, made consistent.

Every timestamp is relative to midnight UTC, so that each process of a day has the same account. What the rest of the
day brings follows from it: see `runs.pass_time`.
"""

import random
from datetime import UTC, datetime

from fastn_mcp.sandbox.dataset import account, connectors, customers, executions, workflows
from fastn_mcp.sandbox.dataset.large import large
from fastn_mcp.sandbox.state import SandboxState, Size

INJECTION = executions.INJECTION


def dataset(now: datetime, randomness: random.Random, size: Size = Size.SMALL) -> SandboxState:
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
    account.add_billing(state, midnight, size)
    if size is Size.LARGE:
        large.add_large_account(state, midnight)
    return state
