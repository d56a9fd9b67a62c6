"""`fastn-mcp login`, `logout` and `whoami`, against a sandbox over HTTP and a keyring."""

import json
import re
import socket
import stat
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from support.command_line import Run, error_line, run_command
from support.identity_provider import listening
from support.terminal import sitting

from fastn_mcp.extensions.sandbox.app import create_app
from fastn_mcp.extensions.sandbox.auth import KEY, LIVE_KEY, VIEWER_KEY
from fastn_mcp.extensions.sandbox.server import Sandbox
from fastn_mcp.runtime import System

CANARY = "fsk_test_C4N4RY"


@pytest.fixture(scope="module")
def account() -> Sandbox:
    return Sandbox(System().now)


@pytest.fixture(scope="module")
def address(account: Sandbox) -> Generator[str]:
    """Address of a sandbox served by this process."""
    with listening(create_app(account)) as url:
        yield url.removeprefix("http://")


@pytest.fixture
def config(environment: dict[str, str], tmp_path: Path, address: str) -> Path:
    environment |= {
        "PYTHON_KEYRING_BACKEND": "support.quiet_keyring.Keyring",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "TEST_KEYRING": str(tmp_path / "keyring.json"),
    }
    path = Path(environment["FASTN_CONFIG_DIR"]) / "config.toml"
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(f'# ours\nbase_url = "http://{address}"\n\n# the big one\n[profiles.acme]\nenv = "test"\n')
    return path


@pytest.fixture
def login(config: Path, environment: dict[str, str]) -> Run:  # noqa: ARG001 - the file has to be there
    """Run login with this text on stdin."""

    def login(given: str, *arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        return run_command(["login", *arguments], environment | (env or {}), given=given)

    return login


def stored_keys(environment: dict[str, str]) -> dict[str, str]:
    file = Path(environment["TEST_KEYRING"])
    return json.loads(file.read_text()) if file.exists() else {}


# --- login -------------------------------------------------------------------------------------------------------


def test_login_prompts_checks_and_stores_a_key_that_is_then_used(
    config: Path, environment: dict[str, str], address: str, fastn: Run
) -> None:
    before = config.read_text()
    with sitting(["-m", "fastn_mcp", "login", "acme"], environment) as person:
        person.answers(f"API key for acme at {address} (not shown): ", f" {KEY} ")
        code, shown = person.leaves()
    assert (code, KEY in person.shown) == (0, False)
    assert f"The test key for acme at {address} is stored in the test's keyring." in shown
    assert stored_keys(environment) == {f"fastn-mcp/acme at {address}": KEY}
    assert config.read_text() == before
    called = fastn("--profile", "acme", "call", "create-customer", "--name", "Initech")
    assert json.loads(called.stdout)["account"] == {"profile": "acme", "host": address, "environment": "test"}


def test_login_without_profiles_stores_the_default_key(
    login: Run, config: Path, environment: dict[str, str], address: str, fastn: Run
) -> None:
    config.write_text(f'base_url = "http://{address}"\n')
    done = login(f"{KEY}\n", "--stdin")
    assert done.returncode == 0, done.stderr
    assert list(stored_keys(environment)) == [f"fastn-mcp/default at {address}"]
    assert fastn("whoami").returncode == 0


def test_login_does_not_store_a_rejected_key(login: Run, environment: dict[str, str], address: str) -> None:
    message = error_line(login(CANARY, "acme", "--stdin"), code=1)
    assert message.startswith("The key does not work. ")
    assert re.search(r"Nothing was stored. To store it without a check: \S.* login acme --no-check$", message)
    assert stored_keys(environment) == {}
    done = login(CANARY, "acme", "--stdin", "--no-check")
    assert (done.returncode, done.stdout) == (
        0,
        f"The test key for acme at {address} is stored in the test's keyring.\n",
    )


def test_login_tells_an_unreachable_host_from_a_wrong_key(login: Run, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = login(KEY, "--stdin", env={"FASTN_BASE_URL": url, "FASTN_DEADLINE": "1"})
    assert "Could not check whether the key works. " in error_line(done, code=1)
    assert stored_keys(environment) == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *((wrong, "The standard input must be one line: the key.") for wrong in ("", " \n", f"{CANARY}\n{CANARY}\n")),
        (
            f"{CANARY} {CANARY}",
            "holds a space, a line break or another character that no key has. Copy the whole key",
        ),
    ],
)
def test_login_describes_a_malformed_key_without_showing_it(login: Run, given: str, expected: str) -> None:
    assert expected in error_line(login(given, "acme", "--stdin"))


