"""`fastn-mcp plan`: write, review and sign a plan for unattended runs."""

import os
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import click
from pydantic import ValidationError

from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.audit.files import parsed
from fastn_mcp.audit.log import AuditEvent, recorded_time
from fastn_mcp.build.composition import AccountParts, account_of, plan_account_of
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli.audit import Since
from fastn_mcp.cli.exit import WrongArgument
from fastn_mcp.cli.layout import say
from fastn_mcp.cli.policy_calls import UnreadableEntry, recorded_call
from fastn_mcp.cli.run import name_of, read
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.config.paths import config_dir, make_private_folder
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.guard.caller import Caller
from fastn_mcp.policy import plan_file
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.permit import Permit
from fastn_mcp.policy.plan import Plan, toml, would_allow
from fastn_mcp.policy.plan_file import KEYS, MAX_DAYS, BadSignature
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.records.formats import stamp
from fastn_mcp.redaction import is_redacted, quote, sanitize
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import Call, Operation
from fastn_mcp.tools.tool import AnyTool, Effect

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_PLANNABLE: Mapping[str, AnyTool] = {**OPERATIONS, ApplyChanges.tool_name(): ApplyChanges}
"""Tools that a plan can hold: operations, and batches, whose calls it lists one by one."""

_MIN_PASSPHRASE = 10
"""Minimum length of a passphrase, in characters."""


@click.group(name="plan")
def plan_group() -> None:
    """Run plans: calls that may be made unattended. Use one with --mode unattended --plan FILE."""


@plan_group.command(name="new")
@click.argument("calls", type=click.File("rb"), required=False)
@click.option("--from-audit", "audit", type=click.Path(path_type=Path), help="Take the calls of a recorded run.")
@click.option("--since", type=Since(), help="Take only entries since WHEN, for example 24h or 2026-11-25T09:00.")
@click.option("--name", default="run", show_default=True, help="Name of the plan.")
@click.option(
    "--hours",
    type=click.IntRange(1, MAX_DAYS * 24),
    default=24,
    show_default=True,
    help="Number of hours for which the plan is valid.",
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan to FILE instead of printing it."
)
@click.pass_obj
def new_(
    start: StartOptions,
    calls: Any,
    audit: Path | None,
    since: datetime | None,
    name: str,
    hours: int,
    output: Path | None,
) -> None:
    """Write a plan of exact calls, for a person to read and sign.

    CALLS is a file of JSON lines, {"tool": ..., "arguments": {...}}; - is standard input. Identical calls are combined
    with a count.
    Each call in an apply_changes is counted on its own.
    """
    if (calls is None) == (audit is None):
        raise click.UsageError("Give CALLS, or --from-audit FILE.")
    settings = start.settings()
    planned = _from_audit(audit, since and recorded_time(since)) if audit is not None else _from_script(calls)
    counted = Counter(would_allow(call).removesuffix("count = 1") for call in planned)
    if not counted:
        raise WrongArgument("No call in it changes anything.")
    until = stamp(datetime.now(UTC) + timedelta(hours=hours))
    head = f"name = {toml(name)}\naccount = {toml(account_of(settings))}\nuntil = {until}\n"
    text = head + "".join(f"\n{entry}count = {count}\n" for entry, count in counted.items())
    if output is None:
        click.echo(text, nl=False)
        return
    with output.open("x", encoding="utf-8") as file:  # a plan that was signed is never replaced
        file.write(text)
    output.chmod(0o644)
    approve = start.command_line().to("plan", "approve", str(output), "--as")
    click.echo(f"Written: {output}. Read it, then sign it: {approve} NAME", err=True)


def _from_script(script: BinaryIO) -> Iterator[Call]:
    """Yield the calls of a script that change something, including the calls of its batches."""
    calls, errors = read(script, _PLANNABLE)
    if errors:
        raise WrongArgument(f"{name_of(script)}, {errors[0].rstrip('.')}. No plan was written. Correct the line.")
    for step in calls:
        for call in step.wanted.call.inner_calls or (step.wanted.call,):
            if isinstance(call, Operation) and call.effect is not Effect.READ:
                yield call


