"""Installing and uninstalling on real files: what was there comes back, and what is not ours is left alone."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastn_mcp.config.command_line import CommandLine
from fastn_mcp.install import apply
from fastn_mcp.install.apply import Target
from fastn_mcp.install.clients import BY_NAME
from fastn_mcp.install.edit import NotInstalled
from fastn_mcp.install.entry import additions
from fastn_mcp.install.files import Backups, Snapshot

CURSOR = BY_NAME["cursor"]
OURS = additions(CURSOR, "fastn", CommandLine("fastn-mcp", ("--sandbox",)), "profile", "linux")
OTHER = additions(CURSOR, "fastn", CommandLine("fastn-mcp", ("--profile", "acme")), "profile", "linux")


class Desk:
    """One client's file, and our records."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "home" / "new" / "mcp.json"
        self.folder = folder
        self.records = Backups(folder / "state" / "installed")
        self.target = Target.at(CURSOR, self.path, "fastn")

    def follow(self, project: Path | None = None) -> None:
        self.target = Target.at(CURSOR, self.path, "fastn", project=project)

    def has(self, content: bytes, mode: int = 0o644) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(content)
        self.path.chmod(mode)

    def install(self, what: Any = OURS, *, overwrite: bool = False) -> apply.FileChange | None:
        again = partial(apply.installing, self.target, what, self.records, overwrite=overwrite)
        change = again()
        return None if change is None else apply.apply(change, again, self.records)

    def uninstall(self) -> apply.FileChange | None:
        again = partial(apply.uninstalling, self.target, self.records)
        change = again()
        return None if change is None else apply.apply(change, again, self.records)

    def tree(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    @property
    def says(self) -> Any:
        return json.loads(self.path.read_bytes())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "home").mkdir()
    return Desk(tmp_path)


def test_a_file_that_was_not_there_is_gone_again_with_its_folders(desk: Desk) -> None:
    """Issue 7. In between, only its owner reads it."""
    desk.install()
    assert desk.says == {"mcpServers": {"fastn": OURS[0].value}}
    assert desk.path.stat().st_mode & 0o777 == 0o600
    desk.uninstall()
    assert desk.tree() == ["home", "state", "state/installed"]


def test_a_folder_that_somebody_uses_stays(desk: Desk) -> None:
    """Ours."""
    desk.install()
    (desk.path.parent / "theirs").touch()
    desk.uninstall()
    assert "home/new/theirs" in desk.tree()


@pytest.mark.parametrize(
    "content", [b"", b"\xef\xbb\xbf{}", b'{\r\n// x\r\n"a":1,\r\n}', b'{"mcpServers":{"b":{}}}\n\n']
)
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_a_file_that_was_there_is_as_it_was(desk: Desk, content: bytes, mode: int) -> None:
    """Issue 7: its bytes, and its mode throughout."""
    desk.has(content, mode)
    desk.install()
    assert desk.path.stat().st_mode & 0o777 == mode
    assert desk.path.read_bytes() != content
    desk.install(OTHER)
    assert b"acme" in desk.path.read_bytes()
    desk.uninstall()
    assert (desk.path.read_bytes(), desk.path.stat().st_mode & 0o777) == (content, mode)
    assert "state/installed" in desk.tree()
    assert not any(path.startswith("state/installed/") for path in desk.tree())


def test_a_link_stays_a_link(desk: Desk) -> None:
    """Ours: many keep their configuration in a repository."""
    real = desk.folder / "dotfiles.json"
    real.write_bytes(b'{"a": 1}')
    desk.path.parent.mkdir()
    desk.path.symlink_to(real)
    desk.follow()
    desk.install()
    assert desk.path.is_symlink()
    assert "mcpServers" in json.loads(real.read_bytes())
    desk.uninstall()
    assert (desk.path.is_symlink(), real.read_bytes()) == (True, b'{"a": 1}')


def test_what_the_file_was_is_kept_for_its_owner(desk: Desk) -> None:
    """Issue 7: it may hold what is secret."""
    desk.has(b'{"secret": 1}')
    desk.install()
    copy = desk.records.copy(desk.path, "fastn")
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (
        b'{"secret": 1}',
        0o600,
        0o700,
    )


def test_installing_twice_is_installing_once(desk: Desk) -> None:
    """Ours."""
    desk.has(b"{}")
    desk.install()
    content = desk.path.read_bytes()
    assert desk.install() is None
    assert desk.path.read_bytes() == content