def test_login_without_a_terminal_suggests_stdin(login: Run) -> None:
    line = error_line(login(KEY, "acme"), "There is no terminal to ask for the key. Give it on the standard input: ")
    assert line.endswith("/fastn-mcp login acme --stdin")
    assert "unexpected extra argument" in error_line(login("", "acme", CANARY.replace("C4N4RY", "x")))


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("keyring.backends.fail.Keyring", "This system has no usable keyring."),
        ("keyring.backends.null.Keyring", "This system has no usable keyring."),
        ("keyring.backends.SecretService.Keyring", "The system's keyring cannot be used (FileNotFoundError)."),
        ("not.there.Keyring", "The system's keyring cannot be used (ModuleNotFoundError)."),
        ("support.quiet_keyring.Locked", "The system's keyring cannot be used (KeyringLocked)."),
        ("support.quiet_keyring.Forgetful", "the test's keyring did not store the key."),
    ],
)
def test_login_without_a_keyring_suggests_a_file(
    login: Run, backend: str, expected: str, environment: dict[str, str]
) -> None:
    environment["PYTHON_KEYRING_BACKEND"] = backend
    environment["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/nowhere"
    done = login(KEY, "acme", "--stdin", "--no-check")
    line = error_line(done, f"{expected} Store the key in a file that only you can read: FASTN_")
    assert f"FASTN_CONFIG_DIR={environment['FASTN_CONFIG_DIR']} " in line
    assert line.endswith("fastn-mcp login acme --file")


@pytest.mark.posix
def test_login_stores_a_key_in_a_private_file(
    login: Run, config: Path, environment: dict[str, str], fastn: Run
) -> None:
    environment["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"
    before = config.read_text()
    for key in (KEY, LIVE_KEY):
        assert login(key, "acme", "--stdin", "--file").returncode == 0
    file = config.parent / "keys" / "acme.key"
    assert file.read_text() == f"{LIVE_KEY}\n"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent, config)] == [0o600, 0o700, 0o600]
    host = re.findall(r"//([^\"]+)", before)[0]
    assert config.read_text() == f'{before}api_key_host = "{host}"\napi_key_file = "keys/acme.key"\n'
    assert fastn("--profile", "acme", "whoami").returncode == 0
    file.chmod(0o640)
    message = error_line(fastn("--profile", "acme", "whoami"))
    assert message == f"{file} holds a key, and users other than its owner can read it. Run: chmod 600 {file}"
    assert fastn("logout", "acme").returncode == 0
    assert not file.exists()
    assert config.read_text() == before


def test_default_key_in_a_file_is_found_again(login: Run, config: Path, fastn: Run) -> None:
    before = config.read_text()
    assert login(KEY, "--stdin", "--file").returncode == 0
    host = re.findall(r"//([^\"]+)", before)[0]
    assert config.read_text() == f'api_key_file = "keys/default.key"\napi_key_host = "{host}"\n\n{before}'
    assert fastn("whoami").returncode == 0
    assert "The profile 'acme' has no key" in error_line(fastn("--profile", "acme", "whoami"))


def test_login_keeps_the_address_of_a_key_in_a_file(login: Run, config: Path, fastn: Run, address: str) -> None:
    """Without it the next start had a key and no place to send it to."""
    config.write_text("")
    assert login(KEY, "--stdin", "--file", env={"FASTN_BASE_URL": f"http://{address}/"}).returncode == 0
    assert f'base_url = "http://{address}"' in config.read_text()
    assert fastn("whoami").returncode == 0


