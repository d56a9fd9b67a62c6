"""`fastn-mcp stop` and `fastn-mcp allow`: stop every change of every agent, and allow changes again."""

import sys
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial

import anyio
import click

from fastn_mcp.build.stores import ApprovalStore
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli.approvals import others_of, own_store
from fastn_mcp.cli.layout import say, warn
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.config.addresses import is_shared
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.guard.approval.votes import TerminalApprovals
from fastn_mcp.guard.stops import MAX_SENDING, in_words, stop_entry, void_approvals
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.policy.asker import Asker
from fastn_mcp.records.formats import counted
from fastn_mcp.redaction import quote, redact_text
from fastn_mcp.runtime import System

_STOPPED_BY = "a person at the terminal"

_MAX_WAIT = 10.0
"""Seconds to wait for changes that were already being sent."""

_POLL_SECONDS = 0.2

_MAX_REASON = 500

_SEARCHED_REQUESTS = 1_000
"""Number of the newest requests among which a client or person is looked for."""


@click.command(name="stop")
@click.option("--tenant", metavar="NAME", default="", help="Stop only the changes of this tenant of a team's server.")
@click.option(
    "--person",
    metavar="NAME",
    default="",
    help="Stop only the changes of this person: sign-in name, subject or e-mail.",
)
@click.option("--reason", default="", help="Reason, shown to people and to agents.")
@click.pass_obj
def stop(start: StartOptions, tenant: str, person: str, reason: str) -> None:
    """Stop changes: from now on, no process sends a change for any agent until a person allows changes again.

    Reading still works. Waiting calls end, unused approvals become void, and temporary approvals end; they do not come
    back. The stop is stored in the ledger and survives restarts.
    """
    if tenant and person:
        raise click.UsageError("Give either --tenant or --person.")
    if len(reason) > _MAX_REASON:
        raise click.UsageError(f"The reason has {len(reason)} characters, and {_MAX_REASON} is the limit.")
    system = System()
    stores = _stores(start)
    own = stores[0]
    is_new = not own.exists
    if tenant and not (is_shared(own.ledger) or any(store.is_of_tenant for store in stores)):
        raise SettingsError("This is not a team server: it has no tenants.", f"Stop all: {own.program.to('stop')}")
    wanted = Stop(
        system.token(), system.timestamp(), _STOPPED_BY, reason=redact_text(reason), tenant=tenant, person=person
    )
    problems, earlier = _ordered(stores, wanted)
    warn(*(f"Not stopped in {store.folder}: {problem}" for store, problem in problems.items()))
    if len(problems) == len(stores):
        sys.exit(1)
    say(_in_force(wanted, earlier, system, is_partial=bool(problems)))
    if is_new:
        say(
            f"No server has used {own.folder} yet. A server with another FASTN_STATE_DIR or FASTN_LEDGER is not"
            " stopped."
        )
    reached = [store for store in stores if store not in problems]
    if earlier is None and not any(store.use(partial(_is_known, stop=wanted)) for store in reached):
        say(f"No approval has been requested yet by {wanted.whom}. Is the name spelled correctly?")
    _end_what_waits(reached, wanted, system)
    if sys.stdout.isatty():  # not for an agent's shell
        click.echo(f"To allow changes again: {own.program.to('allow')}")
    sys.exit(1 if problems else 0)


def _in_force(wanted: Stop, earlier: Stop | None, system: System, *, is_partial: bool) -> str:
    """Return what is stopped now: by the new stop, or by an `earlier` one that made it unnecessary."""
    note = ""
    if is_partial:
        note = "In the other folders: "
    elif earlier is not None:
        note = "Already stopped. "
    stop = wanted if earlier is None else earlier
    return f"{note}{in_words(stop, system.now())} No change is sent until a person allows changes again."


def _end_what_waits(stores: Sequence[ApprovalStore], stop: Stop, system: System) -> None:
    """Void the approvals and permits that a stop covers, and say so, with the changes that are already being sent."""
    ended = Counter[str]()
    for store in stores:
        counts = store.use(
            lambda approvals: void_approvals(approvals.ledger, stop, system.timestamp(), approvals.record_event)
        )
        ended += counts or Counter[str]()
    say(_ended(ended))
    for store in stores:
        for change in store.use(_left) or ():
            say(f"Already being sent, so it cannot be recalled: {change.tool} {quote(change.name or change.target)}.")


