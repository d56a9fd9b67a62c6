"""A stored key is sent only to the host that it was given for, wherever it is stored."""

import os
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from support.command_line import Run, run_command
from support.identity_provider import listening

KEY = "fsk_live_of_the_owner_0001"
OTHER = "fsk_test_of_somewhere_0002"
WRITTEN: dict[str, str] = {
    "by login --file": "",
    "as api_key": f'api_key = "{KEY}"\n',
    "as api_key_env": 'api_key_env = "OWNERS_KEY"\n',
    "in a profile": f'profile = "acme"\n[profiles.acme]\napi_key = "{KEY}"\n',
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = tmp_path / "config"
    config.mkdir(mode=0o700)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTN_")}
    own = {"FASTN_CONFIG_DIR": str(config), "FASTN_STATE_DIR": str(tmp_path / "state"), "OWNERS_KEY": KEY}

    def made(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        return run_command(arguments, environment | own, given=given)

    return made


@pytest.fixture
def thief() -> Generator[tuple[str, list[str]]]:
    """Run a foreign server that records the heads of requests."""
    heads: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heads.append(str(scope["headers"]))
        await Response(status_code=401)(scope, receive, send)

    with listening(app) as url:
        yield url, heads


@pytest.mark.parametrize("how", WRITTEN)
def test_stored_key_is_not_sent_to_another_host(how: str, run: Run, thief: Any, tmp_path: Path) -> None:
    """docs/security.md: refused before a request, with the next step; the message holds no key."""
    url, heads = thief
    if how == "by login --file":
        assert run("login", "--stdin", "--file", "--no-check", given=KEY).returncode == 0
    else:
        (tmp_path / "config" / "config.toml").write_text(WRITTEN[how])
        (tmp_path / "config" / "config.toml").chmod(0o600)
    done = run("--base-url", url, "call", "list-customers")
    assert done.returncode == 2
    assert f"was given for live.fastn.ai, and is not sent to {url.removeprefix('http://')}." in done.stderr
    assert "Set --base-url or FASTN_BASE_URL to the address of live.fastn.ai; or" in done.stderr
    assert "login NAME" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert heads == []


def test_key_of_another_host_is_replaced_only_on_purpose(run: Run, thief: Any, tmp_path: Path) -> None:
    url, heads = thief
    file = tmp_path / "config" / "keys" / "default.key"
    assert run("login", "--stdin", "--file", "--no-check", given=KEY).returncode == 0
    refused = run("--base-url", url, "login", "--stdin", "--file", "--no-check", given=OTHER)
    assert refused.returncode == 2
    assert "live.fastn.ai" in refused.stderr
    assert "--replace" in refused.stderr
    assert file.read_text() == f"{KEY}\n"
    assert run("login", "--stdin", "--file", "--no-check", given=f"{KEY}x").returncode == 0  # the same host's
    assert run("--base-url", url, "login", "--stdin", "--file", "--no-check", "--replace", given=OTHER).returncode == 0
    assert file.read_text() == f"{OTHER}\n"
    moved = run("--base-url", "https://live.fastn.ai", "call", "list-customers")
    assert "is not sent to live.fastn.ai" in moved.stderr
    run("--base-url", url, "call", "list-customers")
    assert heads
    assert all(OTHER in head and KEY not in head for head in heads)
    result = run("--base-url", "https://live.fastn.ai", "logout")  # for which no key is kept
    assert result.returncode == 1
    assert url.removeprefix("http://") in result.stderr
    assert file.read_text() == f"{OTHER}\n"
    assert run("--base-url", url, "logout").returncode == 0
    assert not file.exists()
    assert "api_key" not in (tmp_path / "config" / "config.toml").read_text()


def test_logout_of_another_host_keeps_the_key_and_reports_it(run: Run, tmp_path: Path) -> None:
    """docs/profiles.md: only the key of the named host is removed, and the message names its host."""
    file = tmp_path / "config" / "keys" / "default.key"
    assert run("login", "--stdin", "--file", "--no-check", given=KEY).returncode == 0
    config = (tmp_path / "config" / "config.toml").read_text()
    other = run("--base-url", "https://other.example", "logout")
    assert (other.returncode, other.stdout) == (1, "")
    assert "The stored key is for default at live.fastn.ai, not for other.example. Nothing was changed." in other.stderr
    assert file.read_text() == f"{KEY}\n"
    assert (tmp_path / "config" / "config.toml").read_text() == config
    done = run("logout")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"The key for default at live.fastn.ai was removed from {file}." in done.stdout
    assert not file.exists()


@pytest.mark.parametrize("value", ["1", "true", '["live.fastn.ai"]', '""', '"https://live.fastn.ai"', '"a b"', "{}"])
@pytest.mark.parametrize("table", ["", "[profiles.acme]\n"])
def test_invalid_host_of_a_key_is_refused(value: str, table: str, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "config" / "config.toml"
    file.write_text(f'{table}api_key = "{KEY}"\napi_key_host = {value}\n')
    file.chmod(0o600)
    done = run("whoami")
    assert done.returncode == 2
    line = 3 if table else 2
    assert f"{file}, line {line}: api_key_host must be a host" in done.stderr
    assert KEY not in done.stderr
