"""A policy or configuration file, or a state folder, that others can change or replace is not used."""

import os
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.command_line import run_command
from support.other_user import needs_two_users

from fastn_mcp.config.file import read
from fastn_mcp.config.paths import require_own_folder
from fastn_mcp.errors import SettingsError
from fastn_mcp.policy.policy_file import load_rules

READERS: dict[str, Callable[[Path], object]] = {"config.toml": read, "policy.toml": load_rules}
TEXT = {"config.toml": 'mode = "read-only"\n', "policy.toml": '[[rule]]\ntool = "delete_*"\nthen = "deny"\n'}


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(name: str, tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    (folder / name).write_text(TEXT[name])
    (folder / name).chmod(0o600)
    return folder / name


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o720])
def test_folder_writable_by_others_is_refused_with_the_fix(mode: int, name: str, file: Path) -> None:
    file.parent.chmod(mode)
    with pytest.raises(SettingsError) as refused:
        READERS[name](file)
    assert str(refused.value).endswith(f"Run: chmod go-w {file.parent}")
    file.parent.chmod(mode & ~0o022)
    READERS[name](file)


@pytest.mark.parametrize("theirs", ["the folder of the link", "the folder of the file"])
def test_link_needs_both_of_its_folders_to_be_safe(theirs: str, name: str, file: Path, tmp_path: Path) -> None:
    """The folder of the link decides which file is read, the other one what it holds."""
    links = tmp_path / "links"
    links.mkdir(mode=0o700)
    (links / name).symlink_to(file)
    READERS[name](links / name)
    wide = links if theirs == "the folder of the link" else file.parent
    wide.chmod(0o777)
    with pytest.raises(SettingsError, match=f"Run: chmod go-w {wide}$"):
        READERS[name](links / name)


def test_folder_with_the_sticky_bit_is_accepted(name: str, file: Path) -> None:
    """POSIX: as in /tmp, only the owner of a file can replace it there."""
    file.parent.chmod(0o1777)
    READERS[name](file)


@needs_two_users
@pytest.mark.parametrize("theirs", ["file", "folder"])
def test_file_of_another_user_is_refused(theirs: str, name: str, file: Path) -> None:
    """Owners can change their files whatever the mode is."""
    wrong = file if theirs == "file" else file.parent
    os.chown(wrong, 65534, -1)
    with pytest.raises(SettingsError, match=f"{wrong} belongs to another user.*Run: chown 0 {wrong}$"):
        READERS[name](file)


COMMANDS = {
    "serving": ("--sandbox",),
    "over HTTP": ("--sandbox", "--http", "127.0.0.1:1"),
    "call": ("--sandbox", "call", "get-quotas"),
    "approvals": ("--sandbox", "approvals"),
    "audit": ("--sandbox", "audit", "tail"),
}


def started(command: str, state: Path) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FASTN_")}
    folders = {"FASTN_STATE_DIR": str(state), "FASTN_CONFIG_DIR": str(state.parent / "config")}
    return run_command(COMMANDS[command], inherited | folders | {"COLUMNS": "200"})


@pytest.mark.parametrize("inner", ["", "sandbox"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
@pytest.mark.parametrize("command", COMMANDS)
def test_state_folder_writable_by_others_is_refused(command: str, mode: int, inner: str, tmp_path: Path) -> None:
    """docs/security.md: in such a folder, others can replace the ledger, in which they approve."""
    (tmp_path / "state" / "sandbox").mkdir(parents=True, mode=0o700)
    wide = tmp_path / "state" / inner
    wide.chmod(mode)
    done = started(command, tmp_path / "state")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"{wide} can be changed by users other than its owner. Run: chmod go-w {wide}\n")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    wide.chmod(mode & ~0o022)
    require_own_folder(wide)


def test_state_folder_with_the_sticky_bit_is_refused(tmp_path: Path) -> None:
    """In /tmp, others can be first to create a file."""
    tmp_path.chmod(0o1777)
    with pytest.raises(SettingsError, match=r"Other users can create files.*Name a folder of your own"):
        require_own_folder(tmp_path)


@needs_two_users
def test_state_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", 65534, -1)
    done = started("call", tmp_path / "state")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"belongs to another user of this machine. Run: chown 0 {tmp_path / 'state'}" in done.stderr


@needs_two_users
@pytest.mark.parametrize(("mode", "is_refused"), [(0o2775, False), (0o2770, False), (0o2777, True)])
def test_volume_of_a_cluster_is_accepted_unless_everybody_can_write_it(mode: int, is_refused: bool) -> None:
    """Kubernetes mounts a volume as root, and writable by the group of the pod (fsGroup)."""
    nobody = 65534
    with TemporaryDirectory() as volume:
        os.chown(volume, 0, nobody)
        Path(volume).chmod(mode)
        os.setegid(nobody)
        os.seteuid(nobody)
        try:
            with pytest.raises(SettingsError) if is_refused else nullcontext():
                require_own_folder(Path(volume))
        finally:
            os.seteuid(0)
            os.setegid(0)
