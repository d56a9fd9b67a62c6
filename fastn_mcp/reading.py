"""Resources over MCP: lists what can be read by address, and reads it. One of the modules that know MCP.

A resource is read by the same dispatch, guard and shaping as a tool's call, and holds the same JSON.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    Annotations,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)
from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.channels.form import MODERN
from fastn_mcp.dispatch import Dispatcher, Done
from fastn_mcp.errors import ApprovalRequired, FastnError, NotFound, NotSent
from fastn_mcp.guard import Caller
from fastn_mcp.offer import AnyOffer
from fastn_mcp.resources import Call, Place, within
from fastn_mcp.shaping import failed, shaped
from fastn_mcp.telling import Levels, Telling

Context = ServerRequestContext[Any]

JSON = "application/json"

_NOT_FOUND_ONCE = -32002
"""The code of a resource that is not there, up to 2025-11-25. Since then it is that of wrong parameters."""

_LONGEST = 2_000
"""Characters of an address that an error repeats."""


class Reading:
    """The resources of one account."""

    def __init__(self, dispatch: Dispatcher, offered: Sequence[AnyOffer], account: dict[str, JsonValue]) -> None:
        self._dispatch = dispatch
        self._account = account
        self._places = within(offered)
        self.listed = ListResourcesResult(
            resources=[
                Resource(
                    uri=place.uri,
                    name=place.name,
                    title=place.title,
                    description=place.description,
                    mime_type=JSON,
                    annotations=_annotations(place),
                )
                for place in self._places
                if place.parameter is None
            ]
        )
        self.templates = ListResourceTemplatesResult(
            resource_templates=[
                ResourceTemplate(
                    uri_template=place.uri,
                    name=place.name,
                    title=place.title,
                    description=place.description,
                    mime_type=JSON,
                    annotations=_annotations(place),
                )
                for place in self._places
                if place.parameter is not None
            ]
        )

    async def read(
        self,
        ctx: Context,
        params: ReadResourceRequestParams,
        caller: Caller,
        levels: Levels,
        room: Callable[[], AbstractAsyncContextManager[None]],
    ) -> ReadResourceResult:
        """What is there. Raises `MCPError`."""
        asked = self._dispatch.redacted({"uri": params.uri[:_LONGEST]})
        not_found = INVALID_PARAMS if ctx.protocol_version >= MODERN else _NOT_FOUND_ONCE
        try:
            call = self._call(params.uri)
            if call is None:
                message = "There is no such resource. See resources/list and resources/templates/list."
                raise MCPError(not_found, message, asked)
            telling = Telling(ctx, levels, self._dispatch.system)
            async with room():
                outcome = await telling.during(lambda report: self._dispatch(call, caller, report))
            if not isinstance(outcome, Done):
                raise ApprovalRequired("A person has to approve this.", "Call the tool, which can ask.")
        except FastnError as error:
            code = INTERNAL_ERROR
            if isinstance(error, NotFound):
                code = not_found
            elif isinstance(error, NotSent):
                code = INVALID_PARAMS
            facts = self._dispatch.redacted(asked | failed(error.data()) | {"said": str(error)})
            raise MCPError(code, str(facts.pop("said")), facts) from None
        text = to_json(shaped(call, outcome.result, self._account)).decode()
        return ReadResourceResult(contents=[TextResourceContents(uri=params.uri, mime_type=JSON, text=text)])

    def _call(self, uri: str) -> Call | None:
        return next((call for place in self._places if (call := place.call(uri)) is not None), None)


def _annotations(place: Place) -> Annotations:
    return Annotations(audience=["assistant"], priority=place.priority)
