"""Checks of a shared ledger: its address, how it keeps its data, and its clock."""

from fastn_mcp.build.check import CLOSE, Check, CheckGroup, check_clock
from fastn_mcp.extensions.valkey.server import parse
from fastn_mcp.extensions.valkey.store import ValkeyStore
from fastn_mcp.ledger.store import LedgerLost, Store


def shown(url: str) -> str:
    """Return the address without its password."""
    return parse(url).shown


def weakness(url: str) -> str | None:
    """Say what is unsafe about the address, as two sentences: what, and what to do. None if nothing is."""
    return parse(url).weakness


async def check_store(store: Store, now: float) -> list[Check]:
    """Check how a store that can be reached keeps its data, and its clock."""
    assert isinstance(store, ValkeyStore)  # noqa: S101 - what `open_store` returned
    group = CheckGroup.SETTINGS
    try:
        durability = await store.durability()
    except LedgerLost:
        return []
    checks: list[Check] = []
    if durability.appendonly is None:
        hint = "Allow +info to its user, or ask: INFO persistence, CONFIG GET appendfsync."
        checks.append(
            group.skipped("ledger durability", "This user may not read how the ledger stores its data.", hint)
        )
    elif not durability.appendonly:
        finding = "It loses everything at a restart: approvals, budgets and used nonces begin again."
        checks.append(group.differs("ledger durability", finding, "Set: appendonly yes, appendfsync always"))
    elif durability.appendfsync not in (None, "always"):
        finding = (
            f"appendfsync {durability.appendfsync}: a crash can lose the last second, and with it that an approval was"
            " used."
        )
        checks.append(group.differs("ledger durability", finding, "Set: appendfsync always; or accept that risk."))
    else:
        sync = "appendfsync always" if durability.appendfsync else "appendfsync may not be read (+config|get)"
        checks.append(group.ok("ledger durability", f"appendonly yes, {sync}."))
    if durability.maxmemory_policy not in (None, "noeviction"):  # with maxmemory it is refused, and was reported before
        finding = (
            f"maxmemory-policy {durability.maxmemory_policy}: once maxmemory is set, it may forget used approvals."
        )
        checks.append(group.differs("ledger eviction", finding, "Set: maxmemory-policy noeviction"))
    elif durability.maxmemory_policy is not None:
        checks.append(group.ok("ledger eviction", "maxmemory-policy noeviction."))
    if durability.replicas and not durability.copies:
        finding = "It has replicas, and changes do not wait for one: a failover can bring back used approvals."
        checks.append(group.differs("ledger replicas", finding, "Add copies=1 to FASTN_LEDGER."))
    if durability.time is not None:
        checks.append(
            check_clock(
                group,
                "ledger clock",
                durability.time - now,
                most=CLOSE,
                why="The expiry of approvals uses both clocks.",
            )
        )
    return checks
