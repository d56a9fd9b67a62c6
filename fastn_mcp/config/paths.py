"""The user's configuration and state folders, and files that nobody else may read or replace.

Permissions are POSIX's. On Windows a user's own folders are closed to others, and nothing is checked.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from fastn_mcp.errors import SettingsError, os_reason

TENANTS = "tenants"
"""Subfolder of the state folder with a folder for each tenant."""

CONFIG = "config.toml"
"""Settings file in the configuration folder."""


def config_dir(environment: Mapping[str, str]) -> Path:
    """Return the folder of settings, policies and stored keys."""
    return _folder("config", environment, "settings")


def state_dir(environment: Mapping[str, str]) -> Path:
    """Return the folder of grants and the audit log."""
    return _folder("state", environment, "approvals and the audit log")


def _folder(kind: Literal["config", "state"], environment: Mapping[str, str], what: str) -> Path:
    """Return a folder of this user. Raises `SettingsError` without HOME: nobody chose the user database's folder."""
    named = environment.get(f"FASTN_{kind.upper()}_DIR")
    if named:
        return Path(named)
    if os.name == "posix" and not (environment.get("HOME") or environment.get(f"XDG_{kind.upper()}_HOME")):
        raise SettingsError(
            f"HOME is not set, so the folder of your {what} is unknown.",
            "Set HOME; or FASTN_CONFIG_DIR (settings) and FASTN_STATE_DIR (approvals and the audit log).",
        )
    import platformdirs  # only for the default

    return platformdirs.user_config_path("fastn-mcp") if kind == "config" else platformdirs.user_state_path("fastn-mcp")


_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def require_own(path: Path, descriptor: int) -> None:
    """Raise `SettingsError` if another user could change or replace the open file at `path`.

    Neither the file nor its folder may be writable by others, or owned by anyone but this user and root. A folder with
    the sticky bit (/tmp) may be writable because only owners replace files there. On a read-only file system nothing is
    checked.
    """
    if os.name != "posix" or os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        return
    status = os.fstat(descriptor)
    _require_own(path, status, writable=bool(status.st_mode & _WRITABLE_BY_OTHERS))
    # For a link, check both folders: the one of the link and the one of the file.
    for folder in {path.absolute().parent, path.resolve().parent}:
        with file_errors(folder, "read"):
            status = folder.stat()
        sticky = bool(status.st_mode & stat.S_ISVTX)
        _require_own(folder, status, writable=bool(status.st_mode & _WRITABLE_BY_OTHERS) and not sticky)


def _require_own(path: Path, status: os.stat_result, *, writable: bool) -> None:
    if writable:
        raise SettingsError(f"{path} can be changed by users other than its owner.", f"Run: chmod go-w {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise SettingsError(f"{path} belongs to another user of this machine.", f"Run: chown {os.geteuid()} {path}")


def require_own_folder(folder: Path) -> None:
    """Raise `SettingsError` if another user could change what is in `folder`. A missing folder is made private later.

    Unlike `require_own`, a sticky bit does not help: in /tmp, others could be first to create a file. Clusters mount
    volumes owned by root and writable by the process's group.
    """
    if os.name != "posix" or not folder.exists():
        return
    with file_errors(folder, "read"):
        status = folder.stat()
    is_mounted = status.st_uid == 0 != os.geteuid() and status.st_gid in {os.getegid(), *os.getgroups()}
    writable = status.st_mode & (stat.S_IWOTH if is_mounted else _WRITABLE_BY_OTHERS)
    if writable and status.st_mode & stat.S_ISVTX:
        raise SettingsError(f"Other users can create files in {folder}.", "Name a folder of your own: FASTN_STATE_DIR.")
    _require_own(folder, status, writable=bool(writable))


@contextmanager
def file_errors(path: Path, done: Literal["read", "written"], next_step: str = "") -> Generator[None]:
    """Turn an `OSError` into a `SettingsError` that says what cannot be done with `path`, and the reason."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"{path} cannot be {done}: {os_reason(error)}.", next_step) from None


def require_private(path: Path, mode: int, what: str) -> None:
    """Raise `SettingsError` if other users can read a file of this `mode`, which holds `what`."""
    if os.name == "posix" and mode & 0o077:
        message = f"{path} holds {what}, and users other than its owner can read it."
        raise SettingsError(message, f"Run: chmod 600 {path}")


def read_private(path: Path) -> str:
    """Read a file that only this user can read. Raises `SettingsError`, also if it is a link."""
    with file_errors(path, "read"):
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(opened, encoding="utf-8", errors="replace") as file:
            status = os.fstat(file.fileno())
            if os.name == "posix":
                if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                    raise SettingsError(f"{path} is not a file of this user.", f"Remove it: rm {path}")
                if status.st_mode & 0o077:
                    raise SettingsError(
                        f"{path} holds a secret, and users other than its owner can read it.",
                        f"Remove it, so that it is created anew: rm {path}",
                    )
            return file.read()


def file_identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what differs once a file was written, replaced, or given to others."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def make_private_folder(folder: Path) -> None:
    """Create the missing folders of a path with mode 0700. Raises `OSError`."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, text: str, *, replace: bool = True, mode: int = 0o600) -> None:
    """Write a file atomically and sync it to disk. Raises `OSError`.

    Missing folders are created with mode 0700. Without `replace`, an existing file stays.
    """
    make_private_folder(path.parent)
    # A new file with a new name, so that nobody else can have it open or read it for a moment.
    written = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(written, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        written.chmod(mode)
        if replace:
            written.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(written, path)
    finally:
        written.unlink(missing_ok=True)


def create_secret(path: Path, token: Callable[[], str], variable: str) -> None:
    """Write a new secret to a private file, unless there is one. Raises `SettingsError`, which names the variable."""
    with file_errors(path, "written", f"Or set {variable}."):
        if not path.exists():
            write_private(path, f"{token()}{token()}\n", replace=False)


MAX_FILE = 4 << 20
"""Maximum size of a file written by a person, in bytes."""


def read_regular(
    path: Path, largest: int = MAX_FILE, *, check: Callable[[int], None] | None = None
) -> tuple[bytes, os.stat_result]:
    """Return content and status of a regular file. Raises `OSError`, also for other kinds of files and larger ones.

    `check` gets the descriptor before anything is read.
    """
    _check(path.stat(), path, largest)  # opening a device can have side effects
    # Do not block if a pipe has replaced the file since.
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
