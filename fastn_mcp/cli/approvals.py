"""`fastn-mcp approvals`: list pending approval requests, and decide them at a real terminal or on the approval page."""

import json
import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import anyio
import click
from pydantic import JsonValue

from fastn_mcp.audit.log import AuditEvent, AuditFile, LogEntry
from fastn_mcp.build.ledger import audit_at, file_of, ledger_at
from fastn_mcp.build.startup import state_of, typed_seal
from fastn_mcp.channels.page import page
from fastn_mcp.channels.page.page import FILES, PAGE_FILE
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.cli import StartOptions
from fastn_mcp.cli.layout import say
from fastn_mcp.config.addresses import is_loopback, is_shared
from fastn_mcp.config.command_line import CommandLine, kept_in, this_program
from fastn_mcp.config.file import read
from fastn_mcp.config.load import ledger_settings
from fastn_mcp.config.paths import TENANTS, file_errors, state_dir
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.guard.approval.request import (
    TEMPORARY_MINUTES,
    Approve,
    Decline,
    NoAnswer,
    asker,
    form_of,
    typed_in,
)
from fastn_mcp.guard.approval.votes import NotCounted, TypedValue, count_vote
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.guard.recorder import decision_entry, record_expired
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, TemporaryApproval, Vote
from fastn_mcp.ledger.identity import account_name, who
from fastn_mcp.ledger.ledger import Ledger, LedgerUnusable
from fastn_mcp.ledger.sqlite import FILE
from fastn_mcp.policy.policy import Decision
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.runtime import System

_BY = "terminal"
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TerminalApprovals:
    """Approval requests of a ledger, decided by one person at a terminal."""

    ledger: Ledger
    audit: AuditFile
    system: System
    typed: TypedSecrets | None = None
    """Keeps what they type; None without the state secret by which the servers open it."""

    async def waiting(self) -> list[ApprovalRequest]:
        """Return the pending requests. Close expired ones, and record them in the audit log."""
        for account in {request.account for request in await self.ledger.waiting(0.0)}:
            await record_expired(self.ledger, account, self.system.timestamp(), self._record_expired)
        return await self.ledger.waiting(self.system.timestamp())

    async def walk(self, terminal: Terminal) -> None:
        """Ask about each pending request once, including those that arrive meanwhile."""
        seen: set[str] = set()
        while pending := [
            request for request in await self.ledger.waiting(self.system.timestamp()) if request.id not in seen
        ]:
            request = pending[0]
            seen.add(request.id)
            more = f" {len(pending) - 1} more." if len(pending) > 1 else ""
            if request.required == Decision.FOUR_EYES.value:
                terminal.say(
                    "Two people have to approve it, and a terminal cannot tell people apart: decline it, or leave it."
                )
            asked = form_of(request, f"{_headline(request)}{more}")
            if asked.secret is not None and self.typed is None:
                terminal.say(f"{_UNSEALABLE} Decline it, or leave it.")
                asked = replace(asked, secret=None)
            match await terminal.ask(asked, may_wait=True):
                case Approve(_, is_temporary, secret):
                    terminal.say(await self.approve(request, secret, is_temporary=is_temporary))
                case Decline(note):
                    terminal.say(await self.decline(request, note))
                case NoAnswer():
                    terminal.say("Left waiting.")
        terminal.say("\nNothing else waits.")

    async def approve(self, request: ApprovalRequest, secret: JsonValue = None, *, is_temporary: bool = False) -> str:
        """Approve a request, and with `is_temporary` similar calls for a while. Return the message for the person.

        `secret` is the argument that they typed, if the request asks for one.
        """
        if request.required == Decision.FOUR_EYES.value:
            return "Nothing was decided: two people have to approve this call, and a terminal cannot tell people apart."
        if typed_in(request) is not None and self.typed is None:
            return f"Nothing was decided. {_UNSEALABLE}"
        typed = None if self.typed is None else TypedValue(self.typed, secret)
        vote = Vote(_BY, approves=True, at=self.system.timestamp(), is_temporary=is_temporary)
        also = f" Such calls need no approval for {TEMPORARY_MINUTES} minutes from then on." if is_temporary else ""
        return await self._vote(
            request, vote, None, f"Approved. It is sent when the agent makes the same call again.{also}", typed
        )

    async def decline(self, request: ApprovalRequest, note: str) -> str:
        """Decline a request. Return the message for the person."""
        vote = Vote(_BY, approves=False, at=self.system.timestamp())
        message = f"Declined. The same call stays declined until {_clock(request.expires)}."
        return await self._vote(request, vote, note or None, message)

    async def _vote(
        self, request: ApprovalRequest, vote: Vote, note: str | None, message: str, typed: TypedValue | None = None
    ) -> str:
        """Count a vote, and return the message, or why it did not count."""
        problems: list[str] = []

        def record(event: AuditEvent, decided_request: ApprovalRequest, message: str | None) -> None:
            problems.append(self._record(decision_entry(event, decided_request, _BY, message)))

        counted = await count_vote(vote, request, self.ledger, _BY, note, record, typed)
        return counted.why if isinstance(counted, NotCounted) else "".join([message, *problems])

    async def revoke(self, prefix: str) -> TemporaryApproval | None:
        """Revoke the temporary approval whose id starts with `prefix`. Return None unless exactly one does."""
        found = [
            scope
            for scope in await self.ledger.temporary_approvals(self.system.timestamp())
            if scope.id.startswith(prefix)
        ]
        if len(found) != 1 or not await self.ledger.revoke_temporary(found[0].id):
            return None
        (scope,) = found
        account = account_name(scope.account)
        entry = LogEntry(AuditEvent.TEMPORARY_APPROVAL_REVOKED, scope.principal, account, scope.tool, scope.target)
        if problem := self._record(
            replace(entry, approved_by=_BY, grant=scope.id, principal_name=scope.person or None)
        ):
            click.echo(problem.strip(), err=True)
        return scope

    def _record_expired(self, event: AuditEvent, request: ApprovalRequest, note: str | None) -> None:
        if problem := self._record(decision_entry(event, request, None, note)):
            click.echo(problem.strip(), err=True)

    def _record(self, entry: LogEntry) -> str:
        """Record an entry; return a warning if that fails. Sending records again, and refuses if it still fails."""
        try:
            self.audit.record(entry)
        except FastnError as error:
            return f" {error}"
        return ""