def test_login_does_not_change_the_address_of_other_accounts(
    login: Run, config: Path, fastn: Run, address: str
) -> None:
    """A profile has the address of the top level, and its key would go there."""
    for before, arguments in (('[profiles.acme]\nenv = "test"\n', ["--file"]), ("", [])):
        config.write_text(before)
        done = login(KEY, "--stdin", *arguments, env={"FASTN_BASE_URL": f"http://{address}"})
        assert done.stdout.splitlines()[-1] == (
            f"Later commands need the address, too: --base-url http://{address}, or base_url in {config}."
        )
        assert "base_url" not in config.read_text()
        assert fastn("--base-url", f"http://{address}", "whoami").returncode == 0


def test_login_refuses_a_key_that_would_never_be_used(login: Run, config: Path) -> None:
    config.write_text(config.read_text() + 'api_key_env = "ACME"\n')
    message = error_line(login(KEY, "acme", "--stdin"))
    assert message.startswith(f"{config}, line 7: api_key_env already says where to find the key")


def test_login_warns_of_a_key_in_the_environment(login: Run) -> None:
    done = login(KEY, "acme", "--stdin", env={"FASTN_API_KEY": CANARY})
    assert done.returncode == 0
    assert done.stderr == "fastn-mcp: FASTN_API_KEY is set: unset it, or the stored key will not be used.\n"


def test_unknown_profile_is_reported(config: Path, fastn: Run) -> None:
    message = "There is no profile 'acne' (did you mean 'acme'?). Known: acme."
    for done in (fastn("logout", "acne"), fastn("--profile", "acne", "whoami")):
        assert error_line(done).startswith(message)
    assert "and PROFILE acme are different accounts" in error_line(fastn("--profile", "globex", "logout", "acme"))
    assert "The sandbox has a key of its own." in error_line(fastn("--sandbox", "logout"))
    config.write_text("")
    message = error_line(fastn("logout", "acme"))
    assert message.startswith(f"There is no profile 'acme'. {config} has no profiles. Correct the name, or add it")


# --- logout ------------------------------------------------------------------------------------------------------


def test_logout_deletes_a_key_and_says_that_it_still_works(
    login: Run, environment: dict[str, str], fastn: Run, address: str
) -> None:
    login(KEY, "acme", "--stdin")
    done = fastn("logout", "acme")
    assert done.stdout.splitlines() == [
        f"The key for acme at {address} was removed from the keyring.",
        "It still works. If it is no longer needed, revoke it in the Fastn dashboard (Settings > API keys).",
    ]
    assert stored_keys(environment) == {}
    again = error_line(
        fastn("logout", "acme"),
        f"There is no stored key for acme at {address}. To see which accounts have one: ",
        code=1,
    )
    assert again.endswith("/fastn-mcp profiles")


def test_logout_of_all_deletes_the_keys_of_all_accounts(
    login: Run, environment: dict[str, str], fastn: Run, address: str, config: Path
) -> None:
    config.write_text(config.read_text() + '[profiles.globex]\nenv = "test"\n')
    login(KEY, "acme", "--stdin")
    login(KEY, "globex", "--stdin", "--file")
    assert "Leave out PROFILE" in error_line(fastn("logout", "acme", "--all"))
    done = fastn("logout", "--all")
    assert [line.partition(" was removed from ")[0] for line in done.stdout.splitlines()[:-1]] == [
        f"The key for {name} at {address}" for name in ("acme", "globex")
    ]
    assert done.stdout.splitlines()[-1].startswith("They still work.")
    assert stored_keys(environment) == {}
    assert not (config.parent / "keys" / "globex.key").exists()
    assert error_line(fastn("logout", "--all"), code=1) == "No account has a stored key."


