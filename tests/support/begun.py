"""Changes that are begun by hand, to use approvals and budgets as calls do."""

import itertools
from dataclasses import replace

from fastn_mcp.ledger.beginning import Begun, BudgetLimit, RateLimit
from fastn_mcp.ledger.ledger import Ledger
from support import stores

_NUMBERS = itertools.count()


async def used(ledger: Ledger, approval_id: str, call_id: str, at: float) -> bool:
    """Use an approval for one of its calls. Return whether that was possible."""
    change = replace(stores.change(f"used {next(_NUMBERS)}", at=at), account="by hand", call_id=call_id)
    return await ledger.begin(change, uses=approval_id) is Begun.YES


async def counted(ledger: Ledger, *limits: BudgetLimit, at: float) -> bool:
    """Count a call in these budgets. Return whether their limits allowed it."""
    change = replace(stores.change(f"counted {next(_NUMBERS)}", at=at), account="by hand")
    return await ledger.begin(change, limits=limits) is Begun.YES


async def rated(ledger: Ledger, budget: str, most: int, seconds: float, at: float) -> bool:
    """Count a call in a rate. Return whether the rate allowed it."""
    change = replace(stores.change(f"rated {next(_NUMBERS)}", at=at), account="by hand")
    return await ledger.begin(change, rate=RateLimit(budget, most, seconds)) is Begun.YES


async def given(ledger: Ledger, approval_id: str, until: float) -> None:
    """Let the temporary approval of a request hold until then, as the first use of its approval does."""
    assert await ledger.change_request(approval_id, lambda current: current.with_permit_until(until)) is not None
