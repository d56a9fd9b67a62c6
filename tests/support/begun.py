"""Changes that are begun by hand, to use approvals and budgets as calls do."""

import itertools
import os
from dataclasses import replace

from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.change_start import BudgetLimit, StartResult, UsageRate
from fastn_mcp.ledger.ledger import Ledger
from support import stores

_NUMBERS = itertools.count()


def _change(what: str, at: float) -> Change:
    """Return a change with an id that no other one has, in any process."""
    return replace(stores.change(f"{what} {os.getpid()} {next(_NUMBERS)}", at=at), account="by hand")


async def used(ledger: Ledger, approval_id: str, call_id: str, at: float = stores.NOW) -> bool:
    """Use an approval for one of its calls. Return whether that was possible."""
    change = replace(_change("used", at), call_id=call_id)
    return await ledger.begin(change, approval_id=approval_id) is StartResult.STARTED


async def counted(ledger: Ledger, *limits: BudgetLimit, at: float = stores.NOW) -> bool:
    """Count a call in these budgets. Return whether their limits allowed it."""
    return await ledger.begin(_change("counted", at), limits=limits) is StartResult.STARTED


async def rated(ledger: Ledger, budget: str, most: int, seconds: float, at: float = stores.NOW) -> bool:
    """Count a call in a rate. Return whether the rate allowed it."""
    return await ledger.begin(_change("rated", at), rate=UsageRate(budget, most, seconds)) is StartResult.STARTED


async def claimed(ledger: Ledger, change_id: str, at: float = stores.NOW) -> bool:
    """Begin the undo of a change. Return whether it was neither undone nor being undone."""
    return await ledger.begin(_change("undo", at), undoes=change_id) is StartResult.STARTED


async def given(ledger: Ledger, approval_id: str, until: float) -> None:
    """Let the temporary approval of a request hold until then, as the first use of its approval does."""
    assert await ledger.change_request(approval_id, lambda current: current.with_permit_until(until)) is not None
