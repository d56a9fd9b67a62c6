"""Extensions of somebody else, installed as packages of their own and named in the owner's configuration file."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from support.audit_entries import entries
from support.command_line import error_line, run_process
from support.local_page import globex
from support.server_process import ERAS, Upstream, body, each_era, environment
from support.slack import until

from fastn_mcp.audit.log import FILE as AUDIT
from fastn_mcp.build.extensions import ENTRY_POINTS, SECTIONS, TENANT_SECTIONS
from fastn_mcp.config.load import load
from fastn_mcp.errors import SettingsError

DISTRIBUTIONS = "fastn-mcp-folder 1.0, fastn-mcp-jsonfile 1.0"
NOT_MADE_HERE = f"extensions that this project did not make: {DISTRIBUTIONS}"


def config_file(place: Path, /, **tables: str) -> Path:
    """Write a configuration file with a table of each extension."""
    path = place / "config.toml"
    path.write_text("".join(f"[extensions.{name}]\n{settings}\n" for name, settings in tables.items()))
    path.chmod(0o600)
    return path


def program(*arguments: str, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return run_process([sys.executable, "-m", "fastn_mcp", *arguments], env=dict(env))


@pytest.fixture
def own(upstream: Upstream, foreign_extensions: Path) -> dict[str, str]:
    """Variables of a program beside which the extensions of the examples are installed."""
    return environment(upstream) | {"PYTHONPATH": str(foreign_extensions)}


@each_era
async def test_person_approves_in_a_channel_of_somebody_else_and_the_ledger_is_theirs(
    upstream: Upstream, own: dict[str, str], tmp_path: Path, era: str
) -> None:
    folder = tmp_path / "requests"
    folder.mkdir(mode=0o700)
    ledger = tmp_path / "ledger.json"
    config = config_file(tmp_path, folder=f'path = "{folder}"', jsonfile="")
    env = own | {"FASTN_CONFIG": str(config), "FASTN_LEDGER": f"jsonfile://{ledger}", "BROWSER": "false"}
    server = StdioServerParameters(command=sys.executable, args=["-m", "fastn_mcp"], env=env)
    async with Client(server, mode=ERAS[era]) as client:
        target = await globex(client)
        deletion = {"customer_id": target["id"]}
        asked = body(await client.call_tool("delete_customer", deletion))
        assert asked["status"] == "approval_required"
        assert str(folder) in asked["message"]
        (question,) = folder.glob("*.txt")
        assert f"with {NOT_MADE_HERE}" in question.read_text()
        answer = question.with_suffix(".answer")

        async def answered(text: str) -> None:
            answer.write_text(text)
            await until(lambda: not answer.exists())

        await answered("something else")
        assert body(await client.call_tool("delete_customer", deletion))["status"] == "approval_required"
        await answered(target["name"])
        done = body(await client.call_tool("delete_customer", deletion))
        assert done["done"] == "delete_customer"
        await until(lambda: not list(folder.iterdir()))
    assert upstream.changes() == [f"DELETE /api/v1/customers/{target['id']}"]
    stored = json.loads(ledger.read_bytes())["documents"]
    assert [key for key in stored if key.startswith("change")]
    logged = list(entries(Path(own["FASTN_STATE_DIR"]) / AUDIT))
    assert [each["message"] for each in logged if each["event"] == "foreign_code"] == [DISTRIBUTIONS]
    assert [each["approved_by"] for each in logged if each["event"] in ("approved", "intent")] == ["folder"] * 2


def test_command_of_somebody_else_is_listed_once_the_file_names_it(own: dict[str, str], tmp_path: Path) -> None:
    config = config_file(tmp_path, changes="days = 3")
    named = own | {"FASTN_CONFIG": str(config)}
    assert "Extensions of others" not in program("--help", env=own).stdout
    help_ = program("--help", env=named).stdout
    assert re.search(r"Extensions of others:\n +changes +Count the changes of each day\.\n", help_)
    called = program("call", "create-customer", "--name", "Initech", env=named)
    assert called.returncode == 0, called.stderr
    counted = program("changes", env=named)
    assert counted.returncode == 0, counted.stderr
    assert re.fullmatch(r"\d{4}-\d\d-\d\d  1\n", counted.stdout)
    assert "There is no command 'changes'" in program("changes", env=own).stderr


@pytest.mark.extension("doctor")
def test_doctor_says_which_code_of_others_is_in_use(own: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    folder.mkdir(mode=0o700)
    config = config_file(tmp_path, folder=f'path = "{folder}"', jsonfile="")
    ledger = f"jsonfile://{tmp_path / 'ledger.json'}"
    checked = program("doctor", "--json", env=own | {"FASTN_CONFIG": str(config), "FASTN_LEDGER": ledger})
    found = {each["name"]: each["finding"] for each in json.loads(checked.stdout)["checks"]}
    for name in ("folder", "jsonfile"):
        assert found[f"extension {name}"].endswith(f"acts beside your key: fastn-mcp-{name} 1.0.")
    assert found["folder"] == "Only its owner can answer in it."
    assert found["ledger durability"] == "Each commit is on disk before it counts."


@pytest.mark.parametrize(
    ("tables", "variables", "error"),
    [
        (
            {"foldr": ""},
            {},
            "[extensions.foldr] is in the configuration file, but no extension of this name is installed",
        ),
        ({"folder": ""}, {}, "needs path"),
        ({"folder": 'path = "/nowhere/at/all"'}, {}, "/nowhere/at/all is not a folder. Run: mkdir -m 700 /nowhere"),
        ({"jsonfile": ""}, {"FASTN_LEDGER": "jsonfile://relative"}, "is not jsonfile:// and an absolute path"),
        ({}, {"FASTN_LEDGER": "jsonfile:///ledger.json"}, "ledger"),
    ],
)
def test_extension_that_is_not_named_or_not_set_up_stops_the_start(
    own: dict[str, str], tmp_path: Path, tables: dict[str, str], variables: dict[str, str], error: str
) -> None:
    env = own | {"FASTN_CONFIG": str(config_file(tmp_path, **tables))} | variables
    stopped = program(env=env)
    assert error in error_line(stopped)


def test_tenant_cannot_name_code_of_somebody_else(foreign_extensions: Path) -> None:
    with pytest.raises(SettingsError, match="A tenant has no settings of the extension folder"):
        TENANT_SECTIONS.read({"folder": {"path": str(foreign_extensions)}}, {}, lambda name, _: name)


@pytest.mark.usefixtures("foreign_extensions")
def test_variables_of_somebody_else_are_not_read() -> None:
    assert load({}, {"FASTN_API_KEY": "k", "FASTN_FOLDER_PATH": "/"}, None, sections=SECTIONS).extensions == {}


@pytest.mark.parametrize("is_named", [False, True])
def test_installed_extensions_are_looked_up_only_if_the_file_names_one(
    own: dict[str, str], tmp_path: Path, *, is_named: bool
) -> None:
    config = config_file(tmp_path, **({"changes": ""} if is_named else {}))
    looking = (
        "import importlib.metadata as m, sys; found = m.entry_points\n"
        "m.entry_points = lambda **k: print('looked up', k, file=sys.stderr) or found(**k)\n"
        "from fastn_mcp.cli.program import main; main()"
    )
    command = [sys.executable, "-c", looking, "call", "list-customers"]
    called = run_process(command, env=own | {"FASTN_CONFIG": str(config)})
    assert called.returncode == 0, called.stderr
    assert (f"looked up {{'group': '{ENTRY_POINTS}'" in called.stderr) is is_named
