"""`fastn-mcp policy`: check a policy file, explain and simulate its decisions. It never sends a change."""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click

from fastn_mcp.account.dependents import MAX_PAGES
from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.account.resolved_call import ResolvedCall, Surroundings
from fastn_mcp.build.composition import AccountParts, policy_of
from fastn_mcp.build.startup import policy_file
from fastn_mcp.cli.help import EnumChoice
from fastn_mcp.cli.layout import print_table, say
from fastn_mcp.cli.policy_replay import replay
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.client.reads import read_pages
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError, Forbidden, NotSent, SettingsError
from fastn_mcp.guard.call_evaluation import CallEvaluation
from fastn_mcp.guard.caller import Caller
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision, PolicyDecision, Situation
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.policy_file import load_rules
from fastn_mcp.policy.rules import FileRules
from fastn_mcp.policy.warnings import UNREADABLE, four_eyes, unknown_customers
from fastn_mcp.procedures.catalog import TOOLS, UnknownTool, parse
from fastn_mcp.records.formats import sentence
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.runtime import System
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import UNKNOWN, Call, Operation
from fastn_mcp.tools.tool import Effect

_CHANNELS = {
    Decision.ALLOW: "Nobody is asked.",
    Decision.CONFIRM: "A person is asked: in the client's form, or else on the approval page or at a terminal.",
    Decision.TYPED: "A person is asked to type the target's name: in the client's form, or else on the approval page or"
    " at a terminal.",
    Decision.OUT_OF_BAND: "A person is asked by the webhook, on the approval page or at a terminal, never in the"
    " client's form.",
    Decision.FOUR_EYES: "Two approvers have to approve, by the webhook; without one that is set up it is refused.",
    Decision.DENY: "Nobody is asked: it is refused.",
}

_FILE = click.option(
    "--file", type=click.Path(path_type=Path), help="Use this policy file instead of the configured one."
)
_MODE = click.option("--mode", type=EnumChoice(["read-only", "guarded", "manual", "auto"]), help="Use this mode.")


@click.group(name="policy")
def policy_group() -> None:
    """Check a policy file, and explain its decision on a call."""


@policy_group.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def check_(start: StartOptions, file: Path) -> None:
    """Say in words what FILE says, and warn of what it cannot do. Exit code 2 where it is wrong, with the line.

    The names of customers are read where there is an account.
    """
    rules = load_rules(file, start.command_line())
    for line in rules.words():
        say(sanitize(line))
    for warning in [*four_eyes(rules, _approvers(start)), *anyio.run(_customer_warnings, start, rules)]:
        say(f"Warning: {sanitize(warning)}")
    say(f"{file} is valid.")


def _approvers(start: StartOptions) -> int:
    """Return how many people can approve outside of the client, each with a credential of their own."""
    settings = start.keyless()
    if settings.webhook_url is None or settings.approvers is None:
        return 0
    from fastn_mcp.channels.webhook.approvers import load_approvers  # deferred import: only if one is configured

    return len(load_approvers(settings.approvers))


async def _customer_warnings(start: StartOptions, rules: FileRules) -> list[str]:
    """Compare protected customers with those of the account. Without one, or if it cannot be reached, say nothing."""
    if not rules.compares_customers:
        return []
    try:
        parts = start.parts()
    except SettingsError:
        return []
    try:
        customers = await read_pages(
            ListCustomers(limit=100), partial(parts.guard.read, caller=Caller(Asker(), None)), MAX_PAGES
        )
        return [*unknown_customers(rules, customers.rows)] if customers.is_complete else []
    except Forbidden:
        return [UNREADABLE]
    except FastnError as error:
        return [f"The names of customers were not checked. {error.what}"]
    finally:
        await parts.aclose()


# --- explain -----------------------------------------------------------------------------------------------------


