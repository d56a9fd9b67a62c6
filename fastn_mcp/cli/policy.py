"""`fastn-mcp policy`: check a policy file, explain and test its decisions. It never sends a change."""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from fastn_mcp.account.dependent_rows import MAX_PAGES
from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.account.resolved_call import ResolvedCall, Surroundings
from fastn_mcp.audit.reader import AuditLog
from fastn_mcp.build.composition import AccountParts, policy_of
from fastn_mcp.build.startup import policy_file
from fastn_mcp.cli.help import EnumChoice, completing
from fastn_mcp.cli.layout import print_table, say, warn
from fastn_mcp.cli.policy_calls import UNDECIDED, Replayed, load_cases, record_case, replay, written_case
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.client.reads import read_pages
from fastn_mcp.config.model import Settings
from fastn_mcp.config.paths import file_errors
from fastn_mcp.errors import FastnError, Forbidden, NotSent, SettingsError, nearest
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.policy.asker import FACTS, Asker, asker_of
from fastn_mcp.policy.decision import Decision, PolicyDecision, Situation, StepUp
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.policy_file import four_eyes, load_rules, unknown_customers, without_sign_in
from fastn_mcp.policy.rules import CUSTOMERS_UNREADABLE, FileRules
from fastn_mcp.procedures.catalog import TOOLS, UnknownTool, parse
from fastn_mcp.records.formats import counted, sentence
from fastn_mcp.redaction import quote
from fastn_mcp.runtime import System
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import UNKNOWN, Call, Operation
from fastn_mcp.tools.tool import Effect

_WHERE = "on the approval page or at a terminal"
_CHANNELS = {
    Decision.ALLOW: "Nobody is asked.",
    Decision.CONFIRM: f"A person is asked: in the client's form, or else {_WHERE}.",
    Decision.TYPED: f"A person is asked to type the target's name: in the client's form, or else {_WHERE}.",
    Decision.OUT_OF_BAND: f"A person is asked by the webhook, in Slack, {_WHERE}, never in the client's form.",
    Decision.FOUR_EYES: (
        "Two people have to approve, by the webhook, in Slack or on a team's page; or the call is refused."
    ),
    Decision.DENY: "The call is refused. Nobody is asked.",
}

_FILE = click.option(
    "--file", type=click.Path(path_type=Path), help="Use this policy file instead of the configured one."
)
_TEAM = click.option(
    "--team", type=click.Path(path_type=Path), help="Treat it as the policy of this team file's server."
)
_MODE = click.option("--mode", type=EnumChoice(["read-only", "guarded"]), help="Use this mode.")


@click.group(name="policy")
def policy_group() -> None:
    """Check a policy file, and explain its decision on a call."""


@policy_group.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
@_TEAM
@click.pass_obj
def check_(start: StartOptions, file: Path, team: Path | None) -> None:
    """Describe FILE in words, and warn about rules that cannot work. Exit code 2 if it has a mistake, with the line.

    With an account, it also checks the names of customers.
    """
    rules = load_rules(file, start.command_line())
    say(*rules.words())
    warnings = [*four_eyes(rules, _approvers(start, team)), *anyio.run(_customer_warnings, start, rules)]
    warnings += () if team is not None else without_sign_in(rules)
    say(*(f"Warning: {warning}" for warning in warnings), f"{file} is valid.")


def _approvers(start: StartOptions, team: Path | None) -> int:
    """Return how many people can approve outside the client, each with a credential of their own.

    How many people sign in at the page of a `team` is not known: each rule of its approvers counts as two.
    """
    settings = start.keyless()
    if team is not None:
        from fastn_mcp.build.extensions import load_team  # deferred import: only for a team

        return 2 * len(load_team(team).approver_rules)
    if (settings.webhook_url is None and not settings.external_channels) or settings.approvers is None:
        return 0
    from fastn_mcp.channels.approvers import load_approvers  # deferred import: only if one is configured

    return len(load_approvers(settings.approvers))


