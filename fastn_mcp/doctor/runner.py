"""Run all checks in order, each only where the earlier ones allow it, and report what was found."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fastn_mcp import __version__
from fastn_mcp.client.account import Account, TransportOptions, headers
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.http import Exchange, HttpExchange
from fastn_mcp.config.addresses import source_of
from fastn_mcp.config.model import TOOLSETS, Settings
from fastn_mcp.doctor import machine
from fastn_mcp.doctor.check import Check, CheckGroup, CheckResult, DoctorExit, Proposal, exit_of
from fastn_mcp.doctor.machine import THE_FILE, THE_PROFILE
from fastn_mcp.doctor.probe import LONGEST_PAUSES, KeyProbe, Probe, check_form
from fastn_mcp.doctor.reads import READS, FieldNames, Observed, Reads
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
    names: FieldNames = field(default_factory=FieldNames)
    sent: int = 0

    @property
    def exit(self) -> DoctorExit:
        return exit_of(self.checks)


Progress = Callable[[str], object]
"""Gets the name of what is checked next."""


async def examine(target: DoctorTarget, first: Check, progress: Progress) -> DoctorReport:
    """Check everything. `first` is the check of the settings."""
    settings, found = target.settings, DoctorReport(target.settings.host, [first], Proposal(profile=target.profile))
    proxy_from = source_of(settings.proxy, target.environment, settings.base_url)
    options = TransportOptions(settings.ca_file, settings.proxy, proxy_from)
    if target.exchange is None:
        progress("the network")
        made, options = await machine.check_network(settings.base_url, options, target.environment, found.proposal)
        found.checks += made
        if any(check.verdict is CheckResult.FAILED for check in made):
            return _noted(found, target.origins)
    found.checks.append(check_form(target.account.api_key))

    def exchange(sent: Mapping[str, str]) -> Exchange:
        if target.exchange is not None:
            return target.exchange(sent)
        return HttpExchange(target.account.base_url, sent, options)

    probe = Probe(exchange(headers(target.account)), target.system)
    try:
        await _ask(target, found, exchange, probe, progress)
    finally:
        found.sent = probe.sent
        await probe.aclose()
    return _noted(found, target.origins)


async def _ask(
    target: DoctorTarget, found: DoctorReport, exchange: Exchanging, probe: Probe, progress: Progress
) -> None:
    progress("how the key is accepted")
    try:
        check, account = await KeyProbe(target.account, exchange, probe).check(found.proposal)
    except FastnError as error:
        check, account = CheckGroup.KEY.failed("authentication", error.what, error.next_step), None
    found.checks.append(check)
    if account is None:
        return
    routes, fields = dict(account.routes), {name: dict(names) for name, names in account.fields.items()}
    # A pause for a rate limit may be longer than a call.
    account = replace(account, routes=routes, fields=fields, deadline=account.deadline + LONGEST_PAUSES)
    await probe.switch(exchange(headers(account)))
    client = FastnClient(account, probe, target.system)
    reads = Reads(client, probe, routes, fields, target.account.fields, found.proposal, found.names)
    await _each(READS, reads.check, CheckGroup.READS, target, found, progress)
    found.observed = reads.observed
    _propose_toolsets(target, reads)
    writes = Writes(probe, routes, reads.moved, reads.ids, found.proposal)
    await _each(WRITES, writes.check, CheckGroup.WRITES, target, found, progress)
    _inherit(target, found.proposal)


async def _each(
    operations: tuple[AnyOperation, ...],
    check: Callable[[AnyOperation], Awaitable[Check]],
    group: CheckGroup,
    target: DoctorTarget,
    found: DoctorReport,
    progress: Progress,
) -> None:
    for operation in operations:
        tool = operation.tool_name()
        progress(tool)
        if tool in target.offered:
            found.checks.append(await check(operation))
        else:
            seen = "Not offered: toolsets or the mode leave it out."
            found.checks.append(group.skipped(tool, seen, "Nothing, if that is what you want."))


def _propose_toolsets(target: DoctorTarget, reads: Reads) -> None:
    """Leave out the resources that the key may not read at all."""
    proposal = reads.proposal
    answered = [(o.toolset(), seen.status) for o in READS if (seen := reads.observed.get(o.tool_name())) is not None]
    closed = {resource for resource, status in answered if status == 403}
    closed -= {resource for resource, status in answered if status != 403}
    if closed:
        left = [name for name in target.settings.toolsets or TOOLSETS if name not in closed]
        proposal.settings["toolsets"] = left
        proposal.notes["toolsets"] = "without what the key may not read"


def _inherit(target: DoctorTarget, proposal: Proposal) -> None:
    """A table of a profile stands in place of the file's own, so it says what that said."""
    if proposal.profile is None:
        return
    if proposal.routes:
        proposal.routes = {tool: str(route) for tool, route in target.account.routes.items()} | proposal.routes
    if proposal.fields:
        proposal.fields = {name: dict(names) for name, names in target.account.fields.items()} | {
            name: {**target.account.fields.get(name, {}), **names} for name, names in proposal.fields.items()
        }


