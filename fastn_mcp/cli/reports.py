"""Write the report of a process when it ends."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import click

from fastn_mcp.build.account import AccountParts
from fastn_mcp.report.collector import Tally


class Reporting:
    """The report of one process, from now on, in `path`. Raises `SettingsError` where it could not be written."""

    def __init__(self, parts: AccountParts, tally: Tally, path: Path, script: str | None = None) -> None:
        from fastn_mcp.report.writer import check  # only where there is a report

        check(path)
        self._parts = parts
        self._tally = tally
        self._path = path.absolute()
        self._about = replace(parts.about, script=script)
        self._began: datetime = parts.system.now()

    def write(self) -> None:
        """Write it. Raises `ClickException`."""
        from fastn_mcp.report.writer import document, write

        tally = self._tally
        ended = self._parts.system.now()
        report = document(self._about, tally.attempts, tally.reads, tally.head, self._began, ended)
        try:
            write(self._path, report)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            said = f"The report could not be written to {self._path}: {reason}."
            raise click.ClickException(
                f"{said} The audit holds it all: {self._parts.program.to('audit', 'report')}"
            ) from error


@contextmanager
def reported(parts: AccountParts) -> Generator[None]:
    """Write the report of what happens meanwhile, where the settings name one, however it ends."""
    if parts.settings.report is None or parts.tally is None:
        yield
        return
    reporting = Reporting(parts, parts.tally, parts.settings.report)
    try:
        yield
    finally:
        reporting.write()
