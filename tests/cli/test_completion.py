"""Shell completion: a script for each shell, and its completions."""

import json
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


def completions(fastn: Run, *words: str) -> list[str]:
    asked = {
        "_FASTN_MCP_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("fastn-mcp", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = fastn(env=asked)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.extension
def test_commands_tools_and_options_are_completed(fastn: Run) -> None:
    assert set(completions(fastn, "")) == {
        name for group in COMMANDS.values() for name, entry in group.items() if not entry.hidden
    }
    assert completions(fastn, "call", "") == TOOLS
    assert completions(fastn, "call", "list-cu") == ["list-customers"]
    assert completions(fastn, "call", "get-customer", "--cu") == ["--customer-id"]
    assert completions(fastn, "--sandbox", "call", "delete-s") == ["delete-secret"]
    assert completions(fastn, "--mode", "") == ["read-only", "guarded", "unattended"]


@pytest.mark.extension("install")
def test_values_of_arguments_are_completed(fastn: Run, environment: dict[str, str]) -> None:
    config = Path(environment["FASTN_CONFIG_DIR"]) / "config.toml"
    config.parent.mkdir()
    config.write_text('[profiles.acme]\nenv = "live"\n[profiles.globex]\nenv = "live"\n')
    config.chmod(0o600)
    for words in (
        ("--profile",),
        ("login",),
        ("logout",),
        ("install", "cursor", "--profile"),
    ):
        assert completions(fastn, *words, "") == ["acme", "globex"], words
    assert completions(fastn, "--config", str(config), "login", "g") == ["globex"]
    assert completions(fastn, "install", "c") == ["claude-code", "claude-desktop", "cursor", "codex"]
    assert completions(fastn, "uninstall", "z") == ["zed"]
    assert completions(fastn, "setup", "--client", "gem") == ["gemini"]
    assert completions(fastn, "policy", "explain", "delete_s") == ["delete_secret"]
    assert completions(fastn, "call", "find", "--kind", "conn") == ["connector", "connection"]
    assert completions(fastn, "call", "list-executions", "--status", "") == [
        *("pending", "queued", "running", "completed", "failed", "timeout", "cancelled")
    ]
    assert completions(fastn, "call", "list-customers", "--detail", "") == ["concise", "full"]
    assert completions(fastn, "call", "get-customer", "--customer-id", "") == []


def test_values_that_are_not_listed_are_sent(fastn: Run) -> None:
    done = fastn("--sandbox", "call", "list-executions", "--status", "paused")
    assert (done.returncode, json.loads(done.stdout)["data"]) == (2, [])
    assert "unknown value 'paused'" in done.stderr


@pytest.mark.parametrize("text", ["not TOML", "[profiles.acme]\nunknown = 1\n", None])
def test_completion_shows_no_error_of_the_configuration(
    text: str | None, fastn: Run, environment: dict[str, str]
) -> None:
    config = Path(environment["FASTN_CONFIG_DIR"]) / "config.toml"
    config.parent.mkdir()
    if text is None:
        config.mkdir()
    else:
        config.write_text(text)
    assert completions(fastn, "login", "") == []


SHELLS = {
    "bash": """
eval "$(fastn-mcp completion bash)"
complete -p fastn-mcp | grep -q _fastn_mcp_completion || exit 1
COMP_WORDS=(@words@) COMP_CWORD=@count@
_fastn_mcp_completion fastn-mcp && printf '%s\n' "${COMPREPLY[@]}"
""",
    # Outside of the line editor: what is given to it is printed.
    "zsh": """
compdef() { : }
_describe() { print -l -- ${${(P)3}%%:*} }
compadd() { while [[ $1 != -a ]]; do shift; done; print -l -- ${(P)2} }
words=(@words@) CURRENT=$((@count@ + 1))
eval "$(fastn-mcp completion zsh)"
_fastn_mcp_completion
""",
    "fish": """
fastn-mcp completion fish | source
complete --do-complete "@words@" | cut -f1
""",
}


@pytest.mark.extension("install")
@pytest.mark.parametrize("shell", SHELLS)
def test_shell_completes_with_its_script(shell: str, environment: dict[str, str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    line = "fastn-mcp install cla"
    script = SHELLS[shell].replace("@words@", line).replace("@count@", str(len(line.split()) - 1))
    env = environment | {"PATH": f"{BIN}{os.pathsep}{environment['PATH']}"}
    unset = {"bash": "--norc", "zsh": "--no-rcs", "fish": "--no-config"}[shell]
    done = subprocess.run(
        [shell, unset, "-c", script], capture_output=True, text=True, env=env, timeout=60, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["claude-code", "claude-desktop"], "")
