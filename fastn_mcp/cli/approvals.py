"""`fastn-mcp approvals`: list pending approval requests, and decide them at a real terminal or on the approval page."""

import json
import os
import socket
import sys
import webbrowser
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import click
from pydantic import JsonValue

from fastn_mcp.build.stores import ApprovalStore, other_stores
from fastn_mcp.channels.page import page
from fastn_mcp.channels.page.page import KEY_FOLDER, PAGE_FILE
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli.exit import WrongArgument
from fastn_mcp.cli.layout import say
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.config.addresses import is_loopback, is_shared
from fastn_mcp.config.paths import file_errors
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.approval.votes import UNSEALABLE, TerminalApprovals, clock
from fastn_mcp.guard.approval_form import MAX_NOTE, Approve, Decline, NoAnswer, asker
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.identity import account_name, who
from fastn_mcp.ledger.store import LedgerUnusable
from fastn_mcp.policy.decision import Decision
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.runtime import System

_warn = partial(click.echo, err=True)


@click.group(name="approvals", invoke_without_command=True)
@click.option("--open", "in_browser", is_flag=True, help="Open the approval page in your browser.")
@click.option("--json", "as_json", is_flag=True, help="Print the waiting calls as JSON.")
@click.pass_context
def approvals_group(ctx: click.Context, in_browser: bool, as_json: bool) -> None:
    """List the calls waiting for you, and decide on them at this terminal."""
    start: StartOptions = ctx.obj
    store = ctx.obj = own_store(start)
    if ctx.invoked_subcommand is not None:
        return
    if in_browser:
        _open_page(store, start)
        return
    waiting = store.waiting()
    if as_json:
        click.echo(json.dumps([_data(request) for request in waiting]))
    elif not waiting:
        say("No call waits for approval.")
    elif (terminal := Terminal.here()) is not None and sys.stdout.isatty():
        _decide(store, terminal)
    else:
        _list(store, waiting)
    if not as_json:
        say(*_expired(store))
        for line in _other_waiting(store, start):
            click.echo(line)  # not wrapped: it ends with a command to paste


def _list(store: ApprovalStore, waiting: Iterable[ApprovalRequest]) -> None:
    """List what waits, and where it is decided. Nothing is decided through a pipe."""
    for request in waiting:
        say(*request.question.lines(), _headline(request), "")
    say(f"Nothing was decided. Run this at a terminal: {store.program.to('approvals')}")
    opened = _page(store.folder / PAGE_FILE)
    if opened is not None:
        say(f"To decide on the approval page at {opened[0]}: {store.program.to('approvals', '--open')}")


def _decide(store: ApprovalStore, terminal: Terminal) -> None:
    """Ask about each pending request. Ctrl-C leaves the current one undecided."""
    try:
        store.use(partial(_ask_about_each, terminal=terminal))
    except KeyboardInterrupt:
        click.echo("\nfastn-mcp: Stopped. The last call was not decided: it still waits.", err=True)
        sys.exit(130)


async def _ask_about_each(approvals: TerminalApprovals, terminal: Terminal) -> None:
    """Ask about each pending request once, including requests that arrive meanwhile."""
    seen: set[str] = set()
    while pending := [
        request for request in await approvals.ledger.waiting(approvals.system.timestamp()) if request.id not in seen
    ]:
        request = pending[0]
        seen.add(request.id)
        more = f" {len(pending) - 1} more." if len(pending) > 1 else ""
        if request.required == Decision.FOUR_EYES.value:
            terminal.say(
                "Two people have to approve it, and a terminal cannot tell people apart: decline it, or leave it."
            )
        shown = request
        if request.typed is not None and approvals.typed is None:
            terminal.say(f"{UNSEALABLE} Decline it, or leave it.")
            shown = replace(request, typed=None)
        match await terminal.ask(shown, f"{_headline(request)}{more}", may_wait=True):
            case Approve(_, is_temporary, secret):
                terminal.say(await approvals.approve(request, secret, is_temporary=is_temporary))
            case Decline(note):
                terminal.say(await approvals.decline(request, note))
            case NoAnswer():
                terminal.say("Left waiting.")
    terminal.say("\nNothing else waits.")


@approvals_group.command(name="temporary")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def temporary_(store: ApprovalStore, as_json: bool) -> None:
    """List the temporary approvals. Each covers one tool on one target."""
    temporary_approvals = store.use(TerminalApprovals.temporary_approvals) or []
    if as_json:
        fields = ("id", "principal", "account", "tool", "target", "by")
        rows = [
            {name: getattr(each, name) for name in fields}
            | {"extent": each.permit.extent if each.permit else "", "until": each.permit_until}
            for each in temporary_approvals
        ]
        click.echo(json.dumps(rows))
        return
    for each in temporary_approvals:
        line = f"{each.id}  {each.tool} on {quote(each.target)}, {account_name(each.account)}"
        line += f", for {who(each.principal, each.person)}, by {each.by}"
        say(f"{line}, until {clock(each.permit_until)}: {each.permit.extent if each.permit else ''}")
    if not temporary_approvals:
        say("There are no temporary approvals.")


@approvals_group.command(name="revoke")
@click.argument("temporary_approval")
@click.pass_obj
def revoke_(store: ApprovalStore, temporary_approval: str) -> None:
    """End a temporary approval. A prefix of its id is enough."""
    revoked = store.use(partial(TerminalApprovals.revoke, prefix=temporary_approval))
    if revoked is None:
        listed = store.program.to("approvals", "temporary")
        raise WrongArgument(f"No temporary approval has this id. List them: {listed}")
    say(f"Revoked: {revoked.tool} on {quote(revoked.target)} needs approval again.")


