"""The result of all checks, and proposed settings as TOML."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, cast

import tomlkit


class DoctorExit(IntEnum):
    FINE = 0
    DIFFERENCES = 1
    CANNOT_WORK = 2


Value = str | list[str]


@dataclass(slots=True)
class Proposal:
    """Proposed settings by name, routes by tool, field names by resource. `notes` are comments by setting or tool."""

    settings: dict[str, Value] = field(default_factory=dict[str, Value])
    routes: dict[str, str] = field(default_factory=dict[str, str])
    fields: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    notes: dict[str, str] = field(default_factory=dict[str, str])
    profile: str | None = None
    """Profile in the file that they are for."""

    def __bool__(self) -> bool:
        return bool(self.settings or self.routes or self.fields)

    def toml(self) -> str:
        """Return the settings as TOML, with the notes as comments."""
        top = () if self.profile is None else ("profiles", self.profile)
        tables: dict[tuple[str, ...], Mapping[str, Value]] = {top: self.settings, (*top, "routes"): self.routes}
        tables |= {(*top, "fields", name): names for name, names in self.fields.items()}
        document = tomlkit.document()
        for path, values in tables.items():
            table: Any = document
            for number, name in enumerate(path if values else (), 1):
                table = table.setdefault(name, tomlkit.table(is_super_table=number < len(path)))
            for name, value in values.items():
                item = cast(Any, tomlkit.item(value))
                if name in self.notes:
                    item.comment(self.notes[name])
                table[name] = item
        return tomlkit.dumps(document)
