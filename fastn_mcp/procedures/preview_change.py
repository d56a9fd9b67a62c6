"""The tool `preview_change`: what a call would do, without making it. `catalog.parse` returns the call to preview."""

from typing import Annotated

from pydantic import Field

from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.fields import JsonObject
from fastn_mcp.tools.tool import Effect, Tool


class ChangePreview(FastnObject):
    """What a call would do."""


class PreviewChange(Tool[ChangePreview]):
    """What would happen if I did this: what changes, what is lost, who approves; without doing it."""

    effect = Effect.READ

    tool: Annotated[str, Field(description="For example delete_customer.")]
    values: Annotated[JsonObject | None, Field(description="Its arguments.", validation_alias="arguments")] = None

    @classmethod
    def toolset(cls) -> str:
        return "procedures"
