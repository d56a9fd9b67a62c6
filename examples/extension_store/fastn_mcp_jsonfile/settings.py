"""The table [extensions.jsonfile]. It has no settings: the setting `ledger` names the file, as `jsonfile://PATH`."""

from fastn_mcp.config.sections import Section


class JsonFileSection(Section):
    pass


section = JsonFileSection
