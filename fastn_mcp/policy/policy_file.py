"""Load the policy file. Any error in it, an unreachable rule included, stops the start with its line.

Warnings are about parts that cannot do what they say, with the people and customers that there are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastn_mcp.account.resolved_call import KINDS, identity
from fastn_mcp.config.command_line import PROGRAM, CommandLine
from fastn_mcp.config.strict_toml import ConfigError, Key, TomlSource, load, read, validate
from fastn_mcp.errors import nearest
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.conditions import Glob, UserCount, Who
from fastn_mcp.policy.decision import CONFIRMED_IF_EMPTY, MODES, Decision, PolicyDecision, least
from fastn_mcp.policy.matching import PolicyRule, Protected
from fastn_mcp.policy.rules import FileRules, TimeWindow
from fastn_mcp.policy.schema import (
    CHANGING_TOOLS,
    DependentsForm,
    PolicyForm,
    Protect,
    RuleForm,
    Window,
    asked_by,
    condition,
    named,
    possible_effects,
)
from fastn_mcp.records.rows import Row
from fastn_mcp.redaction import quote
from fastn_mcp.tools.catalog import AnyOperation
from fastn_mcp.tools.tool import Effect

Case = tuple[str, Effect]

_LOOSENING = 'Only then = "allow" loosens a default; to ask for less, say so in [defaults]'


def cases(tools: frozenset[str] | None, effects: frozenset[Effect] | None) -> frozenset[Case]:
    """Return every pair of a named tool and an effect its calls can have."""
    return frozenset(
        (operation.tool_name(), effect)
        for operation in CHANGING_TOOLS
        for effect in possible_effects(operation)
        if (tools is None or operation.tool_name() in tools) and (effects is None or effect in effects)
    )


def unreachable(file: FileRules) -> Iterator[tuple[int, str]]:
    """Yield the index of each rule that never decides, with the reason."""
    rules = file.rules
    reached = [cases(rule.tools, rule.effects) for rule in rules]
    for number, rule in enumerate(rules):
        cover = _cover(number, rules, reached)
        if cover is not None:
            yield number, f"never applies: {rules[cover].name} covers it and is at least as strict"
        elif (default := _least_default(rule, reached[number], file)).rank > rule.then.rank > Decision.ALLOW.rank:
            yield number, f"never applies: {default.value} is asked for anyway. {_LOOSENING}"


def _cover(number: int, rules: Sequence[PolicyRule], reached: Sequence[frozenset[Case]]) -> int | None:
    """Return another rule that matches whenever this one does. Of two equal rules, the first is kept."""
    for other, rule in enumerate(rules):
        if other == number or not rule.unconditional or rule.then.rank < rules[number].then.rank:
            continue
        if reached[other] < reached[number] or not reached[number] <= reached[other]:
            continue
        mutual = rules[number].unconditional and reached[other] == reached[number] and rule.then is rules[number].then
        if not mutual or other < number:
            return other
    return None


def _least_default(rule: PolicyRule, reached: frozenset[Case], file: FileRules) -> Decision:
    """Return the loosest default of any mode for these cases, with the kind of key that the rule names."""
    decisions: list[Decision] = []
    for live in (True, False):
        if rule.key not in (None, "live" if live else "test"):
            continue
        for tool, effect in reached:
            own = file.default(effect, live=live)
            if own is not None:
                decisions.append(own.decision)
            elif tool == CONFIRMED_IF_EMPTY:
                decisions.append(Decision.CONFIRM)
            else:
                decisions += (least(mode, effect, live=live) for mode in MODES)
    return min(decisions, key=lambda decision: decision.rank)


def load_rules(path: Path, program: CommandLine = PROGRAM) -> FileRules:
    """Load the rules of a policy file.

    Raises `SettingsError` with the file, the line, the key and the nearest known key. `program` is the command that the
    hint names to check the file.
    """
    data, _ = read(path, "policy file", "Correct the path, --policy or FASTN_POLICY.")
    hint = f"Correct the line, then run: {program.to('policy', 'check', str(path))}"
    return load(data, path, "policy", build=_build, hint=hint)


def _build(table: Mapping[str, Any], source: TomlSource) -> FileRules:
    """Build the rules of a file. Raises `ConfigError` for the first error."""
    form = validate(PolicyForm, table, source)
    rules = tuple(_rule(number, rule, source) for number, rule in enumerate(form.rule))
    found = FileRules(
        digest=source.digest,
        defaults=_defaults(form, source),
        protected=tuple(_protected(number, entry, source) for number, entry in enumerate(form.protect)),
        rules=rules,
        windows=tuple(_window(number, window, source) for number, window in enumerate(form.window)),
        limits=_limits(form),
        budget_name=_name(source, "budget", "budget"),
        destroy_rate=form.budget.destroy_rate,
        breaker=(form.breaker.declined, form.breaker.rest),
    )
    flaws = [ConfigError(("rule", number), f"this rule {why}") for number, why in unreachable(found)]
    if flaws:
        raise source.first(flaws)
    return found


def _defaults(form: PolicyForm, source: TomlSource) -> dict[tuple[str, Effect], PolicyDecision]:
    """Return the default decisions, by the mode of a key (empty: of any) and effect."""
    defaults = dict[tuple[str, Effect], PolicyDecision]()
    for at, table in (((), form.defaults), (("live",), form.defaults.live), (("test",), form.defaults.test)):
        for effect, decision in table.values().items():
            name = _name(source, " ".join(("default", *at, effect.value)), "defaults", *at, effect.value)
            defaults["".join(at), effect] = PolicyDecision(decision, name)
    return defaults


def _limits(form: PolicyForm) -> dict[tuple[str, Effect], int]:
    """Return the budgets, by period and effect. Of two limits for one period, the smaller applies."""
    limits = {(form.budget.per, effect): limit for effect, limit in form.budget.values().items()}
    for effect, limit in form.budget.run.values().items():
        limits["run", effect] = min(limit, limits.get(("run", effect), limit))
    return limits


def _name(source: TomlSource, what: str, *at: str | int) -> str:
    return f"{source.file} line {source.line(at)}: {what}"


def _protected(number: int, entry: Protect, source: TomlSource) -> Protected:
    at: Key = ("protect", number)
    given = {kind: getattr(entry, kind) for kind in KINDS}
    globs = {kind: tuple(values) for kind, values in given.items() if values is not None}
    if not globs:
        raise ConfigError(at, f"[[protect]] names nothing; give it one of {', '.join(KINDS)}")
    what = "; ".join(f"{kind} {' or '.join(map(str, values))}" for kind, values in globs.items())
    return Protected(_name(source, f"protected {what}", *at), globs, entry.then, entry.reason)


def _window(number: int, form: Window, source: TomlSource) -> TimeWindow:
    at: Key = ("window", number)
    tools, _ = _tools((*at, "tools"), form.tools, form.effects)
    what = ", ".join(map(str, form.tools or [])) or ", ".join(effect.value for effect in form.effects)
    name = _name(source, f"window {what}", *at)
    return TimeWindow(name, effects=frozenset(form.effects), tools=tools, hours=tuple(form.open), reason=form.reason)


def _rule(number: int, form: RuleForm, source: TomlSource) -> PolicyRule:
    at: Key = ("rule", number)
    tools, operations = _tools((*at, "tool"), form.tool, form.effects)
    what = ", ".join(map(str, form.tool or [])) or ", ".join(effect.value for effect in form.effects or ()) or "*"
    when = dict(form.when)
    dependents = None
    loosens = form.then is Decision.ALLOW
    if "dependents" in when:
        bounds = validate(DependentsForm, when.pop("dependents"), source, (*at, "when", "dependents"))
        dependents = UserCount(bounds.min, bounds.max)
    return PolicyRule(
        name=_name(source, f"rule {what}", *at),
        tools=tools,
        effects=None if form.effects is None else frozenset(form.effects),
        targets=tuple(form.target or ()),
        key=form.key,
        dependents=dependents,
        conditions={
            name: condition((*at, "when", name), operations, value, ["dependents"], loosens=loosens)
            for name, value in when.items()
        },
        who=asked_by((*at, "who"), form.who, loosens=loosens),
        unless=asked_by((*at, "unless"), form.unless, loosens=not loosens),
        then=form.then,
        reason=form.reason,
    )


def _tools(
    at: Key, globs: list[Glob] | None, effects: list[Effect] | None
) -> tuple[frozenset[str] | None, list[AnyOperation]]:
    """Return the tools that the globs at `at` match, None for all, and their operations with one of the effects.

    Raises `ConfigError` if a glob matches no tool, or no match can have an effect.
    """
    found: dict[str, AnyOperation] = {}
    for index, glob in enumerate(globs or ()):
        try:
            found |= {operation.tool_name(): operation for operation in named(glob.text)}
        except ValueError as error:
            raise ConfigError((*at, index), f"{at[-1]}: {error}") from None
    tools = None if globs is None else frozenset(found)
    operations = list(CHANGING_TOOLS) if globs is None else list(found.values())
    for index, effect in enumerate(effects or ()):
        if not any(effect in possible_effects(operation) for operation in operations):
            had = sorted({each.value for operation in operations for each in possible_effects(operation)})
            raise ConfigError(
                (*at[:-1], "effects", index),
                f"effects: none of its tools can have the effect {effect.value}; they have {', '.join(had)}",
            )
    wanted = frozenset(Effect if effects is None else effects)
    return tools, [operation for operation in operations if possible_effects(operation) & wanted]


def four_eyes(rules: FileRules, approvers: int) -> Iterator[str]:
    """Yield each part that asks for two people where fewer can approve outside the client."""
    if approvers > 1:
        return
    there = "only one approver is" if approvers else "no approvers are"
    parts = [(each.rule, each.decision) for each in rules.defaults.values()]
    parts += [(each.name, each.then) for each in (*rules.protected, *rules.rules)]
    for name, decision in parts:
        if decision is Decision.FOUR_EYES:
            yield f"{name} needs two people, but {there} set up: its calls are refused."


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