@dataclass(frozen=True, slots=True)
class ApprovalStore:
    """Where approval requests are stored: this machine's state folder, and the ledger setting."""

    folder: Path
    ledger: str | None
    program: CommandLine
    """Command that opens this store at a shell."""
    state_secrets: Sequence[str] = ()

    @property
    def file(self) -> Path:
        """Path of the ledger, if it is a file."""
        return file_of(self.ledger, self.folder).resolve()

    @property
    def exists(self) -> bool:
        """Whether the ledger is shared, or its file exists."""
        return is_shared(self.ledger) or self.file.exists()

    def waiting(self) -> list[ApprovalRequest]:
        return self.use(TerminalApprovals.waiting) or []

    def use(self, work: Callable[[TerminalApprovals], Awaitable[Result]]) -> Result | None:
        """Run `work` on the ledger and this machine's audit log. None if no ledger exists yet."""
        if not self.exists:
            return None
        # Log messages of a shared ledger are for server operators; here the error itself is shown.
        logging.getLogger("fastn_mcp").addHandler(logging.NullHandler())
        system = System()

        async def run_work() -> Result:
            ledger = ledger_at(self.ledger, self.folder, system)
            record = audit_at(ledger, self.ledger, self.folder, system)
            try:
                return await work(TerminalApprovals(ledger, record, system, self.typed(ledger, system)))
            finally:
                await record.settle()
                record.close()
                await ledger.aclose()

        return anyio.run(run_work)

    def typed(self, ledger: Ledger, system: System) -> TypedSecrets | None:
        """Return what keeps typed secrets; None if the servers could not open them."""
        if is_shared(self.ledger) and not self.state_secrets:
            return None
        return TypedSecrets(ledger, partial(typed_seal, self.state_secrets, self.folder, system), system)


@click.group(name="approvals", invoke_without_command=True)
@click.option("--open", "in_browser", is_flag=True, help="Open the approval page in your browser.")
@click.option("--json", "as_json", is_flag=True, help="List what waits as JSON.")
@click.pass_context
def approvals_group(ctx: click.Context, in_browser: bool, as_json: bool) -> None:
    """List the calls that wait for you, and decide on them at this terminal."""
    start: StartOptions = ctx.obj
    settings = start.ledger_settings()
    store = ctx.obj = ApprovalStore(start.state(), settings.ledger, start.command_line(), settings.state_secrets)
    if ctx.invoked_subcommand is not None:
        return
    if in_browser:
        _open_page(store, start)
        return
    waiting = store.waiting()
    if as_json:
        click.echo(json.dumps([_data(request) for request in waiting]))
    elif not waiting:
        say("Nothing waits for an approval.")
    elif (terminal := Terminal.here()) is not None and sys.stdout.isatty():
        _decide(store, terminal)
    else:
        _list(store, waiting)
    if not as_json:
        for line in _expired(store):
            say(line)
        for line in _other_stores(store, start):
            click.echo(line)  # not wrapped: it ends with a command to paste