async def _customer_warnings(start: StartOptions, rules: FileRules) -> list[str]:
    """Compare protected customers with the account's. Say nothing without an account, or if it cannot be reached."""
    if not rules.compares_customers:
        return []
    try:
        parts = start.parts()
    except SettingsError:
        return []
    read = partial(parts.guard.read, caller=Caller(Asker(), None))
    try:
        async with aclosing(parts):
            customers = await read_pages(ListCustomers(limit=100), read, MAX_PAGES)
        return [*unknown_customers(rules, customers.rows)] if customers.is_complete else []
    except Forbidden:
        return [CUSTOMERS_UNREADABLE]
    except FastnError as error:
        return [f"The names of customers were not checked. {error.what}"]


# --- explain -----------------------------------------------------------------------------------------------------


@policy_group.command(name="explain", short_help="Show the policy's decision on a call, and why.")
@click.argument("tool", shell_complete=completing(lambda _ctx: TOOLS))
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "--as", "who", metavar="FACT=VALUE", multiple=True, help=f"About the caller: {', '.join(FACTS)}. Repeatable."
)
@click.option("--at", metavar="TIME", help="Decide for this time, such as 2026-12-24T22:00+01:00, instead of now.")
@click.option(
    "--record", type=click.Path(path_type=Path), help="Append the decision to this file, as a case for `policy test`."
)
@_TEAM
@_FILE
@_MODE
@click.pass_obj
def explain_(start: StartOptions, tool: str, arguments: tuple[str, ...], **options: Any) -> None:
    """Explain the policy's decision on a call of TOOL: the rule, the facts, and who would be asked.

    With an account, it reads the target. It changes nothing and requests no approval.
    """
    who = _facts(options["who"])
    at = _time(options["at"])
    name = tool.replace("-", "_")
    try:
        call = parse(TOOLS, name, dict(_argument(name, text) for text in arguments)).call
    except UnknownTool as error:
        raise NotSent(error.what, "To list all tools: fastn-mcp tools") from None
    if not isinstance(call, Operation):
        raise NotSent(f"{name} consists of several calls; the policy decides each.", "Explain one of these calls.")
    start = start.with_flags(policy=options["file"], mode=options["mode"])
    step_up: StepUp | None = None
    if options["team"] is not None:
        from fastn_mcp.build.extensions import load_team  # deferred import: only for a team

        step_up = load_team(options["team"]).step_up
    explain = partial(_explain, start, call, asker_of(who), at=at, step_up=step_up)
    lines, situation, policy, verdict = anyio.run(explain)
    say(*lines)
    file = options["record"]
    if file is not None:
        difference = record_case(file, written_case(situation, policy, who, verdict), policy)
        if difference is not None:
            raise NotSent(
                f"Not recorded: a case holds no records of the account, and without them {difference}",
                "Write the case by hand.",
            )
        say(f"Recorded in {file}.")


def _facts(texts: Sequence[str]) -> dict[str, list[str]]:
    facts: dict[str, list[str]] = {}
    for fact, equals, value in (text.partition("=") for text in texts):
        if not equals or fact not in FACTS:
            raise click.BadParameter(f"{fact!r} is not FACT=VALUE{nearest(fact, FACTS)}", param_hint="--as")
        facts.setdefault(fact, []).append(value)
    return facts


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else TypeAdapter[datetime](AwareDatetime).validate_python(text)
    except ValidationError:
        why = f"{text!r} is not a time with an offset, such as 2026-12-24T22:00+01:00"
        raise click.BadParameter(why, param_hint="--at") from None


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
        raise click.BadParameter(f"{name} is not a string, and its value is not JSON", param_hint="ARGUMENTS") from None


