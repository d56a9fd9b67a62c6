"""The doctor's report, for programs and as evidence.

None of them holds a value of the account: names of fields that could be one are counted, not told.
"""

from datetime import datetime
from typing import Any

from fastn_mcp import __version__
from fastn_mcp.doctor.check import Check, CheckResult, DoctorExit
from fastn_mcp.doctor.runner import DoctorReport

_SAID = {
    DoctorExit.FINE: "Everything matches.",
    DoctorExit.DIFFERENCES: "It works, but something differs.",
    DoctorExit.CANNOT_WORK: "It cannot work.",
}


def summary(found: DoctorReport) -> str:
    """One sentence, and how many lines say what."""
    counts = [(verdict, sum(check.verdict is verdict for check in found.checks)) for verdict in CheckResult]
    told = ", ".join(f"{count} {verdict.value}" for verdict, count in counts if count)
    sent = f"{found.sent} requests, none of which changes anything" if found.sent else "nothing was sent"
    return f"{_SAID[found.exit]} {told}; {sent}."


def document(found: DoctorReport, now: datetime) -> dict[str, Any]:
    """Everything that may be told."""
    return {
        "program": f"fastn-mcp {__version__}",
        "day": now.date().isoformat(),
        "host": found.host,
        "exit": int(found.exit),
        "summary": summary(found),
        "checks": [_check(check) for check in found.checks],
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


def _check(check: Check) -> dict[str, str]:
    return {
        "group": check.group.value,
        "name": check.name,
        "verdict": check.verdict.value,
        "seen": check.seen,
        "next": check.next,
    }


def _answers(found: DoctorReport) -> dict[str, dict[str, Any]]:
    said: dict[str, dict[str, Any]] = {}
    for tool, observed in found.observed.items():
        said[tool] = {"route": str(observed.route), "status": observed.status}
        if observed.shape is not None:
            fields = observed.shape.fields
            told = {name: list(types) for name, types in fields.items() if found.names.may_be_told(name)}
            said[tool] |= {"envelope": observed.shape.envelope, "fields": told}
            if len(fields) > len(told):
                said[tool]["names_not_told"] = len(fields) - len(told)
    return said


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
