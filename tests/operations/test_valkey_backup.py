"""docs/operations.md: the copy of a shared ledger that was made while it was used, and what it brings back."""

import shutil
import signal
from pathlib import Path

import pytest
from operations.conftest import Shell
from support.valkey_server import ValkeyServer

LISTED = "fastn-mcp call list-changes --json name"

pytestmark = [pytest.mark.posix, pytest.mark.long]


def test_copied_dump_brings_the_ledger_back_and_stays_on_disk(shell: Shell, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    first = ValkeyServer(folders[0], ("--appendonly", "yes")).start()
    second = ValkeyServer(folders[1], ("--appendonly", "no"), port=first.port)
    shell.variables["FASTN_LEDGER"] = first.url()
    try:
        shell.does("fastn-mcp call create-customer --name Initech")
        first.ask("BGSAVE")
        first.await_("rdb_bgsave_in_progress:0", "INFO", "persistence")
        shell.does("fastn-mcp call create-customer --name Hooli")
        shutil.copy2(folders[0] / "dump.rdb", folders[1])
        first.stop()
        second.start()
        assert second.ask("CONFIG", "SET", "appendonly", "yes") == "+OK\r\n"
        second.await_("aof_rewrite_in_progress:0", "INFO", "persistence")
        assert "Initech" in shell.does(LISTED)
        assert "Hooli" not in shell.does(LISTED)  # it came after the copy
        shell.does("fastn-mcp call create-customer --name Pied-Piper")
        second.stop(signal.SIGTERM)
        second.options = ("--appendonly", "yes")
        second.start()
        listed = shell.does(LISTED)
        assert "Initech" in listed
        assert "Pied-Piper" in listed
    finally:
        first.stop()
        second.stop()
