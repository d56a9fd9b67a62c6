"""`fastn-mcp profiles`: the table, and edits that keep comments."""

import json
import re
import stat
from pathlib import Path

import pytest
from support.command_line import Run, error_line

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


@pytest.mark.parametrize("command", [("login", "nobody"), ("profiles", "use", "nobody"), ("whoami",)])
def test_suggested_command_names_the_file_and_the_host_that_were_chosen(
    command: tuple[str, ...], file: Path, fastn: Run
) -> None:
    chosen = ["--config", str(file), "--base-url", "https://eu.example.com"]
    chosen += ["--profile", "globex"] if command == ("whoami",) else []
    suggested = "login globex --file" if command == ("whoami",) else "profiles add NAME"
    error_line(fastn(*chosen, *command), f"fastn-mcp {' '.join(chosen)} {suggested}")


def test_suggested_command_has_no_password_of_an_address(file: Path, fastn: Run) -> None:
    chosen = ["--config", str(file), "--base-url", "https://user:C4N4RY@eu.example.com"]
    assert "C4N4RY" not in error_line(fastn(*chosen, "login", "nobody"), "profiles add NAME")


def test_profiles_as_json_ignores_the_environment(file: Path, fastn: Run) -> None:
    """The same facts. FASTN_API_KEY and FASTN_PROFILE belong to no profile."""
    assert file.exists()
    env = {"ACME_KEY": "fsk_test_C4N4RY", "FASTN_API_KEY": "C4N4RY", "FASTN_PROFILE": "globex"}
    acme, globex = json.loads(fastn("profiles", "--json", env=env).stdout)
    assert (acme["default"], acme["key"], acme["problem"]) == (True, "test", None)
    assert (globex["default"], globex["key"], globex["from"]) == (False, "none", None)
    assert "C4N4RY" not in json.dumps([acme, globex])


def test_profiles_without_any_says_how_to_add_one(config: Path, fastn: Run) -> None:
    assert re.fullmatch(
        rf"{config} has no profiles. Add one: .*/fastn-mcp profiles add NAME\n", fastn("profiles").stdout
    )


def test_first_profile_creates_a_private_file(config: Path, fastn: Run) -> None:
    done = fastn("profiles", "add", "acme", "--base-url", "https://eu.fastn.example", "--mode", "unattended")
    added, login, use = done.stdout.splitlines()
    assert added == f"Added the profile acme to {config}."
    assert login.startswith("Next, give it a key: FASTN_")
    assert f"FASTN_CONFIG_DIR={config.parent} " in login
    assert login.endswith("fastn-mcp login acme")
    assert "fastn-mcp --profile acme, or by default: FASTN_" in use
    assert config.read_text() == '[profiles.acme]\nbase_url = "https://eu.fastn.example"\nmode = "unattended"\n'
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert load({}, {"FASTN_API_KEY": "k"}, config).profile == "default"
    other = fastn("--profile", "acme", "profiles", "add", "globex").stdout
    assert "--profile acme" not in other, "login would refuse it beside another account"


def test_add_and_remove_leave_the_file_as_it_was(file: Path, fastn: Run) -> None:
    assert fastn("profiles", "add", "initech", "--tenant-id", "t-1", "--api-key-env", "K").returncode == 0
    assert file.read_text() == f'{FILE}\n[profiles.initech]\ntenant_id = "t-1"\napi_key_env = "K"\n'
    assert load({"profile": "initech"}, {"K": "k"}, file).tenant_id == "t-1"
    done = fastn("profiles", "remove", "initech")
    assert (done.returncode, done.stdout) == (0, f"Removed the profile initech from {file}.\n")
    assert file.read_text() == FILE


def test_remove_keeps_comments_of_the_next_table(file: Path, fastn: Run) -> None:
    assert fastn("profiles", "remove", "globex").returncode == 0
    begin, end = FILE.index("[profiles.globex]"), FILE.index("# For all of them")
    assert file.read_text() == FILE[:begin] + FILE[end:]
    file.write_text(
        '[profiles."a"] # one\n# of a\nenv = "x"\n[ profiles . a . routes ]\n'
        'run_workflow = "POST /x/{workflow_id}"\n[profiles.ab]\n# of ab\n'
    )
    assert fastn("profiles", "remove", "a").returncode == 0
    assert file.read_text() == "[profiles.ab]\n# of ab\n"


def test_remove_refuses_a_profile_in_another_notation(file: Path, fastn: Run) -> None:
    text = '[profiles]\na = { env = "x" }\nb = { env = "y" }\n'
    file.write_text(text)
    assert error_line(fastn("profiles", "remove", "a")) == f"a could not be removed from {file}. Remove it by hand."
    assert file.read_text() == text


def test_use_changes_the_line_of_the_default(file: Path, fastn: Run) -> None:
    assert fastn("profiles", "use", "globex").stdout == "The default profile is now globex.\n"
    assert file.read_text() == FILE.replace('profile = "acme"', 'profile = "globex"')
    file.write_text("# mine\n[profiles.acme]\n")
    assert fastn("profiles", "use", "acme").returncode == 0
    assert file.read_text() == 'profile = "acme"\n\n# mine\n[profiles.acme]\n'
    assert fastn("profiles", "add", "b", "--default").returncode == 0
    assert file.read_text() == 'profile = "b"\n\n# mine\n[profiles.acme]\n\n[profiles.b]\n'


def test_removing_the_last_profile_removes_the_default(config: Path, fastn: Run) -> None:
    config.write_text('profile = "a"\nenv = "x"  # all\n[profiles.a]\n')
    assert fastn("profiles", "remove", "a").returncode == 0
    assert config.read_text() == 'env = "x"  # all\n'


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("add", "acme"), "The profile 'acme' already exists. Change it in "),
        (("add", "a b"), "'a b' is not a valid profile name. Use letters, digits,"),
        (("add", "x", "--base-url", "http://evil.example"), "The setting base_url (flag --base-url) "),
        (("remove", "acne"), "There is no profile 'acne' (did you mean 'acme'?). Known: acme, globex."),
        (("remove", "acme"), "'acme' is the default profile. Choose another first: FASTN_STATE_DIR="),
    ],
)
def test_refused_command_changes_nothing(file: Path, fastn: Run, arguments: tuple[str, ...], expected: str) -> None:
    assert error_line(fastn("profiles", *arguments)).startswith(expected)
    assert file.read_text() == FILE


def test_add_refuses_if_the_top_level_label_would_name_no_profile(config: Path, fastn: Run) -> None:
    """Profile = "prod" is a label as long as there are no profiles; the file stays valid."""
    config.write_text('profile = "prod"\n')
    done = fastn("profiles", "add", "acme")
    assert done.returncode == 2
    assert f"{config}, line 1: There is no profile 'prod'. Known: acme." in done.stderr
    assert config.read_text() == 'profile = "prod"\n'


def test_configuration_file_that_is_a_link_stays_one(config: Path, fastn: Run, tmp_path: Path) -> None:
    """Some people keep their settings in a repository."""
    real = tmp_path / "dotfiles.toml"
    real.write_text("# kept\n")
    config.symlink_to(real)
    assert fastn("profiles", "add", "acme").returncode == 0
    assert config.is_symlink()
    assert real.read_text() == "# kept\n\n[profiles.acme]\n"
