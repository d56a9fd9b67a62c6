"""Works out how a client's file changes, shows it, and makes it so. What is written is what was shown, or nothing."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastn_mcp.installing import documents, files
from fastn_mcp.installing.addition import Addition, NoPlace, Unreadable, found
from fastn_mcp.installing.clients import Client, Format
from fastn_mcp.installing.records import Record, Records, digest
from fastn_mcp.installing.refusal import NotInstalled


@dataclass(frozen=True, slots=True)
class Change:
    """A file as it is, and as it would be; None is no file. `record` is what to note, None where to forget."""

    path: Path
    name: str
    now: bytes | None
    then: bytes | None
    record: Record | None
    before: bytes | None
    """What was there before anything of ours."""
    keep_copy: bool = False
    folders: tuple[Path, ...] = ()

    def diff(self) -> str:
        """What changes, line by line."""
        name = str(self.path)
        now, then = (("" if it is None else it.decode("utf-8")).splitlines() for it in (self.now, self.then))
        from_, to = (name if it is not None else "/dev/null" for it in (self.now, self.then))
        return "\n".join(difflib.unified_diff(now, then, from_, to, lineterm=""))


@dataclass(frozen=True, slots=True)
class Target:
    """One client's file, and the name of our entry in it."""

    client: Client
    path: Path
    name: str
    private: bool
    """Not for others to read: the user's own, and not a project's."""


def installing(
    target: Target, additions: Sequence[Addition], records: Records, *, overwrite: bool = False
) -> Change | None:
    """What installing would change; None where it is so already. Raises `NotInstalled`."""
    now = _read(target.path)
    known = records.of(target.path, target.name)
    base, folders = now, list[Path]()
    there = found(_load(target, now), additions[0])
    ours = known is not None and there is not None
    if there is not None and known is not None and documents.same(there, known.entry):
        if documents.same(known.entry, additions[0].value):
            return None
        base, folders = _taken(target, now, known, records), known.folders
    elif there is not None and not overwrite:
        changed = "It was installed by fastn-mcp, and changed since." if ours else "It is not by fastn-mcp."
        raise NotInstalled(
            f"{target.path} has an entry {target.name!r} already. {changed}",
            "Put ours in its place with --replace, or give ours another name with --name.",
        )
    content = base or b""
    document = _load(target, base)
    wanted = [one for one in additions if one.key is not None or found(document, one) is None]
    try:
        then, traces = documents.put(target.client.format, content, wanted)
    except NoPlace as place:
        raise NotInstalled(
            f"In {target.path}, {place} cannot take an entry.",
            "Correct it there, or print the entry and put it in by hand: fastn-mcp install json",
        ) from None
    record = Record(
        path=target.path,
        name=target.name,
        additions=wanted,
        traces=traces,
        after=digest(then),
        existed=base is not None,
        folders=folders,
        replaced=there is not None and base is now,
    )
    return Change(target.path, target.name, now, then, record, base)


def uninstalling(target: Target, records: Records) -> Change | None:
    """What uninstalling would change; None where the entry is gone already. Raises `NotInstalled`."""
    known = records.of(target.path, target.name)
    now = _read(target.path)
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
    return Change(
        target.path,
        target.name,
        now,
        then,
        None,
        None,
        keep_copy=known.replaced and not restored,
        folders=tuple(known.folders),
    )


def apply(change: Change, records: Records, *, private: bool) -> None:
    """Make it so. Raises `NotInstalled`, with everything as it was."""
    if _read(change.path) != change.now:
        raise NotInstalled(f"{change.path} was changed by somebody while you were asked.", "Run it again.")
    known, copy = records.of(change.path, change.name), records.before(change.path, change.name)
    try:
        if change.record is not None:
            records.keep(change.record, change.before)
        if change.then is None:
            files.delete(change.path, list(change.folders))
            made = []
        else:
            made = files.write(change.path, change.then, private=private)
    except OSError as error:
        records.forget(change.path, change.name)
        if known is not None:
            records.keep(known, copy)
        raise NotInstalled(f"{change.path} cannot be written: {error.strerror or error}.") from None
    if change.record is None:
        records.forget(change.path, change.name, keep_copy=change.keep_copy)
    elif made:
        records.keep(change.record.model_copy(update={"folders": made}), change.before)


def _taken(target: Target, now: bytes | None, known: Record, records: Records) -> bytes | None:
    """The file without our entry: what it was, if nobody has changed it since."""
    if known.is_unchanged(now):
        before = records.before(target.path, target.name)
        if before is not None or not known.existed:
            return before
    try:
        return documents.take(target.client.format, now or b"", known.additions, known.traces)
    except NoPlace:
        raise NotInstalled(
            f"{target.path} was changed since, and our entry cannot be taken out without touching the rest.",
            f"Remove the entry {target.name!r} by hand. What the file was: {records.copy(target.path, target.name)}",
        ) from None


def _load(target: Target, content: bytes | None) -> object:
    try:
        return documents.load(target.client.format, content or b"")
    except Unreadable as why:
        kind = Format.JSON if target.client.format is Format.JSONC else target.client.format
        raise NotInstalled(f"{target.path} is not {kind.value}: {why}.", "Correct it, and run this again.") from None


def _read(path: Path) -> bytes | None:
    try:
        return files.read(path)
    except OSError as error:
        raise NotInstalled(f"{path} cannot be read: {error.strerror or error}.") from None
