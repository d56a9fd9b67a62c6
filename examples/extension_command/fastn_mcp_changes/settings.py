"""The table [extensions.changes]."""

from pydantic import Field

from fastn_mcp.config.sections import Section


class ChangesSection(Section):
    days: int = Field(7, ge=1, description="Number of days that are counted.")


section = ChangesSection
