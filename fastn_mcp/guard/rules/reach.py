"""Rules that can never decide anything. Whoever wrote one is mistaken, so it stops the start. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from fastn_mcp.guard.policy import MODES, Decision, least
from fastn_mcp.guard.rules.catalog import CHANGING, possible_effects
from fastn_mcp.guard.rules.matching import Rule
from fastn_mcp.operation import Effect

Case = tuple[str, Effect]

_LOOSENING = 'Only then = "allow" loosens a default; to ask for less, say so in [defaults]'


def cases(tools: frozenset[str] | None, effects: frozenset[Effect] | None) -> frozenset[Case]:
    """Each tool with each effect that its calls can have, of those that are named."""
    return frozenset(
        (operation.tool_name(), effect)
        for operation in CHANGING
        for effect in possible_effects(operation)
        if (tools is None or operation.tool_name() in tools) and (effects is None or effect in effects)
    )


def unreachable(rules: Sequence[Rule], defaults: Mapping[bool, Mapping[Effect, Decision]]) -> Iterator[tuple[int, str]]:
    """The number of each rule that never decides, and why. `defaults` are by whether the key is a live one."""
    reached = [cases(rule.tools, rule.effects) for rule in rules]
    for number, rule in enumerate(rules):
        if (cover := _cover(number, rules, reached)) is not None:
            yield number, f"never decides: {rules[cover].name} covers it wholly, and is as strict or stricter"
        elif (asked := _least_default(rule, reached[number], defaults)).rank > rule.then.rank > Decision.ALLOW.rank:
            yield number, f"never decides: {asked.value} is asked for anyway. {_LOOSENING}"


def _cover(number: int, rules: Sequence[Rule], reached: Sequence[frozenset[Case]]) -> int | None:
    """Another rule that always matches where this one does. Of two that are alike, the first stays."""
    for other, rule in enumerate(rules):
        if other == number or not rule.unconditional or rule.then.rank < rules[number].then.rank:
            continue
        if reached[other] < reached[number] or not reached[number] <= reached[other]:
            continue
        mutual = rules[number].unconditional and reached[other] == reached[number] and rule.then is rules[number].then
        if not mutual or other < number:
            return other
    return None


def _least_default(
    rule: Rule, reached: frozenset[Case], defaults: Mapping[bool, Mapping[Effect, Decision]]
) -> Decision:
    """The loosest that any mode asks for in any of these cases, with a key that the rule speaks of."""
    found = [
        # A customer on which nothing depends is deleted on a plain confirmation.
        Decision.CONFIRM
        if tool == "delete_customer" and effect not in said
        else said.get(effect, least(mode, effect, live=live))
        for tool, effect in reached
        for mode in MODES
        if mode != "read-only"
        for live, said in defaults.items()
        if rule.key in (None, "live" if live else "test")
    ]
    return min(found, key=lambda decision: decision.rank)
