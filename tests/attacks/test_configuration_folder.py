"""A policy or configuration file that others can change or replace is not used."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from other_user import needs_two_users

from fastn_mcp.config.file import read
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.policy_file import load_rules

READERS: dict[str, Callable[[Path], object]] = {"config.toml": read, "policy.toml": load_rules}
TEXT = {"config.toml": 'mode = "auto"\n', "policy.toml": '[[rule]]\ntool = "delete_*"\nthen = "deny"\n'}


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
    """Ours (docs/security.md): in such a folder, others can replace any file."""
    file.parent.chmod(mode)
    with pytest.raises(SettingsError) as refused:
        READERS[name](file)
    assert str(refused.value).endswith(f"Run: chmod go-w {file.parent}")
    file.parent.chmod(mode & ~0o022)
    READERS[name](file)


@pytest.mark.parametrize("theirs", ["the folder of the link", "the folder of the file"])
def test_link_needs_both_of_its_folders_to_be_safe(theirs: str, name: str, file: Path, tmp_path: Path) -> None:
    """Ours: the folder of the link decides which file is read, the other one what it holds."""
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
    """Ours: owners can change their files whatever the mode is."""
    wrong = file if theirs == "file" else file.parent
    os.chown(wrong, 65534, -1)
    with pytest.raises(SettingsError, match=f"{wrong} belongs to another user.*Run: chown 0 {wrong}$"):
        READERS[name](file)
