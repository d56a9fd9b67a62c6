"""AI credits of an account, from Fastn's billing record."""

from dataclasses import dataclass
from datetime import datetime

from fastn_mcp.fastn.rows import Row, inside, number, timestamp

USES = ("used", "usage", "current", "consumed", "count", "value")
LIMITS = ("limit", "max", "maximum", "included", "quota", "allowed", "total")
"""Fields with a used and a permitted amount, the most usual name first."""


@dataclass(frozen=True, slots=True)
class Credits:
    """AI credits: None for what the record does not tell."""

    used: float | None
    included: float | None
    resets_at: datetime | None

    @property
    def balance(self) -> str:
        """The credits that are left, in a sentence; empty if they are not known."""
        if self.used is None or self.included is None:
            return ""
        until = f" until {self.resets_at:%Y-%m-%d}" if self.resets_at else ""
        return f"{max(self.included - self.used, 0):,.10g} of {self.included:,.10g} are left{until}."


def credits_of(billing: Row) -> Credits:
    """Return the AI credits of a billing record."""
    found = inside(billing, "credits") or inside(billing, "aiCredits")
    return Credits(number(found, *USES), number(found, *LIMITS), timestamp(found, "resetsAt"))


def credits_used(reply: Row) -> float | None:
    """Return the credits that a reply of Fastn's AI says it used; None if it does not say."""
    return number(reply, "credits_used")
