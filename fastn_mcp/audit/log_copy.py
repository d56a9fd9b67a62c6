"""Comparison of an audit log with the copy of it that a collector stored."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import AliasPath, BaseModel, Field

from fastn_mcp.audit.chain import End, is_unaltered, link_of

SCOPE = "fastn_mcp.audit"
"""Instrumentation scope of exported entries, which tells them from other log records."""

LOG = "fastn_mcp.audit.log"
"""Attribute with the name of the log: the machine and the path."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as the far side stored it. `log` is empty where only the line is stored."""

    log: str
    line: bytes


@dataclass(frozen=True, slots=True)
class CopyComparison:
    """Numbers of entries by what was found about them."""

    same: tuple[int, ...]
    """Entries that are here and there, and equal."""
    missing: tuple[int, ...]
    """Entries of this log that the far side should have."""
    waiting: tuple[int, ...]
    """Entries of this log that are not exported yet."""
    different: tuple[int, ...]
    """Entries that are here and there, each intact, and not the same."""
    extra: tuple[int, ...]
    """Entries that only the far side has, although this log should."""
    deleted: tuple[int, ...]
    """Entries that only the far side has, because this log begins after them."""
    altered: int
    """Stored records that do not match their own hash."""
    repeated: int
    """Stored records that are equal to an earlier one."""
    others: tuple[str, ...]
    """Names of the other logs in the copy."""

    @property
    def is_proven(self) -> bool:
        """Whether the two agree, apart from entries that are not exported yet."""
        return bool(self.same) and not (self.missing or self.different or self.extra or self.altered)


class _Attribute(BaseModel):
    key: str = ""
    value: str = Field("", validation_alias=AliasPath("value", "stringValue"))


class _Record(BaseModel):
    body: str = Field("", validation_alias=AliasPath("body", "stringValue"))
    attributes: list[_Attribute] = []


class _ScopeLogs(BaseModel):
    scope: str = Field("", validation_alias=AliasPath("scope", "name"))
    records: list[_Record] = Field([], validation_alias="logRecords")


class _ResourceLogs(BaseModel):
    scopes: list[_ScopeLogs] = Field([], validation_alias="scopeLogs")


class _Logs(BaseModel):
    """OTLP logs as JSON, as far as they are read."""

    resources: list[_ResourceLogs] = Field(validation_alias="resourceLogs")


def stored(lines: Iterable[bytes]) -> Iterator[StoredEntry]:
    """Yield the audit entries of a file: OTLP logs as JSON lines (`otlp_json` of the collector), or lines of a log.

    Other records are skipped. Raises `ValueError` for a line that is neither.
    """
    for line in map(bytes.strip, lines):
        if link_of(line) is not None:
            yield StoredEntry("", line)
        elif line:
            for resource in _Logs.model_validate_json(line).resources:
                for logs in resource.scopes:
                    if logs.scope == SCOPE:
                        yield from map(_entry, logs.records)


def _entry(record: _Record) -> StoredEntry:
    log = next((each.value for each in record.attributes if each.key == LOG), "")
    return StoredEntry(log, record.body.encode())


def _copies_by_log(there: Iterable[StoredEntry]) -> Mapping[str, list[tuple[int, str] | None]]:
    """Return the numbers and hashes of stored entries, by the name of their log; None for one that was altered."""
    logs: defaultdict[str, list[tuple[int, str] | None]] = defaultdict(list)
    for entry in there:
        link = link_of(entry.line)
        is_intact = link is not None and is_unaltered(entry.line)
        logs[entry.log].append((link[1].n, link[1].head) if link is not None and is_intact else None)
    return logs


def compare(here: Iterable[bytes], there: Iterable[StoredEntry], exported: int | None) -> CopyComparison:
    """Compare the lines of a log with stored entries. Duplicates are allowed, and entries of other logs are left out.

    A stored log is this one if it has an entry of it, whatever its name. `exported`: number of the newest entry that
    the collector accepted; None if that is not known, and then every entry should be there.
    """
    links = [*filter(None, map(link_of, here))]
    ours = {end.n: end.head for _, end in links}
    start = links[0][0] if links else End()
    logs = _copies_by_log(there)
    same_log = [name for name, copies in logs.items() if any(each and ours.get(each[0]) == each[1] for each in copies)]
    records = [each for name in same_log for each in logs[name]]
    intact = {each for each in records if each is not None}
    numbers = {n for n, _ in intact}
    absent = sorted(ours.keys() - numbers)
    newest = max({*absent} if exported is None else {exported, *numbers}, default=0)
    different = {n for n, head in intact if ours.get(n, start.head if n == start.n else head) != head}
    return CopyComparison(
        same=tuple(sorted(n for n, head in intact if ours.get(n) == head)),
        missing=tuple(n for n in absent if n <= newest),
        waiting=tuple(n for n in absent if n > newest),
        different=tuple(sorted(different)),
        extra=tuple(sorted(n for n in numbers - ours.keys() if n > start.n)),
        deleted=tuple(sorted(n for n in numbers - ours.keys() if n <= start.n)),
        altered=sum(each is None for each in records),
        repeated=sum(each is not None for each in records) - len(intact),
        others=tuple(sorted(logs.keys() - same_log)),
    )
