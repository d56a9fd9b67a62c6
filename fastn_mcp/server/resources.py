"""MCP resources: a table of URI templates with the calls that read them, and completion of their ids.

A resource uses the same dispatch, guard and rendering as a tool call and contains the same JSON. URIs are decoded and
ids checked like request paths, so that a URI cannot pass a value that an argument could not.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from mcp import MCPError, types
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from fastn_mcp.account.entries import LISTS
from fastn_mcp.channels.elicitation import Context
from fastn_mcp.client.cost import received
from fastn_mcp.errors import NOTHING_SENT, Disabled, FastnError, NotFound, NotSent
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.procedures.lookup import CompleteId, Ids, ReadRow
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import safe_text, shorten
from fastn_mcp.runtime import work_on
from fastn_mcp.server import prompts
from fastn_mcp.server.rendering import render, render_error
from fastn_mcp.tools.billing import GetBilling, GetQuotas, GetUsage
from fastn_mcp.tools.bounds import TextBound
from fastn_mcp.tools.connectors import GetConnector
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.operation import RefusedValue, Route
from fastn_mcp.tools.tool import AnyTool, Tool
from fastn_mcp.tools.triggers import GetTrigger
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow

Call = Tool[Any]
Read = Callable[[Call], Awaitable[FastnObject]]
"""Makes a call of a request that reads, and returns its result. Raises a `FastnError`."""


@dataclass(frozen=True, slots=True)
class ResourceSpec:
    """One resource URI, or a URI template with an id."""

    uri: str
    name: str
    title: str
    description: str
    reader: AnyTool
    """Tool that reads it. Without this tool the resource is not listed."""
    make: Callable[[str], Call]
    """Builds the call for an id, which is empty for a URI without one."""
    priority: float = 0.5
    kind: str | None = None
    """Resource kind of the id, for completion."""

    @property
    def parameter(self) -> str | None:
        names = Route("READ", self.uri).parameters
        return names[0] if names else None

    def call(self, uri: str) -> Call | None:
        """Return the call that reads `uri`, or None if it does not match. Raises `NotSent` for an invalid id."""
        route = Route("READ", self.uri)
        parameters = route.match(uri)
        if parameters is None:
            return None
        try:
            route.fill(parameters)
            return self.make(next(iter(parameters.values()), ""))
        except RefusedValue as error:
            raise NotSent(f"{error.argument}: {error.problem}.", "Correct the address and read again.") from None
        except ValidationError:
            raise NotSent("The id is not accepted.", "Correct the address and read again.") from None


def _by_id(kind: str, get: AnyTool | None = None) -> ResourceSpec:
    """Return the template of a kind, read by `get` or else by a search in its list."""
    reader = get or LISTS[kind]
    parameter = f"{kind}_id"
    words = kind.replace("_", " ").replace("api", "API")
    return ResourceSpec(
        uri=f"fastn://{kind.replace('_', '-')}s/{{{parameter}}}",
        name=kind,
        title=words[0].upper() + words[1:],
        description=f"What {reader.tool_name()} returns." if get else f"One row of {reader.tool_name()}.",
        reader=reader,
        make=lambda value: get.model_validate({parameter: value}) if get else ReadRow(kind=kind, id=value),
        kind=kind,
    )


def _account(name: str, reader: AnyTool, description: str, priority: float = 0.5) -> ResourceSpec:
    """Return a resource of which the account has one."""
    return ResourceSpec(
        uri=f"fastn://{name}",
        name=name,
        title=name.capitalize(),
        description=description,
        reader=reader,
        make=lambda _: reader.model_validate({}),
        priority=priority,
    )


RESOURCES: tuple[ResourceSpec, ...] = (
    _account("overview", GetOverview, "The account at a glance.", 0.9),
    _account("billing", GetBilling, "Plan, price and AI credits."),
    _account("usage", GetUsage, "What was used, by customer."),
    _account("quotas", GetQuotas, "Limits with their use."),
    _by_id("customer", GetCustomer),
    _by_id("connector", GetConnector),
    _by_id("workflow", GetWorkflow),
    _by_id("trigger", GetTrigger),
    _by_id("execution", GetExecution),
    _by_id("connection"),
    _by_id("user"),
    _by_id("role"),
    _by_id("api_key"),
    _by_id("secret"),
)


def available(tools: Sequence[AnyTool]) -> tuple[ResourceSpec, ...]:
    """Return the resources whose tools are enabled."""
    return tuple(spec for spec in RESOURCES if spec.reader in tools)


JSON = "application/json"

_NOT_FOUND_LEGACY = -32002
"""Error code of a missing resource up to 2025-11-25. Since then it is the error code of invalid params."""

_URI = TextBound(2_000)
"""Bound of the URI of a resource. An error, whose message is bounded alike, repeats no more of it."""

_MAX_ID = 256
"""Maximum characters of an id in a path."""


class ResourceReader:
    def __init__(self, dispatch: Dispatcher, tools: Sequence[AnyTool], account: dict[str, JsonValue]) -> None:
        self._dispatch = dispatch
        self._account = account
        self._specs = available(tools)
        listed = [types.Resource(uri=spec.uri, **_fields(spec)) for spec in self._specs if spec.parameter is None]
        self.listed = types.ListResourcesResult(resources=listed)
        with_id = [spec for spec in self._specs if spec.parameter is not None]
        templates = [types.ResourceTemplate(uri_template=spec.uri, **_fields(spec)) for spec in with_id]
        self.templates = types.ListResourceTemplatesResult(resource_templates=templates)

    async def read(self, ctx: Context, params: types.ReadResourceRequestParams, read: Read) -> types.ReadResourceResult:
        """Read a resource. Raises `MCPError` if it does not exist or cannot be read."""
        requested = self._dispatch.redacted({"uri": params.uri[: _URI.characters]})
        not_found = types.INVALID_PARAMS if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS else _NOT_FOUND_LEGACY
        try:
            excess = _URI.excess(params.uri)
            if excess is not None:
                raise NotSent(f"uri: {excess}.", "See resources/templates/list.")
            call = self._call(params.uri)
            if call is None:
                message = "Unknown resource. See resources/list and resources/templates/list."
                raise MCPError(not_found, message, requested)
            result = await read(call)
        except FastnError as error:
            code = types.INTERNAL_ERROR
            if isinstance(error, NotFound):
                code = not_found
            elif isinstance(error, NotSent):
                code = types.INVALID_PARAMS
            facts = self._dispatch.redacted(requested | render_error(error.data()) | {"said": str(error)})
            raise MCPError(code, shorten(str(facts.pop("said")), _URI.characters), facts) from None
        body = await work_on(received(), partial(render, call, result, self._account))
        text = to_json(body).decode()
        contents = types.TextResourceContents(uri=params.uri, mime_type=JSON, text=text)
        return types.ReadResourceResult(contents=[contents])

    def _call(self, uri: str) -> Call | None:
        for spec in self._specs:
            call = spec.call(uri)
            if call is not None:
                return call
        return None


def _fields(spec: ResourceSpec) -> dict[str, Any]:
    """Return the fields that a resource and a resource template share."""
    annotations = types.Annotations(audience=["assistant"], priority=spec.priority)
    fields = {"name": spec.name, "title": spec.title, "description": spec.description}
    return {**fields, "mime_type": JSON, "annotations": annotations}


async def complete(tools: Sequence[AnyTool], params: types.CompleteRequestParams, read: Read) -> types.CompleteResult:
    """Return the ids that match an argument of a resource template or a prompt, best first.

    Raises `MCPError` if the argument is unknown or reading fails.
    """
    kind = _kind_of(tools, params)
    if kind is None:
        return types.CompleteResult(completion=types.Completion(values=[], total=0, has_more=False))
    typed = params.argument.value
    excess = prompts.PROMPT_ARGUMENT.excess(typed)
    if excess is not None:
        raise MCPError(types.INVALID_PARAMS, f"{params.argument.name}: {excess}. {NOTHING_SENT}")
    call = CompleteId(kind=kind, typed=typed)
    try:
        ids = cast(Ids, await read(call))
    except Disabled:
        return types.CompleteResult(completion=types.Completion(values=[], total=0, has_more=False))
    except FastnError as error:
        raise MCPError(types.INTERNAL_ERROR, shorten(safe_text(str(error)), _URI.characters)) from None
    values = [safe_text(value) for value in ids.values if len(value) <= _MAX_ID]  # a longer one could not be sent
    return types.CompleteResult(completion=types.Completion(values=values, total=ids.total, has_more=ids.more))


def _kind_of(tools: Sequence[AnyTool], params: types.CompleteRequestParams) -> str | None:
    """Return the kind of the requested ids, or None for free text. Raises `MCPError` if it is unknown."""
    if isinstance(params.ref, types.ResourceTemplateReference):
        known = {spec.uri: {spec.parameter: spec.kind} for spec in available(tools) if spec.parameter}
        arguments = known.get(params.ref.uri)
        missing = "Unknown resource template. See resources/templates/list."
    else:
        recipe = next((recipe for recipe in prompts.available(tools) if recipe.name == params.ref.name), None)
        arguments = recipe and {argument.name: argument.kind for argument in recipe.arguments}
        missing = "Unknown prompt. See prompts/list."
    if arguments is None:
        raise MCPError(types.INVALID_PARAMS, missing)
    if params.argument.name not in arguments:
        raise MCPError(types.INVALID_PARAMS, f"It has no argument {params.argument.name[:64]!r}.")
    return arguments[params.argument.name]
