"""Who asks for a call, and with which client: what policy rules and stops are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LOCAL = "local"
"""Principal of every caller of a server without a sign-in."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Person and client that ask for a call. A fact that is not known is empty."""

    principal: str = LOCAL
    """Issuer and subject of the sign-in, as `https://login.example.com|0001`; else `LOCAL`."""
    person: str = ""
    """Name and e-mail address of the person who signed in, for people. It identifies nobody."""
    login_names: tuple[str, ...] = ()
    """User name and e-mail address of the sign-in, verified or not: they may only make a decision stricter.

    With one of them alone, it is not known who the person is by the other.
    """
    groups: tuple[str, ...] | None = None
    """Groups of the sign-in, from the claim that the team file names; None if it does not say them all."""
    tenant: str = ""
    client: str = ""
    """Id of the OAuth client, from the access token; empty if that names none."""
    client_name: str = ""
    """What the client calls itself. Anybody can claim it, so it may only make a decision stricter."""
    machine: str = ""
    """Name of the machine that signed in, by the team file; it is the `person` for people too."""
    is_by_hand: bool = False
    """Whether a person makes the call, at a terminal or on the page of this machine, and no client does."""

    @property
    def name(self) -> str:
        """Name for people: the person's or, without a sign-in, what the client calls itself."""
        return self.client_name if self.principal == LOCAL else self.person

    @property
    def counted(self) -> str:
        """Name by which budgets count: of a machine its own, because its subject may vary by branch or tag."""
        return f"machine {self.machine}" if self.machine else self.principal

    def values(self, fact: str, *, verified: bool) -> tuple[str, ...]:
        """Return what is known of one of `FACTS`; only what the sign-in vouches for if `verified`."""
        _, _, subject = self.principal.partition("|")
        names = () if verified else (*self.login_names, self.person, *self.person.rstrip(">").split(" <"))
        known = {
            "person": (self.principal, subject, *names) if subject else names,
            "group": self.groups or (),
            "tenant": (self.tenant,),
            "client": (self.client,),
            "client_name": () if verified else (self.client_name,),
            "machine": (self.machine,),
        }
        return tuple(filter(None, known[fact]))

    def knows(self, fact: str) -> bool:
        """Whether nothing else can be true of a fact. Without a sign-in there is no tenant and no OAuth client.

        A machine has only the names and groups of its token. A person is known not to be a machine.
        """
        if fact == "machine" or (self.machine and fact in ("person", "group", "client")):
            return True
        if fact in ("person", "group"):
            return len(self.login_names) > 1 and bool(self.person) if fact == "person" else self.groups is not None
        is_absent = self.principal == LOCAL and fact != "client_name"
        return is_absent or bool(self.values(fact, verified=False))


FACTS = ("person", "group", "tenant", "client", "client_name", "machine")
"""Facts by which rules recognise who asks with which client."""


def asker_of(facts: Mapping[str, Sequence[str]]) -> Asker:
    """Return an asker with these `FACTS`: signed in, unless only the client's name is known.

    A `person` is a principal, `ISSUER|SUBJECT`, or else a subject or login name. An empty `group` means that the
    sign-in names no groups, none that it does not say.
    """
    person, _, tenant, client, name, machine = ("".join(facts.get(fact, ())) for fact in FACTS)
    if not facts.keys() - {"client_name"}:
        return Asker(client_name=name)
    groups = tuple(filter(None, facts["group"])) if "group" in facts else None
    principal = person if "|" in person else f"|{person}"
    # Whoever names a person knows both of their login names.
    return Asker(
        principal,
        person,
        login_names=(person, person) if person else (),
        groups=groups,
        tenant=tenant,
        client=client,
        client_name=name,
        machine=machine,
    )
