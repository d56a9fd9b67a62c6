"""Show how a client's file changes, and write exactly that."""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from fastn_mcp.install import edit, files
from fastn_mcp.install.clients import Format, McpClient
from fastn_mcp.install.edit import Addition, NoPlace, NotInstalled, UnreadableConfig, found
from fastn_mcp.install.files import BackupRecord, Backups, digest
from fastn_mcp.redaction import shorten

_ATTEMPTS = 5
"""How often a change is worked out again, where the client writes its file meanwhile."""
_WIDEST = 300
"""Letters of a line that a diff shows."""
_CONTEXT = 3


@dataclass(frozen=True, slots=True)
class Target:
    """One client's file, and the name of our entry in it."""

    client: McpClient
    path: Path
    """As it is named; `file` is where that leads."""
    name: str
    private: bool
    """Not for others to read: the user's own, and not a project's."""
    file: Path

    @classmethod
    def at(cls, client: McpClient, path: Path, name: str, *, project: Path | None = None) -> "Target":
        """The target at a path. Raises `NotInstalled` for a link in a circle, or out of the `project`."""
        try:
            file = path.resolve()
        except (OSError, RuntimeError):
            raise NotInstalled(f"{path} is a link to itself.", "Remove the link.") from None
        if project is not None and not file.is_relative_to(project.resolve()):
            raise NotInstalled(
                f"{path} leads to {file}, outside of the project.", f"To change that file, name it: --file {file}"
            )
        return cls(client, path, name, project is None, file)

    def dangling(self) -> Path | None:
        """The link on the way that leads to nothing."""
        return next((each for each in (self.path, *self.path.parents) if each.is_symlink() and not each.exists()), None)


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file as it is, and as it would be; None is no file. `record` is what to note, None where to forget."""

    target: Target
    seen: files.Snapshot
    then: bytes | None
    record: BackupRecord | None
    before: bytes | None
    """What was there before anything of ours."""
    keep_copy: bool = False
    folders: tuple[Path, ...] = ()

    @property
    def now(self) -> bytes | None:
        return self.seen.content

    def diff(self) -> str:
        """What changes, line by line, in the file that changes."""
        name = str(self.target.file)
        from_, to = (name if it is not None else "/dev/null" for it in (self.now, self.then))
        return "\n".join((f"--- {from_}", f"+++ {to}", *self._hunk()))

    def has_same_lines(self, other: "FileChange") -> bool:
        """Whether it adds and removes the same lines, wherever in the file they are."""
        mine, theirs = ([line for line in each._hunk() if line[0] in "-+"] for each in (self, other))
        return mine == theirs and (self.then is None) == (other.then is None)

    def _hunk(self) -> Iterator[str]:
        """The lines around what changes, which is all in one place: a search for more takes long in a large file."""
        now, then = (("" if it is None else it.decode("utf-8")).splitlines() for it in (self.now, self.then))
        first = _alike(now, then)
        last = min(_alike(now[::-1], then[::-1]), min(len(now), len(then)) - first)
        start = max(first - _CONTEXT, 0)
        end = max(last - _CONTEXT, 0)
        now, then = now[start : len(now) - end], then[start : len(then) - end]
        if len(now) == 1 == len(then):
            now, then = _cut(now[0], then[0])
        for line in list(difflib.unified_diff(now, then, lineterm="", n=_CONTEXT))[2:]:
            if line.startswith("@@"):
                yield re.sub(r"(?<=[-+])\d+", lambda number: str(int(number[0]) + start), line)
            else:
                yield shorten(line, _WIDEST)


def installing(
    target: Target, additions: Sequence[Addition], records: Backups, *, overwrite: bool = False
) -> FileChange | None:
    """What installing would change; None where it is so already. Raises `NotInstalled`."""
    if (link := target.dangling()) is not None:
        raise NotInstalled(
            f"{link} is a link to {link.resolve()}, which does not exist.",
            "Create what it leads to, or remove the link.",
        )
    seen = _read(target.file)
    now = seen.content
    known = records.of(target.path, target.name)
    base, folders = now, list[Path]()
    there = found(_load(target, now), additions[0])
    ours = known is not None and there is not None
    if there is not None and known is not None and edit.same(there, known.entry):
        if edit.same(known.entry, additions[0].value):
            return None
        base, folders = _taken(target, now, known, records), known.folders
    elif there is not None and not overwrite:
        changed = "It was installed by fastn-mcp, and changed since." if ours else "It was not installed by fastn-mcp."
        raise NotInstalled(
            f"{target.path} has an entry {target.name!r} already. {changed}",
            "Replace it with --replace, or choose another name with --name.",
        )
    content = base or b""
    document = _load(target, base)
    wanted = [one for one in additions if one.key is not None or found(document, one) is None]
    try:
        then, traces = edit.put(target.client.format, content, wanted)
    except NoPlace as place:
        raise NotInstalled(
            f"In {target.path}, {place} cannot take an entry.",
            "Correct it there, or print the entry and put it in by hand: fastn-mcp install json",
        ) from None
    record = BackupRecord(
        path=target.path,
        name=target.name,
        additions=wanted,
        traces=traces,
        after=digest(then),
        existed=base is not None,
        folders=folders,
        replaced=there is not None and base is now,
    )
    return FileChange(target, seen, then, record, base)


def uninstalling(target: Target, records: Backups) -> FileChange | None:
    """What uninstalling would change; None where the entry is gone already. Raises `NotInstalled`."""
    known = records.of(target.path, target.name)
    seen = _read(target.file)
    now = seen.content
    if known is None:
        there = now is not None and found(_load(target, now), Addition((target.client.servers,), target.name, None))
        what = f"The entry {target.name!r} in {target.path}" if there else f"{target.path} has no entry that"
        raise NotInstalled(
            f"{what} was {'not ' if there else ''}installed by fastn-mcp.",
            "Remove it by hand." if there else "Name the place as you did then: --project, --file, --name.",
        )
    if now is None or found(_load(target, now), known.additions[0]) is None:
        records.forget(target.path, target.name)
        return None
    then = _taken(target, now, known, records)
    restored = known.is_unchanged(now)
    return FileChange(
        target,
        seen,
        then,
        None,
        None,
        keep_copy=known.replaced and not restored,
        folders=tuple(known.folders),
    )


def apply(
    change: FileChange, again: Callable[[], FileChange | None], records: Backups, *, sync: files.Sync = os.fsync
) -> FileChange | None:
    """Make it so, and return what was made; None where it became so meanwhile.

    Where the client changed its file since, the same is done to what it is now: `again` works that out. Raises
    `NotInstalled`, with everything as it was.
    """
    for _ in range(_ATTEMPTS):
        try:
            _apply(change, records, sync)
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


def _apply(change: FileChange, records: Backups, sync: files.Sync) -> None:
    path, name, file = change.target.path, change.target.name, change.target.file
    known, copy = records.of(path, name), records.before(path, name)
    made: list[Path] = []
    try:
        if change.record is not None:
            records.keep(change.record, change.before)
        if change.then is None:
            files.delete(file, change.seen)
            files.remove_folders(list(change.folders))
        else:
            made = files.replace(file, change.then, change.seen, private=change.target.private, sync=sync)
    except (OSError, files.ChangedMeanwhile) as error:
        records.forget(path, name)
        if known is not None:
            records.keep(known, copy)
        if isinstance(error, files.ChangedMeanwhile):
            raise
        raise NotInstalled(f"{file} cannot be written: {error.strerror or error}.") from None
    if change.record is None:
        records.forget(path, name, keep_copy=change.keep_copy)
    elif made:
        records.keep(change.record.model_copy(update={"folders": made}), change.before)


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many lines, or letters, are the same from the beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _cut(one: str, other: str) -> tuple[list[str], list[str]]:
    """Of two long lines, what is around the first difference."""
    if max(len(one), len(other)) <= _WIDEST:
        return [one], [other]
    start = max(_alike(one, other) - _WIDEST // 3, 0)
    return [f"… {one[start:]}"], [f"… {other[start:]}"]


def _taken(target: Target, now: bytes | None, known: BackupRecord, records: Backups) -> bytes | None:
    """The file without our entry: what it was, if nobody has changed it since."""
    if known.is_unchanged(now):
        before = records.before(target.path, target.name)
        if before is not None or not known.existed:
            return before
    try:
        return edit.take(target.client.format, now or b"", known.additions, known.traces)
    except NoPlace:
        raise NotInstalled(
            f"{target.path} was changed since, and our entry cannot be removed without changing the rest.",
            f"Remove the entry {target.name!r} by hand. What the file was: {records.copy(target.path, target.name)}",
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
