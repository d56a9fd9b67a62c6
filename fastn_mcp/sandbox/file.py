"""Keeps the state in a file. The only module of the sandbox that touches the disk."""

import json
import os
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout
from pydantic import JsonValue

from fastn_mcp.errors import SettingsError
from fastn_mcp.sandbox.run_history import RunSeries
from fastn_mcp.sandbox.state import SandboxState

_PATIENCE = 30
"""Seconds to wait for another process that is at work on the file."""


class StateFile:
    """One JSON file, readable by its owner alone, replaced as a whole. Several processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=_PATIENCE, mode=0o600)
        self._known: tuple[int, int, int] | None = None

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other processes from the file. Raises `SettingsError` where one of them does not let go of it."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with self._lock:
                yield
        except Timeout:
            raise SettingsError(
                f"The sandbox's file {self._path} is locked by another process.",
                "End that process, or name another file.",
            ) from None

    def read_changed(self, randomness: Callable[[int], random.Random]) -> SandboxState | None:
        """The state that another process left; None where the file is as this process left it, or is not there.

        Raises `SettingsError` where it holds something else.
        """
        try:
            found = self._path.stat()
            known = (found.st_ino, found.st_mtime_ns, found.st_size)
            if known == self._known:
                return None
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(type(error).__name__) from error
        try:
            dumped = json.loads(text)
            state = SandboxState.load(
                cast("dict[str, JsonValue]", dumped if isinstance(dumped, dict) else {}), randomness
            )
            RunSeries.of(state)
        except (ValueError, RecursionError) as error:
            raise self._unreadable("it is not a sandbox's state") from error
        self._known = known
        return state

    def write(self, state: SandboxState) -> None:
        """Whole or not at all: a reader, or a crash, finds the old file or the new one."""
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            draft.unlink()
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(state.dump(), separators=(",", ":")))
        draft.replace(self._path)
        written = self._path.stat()
        self._known = (written.st_ino, written.st_mtime_ns, written.st_size)

    def _unreadable(self, reason: str) -> SettingsError:
        return SettingsError(
            f"The sandbox's file {self._path} cannot be read ({reason}).",
            "Remove it to begin with fresh data, or name another file.",
        )
