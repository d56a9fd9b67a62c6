"""MCP completion of ids in resource addresses and prompt arguments."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import cast

from mcp import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    ResourceTemplateReference,
)

from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval.flow import Caller
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.procedures.reads import CompleteId, Ids
from fastn_mcp.redaction import safe_text
from fastn_mcp.server import prompts, resources
from fastn_mcp.tools.tool import AnyTool

_LONGEST = 200
"""Characters of what was typed that are looked at."""


class IdCompletion:
    """What can be proposed where these operations are offered."""

    def __init__(self, dispatch: Dispatcher, offered: Sequence[AnyTool]) -> None:
        self._dispatch = dispatch
        self._templates = {
            place.uri: {place.parameter: place.kind} for place in resources.within(offered) if place.parameter
        }
        self._prompts = {
            recipe.name: {argument.name: argument.kind for argument in recipe.arguments}
            for recipe in prompts.within(offered)
        }

    async def complete(
        self, params: CompleteRequestParams, caller: Caller, room: Callable[[], AbstractAsyncContextManager[None]]
    ) -> CompleteResult:
        """The ids that fit, best first. Raises `MCPError`."""
        kind = self._kind(params)
        if kind is None:
            return CompleteResult(completion=Completion(values=[], total=0, has_more=False))
        call = CompleteId(kind=kind, typed=params.argument.value[:_LONGEST])
        try:
            async with room():
                outcome = await self._dispatch(call, caller)
        except FastnError as error:
            raise MCPError(INTERNAL_ERROR, safe_text(str(error))) from None
        if not isinstance(outcome, Done):
            raise MCPError(INTERNAL_ERROR, "Nothing was sent. A person has to approve reading this list.")
        found = cast(Ids, outcome.result)
        values = [safe_text(value) for value in found.values]
        return CompleteResult(completion=Completion(values=values, total=found.total, has_more=found.more))

    def _kind(self, params: CompleteRequestParams) -> str | None:
        """Of what ids are wanted; None for an argument that is free text."""
        if isinstance(params.ref, ResourceTemplateReference):
            arguments = self._templates.get(params.ref.uri)
            missing = "There is no such resource template. See resources/templates/list."
        else:
            arguments = self._prompts.get(params.ref.name)
            missing = "There is no such prompt. See prompts/list."
        if arguments is None:
            raise MCPError(INVALID_PARAMS, missing)
        if params.argument.name not in arguments:
            raise MCPError(INVALID_PARAMS, f"It has no argument {params.argument.name[:64]!r}.")
        return arguments[params.argument.name]
