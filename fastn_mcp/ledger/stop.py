"""Stops: orders of people that no change is sent."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fastn_mcp.policy.asker import LOCAL, Asker
from fastn_mcp.redaction import name_as_read


@dataclass(frozen=True, slots=True)
class Stop:
    """Order that no change is sent for some callers, or for all: an empty `tenant`, `person` or `client` is any."""

    id: str
    at: float
    by: str
    """Who ordered it: the name and principal of a person, or the channel."""
    reason: str = ""
    tenant: str = ""
    person: str = ""
    """Principal, subject, user name, e-mail address or name."""
    client: str = ""
    """Id of an OAuth client, or what a client calls itself."""
    lifted: float | None = None
    lifted_by: str = ""
    is_operators: bool = True
    """Whether the operator ordered it, at a terminal or on a page without sign-in."""

    @property
    def whom(self) -> str:
        """Whose changes are stopped, in words."""
        named = (("the tenant", self.tenant), ("the person", self.person), ("the client", self.client))
        return " and ".join(f'{what} "{name}"' for what, name in named if name) or "everybody"

    def names(self, asker: Asker) -> bool:
        """Whether it names a caller, as far as is known of them. Names are compared as they read."""
        wanted = ((self.tenant, ("tenant",)), (self.person, ("person",)), (self.client, ("client", "client_name")))
        return all(not name or _is_any(name, asker, facts) for name, facts in wanted)

    def covers(self, asker: Asker) -> bool:
        """Whether it stops the changes of a caller: those whom it names, and who may be named and do not say enough."""
        is_local = asker.principal == LOCAL
        person = self.person if is_local or asker.knows("person") else ""
        names = ("client_name",) if is_local else ("client", "client_name")
        client = self.client if asker.is_by_hand or all(map(asker.knows, names)) else ""
        return replace(self, person=person, client=client).names(asker)

    def lift(self, by: str, now: float) -> "Stop":
        return replace(self, lifted=now, lifted_by=by)


def _is_any(name: str, asker: Asker, facts: Iterable[str]) -> bool:
    values = (value for fact in facts for value in asker.values(fact, verified=False))
    return name_as_read(name) in map(name_as_read, values)
