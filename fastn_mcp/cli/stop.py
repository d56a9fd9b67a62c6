"""`fastn-mcp stop` and `fastn-mcp allow`: stop every change of every agent, and allow changes again."""

import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import anyio
import click

from fastn_mcp.build.approval_store import ApprovalStore, approval_stores
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli.layout import say
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.config.addresses import is_shared
from fastn_mcp.config.paths import TENANTS
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.guard.approval.terminal_approvals import TerminalApprovals
from fastn_mcp.guard.stops import LONGEST_SENDING, Voided, in_words, stop_entry, void_approvals
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.policy.asker import Asker
from fastn_mcp.records.formats import counted
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.runtime import System

_BY = "a person at the terminal"

_LONGEST_WAIT = 10.0
"""Seconds to wait for changes that were already being sent."""

_POLL = 0.2

_LONGEST_REASON = 500

_KNOWN = 1_000
"""Number of the newest requests among which a client or person is looked for."""


@click.command(name="stop", short_help="Stop every change of every agent, at once.")
@click.option("--tenant", metavar="NAME", default="", help="Stop the changes of this tenant of a team only.")
@click.option("--person", metavar="NAME", default="", help="Those of this person: sign-in name, subject or e-mail.")
@click.option("--client", metavar="NAME", default="", help="Those of this client: its OAuth id, or what it is called.")
@click.option("--reason", default="", help="Why, for people and for agents.")
@click.pass_obj
def stop(start: StartOptions, tenant: str, person: str, client: str, reason: str) -> None:
    """Stop changes: from now on nothing is sent for any agent, by any process, until a person allows it again.

    Reading goes on. Waiting calls end, approvals that are not used become void, and temporary approvals end; they do
    not come back. It is kept in the ledger, so that it survives restarts.
    """
    if sum(map(bool, (tenant, person, client))) > 1:
        raise click.UsageError("Give one of --tenant, --person and --client.")
    if len(reason) > _LONGEST_REASON:
        raise click.UsageError(f"The reason has {len(reason)} characters, and {_LONGEST_REASON} is the limit.")
    system, (own, *others) = System(), _stores(start)
    if tenant and not (is_shared(own.ledger) or any(_is_of_tenant(each) for each in others)):
        raise SettingsError("This is no server of a team: it has no tenants.", f"Stop all: {own.program.to('stop')}")
    wanted = Stop(system.token(), system.timestamp(), _BY, reason, tenant, person, client)
    earlier = own.use(partial(_order, stop=wanted), create=True)
    is_known = earlier is not None or own.use(partial(_is_known, stop=wanted))
    voided = own.use(partial(_void, stop=wanted)) or Voided()
    problems, ended, left = _stop_others(others, wanted)
    if earlier is not None:
        say(f"Nothing is new. {in_words(earlier, system.now())}")
    else:
        say(f"{in_words(wanted, system.now())} Nothing is sent for them until a person allows it again.")
    if not is_known:
        say(f"Nobody of this name has asked for anything yet: {sanitize(wanted.whom)}. Is it spelt this way?")
    say(_ended(voided + ended))
    for change in (*(own.use(_left) or ()), *left):
        say(sanitize(f"Already being sent, cannot be recalled: {change.tool} {quote(change.name or change.target)}."))
    for problem in problems:
        click.echo(f"fastn-mcp: {sanitize(problem)}", err=True)
    click.echo(f"To allow changes again, at a terminal: {own.program.to('allow')}")
    sys.exit(1 if problems else 0)


def _stop_others(stores: Sequence[ApprovalStore], stop: Stop) -> tuple[list[str], Voided, list[Change]]:
    """Stop changes in further stores. Return what went wrong, what ended, and what was being sent."""
    voided, problems, left = Voided(), list[str](), list[Change]()
    for store in stores:
        try:
            if not _is_of_tenant(store):
                store.use(partial(_order, stop=stop))
            voided += store.use(partial(_void, stop=stop)) or Voided()
            left += store.use(_left) or ()
        except FastnError as error:
            problems.append(f"Not stopped there: {error}")
    return problems, voided, left


