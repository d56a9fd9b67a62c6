"""Reads regular files that a person names. Nothing else is opened, so no pipe blocks and no device fills the memory."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

LARGEST = 4 << 20
"""Bytes of a file that a person writes."""


def read_regular(
    path: Path, largest: int = LARGEST, *, check: Callable[[int], None] | None = None
) -> tuple[bytes, os.stat_result]:
    """The content and the status of a regular file. Raises `OSError`, also for anything else and for a larger file.

    `check` gets the descriptor before anything is read.
    """
    _check(path.stat(), path, largest)  # opening a device can do something
    # A pipe that replaced the file since then does not block either.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        _check(status, path, largest)
        if check is not None:
            check(file.fileno())
        content = file.read(largest + 1)
    if len(content) > largest:
        raise _too_large(path, largest)
    return content, status


def _check(status: os.stat_result, path: Path, largest: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    if status.st_size > largest:
        raise _too_large(path, largest)


def _too_large(path: Path, largest: int) -> OSError:
    return OSError(errno.EFBIG, f"Larger than {largest >> 20} MiB", str(path))
