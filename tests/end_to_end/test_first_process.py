"""The program as process 1 of a container without an init."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import run_command
from support.ports import free_port, listening
from support.raw_client import HELLO

FIRST = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "fastn_mcp", "--sandbox"]


def can_be_first() -> bool:
    try:
        return subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_be_first(), reason="no namespace can be made here")
@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_process_1_exits_with_0_on_sigterm(transport: str, tmp_path: Path) -> None:
    """Process 1 gets only signals that it handles. Otherwise an engine kills it after ten seconds."""
    port = free_port()
    own = {"FASTN_STATE_DIR": str(tmp_path), "FASTN_CONFIG_DIR": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/sbin"}
    if transport == "http":
        own["FASTN_HTTP"] = f"127.0.0.1:{port}"
    with subprocess.Popen(FIRST, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=own) as outer:
        assert outer.stdin is not None
        assert outer.stdout is not None
        if transport == "stdio":
            outer.stdin.write(HELLO + b"\n")
            outer.stdin.flush()
            assert b'"serverInfo"' in outer.stdout.readline()
        else:
            listening(port, outer)
            assert run_command(["health"], own).stdout == "healthy\n"
        (first,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        subprocess.run(["kill", f"-{signal.SIGTERM}", first], check=True)
        assert outer.wait(10) == 0
