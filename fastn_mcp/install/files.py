"""Replace other programs' files whole, keeping owner and mode, if nobody changed them; keep a copy of what was there.

The copies and the records of what was installed are in the state folder.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fastn_mcp.config.paths import read_regular
from fastn_mcp.install.edit import Addition, Trace

LARGEST = 64 << 20
"""Bytes of a file that is still read."""

Sync = Callable[[int], None]
"""As `os.fsync`."""


class ChangedMeanwhile(Exception):
    """The file is no longer what it was when it was read. Nothing was replaced."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file as it was read; `content` is None where there was none."""

    content: bytes | None
    identity: tuple[int, ...] = ()


def read(path: Path) -> Snapshot:
    """What is in a file, and which state of it that is. Raises `OSError`."""
    try:
        content, status = read_regular(path, LARGEST)
    except FileNotFoundError:
        return Snapshot(None)
    return Snapshot(content, _identity(status))


def replace(
    path: Path, content: bytes, expected: Snapshot | None = None, *, private: bool = True, sync: Sync = os.fsync
) -> list[Path]:
    """Replace the file, and return the folders that had to be created, the outermost first.

    With `expected` only while the file is still that: raises `ChangedMeanwhile`. Raises `OSError` with the file as it
    was, also where its owner could not be kept.
    """
    made = create_folders(path.parent)
    file, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(file, "wb") as writing:
            writing.write(content)
            writing.flush()
            try:
                there = path.stat()
                shutil.copystat(path, draft)
                os.utime(draft)
            except FileNotFoundError:
                there = None
                draft.chmod(0o600 if private else 0o644)
            _give(draft, there or path.parent.stat(), keep=there is not None)
            sync(writing.fileno())
        if expected is not None and _identity_now(path) != expected.identity:
            raise ChangedMeanwhile
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        remove_folders(made)
        raise
    return made


def delete(path: Path, expected: Snapshot) -> None:
    """Delete the file while it is still what it was. Raises `ChangedMeanwhile` and `OSError`."""
    if _identity_now(path) != expected.identity:
        raise ChangedMeanwhile
    path.unlink(missing_ok=True)


def create_folders(folder: Path, mode: int = 0o777) -> list[Path]:
    """Create what is missing of a path, and return it, the outermost first. Root gives it to whoever owns the rest."""
    made = [each for each in reversed((folder, *folder.parents)) if not each.exists()]
    for each in made:
        each.mkdir(mode=mode, exist_ok=True)
        _give(each, each.parent.stat(), keep=False)
    return made


def remove_folders(made: list[Path]) -> None:
    """Remove those that are empty. One that is not stays, and so do those around it."""
    with suppress(OSError):
        for folder in reversed(made):
            folder.rmdir()


def _give(path: Path, like: os.stat_result, *, keep: bool) -> None:
    """Give a new file the owner of another; unless `keep`, only root does so. Raises `OSError` where it cannot."""
    if os.name != "posix" or not (keep or os.geteuid() == 0):
        return
    new = path.lstat()
    if (new.st_uid, new.st_gid) != (like.st_uid, like.st_gid):
        os.chown(path, like.st_uid, like.st_gid, follow_symlinks=False)
        if stat.S_ISREG(new.st_mode):  # the system takes set-id bits away
            path.chmod(stat.S_IMODE(new.st_mode))


def _identity_now(path: Path) -> tuple[int, ...]:
    try:
        return _identity(path.stat())
    except FileNotFoundError:
        return ()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class BackupRecord(BaseModel):
    """One entry of ours in one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    name: str
    additions: list[Addition]
    traces: list[Trace]
    after: str
    """The digest of the file as it was written."""
    existed: bool
    folders: list[Path]
    """Those that were made for it, the outermost first."""
    replaced: bool
    """An entry of somebody else had that name."""

    def is_unchanged(self, content: bytes | None) -> bool:
        return content is not None and digest(content) == self.after

    @property
    def entry(self) -> Any:
        return self.additions[0].value


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Backups:
    """The records in a folder: one folder for each entry."""

    folder: Path

    def of(self, path: Path, name: str) -> BackupRecord | None:
        """The record of an entry; None where it was not made here, or cannot be read."""
        content = read(self._home(path, name) / "record.json").content
        try:
            return BackupRecord.model_validate_json(content) if content is not None else None
        except ValidationError:
            return None

    def before(self, path: Path, name: str) -> bytes | None:
        """What the file was before; None where there was none."""
        return read(self.copy(path, name)).content

    def copy(self, path: Path, name: str) -> Path:
        """Where the copy of the file is."""
        return self._home(path, name) / f"before-{path.name.lstrip('.')}"

    def keep(self, record: BackupRecord, before: bytes | None) -> None:
        """Note it, with a copy of what was there. Raises `OSError`."""
        home = self._home(record.path, record.name)
        create_folders(home, 0o700)
        copy = self.copy(record.path, record.name)
        if before is None:
            copy.unlink(missing_ok=True)
        else:
            replace(copy, before)
        replace(home / "record.json", record.model_dump_json(indent=2).encode())

    def forget(self, path: Path, name: str, *, keep_copy: bool = False) -> None:
        """It is no longer there."""
        home = self._home(path, name)
        if keep_copy:
            (home / "record.json").unlink(missing_ok=True)
        else:
            shutil.rmtree(home, ignore_errors=True)

    def _home(self, path: Path, name: str) -> Path:
        return self.folder / hashlib.sha256(f"{path}\0{name}".encode()).hexdigest()[:16]
