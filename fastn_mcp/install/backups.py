"""What was installed and what was there before, in the state folder."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fastn_mcp.install import files
from fastn_mcp.install.addition import Addition, Trace


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
        content = files.read(self._home(path, name) / "record.json").content
        try:
            return BackupRecord.model_validate_json(content) if content is not None else None
        except ValidationError:
            return None

    def before(self, path: Path, name: str) -> bytes | None:
        """What the file was before; None where there was none."""
        return files.read(self.copy(path, name)).content

    def copy(self, path: Path, name: str) -> Path:
        """Where the copy of the file is."""
        return self._home(path, name) / f"before-{path.name.lstrip('.')}"

    def keep(self, record: BackupRecord, before: bytes | None) -> None:
        """Note it, with a copy of what was there. Raises `OSError`."""
        home = self._home(record.path, record.name)
        files.create_folders(home, 0o700)
        copy = self.copy(record.path, record.name)
        if before is None:
            copy.unlink(missing_ok=True)
        else:
            files.replace(copy, before)
        files.replace(home / "record.json", record.model_dump_json(indent=2).encode())

    def forget(self, path: Path, name: str, *, keep_copy: bool = False) -> None:
        """It is no longer there."""
        home = self._home(path, name)
        if keep_copy:
            (home / "record.json").unlink(missing_ok=True)
        else:
            shutil.rmtree(home, ignore_errors=True)

    def _home(self, path: Path, name: str) -> Path:
        return self.folder / hashlib.sha256(f"{path}\0{name}".encode()).hexdigest()[:16]
