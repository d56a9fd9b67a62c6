"""`fastn-mcp changes`: the number of changes that were made on each of the last days."""

import json
from collections import Counter

import click

from fastn_mcp.audit.log import FILE
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp_changes.settings import ChangesSection


@click.command(name="changes")
@click.pass_obj
def command(start: StartOptions) -> None:
    """Count the changes of each day."""
    section = start.keyless().extensions["changes"]
    assert isinstance(section, ChangesSection)
    log = start.state() / FILE
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    made = [entry for entry in entries if entry["event"] == "outcome" and entry["outcome"] == "done"]
    days = Counter(entry["time"][:10] for entry in made)
    for day in sorted(days)[-section.days :]:
        click.echo(f"{day}  {days[day]}")
    if not days:
        click.echo("No change was made.")
