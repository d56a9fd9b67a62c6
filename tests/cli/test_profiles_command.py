"""`fastn-mcp profiles`: the table, and edits that keep comments."""

import json
import re
import stat
import subprocess
from pathlib import Path

import pytest
from support.command_line import Run, error_line, run_command

from fastn_mcp.config.load import load

FILE = """\
# Our accounts. Ask Dana before you change one.
profile = "acme"  # the default
tenant_id = "t-0"

# the big one
[profiles.acme]
api_key_env = "ACME_KEY"   # from the vault
env = "live"

[profiles.globex]
base_url = "https://us.fastn.example"
mode = "read-only"

# For all of them:
[routes]
run_workflow = "POST /api/v1/workflows/{workflow_id}/execute"
"""


@pytest.fixture
def config(environment: dict[str, str]) -> Path:
    path = Path(environment["FASTN_CONFIG_DIR"]) / "config.toml"
    path.parent.mkdir()
    return path


@pytest.fixture
def file(config: Path) -> Path:
    config.touch(mode=0o600)
    config.write_text(FILE)
    return config


def test_profiles_shows_each_account_and_no_key(file: Path, fastn: Run) -> None:
    assert file.exists()
    done = fastn("profiles", env={"ACME_KEY": "fsk_live_C4N4RY"})
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows == [
        ["profile", "default", "host", "environment", "mode", "key", "from"],
        ["acme", "default", "live.fastn.ai", "live", "guarded", "live", "environment", "ACME_KEY"],
        ["globex", "us.fastn.example", "read-only", "none"],
    ]
    assert "\x1b" not in done.stdout
    assert done.stderr.startswith(
        "fastn-mcp: The profile 'globex' has no key for us.fastn.example. This system has no usable keyring. "
        f"Store one: FASTN_STATE_DIR={file.parents[1]}"
    )
    assert done.stderr.endswith("/fastn-mcp login globex --file\n")


DOCTOR = pytest.param(("doctor",), marks=pytest.mark.extension("doctor"))


@pytest.mark.parametrize("command", [("whoami",), DOCTOR, ("call", "list-customers"), ("login",)])
@pytest.mark.parametrize("variable", [False, True])
def test_key_in_place_of_a_profile_is_not_repeated(
    command: tuple[str, ...], variable: bool, file: Path, fastn: Run
) -> None:
    key = "fsk_live_C4N4RY"
    chosen, env = ((), {"FASTN_PROFILE": key}) if variable else (("--profile", key), {})
    done = fastn("--config", str(file), *chosen, *command, env=env)
    shown = done.stdout + done.stderr
    assert ("That is a key" in shown, "C4N4RY" in shown) == (True, False)


@pytest.mark.parametrize("chosen", [("--profile", "acme"), ("--base-url", "https://eu.example.com")])
def test_suggested_login_of_a_listed_account_is_at_its_own_host(
    chosen: tuple[str, str], file: Path, fastn: Run
) -> None:
    done = fastn("--config", str(file), *chosen, "profiles", env={"ACME_KEY": "fsk_live_C4N4RY"})
    assert done.stderr.endswith(f"/fastn-mcp --config {file} login globex --file\n")


@pytest.mark.parametrize("command", [("logout", "nobody"), ("whoami",)])
def test_suggested_command_names_the_file_and_the_host_that_were_chosen(
    command: tuple[str, ...], file: Path, fastn: Run
) -> None:
    chosen = ["--config", str(file), "--base-url", "https://eu.example.com"]
    chosen += ["--profile", "globex"] if command == ("whoami",) else []
    suggested = "login globex --file" if command == ("whoami",) else "login nobody"
    error_line(fastn(*chosen, *command), f"fastn-mcp {' '.join(chosen)} {suggested}")


def test_suggested_command_has_no_password_of_an_address(file: Path, fastn: Run) -> None:
    chosen = ["--config", str(file), "--base-url", "https://user:C4N4RY@eu.example.com"]
    assert "C4N4RY" not in error_line(fastn(*chosen, "logout", "nobody"), "login nobody")