def _from_audit(path: Path, since: str | None) -> Iterator[Call]:
    """Yield the calls that were sent and whose arguments are in the audit log. Report the others on stderr."""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        entry = parsed(line)
        if entry is None:
            click.echo(f"line {number} is left out: it is not an audit entry", err=True)
            continue
        if entry["event"] != AuditEvent.INTENT.value or (since is not None and str(entry.get("time")) < since):
            continue
        try:
            if is_redacted(entry.get("arguments")):
                raise UnreadableEntry("its arguments were not recorded")
            yield recorded_call(entry)
        except UnreadableEntry as error:
            click.echo(f"line {number}: {entry.get('tool')} is left out: {error}", err=True)


@plan_group.command(name="show", short_help="Show in words what a plan allows.")
@_FILE
@click.pass_obj
def show_(start: StartOptions, file: Path) -> None:
    """Show in words what a plan allows, with the current names of its targets."""
    _, plan = _read(start, file)
    if plan_file.signatures_of(file).exists():
        try:
            plan = _signed(start, file)
        except SettingsError as error:
            say(str(error), "", err=True)
    say(*anyio.run(_describe, start, plan, dict[str, str]()), plan.summary())


@plan_group.command(name="verify", short_help="Check that a plan is signed, unchanged and not expired.")
@_FILE
@click.pass_obj
def verify_(start: StartOptions, file: Path) -> None:
    """Check that a plan is signed, unchanged, not expired, and for this account. Exit code 1 otherwise."""
    with _refused(file):
        plan = _signed(start, file)
    say(f"Valid: signed by {', '.join(plan.signers)}, until {plan.until.isoformat()}.")


@plan_group.command(name="approve")
@_FILE
@click.option("--as", "name", required=True, help="Your name in the file of public keys.")
@click.option("--key", type=click.Path(path_type=Path), help="Your private key; by default your own plan-key.pem.")
@click.pass_obj
def approve_(start: StartOptions, file: Path, name: str, key: Path | None) -> None:
    """Read a plan and sign it, at a terminal. The first time, it creates your key, with a passphrase.

    The user that runs the agent must not know the passphrase, nor be able to write the file of public keys.
    """
    terminal = Terminal.here()
    if terminal is None:
        raise click.ClickException("Nothing was signed. A person has to run this at a terminal.")
    data, plan = _read(start, file)
    account = plan_account_of(start.settings())
    with _refused(file):
        plan_file.raise_unless_for(plan, file, account.name, datetime.now(UTC))
    records: dict[str, str] = {}
    say(*anyio.run(_describe, start, plan, records), plan.summary())
    say(f"The signature is for {account} only: no other key of the same host can use it.")
    if click.prompt(f"To sign it, type the name of the plan ({sanitize(plan.name)})") != plan.name:
        raise click.ClickException("Not signed: another name was typed.")
    folder = config_dir(os.environ)
    private = _private_key(key or folder / "plan-key.pem", name, folder / KEYS)
    signature_file = plan_file.signatures_of(file)
    earlier = plan_file.parsed(signature_file.read_bytes()) if signature_file.exists() else ()
    try:
        plan_file.signers(data, earlier, plan_file.trusted(folder / KEYS, start.command_line()), account)
    except (BadSignature, SettingsError):
        earlier = ()  # signatures of another text, or for another account
    signature = plan_file.sign(data, name, datetime.now(UTC), account=account, records=records, key=private)
    signature_file.write_bytes(plan_file.written((*[each for each in earlier if each.by != name], signature)))
    use = start.command_line().to("--mode", "unattended", "--plan", str(file))
    say(f"Signed: {signature_file}. Use it:")
    click.echo(f"  {sanitize(use)}")  # not wrapped: a command to paste


@contextmanager
def _refused(file: Path) -> Generator[None]:
    """End with exit code 1 for what is wrong with a plan, and with 2 if there is none."""
    try:
        yield
    except SettingsError as error:
        raise (click.ClickException if file.exists() else WrongArgument)(str(error)) from None


