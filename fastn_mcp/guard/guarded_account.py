"""The account whose calls are guarded: judged, and described for people."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fastn_mcp.account.resolved_call import Surroundings
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.selection import EnabledTools


@dataclass(frozen=True, slots=True)
class GuardedAccount:
    """The account whose calls are evaluated, as this server reaches it."""

    name: str
    """Display name, which an approval is bound to."""
    owns: Callable[[FastnObject], bool]
    """Whether an API key's record may belong to the key that this server uses."""
    key_digest: str = ""
    """Opaque identifier of that key and of the host it is sent to."""
    surroundings: Surroundings = field(default_factory=Surroundings)
    tools: EnabledTools = field(default_factory=lambda: EnabledTools({}))
    """The tools that are enabled. An agent is shown no rows of a kind that none of them reads."""
    foreign_code: tuple[str, ...] = ()
    """Name and version of each extension in use that is not made by this project."""

    @property
    def shown_name(self) -> str:
        """Name for people, with the foreign code that acts beside the key."""
        if not self.foreign_code:
            return self.name
        return f"{self.name}, with extensions that this project did not make: {', '.join(self.foreign_code)}"
