"""Load the policy file. Anything wrong in it, an unreachable rule included, stops the start with its line."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastn_mcp.config.command_line import PROGRAM, CommandLine
from fastn_mcp.config.strict_toml import ConfigError, Key, TomlSource, load, read, validate
from fastn_mcp.errors import nearest
from fastn_mcp.guard.policy import MODES, Decision, PolicyDecision, least
from fastn_mcp.guard.policy_rules.matching import KINDS, Choice, Glob, PolicyRule, Protected, UserCount, choice
from fastn_mcp.guard.policy_rules.rules import FileRules, TimeWindow
from fastn_mcp.guard.policy_rules.schema import (
    CHANGING,
    DependentsForm,
    PolicyForm,
    RuleForm,
    Window,
    kind_of,
    named,
    possible_effects,
)
from fastn_mcp.tools.catalog import AnyOperation
from fastn_mcp.tools.tool import Effect

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


def unreachable(
    rules: Sequence[PolicyRule], defaults: Mapping[bool, Mapping[Effect, Decision]]
) -> Iterator[tuple[int, str]]:
    """The number of each rule that never decides, and why. `defaults` are by whether the key is a live one."""
    reached = [cases(rule.tools, rule.effects) for rule in rules]
    for number, rule in enumerate(rules):
        if (cover := _cover(number, rules, reached)) is not None:
            yield number, f"never applies: {rules[cover].name} covers it and is at least as strict"
        elif (asked := _least_default(rule, reached[number], defaults)).rank > rule.then.rank > Decision.ALLOW.rank:
            yield number, f"never applies: {asked.value} is asked for anyway. {_LOOSENING}"


def _cover(number: int, rules: Sequence[PolicyRule], reached: Sequence[frozenset[Case]]) -> int | None:
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
    rule: PolicyRule, reached: frozenset[Case], defaults: Mapping[bool, Mapping[Effect, Decision]]
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


def load_rules(path: Path, program: CommandLine = PROGRAM) -> FileRules:
    """What the file says. Raises `SettingsError`, which names the file, the line, the key and the nearest known one.

    `program` is what a person starts at a shell to check it.
    """
    data, _ = read(path, "policy file", "Correct the path; --policy and FASTN_POLICY name one too.")
    hint = f"Correct it there, and check it: {program.to('policy', 'check', str(path))}"
    return load(data, path, "policy", lambda table, source: _Builder(source).rules(table), hint)


class _Builder:
    def __init__(self, source: TomlSource) -> None:
        self._source = source

    def rules(self, table: Mapping[str, Any]) -> FileRules:
        """The rules of a file. Raises `ConfigError`, for the first that is wrong."""
        form = validate(PolicyForm, table, self._source)
        rules = tuple(self._rule(number, rule) for number, rule in enumerate(form.rule))
        defaults = {
            effect: PolicyDecision(said, self._name(f"default {key}", "defaults", key))
            for effect, key, said in _set(form.defaults)
        }
        of_live, of_test = (
            {
                effect: PolicyDecision(said, self._name(f"default {kind} {key}", "defaults", kind, key))
                for effect, key, said in _set(getattr(form.defaults, kind))
            }
            for kind in ("live", "test")
        )
        decisions = {
            live: {effect: said.decision for effect, said in (defaults | own).items()}
            for live, own in ((True, of_live), (False, of_test))
        }
        if flaws := [
            ConfigError(("rule", number), f"this rule {why}") for number, why in unreachable(rules, decisions)
        ]:
            raise self._source.first(flaws)
        return FileRules(
            digest=self._source.digest,
            defaults=defaults,
            live_defaults=of_live,
            test_defaults=of_test,
            protected=tuple(self._protected(number, entry) for number, entry in enumerate(form.protect)),
            rules=rules,
            openings=tuple(self._opening(number, window) for number, window in enumerate(form.window)),
            budget={effect: limit for effect, _, limit in _set(form.budget)},
            budget_name=self._name("budget", "budget"),
            per=form.budget.per,
            run_budget={effect: limit for effect, _, limit in _set(form.budget.run)},
            destroy_rate=form.budget.destroy_rate,
            breaker=(form.breaker.declined, form.breaker.rest),
        )

    def _name(self, what: str, *at: str | int) -> str:
        return f"{self._source.file} line {self._source.line(at)}: {what}"

    def _bounds(self, at: Key, when: Mapping[str, Any]) -> UserCount | None:
        if "dependents" not in when:
            return None
        form = validate(DependentsForm, when["dependents"], self._source, at)
        return UserCount(form.min, form.max)

    def _protected(self, number: int, entry: Any) -> Protected:
        at: Key = ("protect", number)
        globs = {kind: tuple(found) for kind in KINDS if (found := getattr(entry, kind)) is not None}
        if not globs:
            raise ConfigError(at, f"[[protect]] names nothing; give it one of {', '.join(KINDS)}")
        found = Protected("", globs, entry.then, entry.reason)
        return Protected(self._name(f"protected {found}", *at), globs, entry.then, entry.reason)

    def _opening(self, number: int, window: Window) -> TimeWindow:
        at: Key = ("window", number)
        operations = _tools((*at, "tools"), window.tools)
        tools = None if window.tools is None else _names(operations)
        _reaching(at, tools, window.effects)
        what = ", ".join(map(str, window.tools or [])) or ", ".join(effect.value for effect in window.effects)
        return TimeWindow(
            self._name(f"window {what}", *at), frozenset(window.effects), tools, tuple(window.open), window.reason
        )

    def _rule(self, number: int, form: RuleForm) -> PolicyRule:
        at: Key = ("rule", number)
        operations = _tools((*at, "tool"), form.tool)
        tools = None if form.tool is None else _names(operations)
        _reaching(at, tools, form.effects)
        if form.effects is not None:
            possible = {name for name, _ in cases(tools, frozenset(form.effects))}
            operations = [operation for operation in operations if operation.tool_name() in possible]
        what = ", ".join(map(str, form.tool or [])) or ", ".join(effect.value for effect in form.effects or ()) or "*"
        return PolicyRule(
            name=self._name(f"rule {what}", *at),
            tools=tools,
            effects=None if form.effects is None else frozenset(form.effects),
            targets=tuple(form.target or ()),
            key=form.key,
            dependents=self._bounds((*at, "when", "dependents"), form.when),
            arguments={
                name: _choice((*at, "when", name), operations, value)
                for name, value in form.when.items()
                if name != "dependents"
            },
            then=form.then,
            reason=form.reason,
        )


def _names(operations: Iterable[AnyOperation]) -> frozenset[str]:
    return frozenset(operation.tool_name() for operation in operations)


def _tools(at: Key, globs: list[Glob] | None) -> list[AnyOperation]:
    found: dict[str, AnyOperation] = {}
    for index, glob in enumerate(globs or ()):
        try:
            found |= {operation.tool_name(): operation for operation in named(glob.text)}
        except ValueError as error:
            raise ConfigError((*at, index), f"{at[-1]}: {error}") from None
    return list(CHANGING) if globs is None else list(found.values())


def _reaching(at: Key, tools: frozenset[str] | None, effects: list[Effect] | None) -> None:
    for index, effect in enumerate(effects or ()):
        if not cases(tools, frozenset({effect})):
            had = sorted({found.value for _, found in cases(tools, None)})
            raise ConfigError(
                (*at, "effects", index), f"effects: none of its tools can {_verb(effect)}; they have {', '.join(had)}"
            )


def _verb(effect: Effect) -> str:
    return f"have the effect {effect.value}"


def _choice(at: Key, operations: Iterable[AnyOperation], value: object) -> Choice:
    operations = list(operations)
    name = str(at[-1])
    try:
        kind = kind_of(operations, name)
    except ValueError as error:
        near = "" if "(did" in str(error) else nearest(name, ["dependents"])
        raise ConfigError(at, f"when: {error}{near}") from None
    if (found := choice(value, kind)) is None:
        raise ConfigError(at, f"when: {name} has to be compared with {_SAID[kind]}, or a list of such")
    return found


_SAID = {"text": "a text", "number": "a whole number"}


def _set(table: Any) -> Iterator[tuple[Effect, str, Any]]:
    for effect in Effect:
        if (value := getattr(table, effect.value, None)) is not None:
            yield effect, effect.value, value
