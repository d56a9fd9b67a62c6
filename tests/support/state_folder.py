"""The state folder of a user, which a server and a command share."""

import os
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio

from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from support.audit_entries import entries
from support.command_line import run_command
from support.stores import close

Result = TypeVar("Result")


@dataclass
class StateFolder:
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        home = str(self.folder.parent / "home")
        usual = {"HOME": home, "XDG_STATE_HOME": home}
        return {"FASTN_STATE_DIR": str(self.folder), "FASTN_CONFIG": os.devnull} | usual

    def run(self, *arguments: str, given: str = "", **env: str) -> "subprocess.CompletedProcess[str]":
        """Run `fastn-mcp` on it, without a terminal."""
        return run_command(arguments, {**os.environ, **self.env, **env}, given=given)

    def recorded(self, *fields: str) -> list[tuple[object, ...]]:
        """Return these fields of each entry of its audit log."""
        return [tuple(entry.get(name) for name in fields) for entry in entries(self.folder / "audit.jsonl")]

    def do(self, work: Callable[[Ledger], Awaitable[Result]]) -> Result:
        """Run `work` on its ledger."""
        ledger = Ledger(SqliteStore(str(self.folder / "ledger.sqlite")))
        try:
            return anyio.run(work, ledger)
        finally:
            close(ledger)
