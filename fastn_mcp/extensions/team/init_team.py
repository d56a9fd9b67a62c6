"""`fastn-mcp init-team`: make a folder with a team file and the secrets of a team server. It overwrites nothing."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

import click

from fastn_mcp.cli.layout import say
from fastn_mcp.config.paths import write_private
from fastn_mcp.errors import SettingsError, os_reason

_TEAM = """\
# One server for a team. docs/team-server.md says what each key means.
url = {url}
issuer = {issuer}

[limits]
drain_seconds = 5

[approvals]
client_id = "fastn-approvals"
client_secret_file = "secrets/approvals-client"
# Effects of calls that the person who asks for them may approve. ACCESS (roles, keys, secrets, invitations)
# and DESTROY (deletions for good) are left out: somebody else approves these. `own = true` stands for all effects.
own = ["WRITE", "EXTERNAL", "SPEND", "TRASH"]

[[approvals.approver]]
groups = ["fastn-approvers"]

[[tenant]]
name = "team"
groups = ["fastn-admins"]
api_key_file = "secrets/fastn-key"
mode = "guarded"
"""

_ACL = """\
user default on nopass resetkeys resetchannels -@all +ping
user fastn on #{digest} resetchannels ~{{fastn}}:* -@all +@read +@write +@scripting -@dangerous +ping +info +wait \
+time +config|get
"""
"""Users of Valkey: anybody may ping, and `fastn` may use the ledger of this name and nothing else."""

_ENV = ".env"
_FILE = "team.toml"
_USERS = "valkey.acl"
_SECRETS = "secrets"
_TO_FILL = {
    "fastn-key": "the Fastn API key of the account",
    "approvals-client": "the client secret of the approval page",
}
_STATE_VARIABLE = "FASTN_STATE_SECRET"
_VALKEY_VARIABLE = "VALKEY_PASSWORD"


@click.command(name="init-team")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--url", default="https://fastn-mcp.example.com/mcp", help="Public address of /mcp, for a new team file.")
@click.option("--issuer", default="https://login.example.com", help="Identity provider, for a new team file.")
def init_team(folder: Path, url: str, issuer: str) -> None:
    """Create FOLDER with a team file and the secrets of a team server. Existing files are not changed.

    The state secret and Valkey's password go into .env, Valkey's users into valkey.acl. Run it again after you have
    filled in the secrets: it sets file modes so that only you can read FOLDER, and the containers' user can read the
    mounted files.
    """
    _refuse_links(folder)
    try:
        created = [*_secrets_of(folder), *_team_file(folder, url, issuer)]
        for name in _TO_FILL:
            if not (folder / _SECRETS / name).exists():
                write_private(folder / _SECRETS / name, "")
        _set_modes(folder)
    except OSError as error:
        why = os_reason(error)
        raise SettingsError(f"{error.filename or folder} cannot be written: {why}.", "Name another folder.") from None
    say(f"Created: {', '.join(created)}." if created else "All files existed already. Their modes are set.")
    for name, what in _TO_FILL.items():
        if not (folder / _SECRETS / name).stat().st_size:
            say(f"Next: put {what} into {folder / _SECRETS / name}")


def _refuse_links(folder: Path) -> None:
    """Raise `SettingsError` for a symbolic link: what it leads to would be read, written, or opened to others."""
    inside = [folder / name for name in (_ENV, _FILE, _USERS, _SECRETS)]
    for path in (folder, *inside, *(folder / _SECRETS / name for name in _TO_FILL)):
        if path.is_symlink():
            raise SettingsError(
                f"{path} is a symbolic link. Nothing was changed.",
                f"Replace the link by its target, or remove it: rm {path}",
            )


def _secrets_of(folder: Path) -> list[str]:
    """Add the secrets that are missing. Return what was made. Raises `SettingsError` if they contradict each other."""
    env = folder / _ENV
    users = folder / _USERS
    before = env.read_text(encoding="utf-8") if env.exists() else ""
    present = dict(re.findall(r"^(\w+)=(.*)$", before, re.MULTILINE))
    if users.exists() and not present.get(_VALKEY_VARIABLE):
        raise SettingsError(
            f"{users} exists, but {env} has no {_VALKEY_VARIABLE}.", f"Delete {users} to create both again."
        )
    added: Mapping[str, str] = {
        name: secrets.token_hex(32) for name in (_STATE_VARIABLE, _VALKEY_VARIABLE) if not present.get(name)
    }
    if added:
        lines = "".join(f"{name}={value}\n" for name, value in added.items())
        write_private(env, before + ("\n" if before and not before.endswith("\n") else "") + lines)
    created = [f"{name} in {_ENV}" for name in added]
    if not users.exists():
        password = {**present, **added}[_VALKEY_VARIABLE]
        write_private(users, _ACL.format(digest=hashlib.sha256(password.encode()).hexdigest()), replace=False)
        created.append(_USERS)
    return created


def _team_file(folder: Path, url: str, issuer: str) -> list[str]:
    """Write the team file unless there is one. Raises `SettingsError` if the addresses cannot be used."""
    from fastn_mcp.extensions.team.team_config import load_team  # deferred import: what serves a team

    file = folder / _FILE
    if file.exists():
        return []
    write_private(file, _TEAM.format(url=json.dumps(url), issuer=json.dumps(issuer)), replace=False)
    try:
        load_team(file)
    except SettingsError:
        file.unlink()
        raise
    return [_FILE]


def _set_modes(folder: Path) -> None:
    """Close the folder, and let user 10001 of the containers read what is mounted from it. No link is followed."""
    _set_mode(folder, 0o700)
    _set_mode(folder / _SECRETS, 0o755)
    _set_mode(folder / _ENV, 0o600)
    for file in (folder / _FILE, folder / _USERS, *(folder / _SECRETS).iterdir()):
        if file.is_file() and not file.is_symlink():
            _set_mode(file, 0o644)


def _set_mode(path: Path, mode: int) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
