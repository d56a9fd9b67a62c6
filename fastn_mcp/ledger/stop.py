"""Stops: orders of people that no change is sent."""

from dataclasses import dataclass, replace

from fastn_mcp.policy.asker import LOCAL, Asker
from fastn_mcp.redaction import name_as_read

EVERYBODY = "everybody"
"""Whose changes are stopped if no tenant and no person is named."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Order that no change is sent for some callers, or for all: an empty `tenant` or `person` is any."""

    id: str
    at: float
    by: str
    """Who ordered it: the name and principal of a person, or the channel."""
    reason: str = ""
    tenant: str = ""
    person: str = ""
    """Principal, subject, user name, e-mail address or name."""
    lifted: float | None = None
    lifted_by: str = ""
    is_operators: bool = True
    """Whether the operator ordered it, at a terminal or on a page without sign-in."""
    epoch: int = 0
    """Number of this stop in its ledger, from 1. What was asked for before it is void for those whom it concerns."""

    @property
    def whom(self) -> str:
        """Whose changes are stopped, in words."""
        named = (("the tenant", self.tenant), ("the person", self.person))
        return " and ".join(f'{what} "{name}"' for what, name in named if name) or EVERYBODY

    def names(self, asker: Asker) -> bool:
        """Whether it names a caller, as far as is known of them. Names are compared as they read."""
        wanted = ((self.tenant, "tenant"), (self.person, "person"))
        return all(not name or _is_any(name, asker, fact) for name, fact in wanted)

    def covers(self, asker: Asker) -> bool:
        """Whether it stops the changes of a caller: those whom it names, and who may be named and do not say enough."""
        is_unsure = asker.principal != LOCAL and not asker.knows("person")
        return replace(self, person="" if is_unsure else self.person).names(asker)

    def lift(self, by: str, now: float) -> "Stop":
        return replace(self, lifted=now, lifted_by=by)


@dataclass(frozen=True, slots=True)
class StopOrders:
    """All stops of a ledger: in force, or lifted recently; oldest first."""

    epoch: int = 0
    """Number of stops that there ever were."""
    stops: tuple[Stop, ...] = ()

    def added(self, stop: Stop, forgotten: float) -> "StopOrders":
        """Return the orders with a further stop, without stops that were lifted before `forgotten`."""
        kept = [each for each in self.stops if each.lifted is None or each.lifted >= forgotten]
        epoch = self.epoch + 1
        return StopOrders(epoch, (*kept, replace(stop, epoch=epoch)))

    def lifted(self, stop: Stop) -> "StopOrders | None":
        """Return the orders with a stop lifted; None if it was lifted before, or there is none."""
        if not any(each.id == stop.id and each.lifted is None for each in self.stops):
            return None
        lifted = [
            replace(each, lifted=stop.lifted, lifted_by=stop.lifted_by) if each.id == stop.id else each
            for each in self.stops
        ]
        return replace(self, stops=tuple(lifted))


def _is_any(name: str, asker: Asker, fact: str) -> bool:
    """Whether a fact of a caller has this name, as it reads."""
    return name_as_read(name) in map(name_as_read, asker.values(fact, verified=False))
