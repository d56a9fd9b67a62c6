"""Files as they are written here: whole or not at all, with the mode that they had, through links, in new folders."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def read(path: Path) -> bytes | None:
    """What is in it; None where there is none. Raises `OSError`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write(path: Path, content: bytes, *, private: bool = True) -> list[Path]:
    """Write it, and say which folders had to be made, the outermost first. Raises `OSError`."""
    path = path.resolve()  # a link stays a link
    made = [folder for folder in reversed(path.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mode = 0o600 if private else 0o644
    file, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(file, "wb") as writing:
            writing.write(content)
            writing.flush()
            os.fsync(writing.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    return made


def delete(path: Path, made: list[Path]) -> None:
    """Delete it, and of the folders that were made for it those that are empty. Raises `OSError`."""
    path.unlink(missing_ok=True)
    with suppress(OSError):  # one that is not empty stays, and so do those around it
        for folder in reversed(made):
            folder.rmdir()
