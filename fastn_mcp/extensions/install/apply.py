"""Compute the change to a client's file, show it as a diff, and apply exactly that."""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from fastn_mcp.extensions.install import edit, files
from fastn_mcp.extensions.install.clients import Format, McpClient
from fastn_mcp.extensions.install.edit import Addition, NoPlace, NotInstalled, UnreadableConfig, find
from fastn_mcp.extensions.install.files import Backup, BackupRecord, digest
from fastn_mcp.redaction import shorten

_MAX_ATTEMPTS = 5
"""How often a change is computed again if the client writes its file meanwhile."""
_MAX_LINE = 300
_CONTEXT = 3


@dataclass(frozen=True, slots=True)
class Target:
    """One client's file, and the name of our entry in it."""

    client: McpClient
    path: Path
    """Path as given; `file` is the same with its links resolved."""
    name: str
    private: bool
    """Whether a new file is readable by its owner only: not so for a project's file."""
    file: Path
    backup: Backup

    @classmethod
    def at(cls, client: McpClient, path: Path, name: str, state: Path, *, project: Path | None = None) -> "Target":
        """Return the target at a path, with its backup in the folder `state`.

        Raises `NotInstalled` for a circular link, or one out of the `project`.
        """
        try:
            file = path.resolve()
        except (OSError, RuntimeError):
            raise NotInstalled(f"{path} is a link to itself.", "Remove the link.") from None
        if project is not None and not file.is_relative_to(project.resolve()):
            raise NotInstalled(
                f"{path} leads to {file}, outside of the project.", f"To change that file, name it: --file {file}"
            )
        backup = Backup.of(state, path, name)
        return cls(client, path, name, private=project is None, file=file, backup=backup)


@dataclass(frozen=True, slots=True)
class FileChange:
    """Content of a file before and after a change; None is no file. Without a `record` the stored one is deleted."""

    target: Target
    snapshot: files.Snapshot
    new: bytes | None
    record: BackupRecord | None
    before: bytes | None
    """Content before any entry of ours."""
    keep_copy: bool = False

    def diff(self) -> str:
        """Return the unified diff of the resolved file."""
        name = str(self.target.file)
        from_, to = (name if content is not None else "/dev/null" for content in (self.snapshot.content, self.new))
        return "\n".join((f"--- {from_}", f"+++ {to}", *self._hunk()))

    def has_same_lines(self, other: "FileChange") -> bool:
        """Whether both changes add and remove the same lines, at any position in the file."""
        mine, theirs = ([line for line in each._hunk() if line[0] in "-+"] for each in (self, other))
        return mine == theirs and (self.new is None) == (other.new is None)

    def _hunk(self) -> Iterator[str]:
        """Yield the diff of the only region that changes, which is cut out first: large files take long to diff."""
        contents = (self.snapshot.content, self.new)
        current, new = ((content or b"").decode("utf-8").splitlines() for content in contents)
        first = _common_prefix(current, new)
        last = min(_common_prefix(current[::-1], new[::-1]), min(len(current), len(new)) - first)
        start = max(first - _CONTEXT, 0)
        end = max(last - _CONTEXT, 0)
        current = current[start : len(current) - end]
        new = new[start : len(new) - end]
        if len(current) == 1 == len(new):
            current, new = _cut_lines(current[0], new[0])
        for line in list(difflib.unified_diff(current, new, lineterm="", n=_CONTEXT))[2:]:
            if line.startswith("@@"):
                yield re.sub(r"(?<=[-+])\d+", lambda number: str(int(number[0]) + start), line)
            else:
                yield shorten(line, _MAX_LINE)


def plan_install(target: Target, additions: Sequence[Addition], *, overwrite: bool = False) -> FileChange | None:
    """Return the change that installs an entry; None if the file has it already. Raises `NotInstalled`."""
    for link in (each for each in (target.path, *target.path.parents) if each.is_symlink() and not each.exists()):
        raise NotInstalled(
            f"{link} is a link to {link.resolve()}, which does not exist.",
            "Create what it leads to, or remove the link.",
        )
    snapshot = _read(target.file)
    current = snapshot.content
    known = target.backup.record()
    base = current
    existing = find(_load(target, current), additions[0])
    ours = known is not None and existing is not None
    if existing is not None and known is not None and edit.same(existing, known.entry):
        if edit.same(known.entry, additions[0].value):
            return None
        base = _without_entry(target, current, known)
    elif existing is not None and not overwrite:
        changed = (
            "It was installed by fastn-mcp, and has been changed since."
            if ours
            else "It was not installed by fastn-mcp."
        )
        raise NotInstalled(
            f"{target.path} has an entry {target.name!r} already. {changed}",
            "Replace it with --replace, or choose another name with --name.",
        )
    content = base or b""
    document = _load(target, base)
    wanted = [addition for addition in additions if addition.key is not None or find(document, addition) is None]
    try:
        new = edit.insert(target.client.format, content, wanted)
    except NoPlace as place:
        raise NotInstalled(
            f"In {target.path}, {place} cannot take an entry.",
            "Correct it there, or print the entry and put it in by hand: fastn-mcp install json",
        ) from None
    except ValueError:
        raise NotInstalled(
            f"The entry cannot be put into {target.path} without changing the rest.",
            "Print the entry and put it in by hand: fastn-mcp install json",
        ) from None
    record = BackupRecord(
        path=target.path,
        name=target.name,
        additions=wanted,
        after=digest(new),
        existed=base is not None,
        replaced=existing is not None and base is current,
    )
    return FileChange(target, snapshot, new, record=record, before=base)