def _noted(found: DoctorReport, origins: Mapping[str, str]) -> DoctorReport:
    """A variable and a flag overrule the file that the proposal is for."""
    for name in found.proposal.settings:
        origin = origins.get(name, THE_FILE)
        if origin not in (THE_FILE, THE_PROFILE):
            found.proposal.notes[name] = f"{origin} overrides this: remove it"
    return found


# --- the report, which holds no value of the account: names of fields that could be one are counted, not named --------

_SUMMARIES = {
    DoctorExit.FINE: "Everything matches.",
    DoctorExit.DIFFERENCES: "It works, but something differs.",
    DoctorExit.CANNOT_WORK: "It cannot work.",
}


def summary(found: DoctorReport) -> str:
    """One sentence, and how many lines say what."""
    counts = [(verdict, sum(check.verdict is verdict for check in found.checks)) for verdict in CheckResult]
    counted = ", ".join(f"{count} {verdict.value}" for verdict, count in counts if count)
    sent = f"{found.sent} requests, none of which changes anything" if found.sent else "nothing was sent"
    return f"{_SUMMARIES[found.exit]} {counted}; {sent}."


def document(found: DoctorReport, now: datetime) -> dict[str, Any]:
    """Everything that may be told."""
    return {
        "program": f"fastn-mcp {__version__}",
        "day": now.date().isoformat(),
        "host": found.host,
        "exit": int(found.exit),
        "summary": summary(found),
        "checks": [
            {"group": check.group.value, "name": check.name, "verdict": check.verdict.value, "seen": check.seen}
            | {"next": check.next}
            for check in found.checks
        ],
        "answers": _answers(found),
        "proposal": found.proposal.toml(local=False) if found.proposal else None,
    }


def evidence(found: DoctorReport, now: datetime) -> dict[str, Any]:
    """What was observed, for `OBSERVED` in an operation's declaration: reads that answered well, and no others."""
    return {
        "program": f"fastn-mcp {__version__}",
        "day": now.date().isoformat(),
        "host": found.host,
        "evidence": f'OBSERVED("{now.date().isoformat()}", "{found.host}")',
        "operations": {tool: said for tool, said in _answers(found).items() if "envelope" in said},
    }


def markdown(report: dict[str, Any]) -> str:
    """The report in words and tables."""
    lines = [
        "# Doctor report",
        "",
        f"{report['program']}, {report['day']}, {report['host']}. {report['summary']}",
        "",
        "It holds names of fields, types and statuses, and no value of the account.",
        "",
        "| | check | verdict | seen | what to do |",
        "|---|---|---|---|---|",
    ]
    for check in report["checks"]:
        cells = (check["group"], f"`{check['name']}`", check["verdict"], check["seen"], check["next"])
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    if report["proposal"]:
        lines += ["", "## Proposed settings", "", "```toml", report["proposal"].strip(), "```"]
    lines += ["", "## Answers", "", "| tool | route | status | envelope | fields |", "|---|---|---|---|---|"]
    for tool, said in report["answers"].items():
        fields = ", ".join(f"{name}: {' or '.join(types)}" for name, types in said.get("fields", {}).items())
        more = f" and {said['names_not_told']} that could be data" if said.get("names_not_told") else ""
        cells = (f"`{tool}`", f"`{said['route']}`", said["status"], said.get("envelope", ""), f"{fields}{more}")
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _answers(found: DoctorReport) -> dict[str, dict[str, Any]]:
    said: dict[str, dict[str, Any]] = {}
    for tool, observed in found.observed.items():
        said[tool] = {"route": str(observed.route), "status": observed.status}
        if observed.shape is not None:
            fields = observed.shape.fields
            told = {name: list(types) for name, types in fields.items() if found.names.is_reportable(name)}
            said[tool] |= {"envelope": observed.shape.envelope, "fields": told}
            if len(fields) > len(told):
                said[tool]["names_not_told"] = len(fields) - len(told)
    return said


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
