"""Settings of extensions: the tables `[extensions.NAME]` of a file, and variables `FASTN_NAME_SETTING`."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fastn_mcp.errors import SettingsError, nearest, reason

EXTENSIONS = "extensions"
"""Table of the file with one subtable for each extension."""

Tables = Mapping[str, Mapping[str, object]]
"""Tables of extensions by name, as they are in a file."""

_VERB = re.compile(r"^(?=(?:begins|cannot|has|holds|is|must|names) )")
_MAX_SECRET = 4096


class Section(BaseModel):
    """Settings of one extension. Secrets have `repr=False`, and can be referred to: `NAME_file` or `NAME_env`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def secret_names(cls) -> list[str]:
        return [name for name, field in cls.model_fields.items() if not field.repr]

    @property
    def secrets(self) -> list[str]:
        """Values that must never be logged."""
        values = (getattr(self, name) for name in self.secret_names())
        return [str(value) for value in values if value]


class ChannelSection(Section):
    """Settings of an extension that asks people for approvals. A tenant of a team may have such settings too."""


def variable_of(extension: str, setting: str) -> str:
    return f"FASTN_{extension}_{setting}".upper().replace("-", "_")


def wrong(place: str, why: str) -> SettingsError:
    """Return the error for the value of a setting. `place` says where it comes from, as the subject of a sentence."""
    return SettingsError(f"{place} is wrong: {_VERB.sub('it ', why)}.")


def with_absolute_files(table: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Resolve relative paths, which are the texts whose names end in `_file`, against the folder of the file."""
    return {
        name: str(folder / Path(value).expanduser()) if name.endswith("_file") and isinstance(value, str) else value
        for name, value in table.items()
    }


def read_secret(file: str | None, variable: str | None, environment: Mapping[str, str]) -> str:
    """Read a secret from a file or, without one, a variable. Raises `SettingsError` that names the source."""
    if file is None:
        secret = environment.get(variable or "", "")
        if not secret:
            raise SettingsError(f"The variable {variable} is not set.", f"Set {variable}.")
        return secret
    try:
        with Path(file).open(encoding="utf-8") as opened:
            secret = opened.read(_MAX_SECRET).strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read: {type(error).__name__}.") from None
    if not secret:
        raise SettingsError(f"{file} is empty.", "Write the secret into it.")
    return secret


@dataclass(frozen=True, slots=True)
class SectionReader:
    """Reads the settings of extensions."""

    type_of: Callable[[str], type[Section]]
    """Returns the type of an extension's settings. Raises `SettingsError` if there is no such extension."""
    with_variables: tuple[str, ...] = ()
    """Extensions whose variables are read, with or without a table."""

    def read(
        self, tables: Tables, environment: Mapping[str, str], place: Callable[[str, str], str]
    ) -> dict[str, Section]:
        """Return the settings of each extension with a table or variables. Raises `SettingsError`.

        `place` says where the table of an extension, or a setting in it, is in the file.
        """
        variables = {name: self._variables(name, environment) for name in self.with_variables}
        names = dict.fromkeys([*tables, *(name for name, given in variables.items() if given)])
        return {
            name: self._section(name, tables.get(name), variables.get(name, {}), environment, place) for name in names
        }

    def owns(self, variable: str) -> bool:
        """Return whether a variable is for one of the extensions."""
        return any(variable.startswith(variable_of(name, "")) for name in self.with_variables)

    @staticmethod
    def _variables(extension: str, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the values of an extension's variables, by setting."""
        prefix = variable_of(extension, "")
        return {
            name.removeprefix(prefix).lower(): value
            for name, value in environment.items()
            if name.startswith(prefix) and value
        }

    def _section(
        self,
        extension: str,
        table: Mapping[str, object] | None,
        variables: Mapping[str, str],
        environment: Mapping[str, str],
        place: Callable[[str, str], str],
    ) -> Section:
        kind = self.type_of(extension)
        values = {**(table or {}), **variables}
        for name in kind.secret_names():
            file = values.pop(f"{name}_file", None)
            variable = values.pop(f"{name}_env", None)
            if [file, variable, values.get(name)].count(None) < 2:
                what = f"{place(extension, '')} has {name} more than once."
                raise SettingsError(what, f"Leave one of {name}, {name}_file and {name}_env.")
            if file is not None:
                values[name] = read_secret(str(file), None, environment)
            elif variable is not None:
                values[name] = read_secret(None, str(variable), environment)
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0]) if problem["loc"] else ""
        own = variable_of(extension, name)
        if name in variables:
            where = f"The setting {name} of the extension {extension} (environment {own})"
        elif table is None:
            where = f"The extension {extension}"
        else:
            where = place(extension, name if name in table else "")
        if problem["type"] == "missing":
            raise SettingsError(f"{where} needs {name}.", f"Set it in [{EXTENSIONS}.{extension}] or as {own}.")
        if problem["type"] == "extra_forbidden":
            raise SettingsError(f"{where} is unknown{nearest(name, kind.model_fields)}.")
        raise wrong(where, reason(problem))


def variables_in(tables: Tables) -> Iterator[str]:
    """Yield the variables that tables name as sources of secrets."""
    for table in tables.values():
        yield from (str(variable) for name, variable in table.items() if name.endswith("_env"))


def secrets_in(tables: Tables, sections: Mapping[str, Section]) -> Iterator[tuple[str, str]]:
    """Yield extension and name of each secret that a table contains itself."""
    for extension, table in tables.items():
        for name in sections[extension].secret_names():
            if name in table:
                yield extension, name