def test_profiles_as_json_ignores_the_environment(file: Path, fastn: Run) -> None:
    """The same facts. FASTN_API_KEY and FASTN_PROFILE belong to no profile."""
    assert file.exists()
    env = {"ACME_KEY": "fsk_test_C4N4RY", "FASTN_API_KEY": "C4N4RY", "FASTN_PROFILE": "globex"}
    acme, globex = json.loads(fastn("profiles", "--json", env=env).stdout)
    assert (acme["default"], acme["key"], acme["problem"]) == (True, "test", None)
    assert (globex["default"], globex["key"], globex["from"]) == (False, "none", None)
    assert "C4N4RY" not in json.dumps([acme, globex])


def test_profiles_without_any_says_how_to_add_one(config: Path, fastn: Run) -> None:
    assert re.fullmatch(rf"{config} has no profiles. Add one: .*/fastn-mcp login NAME\n", fastn("profiles").stdout)


@pytest.fixture
def add(environment: dict[str, str]) -> Run:
    """Run login to a new profile with these options of the program, and a key on stdin."""

    def add(name: str, *options: str) -> "subprocess.CompletedProcess[str]":
        login = ("login", name, "--stdin", "--file", "--no-check")
        return run_command([*options, *login], environment, given="fsk_test_C4N4RY")

    return add


def test_first_profile_creates_a_private_file(config: Path, add: Run) -> None:
    done = add("acme", "--base-url", "https://eu.fastn.example", "--mode", "unattended")
    assert done.stdout.splitlines() == [
        f"Added the profile acme to {config}.",
        f"The test key for acme at eu.fastn.example is stored in {config.parent / 'keys' / 'acme.key'}.",
    ]
    assert config.read_text() == (
        '[profiles.acme]\nbase_url = "https://eu.fastn.example"\nmode = "unattended"\n'
        'api_key_host = "eu.fastn.example"\napi_key_file = "keys/acme.key"\n'
    )
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert load({}, {"FASTN_API_KEY": "k"}, config).profile == "default"
    assert load({"profile": "acme"}, {}, config).base_url == "https://eu.fastn.example"


def test_new_profile_leaves_the_rest_of_the_file_as_it_was(file: Path, add: Run) -> None:
    assert add("initech", "--env", "test", "--policy", "initech.toml").returncode == 0
    rest, _, added = file.read_text().partition("\n[profiles.initech]\n")
    assert rest == FILE
    assert added.startswith(f'env = "test"\npolicy = "{Path("initech.toml").absolute()}"\n')


def test_unchecked_key_adds_no_profile(file: Path, environment: dict[str, str]) -> None:
    """Nothing listens at the address, so the key cannot be checked."""
    login = ["--base-url", "http://127.0.0.1:1", "--deadline", "1", "login", "initech", "--stdin", "--file"]
    done = run_command(login, environment, given="fsk_test_C4N4RY")
    assert done.returncode == 1
    assert file.read_text() == FILE


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a b", (), "'a b' is not a valid profile name. Use letters, digits,"),
        ("x", ("--base-url", "http://evil.example"), "The setting base_url (flag --base-url) "),
        ("fsk_live_C4N4RY", (), "That is a key, not the name of a profile"),
        ("x", ("--profile", "acme"), "--profile acme and PROFILE x are different accounts. Leave out one."),
    ],
)
def test_refused_login_adds_no_profile(
    file: Path, add: Run, name: str, options: tuple[str, ...], expected: str
) -> None:
    assert error_line(add(name, *options)).startswith(expected)
    assert file.read_text() == FILE


def test_new_profile_is_refused_if_the_top_level_label_would_name_no_profile(config: Path, add: Run) -> None:
    """Profile = "prod" is a label as long as there are no profiles; the file stays valid."""
    config.write_text('profile = "prod"\n')
    done = add("acme")
    assert done.returncode == 2
    assert f"{config}, line 1: There is no profile 'prod'. Known: acme." in done.stderr
    assert config.read_text() == 'profile = "prod"\n'
    assert not (config.parent / "keys").exists()


def test_configuration_file_that_is_a_link_stays_one(config: Path, add: Run, tmp_path: Path) -> None:
    """Some people keep their settings in a repository."""
    real = tmp_path / "dotfiles.toml"
    real.write_text("# kept\n")
    config.symlink_to(real)
    assert add("acme").returncode == 0
    assert config.is_symlink()
    assert real.read_text().startswith("# kept\n\n[profiles.acme]\n")
