"""Warnings about a policy file: parts that cannot do what they say, with the people and customers that there are."""

from collections.abc import Iterator, Sequence

from fastn_mcp.account.resolved_call import identity
from fastn_mcp.errors import nearest
from fastn_mcp.policy.matching import Glob
from fastn_mcp.policy.policy import Decision
from fastn_mcp.policy.rules import FileRules
from fastn_mcp.records.rows import Row
from fastn_mcp.redaction import quote

UNREADABLE = (
    "This key may not read customers, so the policy recognises them by their ids only, not by names or slugs."
    " Use a key that may, or protect customers by id."
)


def four_eyes(rules: FileRules, approvers: int) -> Iterator[str]:
    """Yield each part that asks for two people, where fewer than two can approve outside of the client."""
    if approvers > 1:
        return
    there = "one approver is" if approvers else "no approvers are"
    defaults = (rules.defaults, rules.live_defaults, rules.test_defaults)
    parts = [(each.rule, each.decision) for of in defaults for each in of.values()]
    parts += [(each.name, each.then) for each in (*rules.protected, *rules.rules)]
    for name, decision in parts:
        if decision is Decision.FOUR_EYES:
            yield f"{name} asks for two people, and {there} set up: what it covers is refused."


def unknown_customers(rules: FileRules, customers: Sequence[Row]) -> Iterator[str]:
    """Yield each pattern of protected customers that matches none of the account's `customers`."""
    names = [str(value) for row in customers for value in identity(row).values()]
    for part in rules.protected:
        for glob in part.resources.get("customer", ()):
            if not any(glob(name, exact=False) for name in names):
                yield f"{part.name}: no customer matches {quote(glob.text)}{_nearest(glob, names)}."


def _nearest(glob: Glob, names: Sequence[str]) -> str:
    return nearest(glob.text.strip("*?"), names)
