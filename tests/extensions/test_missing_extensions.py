"""An installation without one of the extensions: the rest works, and what needs it says which package is missing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fastn_mcp
from fastn_mcp.build.extensions import PACKAGE
from fastn_mcp.cli.help import COMMANDS

pytestmark = pytest.mark.extension()

SOURCE = Path(fastn_mcp.__file__).parent
EXTENSIONS = sorted(folder.name for folder in (SOURCE / "extensions").iterdir() if (folder / "__init__.py").exists())
COMMANDS_OF = {
    extension: sorted(
        name
        for group in COMMANDS.values()
        for name, entry in group.items()
        if entry.place.startswith(f"extensions.{extension}.")
    )
    for extension in EXTENSIONS
}

CALL = ["--sandbox", "call", "list-customers"]

Program = Callable[..., "subprocess.CompletedProcess[str]"]
Without = Callable[[str], Program]


@pytest.fixture
def without(tmp_path: Path) -> Without:
    """Install a copy without an extension, and return what runs its program with arguments and variables."""

    def installed(extension: str) -> Program:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCE, tmp_path / "copy" / "fastn_mcp", ignore=ignored)
        shutil.rmtree(tmp_path / "copy" / "fastn_mcp" / "extensions" / extension)

        def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
            own = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "copy")}
            return subprocess.run(
                [sys.executable, "-P", "-m", "fastn_mcp", *arguments],
                env=own | variables,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        return run

    return installed


def missing(extension: str) -> str:
    return f"the package {PACKAGE}.{extension} is not installed. Install this program with all its packages."


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_rest_works_and_its_commands_name_the_missing_package(without: Without, extension: str) -> None:
    program = without(extension)
    shown = program("--help")
    assert shown.returncode == 0, shown.stderr
    listed = {line.split()[0] for line in shown.stdout.splitlines() if line.startswith("  ")}
    for other, commands in COMMANDS_OF.items():
        assert listed.isdisjoint(commands) if other == extension else listed.issuperset(commands)
    for command in COMMANDS_OF[extension]:
        done = program(command)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr == f"fastn-mcp: {command} is a command of an extension, but {missing(extension)}\n"
    called = program(*CALL)
    if extension == "sandbox":
        assert called.returncode == 2
        assert called.stderr == f"fastn-mcp: The sandbox is to be used, but {missing('sandbox')}\n"
    else:
        assert called.returncode == 0, called.stderr
        assert "Globex" in called.stdout


@pytest.mark.parametrize(
    ("extension", "arguments", "variables"),
    [
        ("team", ["--team", "team.toml", "--http", "127.0.0.1:0"], {}),
        ("valkey", CALL, {"FASTN_LEDGER": "valkey://127.0.0.1:1", "FASTN_STATE_SECRET": "s" * 32}),
        ("valkey", ["--sandbox", "approvals"], {"FASTN_LEDGER": "valkey://127.0.0.1:1"}),
        ("slack", ["--sandbox"], {"FASTN_SLACK_APP_TOKEN": "xapp-123456789"}),
        ("telemetry", CALL, {"FASTN_TELEMETRY_AUDIT_EXPORT": "fail-open"}),
    ],
)
def test_what_needs_a_missing_extension_stops_the_start(
    without: Without, extension: str, arguments: list[str], variables: dict[str, str]
) -> None:
    done = without(extension)(*arguments, **variables)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert missing(extension) in done.stderr


def test_collector_without_the_telemetry_extension_is_only_logged(without: Without) -> None:
    """Clients pass their own variables on to the servers that they start."""
    done = without("telemetry")(*CALL, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    assert "no telemetry is sent" in done.stderr
    assert f"the package {PACKAGE}.telemetry is not installed" in done.stderr