def _list(store: ApprovalStore, waiting: Iterable[ApprovalRequest]) -> None:
    """List what waits, and where it is decided. Nothing is decided through a pipe."""
    for request in waiting:
        say("\n".join(sanitize(line) for line in (*request.text, _headline(request), "")))
    say(f"Nothing was decided: deciding needs a person at a terminal. Run there: {store.program.to('approvals')}")
    address, _ = page.read_page_file(store.folder / PAGE_FILE) or (None, None)
    if isinstance(address, str) and _is_here(address) and _is_listening(address):
        say(f"Or on the approval page at {address}, which this opens: {store.program.to('approvals', '--open')}")


def _decide(store: ApprovalStore, terminal: Terminal) -> None:
    """Ask about each pending request. Ctrl-C leaves the one that was asked about undecided."""
    try:
        store.use(partial(TerminalApprovals.walk, terminal=terminal))
    except KeyboardInterrupt:
        click.echo("\nfastn-mcp: Stopped. The last call was not decided: it still waits.", err=True)
        sys.exit(130)


@approvals_group.command(name="scopes")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def scopes_(store: ApprovalStore, as_json: bool) -> None:
    """List the temporary approvals: each for one tool on one target."""
    scopes = store.use(lambda found: found.ledger.temporary_approvals(found.system.timestamp())) or []
    if as_json:
        rows = [{name: getattr(scope, name) for name in TemporaryApproval.__dataclass_fields__} for scope in scopes]
        click.echo(json.dumps(rows))
        return
    for scope in scopes:
        line = f"{scope.id}  {scope.tool} on {quote(scope.target)}, {account_name(scope.account)}"
        line += f", for {who(scope.principal, scope.person)}, by {scope.by}"
        say(sanitize(f"{line}, until {_clock(scope.expires)}: {scope.extent}"))
    if not scopes:
        say("There are no temporary approvals.")


@approvals_group.command(name="revoke")
@click.argument("scope")
@click.pass_obj
def revoke_(store: ApprovalStore, scope: str) -> None:
    """End what `approvals scopes` lists, at once. The beginning of its id is enough."""
    revoked = store.use(partial(TerminalApprovals.revoke, prefix=scope))
    if revoked is None:
        listed = store.program.to("approvals", "scopes")
        raise click.ClickException(f"No temporary approval has this id. List them: {listed}")
    say(sanitize(f"Revoked: {revoked.tool} on {quote(revoked.target)} needs approval again."))


@approvals_group.command(name="keygen", short_help="Make the key pair of an approver, for the webhook.")
@click.argument("name")
@click.option("--output", type=click.Path(path_type=Path), help="The file of the private key; by default NAME.pem.")
def keygen_(name: str, output: Path | None) -> None:
    """Make the key pair of an approver: a private key in a file, a public one for the file of approvers."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from fastn_mcp.policy.plan_file import new_key, public

    private_key, path = new_key(), output or Path(f"{name}.pem")
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except OSError as error:
        hint = " A key is never replaced: move it away first." if isinstance(error, FileExistsError) else ""
        raise click.ClickException(f"{path} cannot be made: {error.strerror}. No key was made.{hint}") from None
    click.echo(f"# The private key is in {path}: it stays with {sanitize(name)}. This goes into the file of approvers:")
    click.echo(f'[{json.dumps(name)}]\npublic_key = "{public(private_key)}"')


def _open_page(store: ApprovalStore, start: StartOptions) -> None:
    """Open the page at the address in its file. Its key goes to the browser only."""
    file = store.folder / PAGE_FILE
    at_a_terminal = f"Decide at a terminal: {store.program.to('approvals')}"
    if not file.exists():
        raise _no_page(store, start, at_a_terminal)
    address, key = page.read_page_file(file) or (None, None)
    is_private = os.name == "nt" or file.stat().st_mode & 0o077 == 0
    if not is_private or not isinstance(address, str) or not isinstance(key, str) or not _is_here(address):
        raise SettingsError(f"{file} does not have the expected content.", at_a_terminal)
    if not _is_listening(address):  # its server was killed before it could remove the file
        raise _no_page(store, start, at_a_terminal)
    folder = file.parent / FILES
    with file_errors(folder, "written", at_a_terminal):
        opened = webbrowser.open(page.write(folder, address, key, System().timestamp()))
    if not opened:
        page.remove(folder, key)
        raise SettingsError("No browser was found.", at_a_terminal)
    say("The approval page is open in your browser.")


def _no_page(store: ApprovalStore, start: StartOptions, at_a_terminal: str) -> SettingsError:
    others = " ".join(_other_stores(store, start, "--open"))
    if waiting := len(store.waiting()):
        return SettingsError(
            f"No approval page is open, and {_calls(waiting)} here.", f"{at_a_terminal} {others}".strip()
        )
    until = "The page opens when a call needs approval; a terminal shows what waits"
    return SettingsError(
        "No approval page is open, and nothing waits for an approval here.",
        others or f"{until}: {store.program.to('approvals')}",
    )


def _is_here(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme == "http" and is_loopback(parts.hostname or "") and not parts.query and not parts.fragment


def _is_listening(address: str) -> bool:
    parts = urlsplit(address)
    with suppress(OSError, ValueError):
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=5).close()
        return True
    return False


def _other_stores(store: ApprovalStore, start: StartOptions, *options: str) -> list[str]:
    """One sentence for each of the user's other stores with pending requests: how many, and the command to decide."""
    sentences: list[str] = []
    seen = {store.file}
    for name, other in _stores(start):
        if other.file in seen or is_shared(other.ledger) or not other.exists:  # other ledger servers are not queried
            continue
        seen.add(other.file)
        with suppress(LedgerUnusable):
            if waiting := len(other.waiting()):
                opens = options if (other.folder / PAGE_FILE).exists() else ()
                sentences.append(f"{_calls(waiting)} {name}: {other.program.to('approvals', *opens)}")
    return sentences


