"""Installing and uninstalling on real files: the original is restored, and other entries are left alone."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastn_mcp.config.command_line import CommandLine
from fastn_mcp.extensions.install import apply
from fastn_mcp.extensions.install.apply import Target
from fastn_mcp.extensions.install.clients import BY_NAME, additions
from fastn_mcp.extensions.install.edit import NotInstalled
from fastn_mcp.extensions.install.files import Snapshot

CURSOR = BY_NAME["cursor"]
OURS = additions(CURSOR, "fastn", CommandLine("fastn-mcp", ("--sandbox",)), "profile", "linux")
OTHER = additions(CURSOR, "fastn", CommandLine("fastn-mcp", ("--profile", "acme")), "profile", "linux")


class ClientFile:
    """One client's file, and the records of what we installed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "home" / "new" / "mcp.json"
        self.folder = folder
        self.resolve()

    def resolve(self, project: Path | None = None) -> None:
        self.target = Target.at(CURSOR, self.path, "fastn", self.folder / "state", project=project)

    def write(self, content: bytes, mode: int = 0o644) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(content)
        self.path.chmod(mode)

    def install(self, what: Any = OURS, *, overwrite: bool = False) -> apply.FileChange | None:
        again = partial(apply.plan_install, self.target, what, overwrite=overwrite)
        change = again()
        return None if change is None else apply.apply(change, again)

    def uninstall(self) -> apply.FileChange | None:
        again = partial(apply.plan_uninstall, self.target)
        change = again()
        return None if change is None else apply.apply(change, again)

    def tree(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    @property
    def document(self) -> Any:
        return json.loads(self.path.read_bytes())


@pytest.fixture
def client(tmp_path: Path) -> ClientFile:
    (tmp_path / "home").mkdir()
    return ClientFile(tmp_path)


@pytest.mark.posix
def test_created_file_is_removed_again(client: ClientFile) -> None:
    client.install()
    assert client.document == {"mcpServers": {"fastn": OURS[0].value}}
    assert client.path.stat().st_mode & 0o777 == 0o600
    client.uninstall()
    assert client.tree() == ["home", "home/new", "state", "state/installed"]


@pytest.mark.posix
@pytest.mark.parametrize(
    "content", [b"", b"\xef\xbb\xbf{}", b'{\r\n// x\r\n"a":1,\r\n}', b'{"mcpServers":{"b":{}}}\n\n']
)
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_existing_file_is_restored(client: ClientFile, content: bytes, mode: int) -> None:
    client.write(content, mode)
    client.install()
    copy = client.target.backup.copy
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (
        content, 0o600, 0o700,
    )  # fmt: skip
    assert client.path.stat().st_mode & 0o777 == mode
    assert client.path.read_bytes() != content
    client.install(OTHER)
    assert b"acme" in client.path.read_bytes()
    client.uninstall()
    assert (client.path.read_bytes(), client.path.stat().st_mode & 0o777) == (content, mode)
    assert "state/installed" in client.tree()
    assert not any(path.startswith("state/installed/") for path in client.tree())


@pytest.mark.posix
def test_file_that_is_a_link_stays_one(client: ClientFile) -> None:
    """Many keep their configuration in a repository."""
    real = client.folder / "dotfiles.json"
    real.write_bytes(b'{"a": 1}')
    client.path.parent.mkdir()
    client.path.symlink_to(real)
    client.resolve()
    client.install()
    assert client.path.is_symlink()
    assert "mcpServers" in json.loads(real.read_bytes())
    client.uninstall()
    assert (client.path.is_symlink(), real.read_bytes()) == (True, b'{"a": 1}')


def test_uninstall_removes_only_our_entry_from_a_changed_file(client: ClientFile) -> None:
    client.write(b'{\n  // mine\n  "a": 1\n}\n')
    client.install()
    client.path.write_bytes(client.path.read_bytes().replace(b'"a": 1', b'"a": 2'))
    client.uninstall()
    assert client.path.read_bytes() == b'{\n  "mcpServers": {},\n  // mine\n  "a": 2\n}\n'


def test_foreign_entry_is_replaced_only_with_overwrite(client: ClientFile) -> None:
    theirs = b'{"mcpServers": {"fastn": {"url": "https://fastn.example"}}}'
    client.write(theirs)
    with pytest.raises(NotInstalled, match=r"not installed by fastn-mcp\. Nothing was changed\. .*--replace.*--name"):
        client.install()
    with pytest.raises(NotInstalled, match=r"was not installed by fastn-mcp. Nothing was changed. Remove it by hand"):
        client.uninstall()
    assert client.path.read_bytes() == theirs
    client.install(overwrite=True)
    assert client.document == {"mcpServers": {"fastn": OURS[0].value}}
    client.uninstall()
    assert client.path.read_bytes() == theirs


def test_backup_of_a_replaced_entry_is_kept_if_the_file_changed(client: ClientFile) -> None:
    client.write(b'{"mcpServers": {"fastn": {"url": "x"}}}')
    client.install(overwrite=True)
    client.path.write_bytes(client.path.read_bytes() + b"\n")
    change = client.uninstall()
    assert change is not None
    assert change.keep_copy
    assert client.document == {"mcpServers": {}}
    assert client.target.backup.copy.read_bytes() == b'{"mcpServers": {"fastn": {"url": "x"}}}'
    with pytest.raises(NotInstalled, match="has no entry that was installed"):
        client.uninstall()


def test_own_entry_that_was_changed_counts_as_foreign(client: ClientFile) -> None:
    client.install()
    client.path.write_bytes(client.path.read_bytes().replace(b"--sandbox", b"--read-only"))
    with pytest.raises(NotInstalled, match="installed by fastn-mcp, and has been changed since"):
        client.install()
    client.uninstall()
    assert client.document == {"mcpServers": {}}


def test_uninstall_of_a_missing_entry_does_nothing(client: ClientFile) -> None:
    client.write(b"{}")
    client.install()
    client.path.write_bytes(b'{"b": 2}')
    assert client.uninstall() is None
    assert client.path.read_bytes() == b'{"b": 2}'
    with pytest.raises(NotInstalled, match="Use the options you installed with"):
        client.uninstall()


def test_change_other_than_the_one_shown_is_not_made(client: ClientFile) -> None:
    """The client may write its file while a person reads."""
    client.write(b"{}")
    again = partial(apply.plan_install, client.target, OURS)
    change = again()
    assert change is not None
    client.path.write_bytes(b'{"mcpServers": {"other": {}}}')
    with pytest.raises(NotInstalled, match=r"would differ from the one shown. Nothing was changed. Run it"):
        apply.apply(change, again)
    assert client.path.read_bytes() == b'{"mcpServers": {"other": {}}}'
    assert client.tree() == ["home", "home/new", "home/new/mcp.json", "state", "state/installed"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a" 1}', r"is not JSON: line 1, column 6.*Correct it, and run this again"),
        (b'{"mcpServers": []}', "mcpServers cannot take an entry.*fastn-mcp install json"),
        (b"\xff", "is not JSON: it is not UTF-8"),
    ],
)
def test_file_that_cannot_be_changed_safely_is_unchanged(client: ClientFile, content: bytes, expected: str) -> None:
    client.write(content)
    with pytest.raises(NotInstalled, match=expected):
        client.install()
    assert client.path.read_bytes() == content


