"""Run all checks in order, each only where the earlier ones allow it."""

import os
import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastn_mcp.client.account import Account, TransportOptions, headers
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.http import Exchange, HttpExchange
from fastn_mcp.config.addresses import source_of
from fastn_mcp.config.model import TOOLSETS, Settings
from fastn_mcp.doctor import key, network
from fastn_mcp.doctor.check import Check, CheckGroup, CheckResult, DoctorExit, Proposal, exit_of
from fastn_mcp.doctor.hosts import THE_FILE, THE_PROFILE
from fastn_mcp.doctor.probe import LONGEST_PAUSES, Looking
from fastn_mcp.doctor.reads import READS, Names, Observed, Reads
from fastn_mcp.doctor.writes import WRITES, Writes
from fastn_mcp.errors import FastnError
from fastn_mcp.runtime import System
from fastn_mcp.tools.catalog import AnyOperation

Exchanging = Callable[[Mapping[str, str]], Exchange]
"""What sends requests with these headers."""


@dataclass(frozen=True, slots=True)
class DoctorTarget:
    """What is examined. `exchange` is the sandbox's, where there is no network in between."""

    settings: Settings
    account: Account
    origins: Mapping[str, str]
    environment: Mapping[str, str]
    offered: Collection[str]
    """The tools that the settings leave."""
    exchange: Exchanging | None
    system: System
    profile: str | None = None
    """The profile of the file that it is, for which the settings are proposed."""


@dataclass(slots=True)
class DoctorReport:
    """What was found. `observed` are the answers of the reads, without a value."""

    host: str = ""
    checks: list[Check] = field(default_factory=list[Check])
    proposal: Proposal = field(default_factory=Proposal)
    observed: Mapping[str, Observed] = field(default_factory=dict[str, Observed])
    names: Names = field(default_factory=Names)
    sent: int = 0

    @property
    def exit(self) -> DoctorExit:
        return exit_of(self.checks)


Told = Callable[[str], object]
"""Is told what is looked at next."""


async def examine(patient: DoctorTarget, first: Check, told: Told) -> DoctorReport:
    """Look at everything. `first` is the check of the settings."""
    found = DoctorReport(host=patient.settings.host, checks=[first], proposal=Proposal(profile=patient.profile))
    settings = patient.settings
    options = TransportOptions(
        settings.ca_file, settings.proxy, source_of(settings.proxy, patient.environment, settings.base_url)
    )
    if patient.exchange is None:
        told("the network")
        made, options = await network.checks(patient.settings.base_url, options, patient.environment, found.proposal)
        found.checks += made
        if any(check.verdict is CheckResult.FAILED for check in made):
            return _noted(found, patient.origins)
    found.checks.append(key.form(patient.account.api_key))

    def reached(sent: Mapping[str, str]) -> Exchange:
        return HttpExchange(patient.account.base_url, sent, options)

    exchange = patient.exchange or reached
    looking = Looking(exchange(headers(patient.account)), patient.system)
    try:
        await _asked(patient, found, exchange, looking, told)
    finally:
        found.sent = looking.sent
        await looking.aclose()
    return _noted(found, patient.origins)


async def _asked(
    patient: DoctorTarget, found: DoctorReport, exchange: Exchanging, looking: Looking, told: Told
) -> None:
    told("how the key is accepted")
    try:
        check, account = await key.Keys(patient.account, exchange, looking).accepted(found.proposal)
    except FastnError as error:
        check, account = Check(CheckGroup.KEY, "authentication", CheckResult.FAILED, error.what, error.next_step), None
    found.checks.append(check)
    if account is None:
        return
    routes, fields = dict(account.routes), {name: dict(names) for name, names in account.fields.items()}
    # A pause for a rate limit may be longer than a call.
    account = replace(account, routes=routes, fields=fields, deadline=account.deadline + LONGEST_PAUSES)
    await looking.through(exchange(headers(account)))
    client = FastnClient(account, looking, patient.system)
    reads = Reads(client, looking, routes, fields, patient.account.fields, found.proposal, found.names)
    await _each(READS, reads.check, CheckGroup.READS, patient, found, told)
    found.observed = reads.observed
    _narrowed(patient, reads)
    writes = Writes(looking, routes, reads.moved, reads.ids, found.proposal)
    await _each(WRITES, writes.check, CheckGroup.WRITES, patient, found, told)
    _inherited(patient, found.proposal)


