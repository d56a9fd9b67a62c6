"""What a large account has beside what the small one has: much of everything, and one example of its own.

By size alone it is what tests of search, paging and summaries need. The examples of the small account are in it as they
were; its own is `acme.py`.
"""

import random
from datetime import datetime

from fastn_mcp.sandbox.dataset.large import (
    acme,
    audit,
    connections,
    connectors,
    customers,
    executions,
    people,
    triggers,
    workflows,
)
from fastn_mcp.sandbox.state import State


def add(state: State, now: datetime) -> None:
    randomness = random.Random(state.hex(32))  # noqa: S311 it is to be repeatable
    connectors.add(state, now, randomness)
    whom = customers.add(state, now, randomness)
    what = workflows.add(state, now, randomness)
    how = connections.add(state, now, randomness, whom, what)
    when = triggers.add(state, now, randomness, what, how)
    acme.add(state, now, randomness)
    executions.add(state, now, randomness, what, when, how)
    people.add(state, now, randomness, whom)
    audit.add(state, now, randomness, what, how)
