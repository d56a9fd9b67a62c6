"""Atomic replacement of other programs' files, unless they changed meanwhile, with backups of the originals.

Owner and mode are preserved. The backups, and the records of what was installed, are in the state folder.
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

from fastn_mcp.config.paths import file_identity, read_regular
from fastn_mcp.extensions.install.edit import Addition

MAX_FILE = 64 << 20

Sync = Callable[[int], None]
"""Function such as `os.fsync`."""


class ChangedMeanwhile(Exception):
    """The file has changed since it was read. Nothing was replaced."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file as it was read; `content` is None if there was none."""

    content: bytes | None
    identity: tuple[int, ...] = ()


def read(path: Path) -> Snapshot:
    """Read a file and its identity. Raises `OSError` unless it is missing."""
    try:
        content, status = read_regular(path, MAX_FILE)
    except FileNotFoundError:
        return Snapshot(None)
    return Snapshot(content, file_identity(status))


def replace(
    path: Path, content: bytes, expected: Snapshot | None = None, *, private: bool = True, sync: Sync = os.fsync
) -> None:
    """Replace a file atomically, and create its missing folders.

    Raises `ChangedMeanwhile` if the file is no longer the `expected` one. Raises `OSError`, with the file as it was,
    also if its owner cannot be preserved.
    """
    create_folders(path.parent)
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
        raise


def delete(path: Path, expected: Snapshot) -> None:
    """Delete a file if it is still the `expected` one. Raises `ChangedMeanwhile` and `OSError`."""
    if _identity_now(path) != expected.identity:
        raise ChangedMeanwhile
    path.unlink(missing_ok=True)


def create_folders(folder: Path, mode: int = 0o777) -> None:
    """Create missing folders. Root gives each to the owner of its parent."""
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            each.mkdir(mode=mode, exist_ok=True)
            _give(each, each.parent.stat(), keep=False)


def _give(path: Path, like: os.stat_result, *, keep: bool) -> None:
    """Give a new file the owner in `like`; unless `keep`, only as root. Raises `OSError` if that fails."""
    if os.name != "posix" or not (keep or os.geteuid() == 0):
        return
    new = path.lstat()
    if (new.st_uid, new.st_gid) != (like.st_uid, like.st_gid):
        os.chown(path, like.st_uid, like.st_gid, follow_symlinks=False)
        if stat.S_ISREG(new.st_mode):  # chown clears set-id bits
            path.chmod(stat.S_IMODE(new.st_mode))


def _identity_now(path: Path) -> tuple[int, ...]:
    try:
        return file_identity(path.stat())
    except FileNotFoundError:
        return ()


class BackupRecord(BaseModel):
    """Record of one installed entry in one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    name: str
    additions: list[Addition]
    after: str
    """Digest of the file as it was written."""
    existed: bool
    replaced: bool
    """Whether it replaced an entry that was not ours."""

    def is_unchanged(self, content: bytes | None) -> bool:
        return content is not None and digest(content) == self.after

    @property
    def entry(self) -> Any:
        return self.additions[0].value


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Backup:
    """Record of one entry, and a copy of what its file was before, in a folder of their own."""

    folder: Path
    copy: Path
    """File with what the client's file held before."""

    @classmethod
    def of(cls, state: Path, path: Path, name: str) -> "Backup":
        """Return the backup in the state folder for the entry of this name in the file at `path`."""
        folder = state / "installed" / hashlib.sha256(f"{path}\0{name}".encode()).hexdigest()[:16]
        return cls(folder, folder / f"before-{path.name.lstrip('.')}")

    def record(self) -> BackupRecord | None:
        """Return the record; None if there is none, or it is not valid."""
        content = read(self._record).content
        try:
            return BackupRecord.model_validate_json(content) if content is not None else None
        except ValidationError:
            return None

    def before(self) -> bytes | None:
        """Return the original content of the file; None if there was no file."""
        return read(self.copy).content

    def keep(self, record: BackupRecord, before: bytes | None) -> None:
        """Store a record, with the original content. Raises `OSError`."""
        create_folders(self.folder, 0o700)
        if before is None:
            self.copy.unlink(missing_ok=True)
        else:
            replace(self.copy, before)
        replace(self._record, record.model_dump_json(indent=2).encode())

    def forget(self, *, keep_copy: bool = False) -> None:
        """Delete the record, and unless `keep_copy` the copy."""
        if keep_copy:
            self._record.unlink(missing_ok=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _record(self) -> Path:
        return self.folder / "record.json"