async def _explain(
    start: StartOptions, call: Call, asker: Asker, at: datetime | None, step_up: StepUp | None
) -> tuple[list[str], Situation, Policy, PolicyDecision]:
    """Return the answer in lines, and what it is about."""
    parts: AccountParts | None = None
    reason = ""
    try:
        parts = start.parts()
        settings = parts.settings
    except SettingsError as error:
        settings = start.keyless()
        reason = f"Nothing was read: {error}"
    if parts is None:
        policy = replace(policy_of(settings, os.environ, start.command_line()), live=True, step_up=step_up)
    else:
        policy = parts.guard.judge.policy = replace(parts.guard.judge.policy, step_up=step_up)
    effect = Effect.READ if call.effect is Effect.READ else call.effect_on(UNKNOWN, None)
    resolved = by_arguments(call, Surroundings(settings.env, customer=settings.end_org_id))
    situation = Situation(resolved, effect, at or System().now(), asker)
    evaluation: Evaluation | None = None
    try:
        if effect is not Effect.READ and parts is not None:
            call = await parts.dispatch.with_ids(call, Caller(Asker(), None))
            evaluation, situation = await parts.guard.judge.explain(call, asker, at)
    except FastnError as error:
        reason = f"The guard would refuse the call as it is: {error}"
    finally:
        if parts is not None:
            await parts.aclose()
    verdict = policy.decide(situation) if evaluation is None else evaluation.verdict
    arguments = " ".join(f"{name}={quote(value)}" for name, value in call.shown().items())
    lines = [
        f"{call.tool_name()} {arguments}".rstrip(),
        f"Decision: {verdict.decision.value}. {_CHANNELS[verdict.decision]}",
        f"Rule: {verdict.rule}.",
        *([f"Why: {verdict.why}"] if verdict.why else []),
        *_matching_lines(policy.matches(situation)),
        *(() if effect is Effect.READ else _fact_lines(situation, evaluation, reason)),
        *_asked_lines(situation),
        _policy_line(settings, policy),
    ]
    return lines, situation, policy, verdict


def _matching_lines(matches: Sequence[PolicyDecision]) -> Iterator[str]:
    """Yield every rule that matches, the mode last, if there is more than one."""
    if len(matches) < 2:
        return
    yield "Every rule that matches:"
    for each in matches:
        matched = f". {sentence(each.matched)}" if each.matched else ""
        yield f"  {each.rule}: {each.decision.value}{matched}"


def _fact_lines(situation: Situation, evaluation: Evaluation | None, reason: str) -> Iterator[str]:
    """Yield what was looked at; without an evaluation, by the arguments alone, for this `reason`."""
    yield "Facts:"
    yield f"  effect: {situation.effect.value}"
    target = situation.resolved.call.target
    if target is not None:
        name = f"{quote(evaluation.name)}, " if evaluation and evaluation.name else ""
        yield f"  target: {name}id {quote(target)}"
    yield from _effective_lines(situation.resolved)
    if evaluation is None:
        yield "Not known here: the target's record, its dependents, earlier calls in the budget, declines in a row."
        yield reason
        return
    dependence = evaluation.resolved.dependence
    known = "; ".join(each.words() for each in dependence.certain)
    unchecked = ", ".join(dependence.unchecked)
    if unchecked:
        known = f"unknown, since these could not be checked: {unchecked}{f'; {known}' if known else ''}"
    yield f"  dependents: {known or 'none'}"
    yield "  not shown, but counted from the ledger: earlier calls in the budget, declines in a row"


def _effective_lines(resolved: ResolvedCall) -> Iterator[str]:
    """Yield the environment and the customer that the request will have, and every other record of the call."""
    for what, effective in (("environment", resolved.environment), ("customer", resolved.customer)):
        if effective.values:
            yield f"  {what}: {' and '.join(map(quote, effective.values))}, from {effective.source.value}"
        elif not effective.is_known:
            yield f"  {what}: not known ({effective.source.value})"
    for each in resolved.records:
        known = f", id {quote(each.id)}" if each.row is not None else ", which could not be read"
        yield f"  {each.relation.value} {each.kind}: {quote(each.name)}{known}"


