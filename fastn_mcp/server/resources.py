"""MCP resources: one table of URI templates, each with the call that reads it; and completion of the ids in them.

A resource is read by the same dispatch, guard and rendering as a tool's call, and holds the same JSON. An address is
decoded and its id checked as a path's is, so that nothing enters a call here that an argument could not.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, cast

from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    Annotations,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    ResourceTemplateReference,
    TextResourceContents,
)
from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from fastn_mcp.channels.elicitation_form import MODERN
from fastn_mcp.errors import ApprovalRequired, FastnError, NotFound, NotSent
from fastn_mcp.fastn.directory import LISTS
from fastn_mcp.guard.approval.flow import Caller
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.procedures.lookup import CompleteId, Ids, ReadRow
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.redaction import safe_text
from fastn_mcp.server import prompts
from fastn_mcp.server.progress import Levels, ProgressReporter
from fastn_mcp.server.rendering import failed, shaped
from fastn_mcp.tools.account import GetBilling, GetQuotas, GetUsage
from fastn_mcp.tools.connectors import GetConnector
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.operation import RefusedValue, Route
from fastn_mcp.tools.tool import AnyTool, Tool
from fastn_mcp.tools.triggers import GetTrigger
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow

Call = Tool[Any]


@dataclass(frozen=True, slots=True)
class Place:
    """One address, or a template of addresses with an id in it."""

    uri: str
    name: str
    title: str
    description: str
    reader: AnyTool
    """The operation by which it is read: without it, the place is not offered."""
    make: Callable[[str], Call]
    """The call that reads what the id names; an address without one is given an empty id."""
    priority: float = 0.5
    kind: str | None = None
    """Of what the id is, as completions know it."""

    @property
    def parameter(self) -> str | None:
        """The name of the id in the template."""
        names = Route("READ", self.uri).parameters
        return names[0] if names else None

    def call(self, uri: str) -> Call | None:
        """The call that reads `uri`, where it is one of these addresses. Raises `NotSent` for an id that is none."""
        route = Route("READ", self.uri)
        given = route.match(uri)
        if given is None:
            return None
        try:
            route.fill(given)
            return self.make(next(iter(given.values()), ""))
        except RefusedValue as error:
            raise NotSent(f"{error.argument}: {error.problem}.", "Correct the address and read again.") from None
        except ValidationError:
            raise NotSent("The id is not accepted.", "Correct the address and read again.") from None


def _one(kind: str, get: AnyTool | None = None) -> Place:
    """A kind that Fastn shows one by one, by `get`, or else one that is looked for in its list."""
    reader, parameter = get or LISTS[kind], f"{kind}_id"
    words = kind.replace("_", " ").replace("api", "API")
    return Place(
        uri=f"fastn://{kind.replace('_', '-')}s/{{{parameter}}}",
        name=kind,
        title=words[0].upper() + words[1:],
        description=f"What {reader.tool_name()} returns." if get else f"One row of {reader.tool_name()}.",
        reader=reader,
        make=lambda value: get.model_validate({parameter: value}) if get else ReadRow(kind=kind, id=value),
        kind=kind,
    )


def _account(name: str, reader: AnyTool, description: str, priority: float = 0.5) -> Place:
    """Something of which the account has one."""
    return Place(
        uri=f"fastn://{name}",
        name=name,
        title=name.capitalize(),
        description=description,
        reader=reader,
        make=lambda _: reader.model_validate({}),
        priority=priority,
    )


PLACES: tuple[Place, ...] = (
    _account("overview", GetOverview, "The account at a glance.", 0.9),
    _account("billing", GetBilling, "Plan, price and AI credits."),
    _account("usage", GetUsage, "What was used, by customer."),
    _account("quotas", GetQuotas, "Limits with their use."),
    _one("customer", GetCustomer),
    _one("connector", GetConnector),
    _one("workflow", GetWorkflow),
    _one("trigger", GetTrigger),
    _one("execution", GetExecution),
    _one("connection"),
    _one("user"),
    _one("role"),
    _one("api_key"),
    _one("secret"),
)


def within(offered: Sequence[AnyTool]) -> tuple[Place, ...]:
    """The places that can be read with these operations."""
    return tuple(place for place in PLACES if place.reader in offered)


Context = ServerRequestContext[Any]

JSON = "application/json"

_NOT_FOUND_ONCE = -32002
"""The code of a resource that is not there, up to 2025-11-25. Since then it is that of wrong parameters."""

_LONGEST = 2_000
"""Characters of an address that an error repeats."""

_LONGEST_TYPED = 200
"""Characters of what was typed that completion looks at."""


class ResourceReader:
    """The resources of one account."""

    def __init__(self, dispatch: Dispatcher, offered: Sequence[AnyTool], account: dict[str, JsonValue]) -> None:
        self._dispatch = dispatch
        self._account = account
        self._places = within(offered)
        listed = [Resource(uri=place.uri, **_shown(place)) for place in self._places if place.parameter is None]
        self.listed = ListResourcesResult(resources=listed)
        templates = [ResourceTemplate(uri_template=p.uri, **_shown(p)) for p in self._places if p.parameter is not None]
        self.templates = ListResourceTemplatesResult(resource_templates=templates)

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
            telling = ProgressReporter(ctx, levels, self._dispatch.system)
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


def _shown(place: Place) -> dict[str, Any]:
    """What a resource and a template of resources say of themselves alike."""
    annotations = Annotations(audience=["assistant"], priority=place.priority)
    shown = {"name": place.name, "title": place.title, "description": place.description}
    return {**shown, "mime_type": JSON, "annotations": annotations}


class IdCompletion:
    """Completion of ids in resource addresses and prompt arguments, where these tools are offered."""

    def __init__(self, dispatch: Dispatcher, offered: Sequence[AnyTool]) -> None:
        self._dispatch = dispatch
        self._templates = {place.uri: {place.parameter: place.kind} for place in within(offered) if place.parameter}
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
        call = CompleteId(kind=kind, typed=params.argument.value[:_LONGEST_TYPED])
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
