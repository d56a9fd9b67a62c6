"""Store in one JSON file: small, and slow once the journal is long, since each commit writes the whole file.

A lock beside the file is held while it is read and written, so of two commits that expect the same version one is made.
"""

import json
import os
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import filelock

from fastn_mcp.ledger.store import Commit, Document, LedgerUnusable, Store, Write
from fastn_mcp.runtime import System

_LOCK_SECONDS = 10
_POLL_SECONDS = 0.002
_PAUSE = 0.05
"""Seconds between two looks for news."""


@dataclass
class Content:
    """What the file holds."""

    revision: int = 0
    documents: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """By key: value, version, indexes and until."""

    def document(self, key: str) -> Document:
        stored = self.documents[key]
        return Document(key, stored["value"], stored["version"])

    def version(self, key: str) -> int:
        return self.documents[key]["version"] if key in self.documents else 0


class JsonFileStore(Store):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = filelock.FileLock(f"{path}.lock", timeout=_LOCK_SECONDS, poll_interval=_POLL_SECONDS, mode=0o600)

    @contextmanager
    def _open(self) -> Iterator[Content]:
        """Lock the file and read it. Raises `LedgerUnusable`."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._lock:
                yield Content(**json.loads(self._path.read_bytes())) if self._path.exists() else Content()
        except (OSError, ValueError, TypeError) as error:  # a lock that is not free is a TimeoutError
            raise LedgerUnusable(str(self._path), type(error).__name__, "restore it from a copy.") from None

    def _write(self, content: Content) -> None:
        """Replace the file, durably: after a crash it is the old or the new one."""
        new = self._path.with_name(f"{self._path.name}.new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump({"revision": content.revision, "documents": content.documents}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def read(self, keys: Collection[str]) -> dict[str, Document]:
        with self._open() as content:
            return {key: content.document(key) for key in keys if key in content.documents}

    async def scan(
        self,
        indexes: Collection[str],
        low: float = -inf,
        high: float = inf,
        *,
        newest: bool = False,
        limit: int | None = None,
    ) -> list[Document]:
        found: list[Document] = []
        with self._open() as content:
            for index in indexes:
                scores = {key: each["indexes"].get(index) for key, each in content.documents.items()}
                within = [(score, key) for key, score in scores.items() if score is not None and low < score <= high]
                found += [content.document(key) for _, key in sorted(within, reverse=newest)[:limit]]
        return found

    async def commit(self, expected: Mapping[str, int], writes: Sequence[Write], *, is_news: bool = False) -> Commit:
        with self._open() as content:
            if any(content.version(key) != version for key, version in expected.items()):
                return Commit(found={key: content.document(key) for key in expected if key in content.documents})
            content.revision += 1
            for write in writes:
                if write.value is None:
                    content.documents.pop(write.key, None)
                else:
                    content.documents[write.key] = {
                        "value": write.value,
                        "version": content.revision,
                        "indexes": dict(write.indexes),
                        "until": write.until,
                    }
            self._write(content)
            return Commit(content.revision)

    async def forget(self, now: float) -> None:
        with self._open() as content:
            over = [
                key for key, each in content.documents.items() if each["until"] is not None and each["until"] <= now
            ]
            for key in over:
                del content.documents[key]
            if over:
                self._write(content)

    async def revision(self) -> int:
        with self._open() as content:
            return content.revision

    async def wait(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        while (current := str(await self.revision())) == seen and seconds > 0:
            await sleep(min(_PAUSE, seconds))
            seconds -= _PAUSE
        return current

    async def aclose(self) -> None:
        """Nothing is open."""


def path_of(url: str) -> Path:
    """Return the path in `jsonfile://PATH`. Raises `ValueError`."""
    path = Path(url.removeprefix("jsonfile://"))
    if not path.is_absolute():
        raise ValueError("is not jsonfile:// and an absolute path, such as jsonfile:///var/lib/fastn/ledger.json")
    return path


# --- the door ---


def open_store(url: str, system: System) -> JsonFileStore:
    return JsonFileStore(path_of(url))