def _ordered(stores: Sequence[ApprovalStore], stop: Stop) -> tuple[dict[ApprovalStore, str], Stop | None]:
    """Record a stop in every store, before anything else. Return what went wrong, and the stop if it held in all."""
    problems = dict[ApprovalStore, str]()
    held = list[Stop | None]()
    for store in stores:
        try:
            if not store.is_of_tenant:  # the ledger of its process has the stops of a tenant
                held.append(store.use(partial(_order, stop=stop), create=store is stores[0]))
        except FastnError as error:
            problems[store] = str(error)
    return problems, held[0] if held and all(held) else None


@click.command(name="allow")
@click.pass_obj
def allow(start: StartOptions) -> None:
    """Allow changes again after a stop. It needs a person at a terminal.

    It sends nothing: void approvals stay void, and agents have to ask again.
    """
    stores = list[ApprovalStore]()
    now = System().now()
    stops = dict[str, Stop]()
    for store in _stores(start):  # a store that cannot be used keeps no other stopped
        try:
            stops |= {stop.id: stop for stop in store.use(lambda approvals: approvals.ledger.holding()) or ()}
            stores.append(store)
        except FastnError as error:
            warn(f"The stops in {store.folder} could not be read, so they stay. {error}")
    if not stops:
        say("No changes are stopped.")
        return
    say(*(in_words(each, now) for each in stops.values()))
    terminal = Terminal.here()
    if terminal is None:
        raise click.ClickException("Changes are still stopped. A person has to run this at a terminal.")
    answer = anyio.run(partial(terminal.line, "To allow changes again, type allow"))
    if (answer or "").strip().casefold() != "allow":
        raise click.ClickException("Nothing was allowed: changes stay stopped.")
    for store in stores:
        store.use(partial(_lift, listed=stops))
    say("Changes are allowed again. This sends nothing: agents have to ask again.")


def _stores(start: StartOptions) -> list[ApprovalStore]:
    """Return the store of these options and every other one of this user."""
    own = own_store(start)
    return [own, *others_of(own, start)]


async def _order(approvals: TerminalApprovals, stop: Stop) -> Stop | None:
    """Record a stop, first of all. Return the same one of an operator if it holds already."""
    for earlier in await approvals.ledger.holding():
        if earlier.whom == stop.whom and earlier.is_operators:
            return earlier
    _record(approvals, await approvals.ledger.add_stop(stop))
    return None


def _record(approvals: TerminalApprovals, stop: Stop) -> None:
    """Record a stop, or that it was lifted. It holds already, so a failure is a warning."""
    try:
        approvals.audit.record(stop_entry(stop, "all accounts"))
    except FastnError as error:
        warn(f"It is in force, but was not recorded in the audit log. {error.what}")


async def _is_known(approvals: TerminalApprovals, stop: Stop) -> bool:
    """Whether somebody whom a stop names has asked for an approval lately; True if it names nobody."""
    ledger = approvals.ledger
    now = approvals.system.timestamp()
    known = {request.asker for request in (*await ledger.waiting(now), *await ledger.decided(_SEARCHED_REQUESTS))}
    return stop.covers(Asker(is_by_hand=True)) or any(map(stop.covers, known))


async def _left(approvals: TerminalApprovals) -> Sequence[Change]:
    """Wait until changes that were begun before the stop have an outcome. Return the changes that have none in time."""
    ledger = approvals.ledger
    system = approvals.system
    until = system.timestamp() + _MAX_WAIT
    while changes := await ledger.under_way(system.timestamp() - MAX_SENDING):
        if system.timestamp() >= until:
            return changes
        await system.sleep(_POLL_SECONDS)
    return ()


async def _lift(approvals: TerminalApprovals, listed: Collection[str]) -> None:
    """Lift the stops that were shown. What they made void is ended once more, in case that was interrupted."""
    now = approvals.system.timestamp()
    for stop in (stop for stop in await approvals.ledger.holding() if stop.id in listed):
        await void_approvals(approvals.ledger, stop, now, approvals.record_event)
        lifted = stop.lift(_STOPPED_BY, now)
        if await approvals.ledger.lift_stop(lifted):
            _record(approvals, lifted)


def _ended(counts: "Counter[str]") -> str:
    ended = [counted(count, what) for what, count in counts.items() if count]
    return f"Ended: {', '.join(ended)}." if ended else "No waiting calls or unused approvals."