@policy_group.command(name="explain", short_help="Show the policy's decision on a call, and why.")
@click.argument("tool")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@_FILE
@_MODE
@click.pass_obj
def explain_(start: StartOptions, tool: str, arguments: tuple[str, ...], file: Path | None, mode: str | None) -> None:
    """Say what the policy makes of a call of TOOL: the rule, the facts that it looked at, who is asked.

    The target is read where there is an account; nothing is changed, and nobody is asked.
    """
    name = tool.replace("-", "_")
    try:
        call = parse(TOOLS, name, dict(_argument(name, text) for text in arguments)).call
    except UnknownTool as error:
        raise NotSent(error.what, "All of them: fastn-mcp tools") from None
    if not isinstance(call, Operation):
        raise NotSent(f"{name} consists of several calls; the policy decides each.", "Explain one of those.")
    for line in anyio.run(_explain, start.with_flags(policy=file, mode=mode), call):
        say(line)


def _argument(tool: str, text: str) -> tuple[str, Any]:
    """Parse `NAME=VALUE`. The value is JSON unless the argument is a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="ARGUMENTS")
    properties: dict[str, dict[str, Any]] = TOOLS[tool].input_schema()["properties"] if tool in TOOLS else {}
    if name not in properties or properties[name]["type"] == "string":
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        raise click.BadParameter(f"{name} is not a text, and its value is not JSON", param_hint="ARGUMENTS") from None


async def _explain(start: StartOptions, call: Call) -> list[str]:
    parts: AccountParts | None = None
    reason = ""
    try:
        parts = start.parts()
        settings = parts.settings
    except SettingsError as error:
        settings, reason = start.keyless(), f"Nothing was read: {error}"
    policy = policy_of(settings, os.environ, start.command_line())
    if parts is None:
        policy = replace(policy, live=True)
    policy_line = _policy_line(settings, policy)
    try:
        if call.effect is Effect.READ:
            allowed = PolicyDecision(Decision.ALLOW, "reads", "Reads are always allowed.")
            return [*_decision_lines(call, allowed), policy_line]
        if parts is not None:
            try:
                call = await parts.dispatch.with_whole_ids(call, Caller(Asker(), None))
                evaluation, matches = await parts.guard.evaluator.explain(call, Asker())
                lines = [*_decision_lines(call, evaluation.verdict), *_matching_lines(matches)]
                return [*lines, *_evaluated_facts(evaluation), policy_line]
            except FastnError as error:
                reason = f"The guard would refuse the call as it is: {error}"
        resolved = by_arguments(call, Surroundings(settings.env, customer=settings.end_org_id))
        situation = Situation(resolved, call.effect_on(UNKNOWN, None), System().now())
        lines = [*_decision_lines(call, policy.decide(situation)), *_matching_lines(policy.matches(situation))]
        return [*lines, *_assumed_facts(call, reason), policy_line]
    finally:
        if parts is not None:
            await parts.aclose()


def _decision_lines(call: Call, verdict: PolicyDecision) -> Iterator[str]:
    arguments = " ".join(f"{name}={quote(value)}" for name, value in call.shown().items())
    yield f"{call.tool_name()} {arguments}".rstrip()
    yield f"Decision: {verdict.decision.value}. {_CHANNELS[verdict.decision]}"
    yield f"Rule: {sanitize(verdict.rule)}."
    if verdict.why:
        yield f"Why: {sanitize(verdict.why)}"


def _matching_lines(matches: Sequence[PolicyDecision]) -> Iterator[str]:
    """Yield every rule that matches, the mode last, if there is more than one."""
    if len(matches) < 2:
        return
    yield "Every rule that matches:"
    for each in matches:
        matched = f". {sentence(each.matched)}" if each.matched else ""
        yield f"  {sanitize(each.rule)}: {each.decision.value}{sanitize(matched)}"


def _evaluated_facts(evaluation: CallEvaluation) -> Iterator[str]:
    yield "Looked at:"
    if (preview := evaluation.preview) is None:
        return
    yield f"  effect: {preview.effect.value}"
    if preview.target is not None:
        name = f"{quote(preview.name)}, id " if preview.name else "id "
        yield f"  target: {name}{quote(preview.target)}"
    yield from _effective_lines(evaluation.resolved)
    dependents = "; ".join(each.words() for each in preview.dependence.found)
    unchecked = ", ".join(preview.dependence.unchecked)
    if unchecked:
        known = f"; {dependents}" if dependents else ""
        yield f"  dependents: unknown, since these could not be checked: {unchecked}{known}"
    else:
        yield f"  dependents: {dependents or 'none'}"
    yield "  the clock, the budget's calls so far, declines in a row"


def _effective_lines(resolved: ResolvedCall) -> Iterator[str]:
    """Yield the environment and the customer that the request will have, and every other record of the call."""
    for what, effective in (("environment", resolved.environment), ("customer", resolved.customer)):
        values = " and ".join(map(quote, effective.values)) or "not known"
        if effective.values or not effective.is_known:
            yield f"  {what}: {values}, from {effective.source.value}"
    for each in resolved.records:
        known = f", id {quote(each.id)}" if each.row is not None else ", which could not be read"
        yield f"  {each.relation.value} {each.kind}: {quote(each.name)}{known}"


def _assumed_facts(call: Call, why: str) -> Iterator[str]:
    yield "Looked at:"
    yield f"  effect: {call.effect_on(UNKNOWN, None).value}, by the arguments alone"
    yield "  the clock"
    yield "Unknown, and assumed so that nothing is loosened:"
    if call.target is not None:
        yield f"  the target {quote(call.target)}: its name, its state, what it belongs to"
    yield "  dependents"
    yield "Unknown, and left out: the budget's calls so far, declines in a row, whether a key is the one in use."
    yield sanitize(why)


def _policy_line(settings: Settings, policy: Policy) -> str:
    mode, key = policy.mode, policy.key
    file = policy_file(settings, os.environ)
    return f"Policy: mode {mode}, {key} key, {f'file {file}' if file else 'no file'}."


# --- simulate ----------------------------------------------------------------------------------------------------


@policy_group.command(name="simulate")
@click.option("--audit", type=click.Path(path_type=Path), required=True, help="The file of recorded calls.")
@_FILE
@_MODE
@click.option(
    "--key", type=EnumChoice(["live", "test"]), default="live", show_default=True, help="Use this kind of key."
)
@click.pass_obj
def simulate_(start: StartOptions, audit: Path, file: Path | None, mode: str | None, key: str) -> None:
    """Say what the policy would have made of recorded calls. Exit code 1 where a line could not be judged.

    What was there then is not recorded: targets are judged by their id alone, dependents as unknown.
    """
    settings = start.with_flags(policy=file, mode=mode).keyless()
    policy = replace(policy_of(settings, os.environ, start.command_line()), live=key == "live")
    try:
        with audit.open("rb") as lines:
            rows, problems = replay(lines, policy)
    except FileNotFoundError:
        begins = "It begins with the first call that changes something."
        raise SettingsError(f"There is no audit log at {audit}.", begins) from None
    different = [row for row in rows if row.recorded != row.decision.decision.value]
    if rows:
        pairs = Counter((row.recorded, row.decision.decision.value) for row in rows)
        counts = [(recorded, now, str(count)) for (recorded, now), count in sorted(pairs.items())]
        print_table([("recorded", "now", "calls"), *counts])
        click.echo()
    if different:
        print_table([("line", "time", "call", "recorded", "now", "by"), *(row.cells() for row in different)])
        click.echo()
    say(f"{len(rows)} calls, {len(different)} with another decision. {_policy_line(settings, policy)}")
    for line, problem in sorted(problems):
        click.echo(f"Line {line} was not evaluated: {sanitize(problem)}.", err=True)
    sys.exit(1 if problems else 0)
