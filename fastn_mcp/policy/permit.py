"""Permits: standing permissions for calls, given by the signature of a plan or with an approval."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from pydantic import JsonValue

from fastn_mcp.account.resolved_call import ResolvedCall, ValueSource
from fastn_mcp.policy.conditions import DERIVED, Choice, is_host
from fastn_mcp.tools.operation import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """A pattern of calls of one tool, how many of them, until when, and by whom.

    An entry of a signed plan, which bounds calls by their arguments; or what a person gives with an approval ("and for
    15 minutes"), which covers the calls that differ from the approved one in free values only.
    """

    name: str
    """What it is called where it decides: the plan and the line of the entry, or "temporary approval"."""
    tool: str
    targets: tuple[str, ...]
    """Ids, or case-sensitive patterns of ids."""
    budget: str = ""
    """Ledger key under which the calls of an entry are counted: this entry with exactly this text. Empty if its calls
    are not counted."""
    count: int = 0
    """Maximum number of calls, if they are counted."""
    signers: int = 0
    """Number of people who signed the plan."""
    arguments: Mapping[str, JsonValue] | None = None
    """Exact arguments, besides the target; None if `conditions` or nothing restricts them."""
    conditions: Mapping[str, Choice] | None = None
    """Condition for each argument; other arguments are not allowed. None if any are."""
    pattern: str = ""
    """Of a permit that is given with an approval: the digest of what its calls have in common (`Judge`)."""
    extent: str = ""
    """The same in words, for people."""
    until: float = 0.0
    """Unix seconds at which it ends; 0 while it does not hold: its approval has not been used yet, or it was
    revoked."""

    @property
    def is_given(self) -> bool:
        """Whether it is given with an approval, rather than signed in a plan."""
        return bool(self.pattern)

    def given(self, until: float) -> "Permit":
        """Return the permit as it holds until then; until 0 once it is revoked."""
        return replace(self, until=until)

    def concerns(self, call: Call) -> bool:
        """Return whether the entry is for the tool and the target of a call."""
        is_target = call.target is None or any(fnmatchcase(call.target, pattern) for pattern in self.targets)
        return is_target and call.tool_name() == self.tool

    def covers(self, resolved: ResolvedCall, pattern: str = "") -> bool:
        """Return whether it covers this call, with the arguments that the server's settings fill in.

        `pattern` is the digest of the call that one given with an approval is compared with.
        """
        call = resolved.call
        if self.is_given:
            return self.pattern == pattern and self.concerns(call)
        if not self.concerns(call) or (call.needs_person and self.arguments is None):
            return False
        arguments = call.arguments()
        for name in type(call).route.parameters:
            arguments.pop(name, None)
        if self.arguments is not None:
            return _canonical(arguments) == _canonical(self.arguments)
        if resolved.tools - {self.tool}:
            return False  # patterns of what is created do not let it overwrite what exists
        if self.conditions is None:
            return True
        if not arguments.keys() <= self.conditions.keys() or not is_host(arguments.get("domain")):
            return False
        sent = {**_filled_in(resolved), **arguments}
        return all(choice(sent.get(name), exact=True) for name, choice in self.conditions.items())

    def words(self) -> str:
        """Describe the entry in words."""
        where = f" on {' or '.join(self.targets)}" if self.targets else ""
        if self.arguments is not None:
            how = f" with exactly {json.dumps(dict(self.arguments), ensure_ascii=False)}" if self.arguments else ""
        elif self.conditions is None:
            how = " with any arguments"
        else:
            bounds = ", ".join(f"{name} {choice}" for name, choice in self.conditions.items())
            how = f" with no other arguments than {bounds}"
        return f"{self.count} x {self.tool}{where}{how}"


def _filled_in(resolved: ResolvedCall) -> dict[str, JsonValue]:
    """Return the arguments that the server's settings give to the request."""
    values = {name: of(resolved) for name, of in DERIVED.items() if name in type(resolved.call).model_fields}
    return {name: each.values[0] for name, each in values.items() if each.source is ValueSource.SETTING}


def _canonical(value: Mapping[str, JsonValue]) -> str:
    """Serialize JSON so that only equal JSON gives equal text: in Python, `1 == True`."""
    return json.dumps(dict(value), sort_keys=True)
