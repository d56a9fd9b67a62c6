"""`fastn-mcp doctor`: print the checks and the proposed settings, and write the report."""

import json
import logging
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import anyio
import click
from rich.console import Console

from fastn_mcp.build.check import Check, CheckGroup, CheckResult
from fastn_mcp.build.composition import enabled_tools, exchange_of
from fastn_mcp.build.extensions import CheckedAccount, extension_checks, foreign_in, team_checks
from fastn_mcp.build.startup import Sandboxed, state_of
from fastn_mcp.build.stores import audit_logs
from fastn_mcp.cli.layout import GREY, ORANGE, RED, print_table, say
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.client.retry import listener
from fastn_mcp.config.file import read
from fastn_mcp.config.model import ConfigFile, Settings
from fastn_mcp.config.paths import file_errors, write_private
from fastn_mcp.errors import SettingsError, extra
from fastn_mcp.extensions.doctor import machine
from fastn_mcp.extensions.doctor.runner import DoctorReport, Examination, document, markdown, summary
from fastn_mcp.runtime import System

_EXIT_CODES = """\b
Exit codes:
  0  everything matches
  1  something differs; the next step is beside it
  2  it cannot work: settings, network or key, or no operation answers
"""

_MAX_TOKEN = 65_536

_COLORS = {
    CheckResult.DIFFERS: ORANGE,
    CheckResult.FAILED: RED,
    CheckResult.SKIPPED: GREY,
}


@click.command(name="doctor", epilog=_EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the findings, without data, to FILE.md or FILE.json.",
)
@click.option(
    "--team",
    type=click.Path(path_type=Path),
    help="Check a team server instead: this file, the identity provider, the ledger, and the proxy from outside.",
)
@click.option(
    "--token-file",
    type=click.File(),
    metavar="FILE",
    help="With --team: try the access token in FILE; - is standard input.",
)
@click.option("--url", metavar="URL", help="With --team: try this public address instead of the file's `url`.")
@click.pass_obj
def doctor(
    start: StartOptions,
    as_json: bool,
    report: Path | None,
    team: Path | None,
    token_file: TextIO | None,
    url: str | None,
) -> int:
    """Check the settings, the network, the key, and each operation against your account. It changes nothing there.

    Each reading operation is called once; for a changing one, only OPTIONS is sent. Each difference is reported with
    the next step, and settings are proposed.

    With --team, run it where a replica runs, with the replica's variables (FASTN_LEDGER, FASTN_STATE_SECRET).
    """
    if team is None and (token_file is not None or url is not None):
        raise click.UsageError("--token-file and --url need --team.")
    if report is not None:
        _check_report(report)
    if team is None:
        result = _examine(start)
    else:
        token = token_file.read(_MAX_TOKEN).strip() if token_file else None
        result = anyio.run(_examine_team, start, team, token, url)
    data = document(result, datetime.now(UTC))
    if as_json:
        click.echo(json.dumps(data, indent=2))
    else:
        _show(result)
    if report is not None:
        with file_errors(report, "written", "Name another file."):
            write_private(report, markdown(data) if report.suffix == ".md" else json.dumps(data, indent=2) + "\n")
        click.echo(f"Written: {report}", err=True)
    return int(result.exit)