def _private_key(path: Path, name: str, keys: Path) -> Any:
    """Return the person's private key. Create one if there is none."""
    if path.exists():
        try:
            return plan_file.opened(path.read_bytes(), click.prompt("Passphrase of your key", hide_input=True))
        except BadSignature as error:
            raise click.ClickException(f"{path}: {error}.") from None
    say(f"Creating a signing key: {path}")
    passphrase = click.prompt("New passphrase for it", hide_input=True, confirmation_prompt=True)
    if len(passphrase) < _MIN_PASSPHRASE:
        raise click.ClickException(f"A passphrase needs at least {_MIN_PASSPHRASE} characters.")
    private_key = plan_file.new_key()
    text = keys.read_text(encoding="utf-8") if keys.exists() else ""
    try:
        text = plan_file.with_key(text, name, plan_file.public(private_key))
    except ValueError:
        raise click.ClickException(f"{keys} has another key of {name!r}; remove it first.") from None
    make_private_folder(path.parent)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(plan_file.sealed(private_key, passphrase))
    keys.write_text(text, encoding="utf-8")
    keys.chmod(0o600)
    say(f"Your public key is in {keys}. Make sure that the agent cannot write that file.")
    return private_key


def _signed(start: StartOptions, file: Path) -> Plan:
    """Return the plan, checked as for a run. Raises `SettingsError` if it is not valid."""
    settings = start.settings()
    keys = settings.plan_keys or config_dir(os.environ) / KEYS
    account = plan_account_of(settings)
    return plan_file.signed(file, keys, account, now=datetime.now(UTC), program=start.command_line())


def _read(start: StartOptions, file: Path) -> tuple[bytes, Plan]:
    with _refused(file):
        return plan_file.unsigned(file, start.command_line())


async def _describe(start: StartOptions, plan: Plan, records: dict[str, str]) -> list[str]:
    """Describe the plan: for each entry its effects on targets by name, then the entry with its ids.

    Adds to `records` the fingerprints of the records that a signature holds for.
    """
    heading, *entries = plan.words()
    try:
        parts = start.parts()
    except SettingsError as error:
        return [heading, *entries, f"The targets' names were not read: {error}"]
    lines = [heading]
    async with aclosing(parts):
        for permit, words in zip(plan.permits, entries, strict=True):
            for call in _calls(permit):
                resolved, sentences = await _consequences(call, parts)
                bound = [] if resolved is None else plan.bound(permit, resolved)
                records |= {each.key: each.fingerprint() for each in bound}
                lines += sentences
            lines.append(f"  {words}")
    return lines


def _calls(permit: Permit) -> Iterator[Call]:
    """Yield the calls of an entry that gives their exact targets, or all of their arguments but secrets."""
    operation = OPERATIONS[permit.tool]
    exact = [key for key in permit.targets if not any(letter in key for letter in "*?[")]
    for target in [{operation.route.parameters[-1]: key} for key in exact] or ([] if permit.targets else [{}]):
        arguments = {**target, **(permit.arguments or {})}
        try:
            yield operation.model_validate(arguments)
        except ValidationError:
            # The preview needs the target only. The arguments that are missing are bounded by conditions, or secret.
            if target or (operation.secrets() and permit.arguments):
                yield operation.model_construct(None, **arguments)


async def _consequences(call: Call, parts: AccountParts) -> tuple[ResolvedCall | None, list[str]]:
    """Return a call as read, and its sentences: what happens to which target, what is lost, and what can be undone."""
    try:
        evaluation = await parts.dispatch.evaluate(call, Caller(Asker(), None))
    except FastnError as error:
        return None, [f"{type(call).title()} {quote(call.target or '')}: {error}"]
    id_ = evaluation.call.target
    if id_ != call.target:
        return None, [f"{type(call).title()} {quote(call.target or '')}: A plan compares ids. Give {id_} in its place."]
    return evaluation.resolved, evaluation.people_question.summary()