def test_an_entry_of_ours_is_changed_and_still_comes_out(desk: Desk) -> None:
    """Ours: what is kept is what the file was before the first of them."""
    desk.install()
    change = desk.install(OTHER)
    assert change is not None
    assert '"acme"' in change.diff()
    assert desk.says == {"mcpServers": {"fastn": OTHER[0].value}}
    desk.uninstall()
    assert not desk.path.parent.exists()


def test_after_somebody_changed_the_file_only_our_entry_goes(desk: Desk) -> None:
    """Issue 7: byte for byte otherwise."""
    desk.has(b'{\n  // mine\n  "a": 1\n}\n')
    desk.install()
    desk.path.write_bytes(desk.path.read_bytes().replace(b'"a": 1', b'"a": 2'))
    desk.uninstall()
    assert desk.path.read_bytes() == b'{\n  // mine\n  "a": 2\n}\n'


def test_an_entry_of_somebody_else_is_not_touched_unless_that_is_asked_for(desk: Desk) -> None:
    """Issue 7."""
    theirs = b'{"mcpServers": {"fastn": {"url": "https://fastn.example"}}}'
    desk.has(theirs)
    with pytest.raises(NotInstalled, match=r"not installed by fastn-mcp\. Nothing was changed\. .*--replace.*--name"):
        desk.install()
    with pytest.raises(NotInstalled, match=r"was not installed by fastn-mcp. Nothing was changed. Remove it by hand"):
        desk.uninstall()
    assert desk.path.read_bytes() == theirs
    desk.install(overwrite=True)
    assert desk.says == {"mcpServers": {"fastn": OURS[0].value}}
    desk.uninstall()
    assert desk.path.read_bytes() == theirs


def test_the_entry_that_ours_replaced_is_kept_where_it_cannot_be_put_back(desk: Desk) -> None:
    """Ours: somebody changed the file, so only our entry goes."""
    desk.has(b'{"mcpServers": {"fastn": {"url": "x"}}}')
    desk.install(overwrite=True)
    desk.path.write_bytes(desk.path.read_bytes() + b"\n")
    change = desk.uninstall()
    assert change is not None
    assert change.keep_copy
    assert desk.says == {"mcpServers": {}}
    assert desk.records.copy(desk.path, "fastn").read_bytes() == b'{"mcpServers": {"fastn": {"url": "x"}}}'
    with pytest.raises(NotInstalled, match="has no entry that was installed"):
        desk.uninstall()


def test_an_entry_of_ours_that_somebody_changed_is_theirs(desk: Desk) -> None:
    """Ours: it is replaced only if that is asked for, and still comes out."""
    desk.install()
    desk.path.write_bytes(desk.path.read_bytes().replace(b"--sandbox", b"--read-only"))
    with pytest.raises(NotInstalled, match="installed by fastn-mcp, and changed since"):
        desk.install()
    desk.uninstall()
    assert desk.path.read_bytes().strip() == b""


def test_an_entry_that_is_gone_needs_no_uninstalling(desk: Desk) -> None:
    """Ours: and one that comes back later is not ours."""
    desk.has(b"{}")
    desk.install()
    desk.path.write_bytes(b'{"b": 2}')
    assert desk.uninstall() is None
    assert desk.path.read_bytes() == b'{"b": 2}'
    with pytest.raises(NotInstalled, match="Name the place as you did then"):
        desk.uninstall()


