"""Shell completion: a script for each shell, and its completions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import Run

from fastn_mcp.cli.help import COMMANDS
from fastn_mcp.procedures.catalog import ALL_TOOLS

BIN = str(Path(sys.executable).parent)
TOOLS = [tool.tool_name().replace("_", "-") for tool in ALL_TOOLS]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str, fastn: Run) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("no bash to ask for its version")
    done = fastn("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_FASTN_MCP_COMPLETE={shell}_complete" in done.stdout


def test_unknown_shell_is_rejected_with_the_known_ones(fastn: Run) -> None:
    done = fastn("completion", "tcsh")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Use one of bash, zsh, fish." in done.stderr


def completions(fastn: Run, *words: str) -> list[str]:
    asked = {
        "_FASTN_MCP_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("fastn-mcp", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = fastn(env=asked)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_tools_and_options_are_completed(fastn: Run) -> None:
    assert set(completions(fastn, "")) == {
        name for group in COMMANDS.values() for name, entry in group.items() if not entry.hidden
    }
    assert completions(fastn, "call", "") == TOOLS
    assert completions(fastn, "call", "list-cu") == ["list-customers"]
    assert completions(fastn, "call", "get-customer", "--cu") == ["--customer-id"]
    assert completions(fastn, "--sandbox", "call", "delete-s") == ["delete-secret"]
    assert completions(fastn, "--mode", "") == ["read-only", "guarded", "manual", "unattended", "auto"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_with_the_script(environment: dict[str, str]) -> None:
    script = (
        'eval "$(fastn-mcp completion bash)"\n'
        "COMP_WORDS=(fastn-mcp call list-cu) COMP_CWORD=2\n"
        '_fastn_mcp_completion fastn-mcp && echo "${COMPREPLY[@]}"\n'
        "complete -p fastn-mcp\n"
    )
    env = environment | {"PATH": f"{BIN}{os.pathsep}{environment['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, env=env, timeout=30, check=True
    )
    first, second = done.stdout.splitlines()
    assert first == "list-customers"
    assert "_fastn_mcp_completion" in second
    assert done.stderr == ""
