"""Warnings about a policy file: parts that cannot do what they say, with the people and customers that there are."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from fastn_mcp.account.resolved_call import identity
from fastn_mcp.errors import nearest
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.conditions import Who
from fastn_mcp.policy.decision import Decision
from fastn_mcp.policy.rules import FileRules
from fastn_mcp.records.rows import Row
from fastn_mcp.redaction import quote

UNREADABLE = (
    "This key may not read customers, so the policy recognises them by their ids only, not by names or slugs."
    " Use a key that may, or protect customers by id."
)


def four_eyes(rules: FileRules, approvers: int, groups: Collection[str]) -> Iterator[str]:
    """Yield each part that asks for people where too few, or none of its group, can approve outside of the client."""
    there = {0: "no approvers are", 1: "one approver is"}.get(approvers)
    defaults = (rules.defaults, rules.live_defaults, rules.test_defaults)
    parts = [(each.rule, each.decision, ()) for of in defaults for each in of.values()]
    parts += [(each.name, each.then, each.second) for each in (*rules.protected, *rules.rules)]
    for name, decision, second in parts:
        if decision is Decision.FOUR_EYES and there is not None:
            yield f"{name} asks for two people, and {there} set up: its calls are refused."
        elif missing := set(second).difference(groups):
            yield f"{name} needs an approver from {missing.pop()}, which has none: its calls are refused."


def without_sign_in(rules: FileRules) -> Iterator[str]:
    """Yield each rule that who asks cannot decide, for a server without a sign-in."""
    for rule in rules.rules:
        signed = [
            Who({name: of for name, of in who.facts.items() if name != "client_name"})
            for who in (rule.who, rule.unless)
        ]
        if any(who.facts for who in signed):
            why = replace(rule, who=signed[0], unless=signed[1]).asked_by(Asker())
            holds = "never applies" if why is None else "applies to everybody"
            yield f"{rule.name} {holds} on a server without a sign-in{f': {why}' if why else ''}."


def unknown_customers(rules: FileRules, customers: Sequence[Row]) -> Iterator[str]:
    """Yield each pattern of protected customers that matches none of the account's `customers`."""
    names = [str(value) for row in customers for value in identity(row).values()]
    for part in rules.protected:
        for glob in part.resources.get("customer", ()):
            if not any(glob(name, exact=False) for name in names):
                near = nearest(glob.text.strip("*?"), names)
                yield f"{part.name}: no customer matches {quote(glob.text)}{near}."