def _asked_lines(situation: Situation) -> Iterator[str]:
    """Yield when the call is made, and what is known of who asks."""
    asker = situation.asker
    known = list[str]()
    for fact in FACTS:
        known += [
            f"{fact} {quote(each)}" for each in dict.fromkeys(asker.values(fact, verified=False)) if each[0] != "|"
        ]
    unknown = [fact for fact in FACTS if not asker.knows(fact)]
    caller = ", ".join(known) or "unknown (no sign-in)"
    rest = f" Not known about the caller: {', '.join(unknown)}." if known and unknown else ""
    yield f"Time: {situation.now.isoformat(timespec='seconds')}. Caller: {caller}.{rest}"


def _policy_line(settings: Settings, policy: Policy) -> str:
    mode = policy.mode
    key = policy.key
    file = policy_file(settings, os.environ)
    return f"Policy: mode {mode}, {key} key, {f'file {file}' if file else 'no file'}."


# --- test --------------------------------------------------------------------------------------------------------


@policy_group.command(name="test", short_help="Compare decisions with expected or recorded ones.")
@click.argument("cases", type=click.Path(path_type=Path))
@_FILE
@_MODE
@click.pass_obj
def test_(start: StartOptions, cases: Path, file: Path | None, mode: str | None) -> None:
    """Compare the policy's decisions with those that a file of cases expects, or that an audit log recorded.

    Exit code 1 if one differs, or if a line of the log could not be evaluated. It needs no account, and sends nothing.
    A log has no records of the account: targets are known by their ids alone, and dependents count as unknown.
    """
    settings = start.with_flags(policy=file, mode=mode).keyless()
    policy = policy_of(settings, os.environ, start.command_line())
    passes = _log_passes if _is_audit_log(cases) else _cases_pass
    is_passed = passes(cases, policy, _policy_line(settings, policy))
    if policy_file(settings, os.environ) is None:
        warn("There is no policy file, so the mode alone decides. To test a file: --file FILE")
    sys.exit(0 if is_passed else 1)


def _is_audit_log(path: Path) -> bool:
    """Return whether a file is JSON lines, which no file of cases is."""
    if not path.is_file():
        return False
    with file_errors(path, "read"), path.open("rb") as file:
        return file.read(1) == b"{"


def _cases_pass(path: Path, policy: Policy, description: str) -> bool:
    """Print the cases that are decided differently than expected. Return whether there are none."""
    expected = load_cases(path)
    different = list(filter(None, (case.difference(policy) for case in expected)))
    say(*different)
    are = "is" if len(different) == 1 else "are"
    count = f"{len(different)} of {counted(len(expected), 'case')}"
    say(f"{count} {are} decided differently than expected. {description}")
    return not different


def _log_passes(path: Path, policy: Policy, description: str) -> bool:
    """Print the calls that are decided differently than recorded. Return whether there are none, and all were read."""
    rows, problems = replay(AuditLog(path).lines([path]), policy)
    different = [row for row in rows if row.recorded not in (UNDECIDED, row.decision.decision.value)]
    _print_decisions(rows, different)
    count = f"{len(different)} of {counted(len(rows), 'call')}"
    say(f"{count} would be decided differently than recorded. {description}")
    say(*(f"Line {line} was not evaluated: {problem}." for line, problem in sorted(problems)), err=True)
    return not different and not problems


def _print_decisions(rows: Sequence[Replayed], different: Sequence[Replayed]) -> None:
    """Print how often each pair of decisions occurs, and the calls for which they differ."""
    if rows:
        pairs = Counter((row.recorded, row.decision.decision.value) for row in rows)
        print_table([("recorded", "now", "calls"), *((*pair, str(count)) for pair, count in sorted(pairs.items()))])
        click.echo()
    if different:
        print_table([("line", "time", "call", "recorded", "now", "by"), *(row.cells() for row in different)])
        click.echo()