@approvals_group.command(name="withdraw")
@click.argument("request", required=False)
@click.option("--note", default="", help="A note for the agent.")
@click.pass_obj
def withdraw_(store: ApprovalStore, request: str | None, note: str) -> None:
    """Withdraw an unused approval, or list the unused ones.

    A prefix of its id is enough.
    """
    if not request:
        unused = store.use(TerminalApprovals.unused) or []
        say(*(f"{each.id}  {each.question.lines()[0]} {_headline(each)}" for each in unused))
        if not unused:
            say("There are no unused approvals to withdraw.")
        return
    if Terminal.here() is None:
        raise click.ClickException("Nothing was withdrawn. A person has to run this at a terminal.")
    message = store.use(partial(TerminalApprovals.withdraw, prefix=request, note=note[:MAX_NOTE]))
    if message is None:
        listed = store.program.to("approvals", "withdraw")
        raise WrongArgument(f"No decided request has this id. List what can be withdrawn: {listed}")
    say(message)


@approvals_group.command(name="keygen", short_help="Create an approver's key pair for webhook approvals.")
@click.argument("name")
@click.option("--output", type=click.Path(path_type=Path), help="File for the private key; by default NAME.pem.")
def keygen_(name: str, output: Path | None) -> None:
    """Create an approver's key pair: a private key in a file, and a public key for the approvers file."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from fastn_mcp.policy.plan_file import new_key, public

    private_key = new_key()
    path = output or Path(f"{name}.pem")
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except OSError as error:
        hint = " Move the file first." if isinstance(error, FileExistsError) else ""
        raise click.ClickException(f"{path} cannot be created: {error.strerror}. No key was created.{hint}") from None
    click.echo(f"# The private key is in {path}: only {sanitize(name)} may have it. Add this to the approvers file:")
    click.echo(f'[{json.dumps(name)}]\npublic_key = "{public(private_key)}"')


def _open_page(store: ApprovalStore, start: StartOptions) -> None:
    """Open the page at the address in its file. Its key goes to the browser only."""
    file = store.folder / PAGE_FILE
    at_a_terminal = f"Decide at a terminal: {store.program.to('approvals')}"
    opened = _page(file)
    if opened is None:
        waiting = len(store.waiting())
        others = [*_other_waiting(store, start, "--open")]
        what = f"No approval page is open, and {_calls(waiting)} here. A server opens one when a call needs approval."
        raise SettingsError(what, " ".join([*([at_a_terminal] if waiting or not others else []), *others]))
    address, key = opened
    folder = file.parent / KEY_FOLDER
    with file_errors(folder, "written", at_a_terminal):
        is_shown = webbrowser.open(page.write(folder, address, key, System().timestamp()))
    if not is_shown:
        page.remove(folder, key)
        raise SettingsError("No browser was found.", at_a_terminal)
    say("The approval page is open in your browser.")


def _page(file: Path) -> tuple[str, str] | None:
    """Return address and key of the page that is open now; None if there is none on this machine, of this user.

    A server that was killed leaves its file behind.
    """
    address, key = page.read_page_file(file) or (None, None)
    if not isinstance(address, str) or not isinstance(key, str):
        return None
    with suppress(OSError, ValueError):
        parts = urlsplit(address)
        is_private = os.name == "nt" or file.stat().st_mode & 0o077 == 0
        if (
            is_private
            and parts.scheme == "http"
            and is_loopback(parts.hostname or "")
            and not (parts.query or parts.fragment)
        ):
            socket.create_connection((parts.hostname or "", parts.port or 80), timeout=5).close()
            return address, key
    return None


def own_store(start: StartOptions) -> ApprovalStore:
    """Return the store that the options of a command select."""
    settings = start.ledger_settings()
    secrets = tuple(settings.state_secrets)
    return ApprovalStore(start.state(), settings.ledger, start.command_line(), _warn, state_secrets=secrets)


def others_of(store: ApprovalStore, start: StartOptions) -> Iterator[ApprovalStore]:
    options = ["--config", str(start.config.absolute())] if start.config else []
    return other_stores(store, start.existing_config(), options, os.environ)


def _other_waiting(store: ApprovalStore, start: StartOptions, *options: str) -> Iterator[str]:
    """One sentence for each of the user's other stores with pending requests: how many, and the command to decide."""
    for other in others_of(store, start):
        if is_shared(other.ledger):  # other ledger servers are not queried
            continue
        with suppress(LedgerUnusable):
            waiting = len(other.waiting())
            if waiting:
                opens = options if (other.folder / PAGE_FILE).exists() else ()
                yield f"{_calls(waiting)} {other.name}: {other.program.to('approvals', *opens)}"


def _calls(count: int) -> str:
    return "1 call waits" if count == 1 else f"{count or 'no'} calls wait"


_MAX_CLOSED = 10
"""How many of the latest closed requests `_expired` looks at."""


def _expired(store: ApprovalStore) -> list[str]:
    """One sentence for each of the latest requests that expired unanswered in the last day."""
    past = store.use(lambda approvals: approvals.ledger.decided(_MAX_CLOSED)) or []
    day_ago = System().timestamp() - 86_400
    return [
        f"Expired unanswered at {clock(request.expires)}: {request.question.lines()[0]}"
        for request in past
        if request.state is RequestState.UNANSWERED and request.by is None and request.expires > day_ago
    ]


def _headline(request: ApprovalRequest) -> str:
    return f"Requested by {asker(request)} at {clock(request.created)}. Expires at {clock(request.expires)}."


def _data(request: ApprovalRequest) -> dict[str, JsonValue]:
    return {
        "principal": request.principal,
        "asked_by": request.asked_by,
        "asked": request.created,
        "until": request.expires,
        "preview": request.question.data(),
    }