def plan_uninstall(target: Target) -> FileChange | None:
    """Return the change that removes an entry; None if it is gone already. Raises `NotInstalled`."""
    known = target.backup.record()
    snapshot = _read(target.file)
    current = snapshot.content
    if known is None:
        addition = Addition(target.client.servers, target.name, None)
        is_there = current is not None and find(_load(target, current), addition)
        subject = f"The entry {target.name!r} in {target.path}" if is_there else f"{target.path} has no entry that"
        raise NotInstalled(
            f"{subject} was {'not ' if is_there else ''}installed by fastn-mcp.",
            "Remove it by hand." if is_there else "Use the options you installed with: --project, --file or --name.",
        )
    if current is None or find(_load(target, current), known.additions[0]) is None:
        target.backup.forget()
        return None
    new = _without_entry(target, current, known)
    keep_copy = known.replaced and not known.is_unchanged(current)
    return FileChange(target, snapshot, new, record=None, before=None, keep_copy=keep_copy)


def apply(
    change: FileChange, again: Callable[[], FileChange | None], *, sync: files.Sync = os.fsync
) -> FileChange | None:
    """Apply a change, and return the applied change; None if none is needed any more.

    If the client changed its file meanwhile, `again` computes the change anew, and it must have the same lines as
    the one shown. Raises `NotInstalled`, with everything as it was.
    """
    for _ in range(_MAX_ATTEMPTS):
        try:
            _apply(change, sync)
        except files.ChangedMeanwhile:
            newer = again()
            if newer is None:
                return None
            if not newer.has_same_lines(change):
                raise NotInstalled(
                    f"{change.target.file} changed meanwhile, so the change would differ from the one shown.",
                    "Run it again.",
                ) from None
            change = newer
        else:
            return change
    title = change.target.client.title
    raise NotInstalled(f"{change.target.file} keeps changing.", f"Close {title}, and run it again.")


def _apply(change: FileChange, sync: files.Sync) -> None:
    file = change.target.file
    backup = change.target.backup
    known = backup.record()
    copy = backup.before()
    try:
        if change.record is not None:
            backup.keep(change.record, change.before)
        if change.new is None:
            files.delete(file, change.snapshot)
        else:
            files.replace(file, change.new, change.snapshot, private=change.target.private, sync=sync)
    except (OSError, files.ChangedMeanwhile) as error:
        backup.forget()
        if known is not None:
            backup.keep(known, copy)
        if isinstance(error, files.ChangedMeanwhile):
            raise
        raise NotInstalled(f"{file} cannot be written: {error.strerror or error}.") from None
    if change.record is None:
        backup.forget(keep_copy=change.keep_copy)


def _common_prefix(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _cut_lines(one: str, other: str) -> tuple[list[str], list[str]]:
    """Cut two long lines to what surrounds their first difference."""
    if max(len(one), len(other)) <= _MAX_LINE:
        return [one], [other]
    start = max(_common_prefix(one, other) - _MAX_LINE // 3, 0)
    return [f"… {one[start:]}"], [f"… {other[start:]}"]


def _without_entry(target: Target, current: bytes | None, known: BackupRecord) -> bytes | None:
    """Return the file without the entry: its original content, if nobody has changed it since."""
    if known.is_unchanged(current):
        before = target.backup.before()
        if before is not None or not known.existed:
            return before
    try:
        return edit.remove(target.client.format, current or b"", known.additions)
    except ValueError:
        raise NotInstalled(
            f"{target.path} has been changed since, and the entry cannot be removed without changing the rest.",
            f"Remove the entry {target.name!r} by hand. A copy of the old file: {target.backup.copy}",
        ) from None


def _load(target: Target, content: bytes | None) -> object:
    try:
        return edit.load(target.client.format, content or b"")
    except UnreadableConfig as why:
        kind = Format.JSON if target.client.format is Format.JSONC else target.client.format
        raise NotInstalled(f"{target.path} is not {kind.value}: {why}.", "Correct it, and run this again.") from None


def _read(path: Path) -> files.Snapshot:
    try:
        return files.read(path)
    except OSError as error:
        raise NotInstalled(f"{path} cannot be read: {error.strerror or error}.") from None
