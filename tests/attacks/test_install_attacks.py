"""Installing into a client's file loses neither concurrent writes of the client, nor a link, nor an owner."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.command_line import run_command

from fastn_mcp.config.command_line import CommandLine
from fastn_mcp.extensions.install import apply, edit
from fastn_mcp.extensions.install.apply import Target
from fastn_mcp.extensions.install.clients import BY_NAME, additions
from fastn_mcp.extensions.install.edit import Format, NotInstalled

CLAUDE = BY_NAME["claude-code"]
OURS = additions(CLAUDE, "fastn", CommandLine("fastn-mcp", ("--sandbox",)), "profile", "linux")
ROOT = os.name == "posix" and os.geteuid() == 0
SOMEBODY = 65534

needs_root = pytest.mark.skipif(not ROOT, reason="only root writes files of somebody else")


class Client:
    """A client that replaces its whole file on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0
        self.write()

    def write(self) -> None:
        self.written += 1
        there: Any = json.loads(self.path.read_bytes()) if self.path.exists() else {"mcpServers": {"other": {}}}
        draft = self.path.with_name("draft")
        draft.write_text(json.dumps({**there, "started": self.written}, indent=2))
        draft.replace(self.path)

    @property
    def says(self) -> Any:
        return json.loads(self.path.read_bytes())


def install(folder: Path, path: Path, sync: Callable[[int], None], what: Any = OURS) -> apply.FileChange | None:
    again = partial(apply.plan_install, Target.at(CLAUDE, path, "fastn", folder / "state"), what)
    change = again()
    assert change is not None
    return apply.apply(change, again, sync=sync)


@pytest.mark.parametrize("often", [1, 2, 4])
def test_install_keeps_a_concurrent_replacement_by_the_client(tmp_path: Path, often: int) -> None:
    client = Client(tmp_path / ".claude.json")

    def slow(_: int) -> None:
        if client.written <= often:
            client.write()

    install(tmp_path, client.path, slow)
    assert client.says == {
        "mcpServers": {"other": {}, "fastn": OURS[0].value},
        "started": often + 1,
    }


def test_install_keeps_a_concurrent_write_in_place(tmp_path: Path) -> None:
    path = tmp_path / ".claude.json"
    before, after = (f'{{\n  "started": {n},\n  "a": {{\n    "b": 1\n  }}\n}}\n' for n in (1, 2))
    path.write_text(before)

    def slow(_: int) -> None:
        if path.read_text() == before:
            path.write_text(after)

    install(tmp_path, path, slow)
    assert json.loads(path.read_bytes())["started"] == 2


def test_install_gives_up_if_the_client_writes_constantly(tmp_path: Path) -> None:
    client = Client(tmp_path / ".claude.json")
    with pytest.raises(NotInstalled, match=r"keeps changing. Nothing was changed. Close Claude Code"):
        install(tmp_path, client.path, lambda _: client.write())
    assert client.says == {"mcpServers": {"other": {}}, "started": client.written}
    assert client.written < 20
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".claude.json", "installed", "state"]


def test_install_loses_no_write_of_a_client_that_writes_every_30_ms(tmp_path: Path) -> None:
    client = Client(tmp_path / ".claude.json")
    over = threading.Event()
    lost: list[int] = []

    def write() -> None:
        for _ in range(40):
            if over.wait(0.03):
                return
            if client.says["started"] != client.written:
                lost.append(client.written)
            client.write()

    def slow(file: int) -> None:
        over.wait(0.05)
        os.fsync(file)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        with suppress(NotInstalled):  # the client may never pause long enough
            install(tmp_path, client.path, slow)
    finally:
        over.set()
        writing.join(10)
    assert lost == []
    assert client.says["started"] == client.written


def test_uninstall_keeps_a_concurrent_write(tmp_path: Path) -> None:
    """A file that we created, and would delete, belongs to the client after it wrote there."""
    path = tmp_path / ".claude.json"
    install(tmp_path, path, os.fsync)
    again = partial(apply.plan_uninstall, Target.at(CLAUDE, path, "fastn", tmp_path / "state"))
    change = again()
    assert change is not None
    assert change.new is None
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "started": 2}))
    with pytest.raises(NotInstalled, match="Run it again"):
        apply.apply(change, again)
    assert json.loads(path.read_bytes())["started"] == 2


def large(megabytes: float) -> dict[str, Any]:
    """Return a file that has grown like `.claude.json`: a history for each project."""
    entry: Any = {"display": 'mend it // now, "please", [and] /* soon */', "pasted": {}}
    project: Any = {"history": [entry] * 40, "mcpServers": {}, "n": [1, 2.5, None]}
    return {"projects": {f"/srv/ann/{n}": project for n in range(int(megabytes * 330))}, "mcpServers": {"other": {}}}


@pytest.mark.long
@pytest.mark.parametrize(
    ("format_", "begin", "indent"),
    [(Format.JSON, "", 2), (Format.JSON, "", None), (Format.JSONC, "// mine\n", 2)],
)
def test_install_time_is_linear_in_the_file_size(format_: Format, begin: str, indent: int | None) -> None:
    """Eight times the size takes less than 32 times as long; quadratic time would be 64."""
    times: list[float] = []
    for megabytes in (0.5, 4):
        content = (begin + json.dumps(large(megabytes), indent=indent)).encode()
        start = time.process_time()
        then = edit.insert(format_, content, OURS)
        times.append(time.process_time() - start)
        assert edit.load(format_, edit.remove(format_, then, OURS)) == edit.load(format_, content)
    assert times[1] < 32 * times[0]


