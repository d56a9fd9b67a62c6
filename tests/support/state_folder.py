"""The state folder of a user, which a server and a command share."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio

from fastn_mcp.ledger.sqlite import SqliteLedger

Result = TypeVar("Result")


@dataclass
class StateFolder:
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        home = str(self.folder.parent / "home")
        usual = {"HOME": home, "XDG_STATE_HOME": home}
        return {"FASTN_STATE_DIR": str(self.folder), "FASTN_CONFIG": os.devnull} | usual

    def do(self, work: Callable[[SqliteLedger], Awaitable[Result]]) -> Result:
        """Run `work` on its ledger."""
        ledger = SqliteLedger(str(self.folder / "ledger.sqlite"))
        try:
            return anyio.run(work, ledger)
        finally:
            ledger.close()
