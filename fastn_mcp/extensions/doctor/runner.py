"""Run all checks in order, as far as the earlier ones allow, and report the results."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fastn_mcp import __version__
from fastn_mcp.build.check import CLOSE, Check, CheckGroup, CheckResult, check_clock
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import Exchange, HttpExchange, headers
from fastn_mcp.client.proxy_and_tls import TransportOptions
from fastn_mcp.config.load import THE_FILE, THE_PROFILE
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError
from fastn_mcp.extensions.doctor import machine
from fastn_mcp.extensions.doctor.operations import READS, WRITES, FieldNames, Observed, OperationChecks
from fastn_mcp.extensions.doctor.probe import MAX_PAUSES, KeyProbe, Probe, check_form
from fastn_mcp.extensions.doctor.proposal import DoctorExit, Proposal
from fastn_mcp.records.formats import counted
from fastn_mcp.runtime import System
from fastn_mcp.tools.catalog import AnyOperation
from fastn_mcp.tools.tool import AnyTool

ExchangeFactory = Callable[[Mapping[str, str]], Exchange]
"""Creates an exchange that sends requests with these headers."""


@dataclass(slots=True)
class DoctorReport:
    """Results of the checks. `observed` are the answers of the reads, without any value."""

    host: str = ""
    checks: list[Check] = field(default_factory=list[Check])
    proposal: Proposal = field(default_factory=Proposal)
    observed: Mapping[str, Observed] = field(default_factory=dict[str, Observed])
    names: FieldNames = field(default_factory=FieldNames)
    sent: int = 0

    @property
    def exit(self) -> DoctorExit:
        reads = {check.verdict for check in self.checks if check.group is CheckGroup.READS}
        nothing_answers = CheckResult.FAILED in reads and not {CheckResult.OK, CheckResult.DIFFERS} & reads
        failed = {check.group for check in self.checks if check.verdict is CheckResult.FAILED}
        if nothing_answers or not failed <= {CheckGroup.READS, CheckGroup.WRITES}:
            return DoctorExit.CANNOT_WORK
        differs = any(check.verdict is CheckResult.DIFFERS for check in self.checks)
        return DoctorExit.DIFFERENCES if failed or differs else DoctorExit.FINE


@dataclass(slots=True)
class Examination:
    """Checks of one account. `sandbox` makes its exchange, or None to use the network; `progress` gets each subject."""

    settings: Settings
    environment: Mapping[str, str]
    tools: Collection[AnyTool]
    sandbox: ExchangeFactory | None
    system: System
    progress: Callable[[str], object]
    profile: str | None = None
    """Profile in the file for which settings are proposed."""
    report: DoctorReport = field(default_factory=DoctorReport, init=False)

    async def run(self, first: list[Check]) -> DoctorReport:
        """Run all checks after the `first` ones, which are about the settings."""
        settings = self.settings
        self.report = report = DoctorReport(settings.host, first, Proposal(profile=self.profile))
        options = TransportOptions(settings.ca_file, settings.proxy, settings.proxy_from)
        if self.sandbox is None:
            self.progress("the network")
            network, may_have_arrived = await machine.check_network(settings.base_url, options, self.environment)
            report.checks.append(network)
            report.sent = int(may_have_arrived)
            if network.verdict is CheckResult.FAILED:
                return report
        report.checks.append(check_form(settings.api_key))
        exchange: ExchangeFactory = self.sandbox or (lambda sent: HttpExchange(settings.base_url, sent, options))
        probe = Probe(exchange(headers(settings)), self.system)
        try:
            await self._check_account(exchange, probe)
        finally:
            report.sent += probe.sent
            await probe.aclose()
        for name in report.proposal.settings:
            origin = settings.origins.get(name, THE_FILE)
            if origin not in (THE_FILE, THE_PROFILE):
                report.proposal.notes[name] = f"{origin} overrides this: remove it"
        return report

    async def _check_account(self, exchange: ExchangeFactory, probe: Probe) -> None:
        report = self.report
        self.progress("how the key is accepted")
        try:
            check, account = await KeyProbe(self.settings, exchange, probe).check(report.proposal)
        except FastnError as error:
            check = CheckGroup.KEY.failed("authentication", error.what, error.next_step)
            account = None
        report.checks.append(check)
        if probe.ahead is not None:
            why = "Approvals, plans, budgets and the policy's hours use this machine's clock."
            report.checks.append(check_clock(CheckGroup.KEY, "Fastn's clock", probe.ahead, most=CLOSE, why=why))
        if account is None:
            return
        routes = dict(account.routes)
        fields = {name: dict(names) for name, names in account.fields.items()}
        # A wait for the rate limit may be longer than the deadline of a call.
        update = {"routes": routes, "fields": fields, "deadline": account.deadline + MAX_PAUSES}
        account = account.model_copy(update=update)
        await probe.switch(exchange(headers(account)))
        client = FastnClient(account, probe, self.system)
        checks = OperationChecks(
            client,
            probe,
            routes,
            fields=fields,
            configured=self.settings.fields,
            proposal=report.proposal,
            names=report.names,
        )
        await self._check_each(READS, checks.check_read, CheckGroup.READS)
        report.observed = checks.observed
        self._propose_exclusions()
        await self._check_each(WRITES, checks.check_write, CheckGroup.WRITES)
        self._inherit()

    async def _check_each(
        self, operations: tuple[AnyOperation, ...], check: Callable[[AnyOperation], Awaitable[Check]], group: CheckGroup
    ) -> None:
        for operation in operations:
            tool = operation.tool_name()
            self.progress(tool)
            if operation in self.tools:
                self.report.checks.append(await check(operation))
            else:
                finding = "Not enabled: tools, exclude_tools or the mode leave it out."
                self.report.checks.append(group.skipped(tool, finding, "Nothing, if that is what you want."))

    def _propose_exclusions(self) -> None:
        """Propose to exclude the toolsets of resources that the key may not read at all."""
        statuses: dict[str, set[int]] = {}
        for operation in READS:
            observed = self.report.observed.get(operation.tool_name())
            if observed is not None:
                statuses.setdefault(operation.toolset(), set()).add(observed.status)
        forbidden = [toolset for toolset, seen in statuses.items() if seen == {403}]
        if forbidden:
            proposal = self.report.proposal
            proposal.settings["exclude_tools"] = [*(self.settings.exclude_tools or ()), *forbidden]
            proposal.notes["exclude_tools"] = "what the key may not read"

    def _inherit(self) -> None:
        """Add the current routes and fields to a profile's own, whose tables replace the file's."""
        proposal = self.report.proposal
        settings = self.settings
        if proposal.profile is None:
            return
        if proposal.routes:
            proposal.routes = {tool: str(route) for tool, route in settings.routes.items()} | proposal.routes
        if proposal.fields:
            proposal.fields = {name: dict(names) for name, names in settings.fields.items()} | {
                name: {**settings.fields.get(name, {}), **names} for name, names in proposal.fields.items()
            }


# --- the report, which holds no value of the account: names of fields that could be one are counted, not named --------

_SUMMARIES = {
    DoctorExit.FINE: "Everything matches.",
    DoctorExit.DIFFERENCES: "It works, but something differs.",
    DoctorExit.CANNOT_WORK: "fastn-mcp cannot run.",
}


def summary(report: DoctorReport) -> str:
    """Return a sentence on the result, and the number of checks by verdict."""
    counts = [(verdict, sum(check.verdict is verdict for check in report.checks)) for verdict in CheckResult]
    verdicts = ", ".join(f"{count} {verdict.value}" for verdict, count in counts if count)
    sent = f"{counted(report.sent, 'request')}, 0 changes" if report.sent else "nothing was sent"
    return f"{_SUMMARIES[report.exit]} {verdicts}; {sent}."


def document(report: DoctorReport, now: datetime) -> dict[str, Any]:
    """Return the report, which holds only what may be shared."""
    return {
        "program": f"fastn-mcp {__version__}",
        "day": now.date().isoformat(),
        "host": report.host,
        "exit": int(report.exit),
        "summary": summary(report),
        "checks": [
            {"group": check.group.value, "name": check.name, "verdict": check.verdict.value, "finding": check.finding}
            | {"next": check.next}
            for check in report.checks
        ],
        "answers": _answers(report),
        "proposal": replace(report.proposal, profile=None).toml() if report.proposal else None,
    }


def markdown(report: dict[str, Any]) -> str:
    lines = [
        "# Doctor report",
        "",
        f"{report['program']}, {report['day']}, {report['host']}. {report['summary']}",
        "",
        "It contains names of fields, types and statuses, but no values from the account.",
        "",
        "| | check | verdict | finding | what to do |",
        "|---|---|---|---|---|",
    ]
    for check in report["checks"]:
        cells = (check["group"], f"`{check['name']}`", check["verdict"], check["finding"], check["next"])
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    if report["proposal"]:
        lines += ["", "## Proposed settings", "", "```toml", report["proposal"].strip(), "```"]
    lines += ["", "## Answers", "", "| tool | route | status | envelope | fields |", "|---|---|---|---|---|"]
    for tool, answer in report["answers"].items():
        fields = ", ".join(f"{name}: {' or '.join(types)}" for name, types in answer.get("fields", {}).items())
        more = f" and {answer['names_not_told']} that could be data" if answer.get("names_not_told") else ""
        cells = (f"`{tool}`", f"`{answer['route']}`", answer["status"], answer.get("envelope", ""), f"{fields}{more}")
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _answers(report: DoctorReport) -> dict[str, dict[str, Any]]:
    answers: dict[str, dict[str, Any]] = {}
    for tool, observed in report.observed.items():
        answers[tool] = {"route": str(observed.route), "status": observed.status}
        if observed.envelope:
            fields = {name: list(types) for name, types in observed.fields.items() if report.names.is_reportable(name)}
            answers[tool] |= {"envelope": observed.envelope, "fields": fields}
            if len(observed.fields) > len(fields):
                answers[tool]["names_not_told"] = len(observed.fields) - len(fields)
    return answers


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