async def _each(
    operations: tuple[AnyOperation, ...],
    check: Callable[[AnyOperation], Awaitable[Check]],
    group: CheckGroup,
    patient: DoctorTarget,
    found: DoctorReport,
    told: Told,
) -> None:
    for operation in operations:
        tool = operation.tool_name()
        told(tool)
        if tool in patient.offered:
            found.checks.append(await check(operation))
        else:
            seen = "Not offered: toolsets or the mode leave it out."
            found.checks.append(Check(group, tool, CheckResult.SKIPPED, seen, "Nothing, if that is what you want."))


def _narrowed(patient: DoctorTarget, reads: Reads) -> None:
    """Leave out the resources that the key may not read at all."""
    proposal = reads.proposal
    answered = [(o.toolset(), seen.status) for o in READS if (seen := reads.observed.get(o.tool_name())) is not None]
    closed = {resource for resource, status in answered if status == 403}
    closed -= {resource for resource, status in answered if status != 403}
    if closed:
        left = [name for name in patient.settings.toolsets or TOOLSETS if name not in closed]
        proposal.settings["toolsets"] = left
        proposal.notes["toolsets"] = "without what the key may not read"


def _inherited(patient: DoctorTarget, proposal: Proposal) -> None:
    """A table of a profile stands in place of the file's own, so it says what that said."""
    if proposal.profile is None:
        return
    if proposal.routes:
        proposal.routes = {tool: str(route) for tool, route in patient.account.routes.items()} | proposal.routes
    if proposal.fields:
        proposal.fields = {name: dict(names) for name, names in patient.account.fields.items()} | {
            name: {**patient.account.fields.get(name, {}), **names} for name, names in proposal.fields.items()
        }


def _noted(found: DoctorReport, origins: Mapping[str, str]) -> DoctorReport:
    """A variable and a flag overrule the file that the proposal is for."""
    for name in found.proposal.settings:
        origin = origins.get(name, THE_FILE)
        if origin not in (THE_FILE, THE_PROFILE):
            found.proposal.notes[name] = f"{origin} overrides this: remove it"
    return found


_ROOM = 16 * 1024**2
"""Bytes that ought to be free on the disk of the state folder."""


def folder(state: Path) -> Check:
    """Whether the state folder can be written, and only by its owner."""
    here = f"The folder is {state}."
    there = next(path for path in (state, *state.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        seen = "The state folder cannot be written: nothing that changes something will be sent."
        return _folder(CheckResult.FAILED, seen, "Make it writable for this user, or set FASTN_STATE_DIR.", here)
    if shutil.disk_usage(there).free < _ROOM:
        seen = "The disk of the state folder is full: nothing that changes something will be sent."
        return _folder(CheckResult.FAILED, seen, "Free space on it, or set FASTN_STATE_DIR.", here)
    if os.name != "nt" and there == state and state.stat().st_mode & 0o077:
        seen = "Other users of this machine can open the state folder."
        return _folder(CheckResult.DIFFERS, seen, "Run chmod 700 on it.", here)
    return _folder(
        CheckResult.OK, "It can be written." if there == state else "It is created with the first change.", "", here
    )


def _folder(verdict: CheckResult, seen: str, then: str, here: str) -> Check:
    return Check(CheckGroup.SETTINGS, "state folder", verdict, seen, then, here)


async def ledger(check: Callable[[], Awaitable[object]] | None, weakness: str | None, where: str) -> Check:
    """Whether the ledger can be used. `check` reads it, `weakness` is what is wrong with how it is reached."""
    here = f"It is {where}."
    if check is None:
        return Check(CheckGroup.SETTINGS, "ledger", CheckResult.OK, "It is created with the first change.", here=here)
    try:
        await check()
    except FastnError as error:
        seen = error.what.replace(f" {where}", "")
        return Check(CheckGroup.SETTINGS, "ledger", CheckResult.FAILED, seen, error.next_step, here)
    if weakness is not None:
        seen, _, then = weakness.partition(". ")
        return Check(CheckGroup.SETTINGS, "ledger", CheckResult.DIFFERS, f"{seen[0].upper()}{seen[1:]}.", then, here)
    return Check(CheckGroup.SETTINGS, "ledger", CheckResult.OK, "It can be read.", here=here)
