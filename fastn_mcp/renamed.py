"""Tools that had another name: what names the old one means the new one, until a version. Pure.

An old name is listed nowhere. A call, a policy, a plan, a record of the past may still hold it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Renamed:
    """What an old name stands for."""

    to: str
    since: str
    """The version that renamed it."""
    until: str
    """The version that forgets the old name."""


Aliases = Mapping[str, Renamed]

ALIASES: Aliases = {}
"""By the old name."""


def current(name: str, aliases: Aliases = ALIASES) -> str:
    """The name that a tool has now."""
    return aliases[name].to if name in aliases else name


def hint(name: str, aliases: Aliases = ALIASES) -> dict[str, str]:
    """What the result of a call by an old name says of it: a field more."""
    if name not in aliases:
        return {}
    alias = aliases[name]
    return {"renamed": f"{name} is {alias.to} since {alias.since}. Use that; {alias.until} forgets the old name."}