def _stores(start: StartOptions) -> Iterator[tuple[str, ApprovalStore]]:
    """Yield the stores of the sandbox, the default account, all profiles and all tenants, each with its description.

    Looks up each both with and without the variables that select another store than the default.
    """
    config = start.config_file()
    config_options = ["--config", str(start.config.absolute())] if start.config else []
    defaults = {name: value for name, value in os.environ.items() if name not in _STORE_VARIABLES}
    for environment in [os.environ, defaults] if len(defaults) < len(os.environ) else [defaults]:
        program = this_program(environment)
        unset = tuple((name, "") for name in _STORE_VARIABLES if name in os.environ and name not in environment)
        program = replace(program, variables=(*program.variables, *unset))
        file = config if config.exists() else None
        profiles = [] if file is None else [*read(file).profiles]
        starts = [("in the sandbox", None, True), ("on your accounts", None, False)]
        for name, profile, sandboxed in (*starts, *((f"on the profile {name}", name, False) for name in profiles)):
            options = ["--sandbox"] if sandboxed else ["--profile", profile] if profile else []
            with suppress(SettingsError):
                ledger = ledger_settings({"profile": profile}, environment, file, sandbox=sandboxed).ledger
                command = program.with_([*config_options, *options])
                yield name, ApprovalStore(state_of(environment, sandboxed=sandboxed), ledger, command)
        for ledger in sorted(state_dir(environment).glob(f"**/{TENANTS}/**/{FILE}")):
            tenant = "/".join(ledger.parent.parts[ledger.parts.index(TENANTS) + 1 :])
            yield f"at the tenant {tenant}", ApprovalStore(ledger.parent, None, kept_in(program, ledger.parent))


def _expired(store: ApprovalStore) -> list[str]:
    """One sentence for each of the latest requests that expired unanswered in the last day."""
    past = store.use(lambda found: found.ledger.decided(_LATEST)) or []
    day_ago = System().timestamp() - 86_400
    return [
        sanitize(
            f"Expired unanswered at {_clock(request.expires)}: {request.text[0] if request.text else request.tool}"
        )
        for request in past
        if request.state is RequestState.UNANSWERED and request.by is None and request.expires > day_ago
    ]


_LATEST = 10
"""How many of the latest closed requests `_expired` looks at."""


def _calls(count: int) -> str:
    return "1 call waits" if count == 1 else f"{count} calls wait"


_STORE_VARIABLES = ("FASTN_STATE_DIR", "FASTN_LEDGER", "FASTN_PROFILE")
"""Variables that select another store than the default."""


_UNSEALABLE = (
    "What a person types here is sealed for the servers by their FASTN_STATE_SECRET, which this terminal does not have:"
    " set it, or approve on the approval page."
)


def _headline(request: ApprovalRequest) -> str:
    return f"{asker(request)} asked at {_clock(request.created)}; it waits until {_clock(request.expires)}."


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M")


def _data(request: ApprovalRequest) -> dict[str, JsonValue]:
    return {
        "principal": request.principal,
        "asked_by": request.asked_by,
        "asked": request.created,
        "until": request.expires,
        "preview": dict(request.preview),
    }