def _check_report(path: Path) -> None:
    """Raise `SettingsError` unless the report can be written."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SettingsError(f"{path} is a folder, or its folder does not exist.", "Name a file in a folder.")
    if path.suffix not in (".md", ".json"):
        raise SettingsError("--report writes FILE.md or FILE.json.", "For example: --report doctor.md")


def _examine(start: StartOptions) -> DoctorReport:
    file = start.existing_config()
    folder = state_of(os.environ, sandboxed=start.sandboxed)
    try:
        settings = start.settings()
        system = System()
    except SettingsError as error:
        return DoctorReport(checks=[machine.wrong_settings(error, file)])
    sandbox = Sandboxed(start.sandbox_file) if start.sandboxed else None
    config = ConfigFile() if file is None else read(file)
    tools = enabled_tools(settings)
    exchange = None if sandbox is None else exchange_of(settings, sandbox, system)
    profile = settings.profile if settings.profile in config.profiles and sandbox is None else None

    async def examine_all() -> DoctorReport:
        with Console(stderr=True).status("Looking ...") as status:

            async def show_wait(why: str) -> None:
                status.update(why)

            listener.set(show_wait)
            status.update("Checking the ledger ...")
            first = [machine.check_settings(settings, file), machine.check_folder(folder)]
            first += await machine.check_ledger(settings.ledger, folder, system)
            account = CheckedAccount(settings, None, audit_logs(folder), system.now())
            first += await _check_extensions(account)
            first += _check_notify(settings)

            def show(subject: str) -> None:
                status.update(f"Looking at {subject} ...")

            examination = Examination(
                settings, os.environ, tools, sandbox=exchange, system=system, progress=show, profile=profile
            )
            return await examination.run(first)

    return anyio.run(examine_all)


async def _examine_team(start: StartOptions, file: Path, token: str | None, url: str | None) -> DoctorReport:
    # What is logged here is also found, in words.
    logging.getLogger("fastn_mcp").addHandler(logging.NullHandler())
    state = state_of(os.environ, sandboxed=start.sandboxed)
    system = System()
    try:
        team = team_checks().open_checks(
            file, start.existing_config(), state, token=token, url=url, sandboxed=start.sandboxed
        )
    except SettingsError as error:
        return DoctorReport(checks=[machine.wrong_settings(error, file)])
    report = DoctorReport(team.host)
    with Console(stderr=True).status("Looking ...") as status:
        report.checks += [*team.check_settings(), machine.check_folder(state)]
        status.update("Trying the key of each tenant ...")
        report.checks += [check async for check in team.check_keys()]
        status.update("Checking the ledger ...")
        report.checks += await machine.check_ledger(team.shared.ledger, state, system)
        process = CheckedAccount(team.shared, team.issuer, audit_logs(state), system.now())
        report.checks += await _check_extensions(process)
        for tenant, settings in team.accounts():
            report.checks += await _check_extensions(replace(process, settings=settings), f"tenant {tenant}: ")
            report.checks += _check_notify(settings, f"tenant {tenant}: ")
        status.update("Asking the identity provider ...")
        report.checks += [check async for check in team.check_provider()]
        status.update("Calling the public address ...")
        report.checks += [check async for check in team.check_public()]
        report.sent = team.sent
    await team.aclose()
    return report


async def _check_extensions(account: CheckedAccount, of: str = "") -> list[Check]:
    """Check the extensions with settings, and name those of others."""
    group = CheckGroup.SETTINGS
    checks = list[Check]()
    for foreign in foreign_in(account.settings):
        finding = f"It is not made by this project, and acts beside your key: {foreign.distribution}."
        checks.append(group.ok(f"{of}extension {foreign.name}", finding))
    for extension in account.settings.extensions:
        try:
            found = await extension_checks(extension).check(account)
            checks += [replace(check, name=f"{of}{check.name}") for check in found]
        except SettingsError as error:
            name = f"{of}{extension.capitalize()}"
            checks.append(group.failed(name, error.what, error.next_step))
    return checks


def _check_notify(settings: Settings, of: str = "") -> list[Check]:
    """Check whether Apprise knows the services of `notify`. Sends no message."""
    if not settings.notify:
        return []
    name = f"{of}Notifications"
    try:
        with extra("notify", "notify is set"):
            from fastn_mcp.channels.notification import services_of  # deferred import: an extra

        names = ", ".join(service.name for service in services_of(settings))
    except SettingsError as error:
        return [CheckGroup.SETTINGS.failed(name, error.what, error.next_step)]
    return [CheckGroup.SETTINGS.ok(name, "Each URL of notify is of a known service.", here=f"{names}.")]


def _show(result: DoctorReport) -> None:
    rows = [("check", "verdict", "finding")]
    for check in result.checks:
        finding = (check.finding, check.here, check.next and f"Next: {check.next}")
        rows.append((check.name, check.verdict.value, " ".join(filter(None, finding))))
    print_table(rows, [_COLORS.get(check.verdict) for check in result.checks])
    say("", summary(result))
    if result.proposal:
        lead = "Proposed for your configuration file. Add the lines to its tables; keys without a table go to the top:"
        say("", lead, "")
        click.echo(result.proposal.toml())
