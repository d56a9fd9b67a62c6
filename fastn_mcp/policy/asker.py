"""Who asks for a call, and with which client: what policy rules and stops are compared with."""

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
    """User name and e-mail address of the sign-in, verified or not: they may only make a decision stricter."""
    groups: tuple[str, ...] = ()
    """Groups of the sign-in, from the claim that the team file names."""
    tenant: str = ""
    client: str = ""
    """Id of the OAuth client, from the access token."""
    client_name: str = ""
    """What the client calls itself. Anybody can claim it, so it may only make a decision stricter."""

    @property
    def name(self) -> str:
        """Name for people: that of the person or, without a sign-in, what the client calls itself."""
        return self.client_name if self.principal == LOCAL else self.person