def test_a_change_that_would_no_longer_be_what_was_shown_is_not_made(desk: Desk) -> None:
    """Ours: the client may write its file while a person reads."""
    desk.has(b"{}")
    again = partial(apply.installing, desk.target, OURS, desk.records)
    change = again()
    assert change is not None
    desk.path.write_bytes(b'{"mcpServers": {"other": {}}}')
    with pytest.raises(NotInstalled, match=r"would differ from the one shown. Nothing was changed. Run it"):
        apply.apply(change, again, desk.records)
    assert desk.path.read_bytes() == b'{"mcpServers": {"other": {}}}'
    assert desk.tree() == ["home", "home/new", "home/new/mcp.json", "state", "state/installed"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a" 1}', r"is not JSON: line 1, column 6.*Correct it, and run this again"),
        (b'{"mcpServers": []}', "mcpServers cannot take an entry.*fastn-mcp install json"),
        (b"\xff", "is not JSON: it is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_left(desk: Desk, content: bytes, said: str) -> None:
    """Issue 7."""
    desk.has(content)
    with pytest.raises(NotInstalled, match=said):
        desk.install()
    assert desk.path.read_bytes() == content


def test_a_folder_in_its_place_is_named(desk: Desk) -> None:
    """Ours."""
    desk.path.mkdir(parents=True)
    with pytest.raises(NotInstalled, match=r"cannot be read: Is a directory\. Nothing was changed"):
        desk.install()


def test_what_cannot_be_written_leaves_no_trace(desk: Desk) -> None:
    """Ours: neither of a first entry nor of a second."""
    desk.folder.joinpath("home", "new").write_bytes(b"a file where a folder has to be")
    change = apply.FileChange(desk.target, Snapshot(None), b"{}", None, None)
    with pytest.raises(NotInstalled):
        desk.install()
    with pytest.raises(NotInstalled):
        apply.apply(change, lambda: None, desk.records)
    assert desk.records.of(desk.path, "fastn") is None


def test_a_failed_second_entry_leaves_the_record_of_the_first(desk: Desk) -> None:
    """Ours."""
    desk.has(b"{}")
    desk.install()
    first, copy = desk.records.of(desk.path, "fastn"), desk.records.before(desk.path, "fastn")
    longest = desk.path.with_name("x" * 250)  # nothing longer can be made beside it
    desk.path.rename(longest)
    desk.path.symlink_to(longest)
    desk.follow()
    with pytest.raises(NotInstalled, match=r"cannot be written: .*\. Nothing was changed"):
        desk.install(OTHER)
    assert (desk.records.of(desk.path, "fastn"), desk.records.before(desk.path, "fastn")) == (first, copy)
    assert desk.says == {"mcpServers": {"fastn": OURS[0].value}}


def test_a_file_that_somebody_deleted_does_not_come_back(desk: Desk) -> None:
    """Ours: what it was before that is of no account."""
    desk.has(b'{"a": 1}')
    desk.install()
    desk.path.unlink()
    desk.install()
    desk.uninstall()
    assert not desk.path.exists()


def test_a_record_that_cannot_be_read_is_none(desk: Desk) -> None:
    """Ours: then nothing is known to be ours."""
    desk.install()
    (desk.records.copy(desk.path, "fastn").parent / "record.json").write_text('{"path": 1}')
    assert desk.records.of(desk.path, "fastn") is None
    with pytest.raises(NotInstalled, match=r"not installed by fastn-mcp"):
        desk.install(OTHER)


def test_without_the_copy_the_entry_alone_is_taken_out(desk: Desk) -> None:
    """Ours: somebody emptied the state folder but for the record."""
    desk.has(b'{"a": 1}')
    desk.install()
    desk.records.copy(desk.path, "fastn").unlink()
    desk.uninstall()
    assert desk.path.read_bytes() == b'{"a": 1}'


def test_an_entry_that_cannot_be_taken_out_alone_is_left_to_a_person(desk: Desk) -> None:
    """Ours: and what the file was is named."""
    desk.has(b'{"a": 1}')
    desk.install()
    content = desk.path.read_bytes().replace(b'"fastn"', b'"fastn": {"x": 1}, "fastn"')
    desk.path.write_bytes(content)
    with pytest.raises(NotInstalled, match=r"removed without changing the rest.*by hand.*before-mcp.json"):
        desk.uninstall()
    assert desk.path.read_bytes() == content


def test_inputs_that_are_there_are_used_and_left(tmp_path: Path) -> None:
    """Ours: another entry may refer to them."""
    vscode = BY_NAME["vscode"]
    desk = Desk(tmp_path)
    desk.target = Target.at(vscode, desk.path, "fastn")
    desk.has(b'{"inputs": [{"id": "fastn-api-key", "type": "promptString"}]}')
    desk.install(additions(vscode, "fastn", CommandLine("x"), "prompt"))
    assert len(desk.says["inputs"]) == 1
    desk.path.write_bytes(desk.path.read_bytes() + b"\n")
    desk.uninstall()
    assert desk.says == {"inputs": [{"id": "fastn-api-key", "type": "promptString"}]}


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_a_projects_new_file_is_for_those_who_share_it(desk: Desk) -> None:
    """Ours: it holds nothing that others must not read."""
    desk.follow(project=desk.folder)
    desk.install()
    assert desk.path.stat().st_mode & 0o777 == 0o644