@pytest.mark.parametrize(
    "text", ['{"a": "' + '\\" ' * 200_000, '{"a": 1} ' + "/* " * 200_000, "[" + ", \n" * 200_000, '"' * 200_001]
)
def test_install_refuses_a_hostile_file_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(apply.UnreadableConfig):
        edit.insert(Format.JSONC, text.encode(), OURS)
    assert time.process_time() - start < 5


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "ann"
    home.mkdir()
    return home


def fastn(home: Path, *words: str, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    return run_command(words, env, folder or home)


def test_install_shows_little_of_a_large_file(home: Path) -> None:
    for indent in (2, None):
        before = json.dumps(large(1), indent=indent)
        (home / ".claude.json").write_text(before)
        done = fastn(home, "install", "claude-code", "--sandbox", "--yes")
        assert (done.returncode, done.stderr) == (0, "")
        assert '"--sandbox"' in done.stdout
        assert len(done.stdout) < 4_000
        assert fastn(home, "uninstall", "claude-code", "--yes").returncode == 0
        assert (home / ".claude.json").read_text() == before


def test_install_leaves_a_dangling_link(home: Path) -> None:
    link, nowhere = home / ".claude.json", home / "vault" / "claude.json"
    link.symlink_to(nowhere)
    done = fastn(home, "install", "claude-code", "--sandbox", "--yes", "--anyway")
    assert done.returncode == 2
    assert f"is a link to {nowhere}, which does not exist" in done.stderr
    assert (link.readlink(), nowhere.parent.exists()) == (nowhere, False)
    (home / ".cursor").symlink_to(home / "elsewhere")
    assert fastn(home, "install", "cursor", "--sandbox", "--yes", "--anyway").returncode == 2
    assert not (home / "elsewhere").exists()


def test_uninstall_removes_its_entry_through_a_link(home: Path) -> None:
    link, real = home / ".claude.json", home / "dotfiles.json"
    real.write_text("{}")
    link.symlink_to(real)
    done = fastn(home, "install", "claude-code", "--sandbox", "--yes")
    assert f"{link} leads to {real}." in done.stdout
    assert f"+++ {real}" in done.stdout
    assert fastn(home, "uninstall", "claude-code", "--yes").returncode == 0
    assert (link.readlink(), real.read_text()) == (real, "{}")


@pytest.mark.parametrize("what", ["file", "folder", "parent"])
def test_install_into_a_project_stays_in_the_project(home: Path, what: str) -> None:
    """A cloned repository can contain links into the user's files."""
    project, theirs = home / "cloned", home / ".vscode"
    project.mkdir()
    theirs.mkdir()
    (theirs / "mcp.json").write_text("{}")
    match what:
        case "file":
            (project / ".vscode").mkdir()
            (project / ".vscode" / "mcp.json").symlink_to(theirs / "mcp.json")
        case "folder":
            (project / ".vscode").symlink_to(theirs)
        case _:
            (project / ".vscode").symlink_to("../.vscode")
    done = fastn(home, "install", "vscode", "--project", "--sandbox", "--yes", folder=project)
    assert done.returncode == 2
    assert f"leads to {theirs / 'mcp.json'}, outside of the project" in done.stderr
    assert (theirs / "mcp.json").read_text() == "{}"


@pytest.mark.skipif(os.name != "posix", reason="pipes with a name are of POSIX")
def test_install_does_not_wait_for_a_pipe(home: Path) -> None:
    os.mkfifo(home / "mcp.json")
    for name in ("mcp.json", "/dev/zero"):
        done = fastn(home, "install", "cursor", "--file", name, "--sandbox", "--yes")
        assert (done.returncode, "Not a regular file" in done.stderr) == (2, True)


def owner(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid, status.st_mode & 0o7777


@needs_root
def test_install_as_root_keeps_the_owner_of_the_file(home: Path) -> None:
    """As `sudo fastn-mcp install` with the user's home: owner, group and mode, there and back."""
    file = home / ".claude.json"
    file.write_text("{}")
    file.chmod(0o640)
    os.chown(file, SOMEBODY, SOMEBODY - 1)
    os.chown(home, SOMEBODY, SOMEBODY)
    for words in (("install", "claude-code", "--sandbox", "--yes"), ("uninstall", "claude-code", "--yes")):
        done = fastn(home, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert owner(file) == (SOMEBODY, SOMEBODY - 1, 0o640)


@needs_root
def test_install_as_root_leaves_new_files_to_the_user(home: Path) -> None:
    os.chown(home, SOMEBODY, SOMEBODY)
    done = fastn(home, "install", "vscode", "--sandbox", "--yes", "--anyway")
    assert (done.returncode, done.stderr) == (0, "")
    created = list(home.rglob("*"))
    assert home / ".config" / "Code" / "User" / "mcp.json" in created
    assert {path for path in created if path.lstat().st_uid != SOMEBODY} == set()
