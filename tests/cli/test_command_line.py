"""The command line for a newcomer: help, version, settings from all sources, and one line for a wrong one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from support.command_line import Run, error_line, run_process
from support.ports import free_port

from fastn_mcp import __version__
from fastn_mcp.config.model import SOURCES
from fastn_mcp.procedures.catalog import ALL_TOOLS, PROCEDURES
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.tool import Effect

CANARY = "fsk_test_C4N4RY"


def test_help_names_every_setting(fastn: Run) -> None:
    done = fastn("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert fastn("-h").stdout == done.stdout
    for source in SOURCES:
        if source.flag is not None:
            assert source.flag in done.stdout
            assert f"[{source.variable}]" in done.stdout
    for expected in (
        "FASTN_API_KEY",
        "fastn-mcp demo",
        "--sandbox",
        "fastn-mcp install",
        "Without a command, it serves",
    ):
        assert expected in done.stdout


def test_version_is_printed(fastn: Run) -> None:
    for flag in ("--version", "-V"):
        assert fastn(flag).stdout == f"fastn-mcp, version {__version__}\n"
    script = Path(sys.executable).with_name("fastn-mcp")
    installed = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert installed.stdout == f"fastn-mcp, version {__version__}\n"


def _imported(*arguments: str, environment: dict[str, str]) -> set[str]:
    done = run_process([sys.executable, "-X", "importtime", "-m", "fastn_mcp", *arguments], environment)
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (("--version",), {"mcp", "httpx2", "starlette", "uvicorn", "rich", "pydantic", "fastn_mcp.config.model"}),
        (("--help",), {"mcp", "httpx2", "starlette", "uvicorn", "rich"}),
        (("health",), {"pydantic", "fastn_mcp.config.model"}),
        (("--sandbox",), {"rich"}),
        ((), {"keyring", "tomlkit", "fastn_mcp.config.file", "fastn_mcp.config.strict_toml"}),
    ],
)
def test_command_imports_only_what_it_needs(
    arguments: tuple[str, ...], unwanted: set[str], environment: dict[str, str]
) -> None:
    """Serving with a key of the environment needs neither a keyring nor a TOML parser."""
    imported = _imported(*arguments, environment=environment | {"FASTN_API_KEY": "fsk_test_1"})
    assert "fastn_mcp.cli.program" in imported
    assert not imported & unwanted


def account_of(done: "subprocess.CompletedProcess[str]") -> str:
    """Account that a change was made on, or would be."""
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["preview"]["account"])


def test_flags_override_the_environment_which_overrides_the_file(fastn: Run, tmp_path: Path) -> None:
    """The file is the one of --config, else of FASTN_CONFIG, else the user's own."""
    files = {name: tmp_path / f"{name}.toml" for name in ("flagged", "named")}
    files["own"] = tmp_path / "FASTN_CONFIG_DIR" / "config.toml"
    files["own"].parent.mkdir()
    for name, file in files.items():
        file.write_text(f'base_url = "http://127.0.0.1:9"\nprofile = "{name}"\n')
    preview = ("call", "create-customer", "--name", "x", "--dry-run")
    key = {"FASTN_API_KEY": "k"}
    named = key | {"FASTN_CONFIG": str(files["named"])}
    assert account_of(fastn(*preview, env=key)) == "own at 127.0.0.1:9"
    assert account_of(fastn(*preview, env=named)).startswith("named ")
    assert account_of(fastn("--config", str(files["flagged"]), *preview, env=named)).startswith("flagged ")
    variable = named | {"FASTN_PROFILE": "variable", "FASTN_ENV": "live"}
    assert account_of(fastn(*preview, env=variable)) == "variable at 127.0.0.1:9, environment live"
    assert account_of(fastn("--profile", "flag", *preview, env=variable)).startswith("flag at")


def test_nothing_is_read_from_the_working_directory(fastn: Run, tmp_path: Path) -> None:
    cloned = tmp_path / "cloned"
    cloned.mkdir()
    for name in (".env", ".env.local", "config.toml", "fastn.toml", "fastn-mcp.toml", "pyproject.toml", "policy.toml"):
        (cloned / name).write_text(
            'FASTN_API_KEY="k"\nFASTN_BASE_URL="https://x.example"\nbase_url="https://x.example"\n'
        )
    error_line(fastn("call", "list-customers", cwd=cloned), "There is no API key", "FASTN_API_KEY", "--sandbox")
    preview = fastn("call", "create-customer", "--name", "x", "--dry-run", env={"FASTN_API_KEY": "k"}, cwd=cloned)
    assert account_of(preview) == "default at live.fastn.ai"


