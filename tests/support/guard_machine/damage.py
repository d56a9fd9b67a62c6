"""Documents of the ledger that become unreadable, as after damage or a downgrade."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.documents import BudgetUse, CallerState, ListedCalls, RateUses, key_of, write
from fastn_mcp.ledger.identity import holder
from fastn_mcp.ledger.stop import StopOrders
from fastn_mcp.ledger.store import Document, Write
from fastn_mcp.tools.tool import Effect
from support.guard_machine.deployment import ACCOUNT, Deployment
from support.guard_machine.process import GuardProcess
from support.guard_machine.vocabulary import ISSUER, TENANTS
from support.stores import put

Documents = Literal["stops", "approvals", "changes", "callers", "lists", "limits"]
"""Kinds of documents that a decision may need."""

DOCUMENTS: tuple[Documents, ...] = get_args(Documents)

_UNREADABLE = "{"


@dataclass
class Damage:
    """Documents of a kind that cannot be read for a while."""

    documents: Documents
    at: int
    """Number in the order of everything that happened."""
    ids: frozenset[str]
    """Ids of the approvals or of the lists."""
    changes: tuple[Change, ...]
    """The changes that cannot be read."""
    repairs: tuple[Write, ...]
    """What restores the documents."""
    repaired_at: int | None = None


async def damage(deployment: Deployment, processes: Iterable[GuardProcess], documents: Documents) -> Damage:
    """Make all documents of a kind unreadable. Their indexes stay as they are."""
    ids = frozenset[str]()
    changes: tuple[Change, ...] = ()
    match documents:
        case "approvals":
            requests = await deployment.requests()
            ids = frozenset(request.id for request in requests)
            repairs = [write(request, request.id) for request in requests]
        case "changes":
            changes = tuple(await deployment.stored_changes())
            repairs = [write(change, change.id) for change in changes]
        case "lists":
            ids = frozenset(change.list_id for change in await deployment.changes() if change.list_id)
            repairs = await _stored(deployment, [key_of(ListedCalls, list_id) for list_id in ids])
        case "callers":
            holders = [holder(ISSUER + name, ACCOUNT) for name in TENANTS]
            repairs = await _stored(deployment, [key_of(CallerState, each) for each in holders])
        case "limits":
            keys = [key for process in processes for key in _limit_keys(process)]
            repairs = await _stored(deployment, dict.fromkeys(keys))
        case "stops":
            repairs = await _stored(deployment, [key_of(StopOrders, "all")])
    at = deployment.next_number()
    await put(deployment.ledger, *(replace(each, value=_UNREADABLE) for each in repairs))
    return Damage(documents, at, ids, changes, tuple(repairs))


async def repair(deployment: Deployment, damaged: Damage) -> None:
    """Restore documents as they were before they became unreadable."""
    await put(deployment.ledger, *damaged.repairs)
    damaged.repaired_at = deployment.next_number()


async def _stored(deployment: Deployment, keys: Iterable[str]) -> list[Write]:
    """Return what stores these documents as they are. One that does not exist is deleted again."""
    wanted = [*keys]
    found: Mapping[str, Document] = await deployment.ledger.store.read(wanted)
    return [Write(key, found[key].value if key in found else None) for key in wanted]


def _limit_keys(process: GuardProcess) -> list[str]:
    """Return the keys of what is counted for each person under the policy of a process."""
    budgets = process.world.judge.budgets
    rules = budgets.policy.rules
    now = process.world.system.now()
    keys = list[str]()
    for name in TENANTS:
        principal = ISSUER + name
        keys.append(key_of(RateUses, budgets.rate_budget(principal)))
        for effect in Effect:
            for period in rules.budgets(effect, now):
                keys.append(key_of(BudgetUse, effect.value, budgets.period(period, principal)))
    return keys