def test_folder_in_place_of_the_file_is_reported(client: ClientFile) -> None:
    client.path.mkdir(parents=True)
    with pytest.raises(NotInstalled, match=r"cannot be read: Is a directory\. Nothing was changed"):
        client.install()


def test_failed_write_leaves_no_trace(client: ClientFile) -> None:
    client.folder.joinpath("home", "new").write_bytes(b"a file where a folder has to be")
    change = apply.FileChange(client.target, Snapshot(None), b"{}", None, None)
    with pytest.raises(NotInstalled):
        client.install()
    with pytest.raises(NotInstalled):
        apply.apply(change, lambda: None)
    assert client.target.backup.record() is None


@pytest.mark.posix
def test_failed_second_entry_keeps_the_record_of_the_first(client: ClientFile) -> None:
    client.write(b"{}")
    client.install()
    first, copy = client.target.backup.record(), client.target.backup.before()
    longest = client.path.with_name("x" * 250)  # a longer name cannot be created beside it
    client.path.rename(longest)
    client.path.symlink_to(longest)
    client.resolve()
    with pytest.raises(NotInstalled, match=r"cannot be written: .*\. Nothing was changed"):
        client.install(OTHER)
    assert (client.target.backup.record(), client.target.backup.before()) == (first, copy)
    assert client.document == {"mcpServers": {"fastn": OURS[0].value}}


def test_deleted_file_is_not_restored(client: ClientFile) -> None:
    client.write(b'{"a": 1}')
    client.install()
    client.path.unlink()
    client.install()
    client.uninstall()
    assert not client.path.exists()


def test_unreadable_record_counts_as_missing(client: ClientFile) -> None:
    client.install()
    (client.target.backup.copy.parent / "record.json").write_text('{"path": 1}')
    assert client.target.backup.record() is None
    with pytest.raises(NotInstalled, match=r"not installed by fastn-mcp"):
        client.install(OTHER)


def test_uninstall_without_a_backup_removes_the_entry_alone(client: ClientFile) -> None:
    client.write(b'{"a": 1}')
    client.install()
    client.target.backup.copy.unlink()
    client.uninstall()
    assert client.document == {"mcpServers": {}, "a": 1}


def test_entry_that_cannot_be_removed_alone_is_left(client: ClientFile) -> None:
    client.write(b'{"a": 1}')
    client.install()
    content = client.path.read_bytes().replace(b'"fastn"', b'"fastn": {"x": 1}, "fastn"')
    client.path.write_bytes(content)
    with pytest.raises(NotInstalled, match=r"removed without changing the rest.*by hand.*before-mcp.json"):
        client.uninstall()
    assert client.path.read_bytes() == content


def test_entry_that_cannot_be_put_in_leaves_the_file(client: ClientFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise json.JSONDecodeError("Expecting ',' delimiter", "", 0)

    content = b'{"mcpServers": {"fastn": {"command": "x"}}}'
    client.write(content)
    monkeypatch.setattr("fastn_mcp.extensions.install.edit.insert", fail)
    with pytest.raises(NotInstalled, match=r"cannot be put into .* without changing the rest"):
        client.install(overwrite=True)
    assert client.path.read_bytes() == content


def test_existing_inputs_are_used_and_not_removed(tmp_path: Path) -> None:
    vscode = BY_NAME["vscode"]
    client = ClientFile(tmp_path)
    client.target = Target.at(vscode, client.path, "fastn", client.folder / "state")
    client.write(b'{"inputs": [{"id": "fastn-api-key", "type": "promptString"}]}')
    client.install(additions(vscode, "fastn", CommandLine("x"), "prompt"))
    assert len(client.document["inputs"]) == 1
    client.path.write_bytes(client.path.read_bytes() + b"\n")
    client.uninstall()
    assert client.document["inputs"] == [{"id": "fastn-api-key", "type": "promptString"}]


@pytest.mark.posix
def test_new_project_file_is_readable_by_others(client: ClientFile) -> None:
    """It holds nothing that others must not read."""
    client.resolve(project=client.folder)
    client.install()
    assert client.path.stat().st_mode & 0o777 == 0o644
