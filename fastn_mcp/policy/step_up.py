"""Step-up: how recent and how strong the sign-in of approvers has to be for calls with some effects."""

from collections.abc import Iterable
from dataclasses import dataclass

from fastn_mcp.records.formats import counted
from fastn_mcp.redaction import quote


@dataclass(frozen=True, slots=True)
class StepUp:
    """Requirement on the sign-in at the approval page `page`, the only place where such calls are approved."""

    page: str
    effects: tuple[str, ...]
    max_age: float
    """Seconds since the person was asked to sign in."""
    acr_values: tuple[str, ...] = ()
    """Values of `acr`, `amr` or `acrs`, one of which has to be there. Empty: any sign-in is strong enough."""
    leeway: float = 0.0
    """Seconds by which the provider's clock may differ."""

    @property
    def needs(self) -> str:
        """The required sign-in, in words."""
        strong = f", by {self.values}" if self.acr_values else ""
        return f"a sign-in at most {counted(int(self.max_age // 60), 'minute')} old{strong}"

    @property
    def elsewhere(self) -> str:
        """Sentence for a channel that cannot approve such a call."""
        return f"Approving it needs {self.needs}, at {self.page} and nowhere else."

    @property
    def values(self) -> str:
        return " or ".join(map(quote, self.acr_values))

    def concerns(self, effects: Iterable[str]) -> bool:
        return not set(effects).isdisjoint(self.effects)

    def problem(self, auth_time: float | None, acr: str, now: float) -> str | None:
        """Say what a sign-in lacks and who can correct it; None if it counts."""
        if auth_time is None:
            return (
                "The identity provider did not say when you signed in: the ID token has no auth_time."
                " Tell the operator: it has to be added at the provider."
            )
        if auth_time > now + self.leeway:
            return "By its auth_time you sign in later than now. Tell the operator: a clock is wrong."
        if (age := now - auth_time) > self.max_age + self.leeway:
            ago = counted(int(age // 60), "minute")
            return (
                f"The identity provider did not ask you to sign in again: you last did {ago} ago, and this needs"
                f" {self.needs}. Tell the operator: the provider ignores max_age."
            )
        if self.acr_values and not {*acr.split()} & {*self.acr_values}:
            seen = f"its acr and amr are {quote(acr)}" if acr else "the ID token has no acr and no amr"
            return (
                f"The identity provider did not sign you in by {self.values}: {seen}. Sign in with a second factor or"
                " a passkey. Tell the operator, if you did: the provider has to honour acr_values."
            )
        return None
