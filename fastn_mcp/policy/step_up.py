"""Step-up: how recent and how strong the sign-in of approvers has to be for calls with some effects."""

from collections.abc import Iterable
from dataclasses import dataclass

from fastn_mcp.records.formats import counted
from fastn_mcp.redaction import quote


@dataclass(frozen=True, slots=True)
class StepUp:
    """Requirement on the sign-in at the approval page, the only place where such calls are approved."""

    page: str
    effects: tuple[str, ...]
    max_age: float
    """Seconds since the person was asked to sign in."""
    acr_values: tuple[str, ...] = ()
    """Values of `acr`, `amr` or `acrs`, one of which has to be there. Empty: any sign-in is strong enough."""
    leeway: float = 0.0
    """Seconds by which the provider's clock may differ."""

    @property
    def values(self) -> str:
        return " or ".join(map(quote, self.acr_values))

    @property
    def needs(self) -> str:
        """The required sign-in, in words."""
        minutes = counted(int(self.max_age // 60), "minute")
        return f"a sign-in at most {minutes} old{f', by {self.values}' if self.acr_values else ''}"

    @property
    def elsewhere(self) -> str:
        return f"Approving it needs {self.needs}, at {self.page} and nowhere else."

    def concerns(self, effects: Iterable[str]) -> bool:
        return not set(effects).isdisjoint(self.effects)

    def problem(self, auth_time: float | None, acr: str, now: float) -> str | None:
        """Say what a sign-in lacks and what corrects it; None if it counts."""
        if auth_time is None:
            missing = "The identity provider did not say when you signed in: the ID token has no auth_time."
            return f"{missing} Tell the operator: it has to be added at the provider."
        if auth_time > now + self.leeway:
            return "By its auth_time you sign in later than now. Tell the operator: a clock is wrong."
        if (age := now - auth_time) > self.max_age + self.leeway:
            ago = f"you last did {counted(int(age // 60), 'minute')} ago, and this needs {self.needs}"
            provider = "Tell the operator: the provider ignores max_age."
            return f"The identity provider did not ask you to sign in again: {ago}. {provider}"
        if self.acr_values and not {*acr.split()} & {*self.acr_values}:
            seen = f"its acr and amr are {quote(acr)}" if acr else "the ID token has no acr and no amr"
            better = "Sign in with a second factor or a passkey. If you did, tell the operator"
            weak = f"The identity provider did not sign you in by {self.values}: {seen}."
            return f"{weak} {better}: the provider has to honour acr_values."
        return None
