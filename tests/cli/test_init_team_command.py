"""`fastn-mcp init-team`: the files and secrets of a team's server, made once."""

import os
import re
import stat
from pathlib import Path

import pytest
from support.command_line import run_command
from support.valkey_server import ValkeyServer

from fastn_mcp.extensions.team.team_config import load_team
from fastn_mcp.tools.tool import Effect

ENV = {"FASTN_CONFIG": os.devnull}


def init(folder: Path, *more: str) -> str:
    done = run_command(["init-team", str(folder), *more], ENV)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    """Replicas that run would lose what they sealed, and Valkey its users."""
    team = tmp_path / "team"
    assert "Next: put the Fastn API key" in init(team, "--url", "https://mcp.example.com/mcp", "--issuer", "https://id")
    (team / "secrets" / "fastn-key").write_text("fsk_live_1")
    before = contents(team)
    message = init(team, "--url", "https://other.example.com/mcp")
    assert contents(team) == before
    assert "fastn-key" not in message
    written = load_team(team / "team.toml")
    assert written.url == "https://mcp.example.com/mcp"
    assert written.approvals is not None
    assert "own" in written.approvals.model_fields_set
    assert written.own_effects(written.tenant[0]).isdisjoint({Effect.ACCESS, Effect.DESTROY})


def test_missing_secret_is_added_to_those_that_are_there(tmp_path: Path) -> None:
    team = tmp_path / "team"
    team.mkdir()
    (team / ".env").write_text("FASTN_MCP_IMAGE=fastn-mcp:here\nFASTN_STATE_SECRET=mine-of-more-than-32-characters!!!")
    init(team)
    lines = (team / ".env").read_text().splitlines()
    assert lines[:2] == ["FASTN_MCP_IMAGE=fastn-mcp:here", "FASTN_STATE_SECRET=mine-of-more-than-32-characters!!!"]
    assert [line.partition("=")[0] for line in lines[2:]] == ["VALKEY_PASSWORD"]


def test_users_without_their_password_are_kept(tmp_path: Path) -> None:
    """A new password would be another than that of the users."""
    team = tmp_path / "team"
    init(team)
    (team / ".env").write_text("")
    users = (team / "valkey.acl").read_bytes()
    done = run_command(["init-team", str(team)], ENV)
    assert done.returncode == 2
    assert "has no VALKEY_PASSWORD" in done.stderr
    assert (team / "valkey.acl").read_bytes() == users
    assert (team / ".env").read_text() == ""


def test_address_that_cannot_be_served_leaves_no_team_file(tmp_path: Path) -> None:
    done = run_command(["init-team", str(tmp_path / "team"), "--url", "http://mcp.example.com/mcp"], ENV)
    assert done.returncode == 2
    assert not (tmp_path / "team" / "team.toml").exists()


@pytest.mark.posix
def test_modes_are_those_that_compose_needs(tmp_path: Path) -> None:
    team = tmp_path / "team"
    init(team)
    (team / "secrets" / "another").touch(mode=0o600)
    init(team)
    modes = {str(path.relative_to(team)): stat.S_IMODE(path.stat().st_mode) for path in (team, *team.rglob("*"))}
    files = {"team.toml", "valkey.acl", "secrets/fastn-key", "secrets/approvals-client", "secrets/another"}
    assert modes == {".": 0o700, "secrets": 0o755, ".env": 0o600, **dict.fromkeys(files, 0o644)}


def test_user_of_valkey_may_use_the_ledger_and_nothing_else(tmp_path: Path) -> None:
    """docs/team-server.md: anybody may ping, as the health check does."""
    team, data = tmp_path / "team", tmp_path / "data"
    init(team)
    data.mkdir()
    match = re.search(r"^VALKEY_PASSWORD=(.+)$", (team / ".env").read_text(), re.MULTILINE)
    assert match is not None
    assert match[1] not in (team / "valkey.acl").read_text()
    server = ValkeyServer(data, ("--aclfile", str(team / "valkey.acl"))).start()
    try:
        assert server.ask("PING") == "+PONG\r\n"
        assert server.ask("GET", "{fastn}:a").startswith("-NOAUTH") or "NOPERM" in server.ask("GET", "{fastn}:a")
        as_user = ("AUTH", "fastn", match[1])
        assert server.ask_all(as_user, ("SET", "{fastn}:a", "1"), ("GET", "{fastn}:a")) == "+OK\r\n+OK\r\n$1\r\n1\r\n"
        for command in (("GET", "other"), ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "SET", "save", ""), ("ACL", "LIST")):
            assert "NOPERM" in server.ask_all(as_user, command)
    finally:
        server.stop()


@pytest.mark.posix
@pytest.mark.parametrize(
    ("name", "is_dangling"),
    [
        ("", False),
        ("", True),
        ("secrets", False),
        (".env", False),
        (".env", True),
        ("team.toml", False),
        ("valkey.acl", False),
        ("secrets/fastn-key", False),
        ("secrets/approvals-client", False),
    ],
)
def test_link_is_refused_and_what_it_leads_to_stays_closed(name: str, is_dangling: bool, tmp_path: Path) -> None:
    team, private = tmp_path / "team", tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "key").write_text("C4N4RY")
    (private / "key").chmod(0o600)
    link = team / name
    link.parent.mkdir(parents=True, exist_ok=True)
    to = private if name in ("", "secrets") else private / "key"
    link.symlink_to(tmp_path / "nowhere" if is_dangling else to)
    done = run_command(["init-team", str(team)], ENV)
    assert done.returncode == 2
    assert f"{link} is a symbolic link. Nothing was changed." in done.stderr
    if name:
        assert [path for path in team.rglob("*") if path.is_file() and not path.is_symlink()] == []
    assert contents(private) == {"key": b"C4N4RY"}
    assert [path.stat().st_mode & 0o777 for path in (private, private / "key")] == [0o700, 0o600]
    assert not (tmp_path / "nowhere").exists()