def test_logout_names_the_place_of_a_key_that_login_did_not_store(config: Path, fastn: Run, address: str) -> None:
    of_default = error_line(fastn("logout", env={"FASTN_API_KEY": CANARY}), code=1)
    assert of_default == (
        f"There is no stored key for default at {address}. Its key comes from the environment: FASTN_API_KEY."
    )
    config.write_text(config.read_text() + f'api_key = "{CANARY}"\n')
    assert error_line(fastn("logout", "acme"), code=1).endswith(f"Its key comes from api_key in {config}.")


# --- whoami ------------------------------------------------------------------------------------------------------


def test_whoami_shows_the_account_the_key_and_the_mode(login: Run, fastn: Run, address: str, config: Path) -> None:
    login(KEY, "acme", "--stdin")
    (config.parent / "policy.toml").write_text("[budget]\ndestroy = 1\n")
    done = fastn("--profile", "acme", "--mode", "read-only", "whoami")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "profile      acme",
        f"host         {address}",
        "environment  test",
        "key          test (not a sandbox: it changes your live connections), from keyring",
        "mode         read-only",
        f"policy       {config.parent / 'policy.toml'}",
        "The key works. Key 'Sandbox': test mode, full access, never expires.",
    ]


def test_whoami_says_when_the_key_expires(login: Run, fastn: Run, account: Sandbox) -> None:
    login(f"key={KEY}", "acme", "--stdin")  # as the file of a created key has it
    row = account.state.named("apiKeys", "Sandbox", by="name")
    row["expiresAt"] = "2999-01-02T03:04:05.678Z"
    output = fastn("--profile", "acme", "whoami").stdout
    row["expiresAt"] = None
    assert re.search(r"full access, expires 2999-01-02 \(in \d+ years\)\.$", output.strip())


def test_whoami_as_json_has_the_same_facts(config: Path, fastn: Run, address: str) -> None:
    assert config.exists()
    env = {"FASTN_API_KEY": LIVE_KEY, "FASTN_MODE": "read-only"}
    found = json.loads(fastn("whoami", "--json", env=env).stdout)
    assert found == found | {
        "profile": "default", "host": address, "key": "live", "key_from": "environment FASTN_API_KEY",
        "mode": "read-only", "policy": None, "works": True,
    }  # fmt: skip
    assert "live_sandbox" not in json.dumps(found)


def test_whoami_exits_1_if_the_key_does_not_work(config: Path, fastn: Run) -> None:
    assert config.exists()
    done = fastn("whoami", env={"FASTN_API_KEY": "not-C4N4RY"})
    assert done.returncode == 1
    assert "key          of unknown kind, so treated as live, from environment FASTN_API_KEY" in done.stdout
    assert done.stderr.startswith("The key does not work. Fastn does not accept the API key (401).")
    assert "C4N4RY" not in done.stdout + done.stderr


def test_key_that_may_not_list_keys_works(config: Path, fastn: Run) -> None:
    """A 403 for the one read shows that the key is known."""
    assert config.exists()
    done = fastn("whoami", env={"FASTN_API_KEY": VIEWER_KEY})
    assert done.returncode == 0
    assert "The key works. It is not allowed to list API keys, so its permissions are unknown." in done.stdout


def test_whoami_of_the_sandbox(fastn: Run) -> None:
    """Its key looks like a test key, which at Fastn acts on live connections."""
    done = fastn("--sandbox", "whoami", env={"FASTN_PROFILE": "acme"})
    assert done.returncode == 0
    assert "live" not in done.stdout
    assert json.loads(fastn("--sandbox", "whoami", "--json").stdout)["sandbox"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sandbox", "--profile", "acme", "whoami"),
        pytest.param(
            ("--sandbox-file", "sandbox.json", "install", "cursor", "--profile", "acme"),
            marks=pytest.mark.extension("install"),
        ),
    ],
)
def test_sandbox_with_a_profile_is_rejected(arguments: tuple[str, ...], fastn: Run) -> None:
    assert "cannot be combined" in error_line(fastn(*arguments))