@click.command(name="allow", short_help="Allow changes again after a stop.")
@click.pass_obj
def allow(start: StartOptions) -> None:
    """Allow changes again after a stop. It needs a person at a terminal.

    Nothing is sent because of it: what was void stays void, and agents have to ask again.
    """
    stores, now = _stores(start), System().now()
    stops = {stop.id: stop for store in stores for stop in store.use(_holding) or ()}
    if not stops:
        say("Nothing is stopped.")
        return
    for each in stops.values():
        say(in_words(each, now))
    if (terminal := Terminal.here()) is None:
        raise click.ClickException(f"Nothing was allowed: that needs a person at a terminal. {_RUN_THERE}")
    answer = anyio.run(partial(terminal.line, "Allow changes again? Type allow: "))
    if (answer or "").strip().casefold() != "allow":
        raise click.ClickException("Nothing was allowed: changes stay stopped.")
    for store in stores:
        store.use(_lift)
    say("Changes are allowed again. Nothing is sent because of this: agents have to ask again.")


_RUN_THERE = "Run fastn-mcp allow in one."


def _stores(start: StartOptions) -> list[ApprovalStore]:
    """Return the store of these options and every other one of this user, each once."""
    settings, config = start.ledger_settings(), start.config_file()
    own = ApprovalStore(start.state(), settings.ledger, start.command_line(), _warn, settings.state_secrets)
    stores, seen = [own], {own.ledger if is_shared(own.ledger) else own.file}
    options = ["--config", str(start.config.absolute())] if start.config else []
    for _, store in approval_stores(config if config.exists() else None, options, os.environ, _warn):
        place = store.ledger if is_shared(store.ledger) else store.file
        if place not in seen and store.exists:
            seen.add(place)
            stores.append(store)
    return stores


def _is_of_tenant(store: ApprovalStore) -> bool:
    """Whether a store is of a tenant, whose stops the ledger of its process has."""
    return TENANTS in store.folder.parts


async def _order(approvals: TerminalApprovals, stop: Stop) -> Stop | None:
    """Record a stop, first of all. Return the same one if it holds already."""
    for earlier in await approvals.ledger.stops():
        if earlier.lifted is None and earlier.whom == stop.whom:
            return earlier
    await approvals.ledger.add_stop(stop)
    approvals.audit.record(stop_entry(stop, "all accounts"))
    return None


async def _void(approvals: TerminalApprovals, stop: Stop) -> Voided:
    return await void_approvals(approvals.ledger, stop, approvals.system.timestamp())


async def _is_known(approvals: TerminalApprovals, stop: Stop) -> bool:
    """Whether somebody whom a stop names has asked for an approval lately; True if it names nobody."""
    ledger, now = approvals.ledger, approvals.system.timestamp()
    known = {request.asker for request in (*await ledger.waiting(now), *await ledger.decided(_KNOWN))}
    return stop.covers(Asker()) or any(map(stop.covers, known))


async def _left(approvals: TerminalApprovals) -> Sequence[Change]:
    """Wait until the changes that were begun before the stop have an outcome. Return those that have none in time."""
    ledger, system = approvals.ledger, approvals.system
    until = system.timestamp() + _LONGEST_WAIT
    while changes := await ledger.under_way(system.timestamp() - LONGEST_SENDING):
        if system.timestamp() >= until:
            return changes
        await system.sleep(_POLL)
    return ()


async def _holding(approvals: TerminalApprovals) -> list[Stop]:
    return [stop for stop in await approvals.ledger.stops() if stop.lifted is None]


async def _lift(approvals: TerminalApprovals) -> None:
    """Lift the stops of a ledger. What they made void is ended once more, in case that was interrupted."""
    now = approvals.system.timestamp()
    for stop in await _holding(approvals):
        await void_approvals(approvals.ledger, stop, now)
        lifted = stop.lift(_BY, now)
        if await approvals.ledger.lift_stop(lifted):
            approvals.audit.record(stop_entry(lifted, "all accounts"))


def _ended(voided: Voided) -> str:
    parts: Iterator[tuple[int, str]] = iter(
        [
            (voided.waiting, "waiting call"),
            (voided.approvals, "unused approval"),
            (voided.temporary, "temporary approval"),
        ]
    )
    ended = [counted(count, what) for count, what in parts if count]
    return f"Ended: {', '.join(ended)}." if ended else "Nothing was waiting or approved."


def _warn(text: str) -> None:
    click.echo(f"fastn-mcp: {sanitize(text)}", err=True)