def test_sandbox_ignores_key_and_host_of_the_environment(fastn: Run) -> None:
    account = {"FASTN_API_KEY": CANARY, "FASTN_BASE_URL": "http://127.0.0.1:9", "FASTN_AUTH": "bearer"}
    done = fastn("--sandbox", "call", "create-customer", "--name", "Initech", env=account)
    assert done.returncode == 0
    assert json.loads(done.stdout)["account"] == {"profile": "sandbox", "host": "localhost"}


def test_tools_in_a_pipe_are_tab_separated(fastn: Run) -> None:
    done = fastn("tools")
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = (tuple(line.split("\t")) for line in done.stdout.splitlines())
    assert header == ("tool", "effect", "route", "evidence")
    made_of_others = [(o.tool_name(), o.effect.value, "", "") for o in PROCEDURES]
    assert rows == made_of_others + [(o.tool_name(), o.effect.value, str(o.route), str(o.evidence)) for o in CATALOG]
    rows = json.loads(fastn("tools", "--json").stdout)[len(PROCEDURES) :]
    assert [(r["tool"], r["effect"], r["evidence"], r["route"]) for r in rows] == [
        (o.tool_name(), o.effect.value, str(o.evidence), str(o.route)) for o in CATALOG
    ]


def test_tools_lists_those_that_the_settings_allow(fastn: Run) -> None:
    rows = json.loads(fastn("--mode", "read-only", "tools", "--json").stdout)
    assert [row["tool"] for row in rows] == [o.tool_name() for o in ALL_TOOLS if o.effect is Effect.READ]
    flags = ("--tools", "customers,find,delete-customer", "--exclude-tools", "get_*")
    some = json.loads(fastn(*flags, "tools", "--json", env={"FASTN_MODE": "read-only"}).stdout)
    assert {row["tool"] for row in some} == {"find", "list_customers"}


def test_served_sandbox_says_how_to_use_it(fastn: Run, environment: dict[str, str], tmp_path: Path) -> None:
    environment |= {"PYTHONUNBUFFERED": "1"}
    command = [
        sys.executable,
        "-m",
        "fastn_mcp",
        "sandbox",
        "--file",
        str(tmp_path / "s.json"),
        "--port",
        str(free_port()),
    ]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as served:
        try:
            assert served.stdout is not None
            first, second = served.stdout.readline(), served.stdout.readline()
            assert first.startswith("Sandbox at http://127.0.0.1:")
            *given, program, command_, tool = second.split()
            assert (Path(program).name, command_, tool) == ("fastn-mcp", "call", "list-customers")
            account = dict(setting.split("=", 1) for setting in given)
            create = ("call", "create-customer", "--name", "Initech")
            with_key = fastn(*create, env=account)
            while with_key.returncode != 0 and "cannot be reached" in with_key.stderr and served.poll() is None:
                with_key = fastn(*create, env=account)  # it listens soon after it has printed this
            assert json.loads(with_key.stdout)["done"] == "create_customer"
            assert httpx2.get(account["FASTN_BASE_URL"] + "/api/v1/customers").status_code == 401
        finally:
            served.terminate()
            served.wait(10)
    again = fastn("--sandbox-file", str(tmp_path / "s.json"), "call", "list-customers", "--search", "Initech")
    assert [row["name"] for row in json.loads(again.stdout)["data"]] == ["Initech"]


@pytest.mark.parametrize("keeps", [True, False])
def test_change_in_a_sandbox_without_a_file_is_not_offered_to_the_next_command(
    fastn: Run, tmp_path: Path, keeps: bool
) -> None:
    sandbox = ("--sandbox-file", str(tmp_path / "s.json")) if keeps else ("--sandbox",)
    receipt = json.loads(fastn(*sandbox, "call", "create-customer", "--name", "Initech").stdout)["receipt"]
    listed = json.loads(fastn(*sandbox, "call", "list-changes").stdout)["data"]["changes"]
    undone = fastn(*sandbox, "call", "undo-change", "--change-id", receipt["change_id"], "--dry-run")
    if keeps:
        assert (receipt["undo"], [row["name"] for row in listed]) == ("undo_change", ["Initech"])
        assert undone.returncode == 0
    else:
        assert "undo" not in receipt
        assert "--sandbox-file" in receipt["why"]
        assert listed == []
        assert "There is no such change." in undone.stderr


def test_closed_pipe_causes_no_traceback(environment: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "fastn_mcp", "tools"],
            stdout=gone,
            stderr=subprocess.PIPE,
            env=environment,
            timeout=30,
        )
    assert b"Traceback" not in done.stderr
