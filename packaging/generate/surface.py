"""What clients see, as the code says it now: tools, handshake, manifests, and the tables that list tools and settings.

Titles, texts and addresses in the manifests are written by hand and kept.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, cast, get_args, get_origin

import anyio
from install_links import links
from mcp.server import Server
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCResponse, jsonrpc_message_adapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fastn_mcp import IS_PUBLISHED, __version__
from fastn_mcp.build.composition import assemble, policy_of
from fastn_mcp.build.extensions import SECTIONS
from fastn_mcp.build.startup import Process, Sandboxed, settings_of
from fastn_mcp.config.model import SOURCES, KeySettings, Settings, Source
from fastn_mcp.config.sections import variable_of
from fastn_mcp.extensions.install.clients import CLIENTS, McpClient, NotInstalled
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.server.handlers import build
from fastn_mcp.server.handshake import FILE, HANDSHAKE, MODERN
from fastn_mcp.server.tool_list import tool
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import AnyTool, Effect

Json = dict[str, Any]

WHO = {"name": "surface", "version": "1"}
HELLO = ("initialize", {"protocolVersion": HANDSHAKE[-1], "capabilities": {}, "clientInfo": WHO})
META = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": WHO,
    }
}


def introduction(server: Server[Any], offered: tuple[AnyTool, ...]) -> str:
    """The text of `introduction.json`."""
    nothing: Json = {}
    initialize, handshake = anyio.run(results_of, server, HELLO, ("tools/list", nothing))
    discover, modern = anyio.run(results_of, server, ("server/discover", META), ("tools/list", META))
    tools = {tool["name"]: tool for tool in handshake.pop("tools")}
    if handshake or modern.pop("tools") != list(tools.values()):
        raise AssertionError("the eras list tools differently: the introduction knows one list")
    initialize.pop("protocolVersion")
    of = {offer.tool_name(): {"toolset": offer.toolset(), "reads": offer.effect is Effect.READ} for offer in offered}
    text = {
        "initialize": initialize,
        "discover": discover,
        "listed": modern,
        "tools": {name: of[name] | {"tool": tool} for name, tool in tools.items()},
    }
    return json.dumps(text, indent=1, ensure_ascii=True) + "\n"


async def results_of(server: Server[Any], *requests: tuple[str, Json]) -> list[Json]:
    """The results of these requests, on a connection of their own."""
    to_server, incoming = create_context_streams[SessionMessage | Exception](0)
    outgoing, from_server = create_context_streams[SessionMessage](0)
    results: list[Json] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run, incoming, outgoing, server.create_initialization_options())
        async with to_server, from_server:
            for number, (method, params) in enumerate(requests):
                await to_server.send(_message({"id": number, "method": method, "params": params}))
                answer = (await from_server.receive()).message
                assert isinstance(answer, JSONRPCResponse)
                results.append(
                    cast(Json, json.loads(answer.model_dump_json(by_alias=True, exclude_unset=True)))["result"]
                )
                if method == "initialize":
                    await to_server.send(_message({"method": "notifications/initialized"}))
            tasks.cancel_scope.cancel()
    return results


def _message(body: Json) -> SessionMessage:
    return SessionMessage(jsonrpc_message_adapter.validate_python({"jsonrpc": "2.0", **body}, by_name=False))


Document = dict[str, Any]


PACKAGE: Document = {
    "registryType": "pypi",
    "identifier": "fastn-mcp",
    "version": __version__,
    "runtimeHint": "uvx",
    "transport": {"type": "stdio"},
}


def server_json(document: Document, is_published: bool = IS_PUBLISHED) -> Document:
    """For the MCP registry: the version, and the settings of each package. No package whose name nobody owns."""
    packages = [package for package in document["packages"] if package["registryType"] != PACKAGE["registryType"]]
    packages = [_package(package) for package in ([PACKAGE, *packages] if is_published else packages)]
    return document | {"version": __version__, "packages": packages}


def manifest(document: Document) -> Document:
    """For a client that installs the bundle: the version, the tools, and what it asks its user for."""
    sources = {source.field: source for source in SOURCES}
    asked = {name: _asked(sources[name], entry) for name, entry in document["user_config"].items()}
    # Compiled once, or each start would take twice as long.
    variables = {"UV_COMPILE_BYTECODE": "1"}
    variables |= {sources[name].variable: f"${{user_config.{name}}}" for name in asked}
    server = document["server"]
    return document | {
        "version": __version__,
        "server": server | {"mcp_config": server["mcp_config"] | {"env": variables}},
        "tools": [{"name": offer.tool_name(), "description": offer.__doc__} for offer in ALL_TOOLS],
        "user_config": asked,
    }


PLUGIN_SKILL = "plugins/fastn/skills/fastn/SKILL.md"
"""The skill as the plugin carries it: a file of its own, since Claude Code copies the plugin's folder alone."""

PUBLISHED: dict[str, Callable[[Document], Document]] = {
    "server.json": server_json,
    "packaging/bundle/manifest.json": manifest,
}
"""The files, from the root of the repository."""


def fill_manifest(name: str, text: str) -> str:
    """The text of a file of `PUBLISHED`, from its text today."""
    return json.dumps(PUBLISHED[name](json.loads(text)), indent=2, ensure_ascii=False) + "\n"


def _package(package: Document) -> Document:
    described = package | {"environmentVariables": [_variable(each) for each in VARIABLES]}
    if package["registryType"] == "oci":  # its version is the tag
        return described | {"identifier": f"{package['identifier'].rpartition(':')[0]}:{__version__}"}
    return described


class Variable(NamedTuple):
    """A variable, and the field that it sets."""

    name: str
    field: FieldInfo


EXTENSIONS_WITH_SETTINGS = ("slack", "telemetry")

VARIABLES = [Variable(source.variable, Settings.model_fields[source.field]) for source in SOURCES] + [
    Variable(variable_of(extension, name), field)
    for extension in EXTENSIONS_WITH_SETTINGS
    for name, field in SECTIONS.type_of(extension).model_fields.items()
]
"""Variables of the core and of its extensions."""


def _variable(variable: Variable) -> Document:
    field = variable.field
    shape = "number" if field.annotation is float or field.annotation is int else "string"
    described: Document = {"name": variable.name, "description": field.description, "format": shape}
    if variable.name == "FASTN_API_KEY":
        return described | {"isRequired": True, "isSecret": True}
    if not field.repr:
        described["isSecret"] = True
    if field.default not in (PydanticUndefined, None):
        described["default"] = json.dumps(field.default).strip('"')
    if choices := _choices(field):
        described["choices"] = choices
    return described


def _asked(source: Source, entry: Document) -> Document:
    """Never without a default: what the user leaves out would reach the server as `${user_config.NAME}`."""
    field = Settings.model_fields[source.field]
    choices = f" One of: {', '.join(_choices(field))}." if _choices(field) else ""
    described = entry | {"description": f"{field.description}{choices}"}
    return (
        described if entry.get("required") else described | {"default": "" if field.default is None else field.default}
    )


def _choices(field: FieldInfo) -> list[str]:
    annotation = field.annotation
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []


def wanted(root: Path) -> dict[Path, str]:
    """The text of each generated file of the repository at `root`, outside of `docs/`."""
    readme = root / "README.md"
    tables = {"clients": _clients(), "published": _published()}
    files = {root / "tools" / f"{offer.tool_name()}.json": snapshot(offer) for offer in ALL_TOOLS}
    files[root / "fastn_mcp" / FILE] = introduction(_server(), ALL_TOOLS)
    files[root / PLUGIN_SKILL] = (root / "fastn_mcp" / "skill.md").read_text(encoding="utf-8")
    files[readme] = fill_tables(readme.read_text(encoding="utf-8"), tables)
    return files | {root / name: fill_manifest(name, (root / name).read_text(encoding="utf-8")) for name in PUBLISHED}


def _server() -> Server[Any]:
    """One on the sandbox, which is never asked: the tools are the same on each account."""
    settings = settings_of({}, {}, None, sandboxed=True)
    with TemporaryDirectory() as state:
        policy = policy_of(settings, {"FASTN_CONFIG_DIR": state})
        parts = assemble(settings, policy, Path(state), Process({}, Sandboxed(), has_browser=True))
        return build(parts.dispatch, parts.tools, parts.label)


def snapshot(offer: AnyTool) -> str:
    """The definition of a tool as it goes over the wire, with its effect, and an operation's route and evidence."""
    facts: dict[str, object] = {"effect": offer.effect.value}
    if issubclass(offer, Operation):
        facts["route"] = str(offer.route)
        facts["evidence"] = {"kind": offer.evidence.kind, "source": offer.evidence.source}
    definition = tool(offer).model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(facts | {"tool": definition}, indent=2, ensure_ascii=False) + "\n"


def settings_table() -> str:
    """What can be set, where, and what it is by default."""
    rows: list[str] = []
    for source in SOURCES:
        info = Settings.model_fields[source.field]
        default = "" if info.default in (PydanticUndefined, None) else f"`{info.default}`"
        names = "<br>".join(f"`{name}`" for name in (source.field, source.variable, source.flag) if name)
        rows.append(f"| {names} | {default} | {_cell(info.description)} |")
    rows += [f"| `{name}` |  | {_cell(info.description)} |" for name, info in KeySettings.model_fields.items()]
    return "\n".join(["| setting, variable, flag | default | |", "|---|---|---|", *rows])


def extensions_table() -> str:
    """The same for the tables of extensions."""
    rows: list[str] = []
    for extension in EXTENSIONS_WITH_SETTINGS:
        for name, info in SECTIONS.type_of(extension).model_fields.items():
            default = "" if info.default in (PydanticUndefined, None) else f"`{info.default}`"
            names = f"`{name}`<br>`{variable_of(extension, name)}`"
            rows.append(f"| `[extensions.{extension}]` | {names} | {default} | {_cell(info.description)} |")
    return "\n".join(["| table | setting, variable | default | |", "|---|---|---|---|", *rows])


def _published() -> str:
    if IS_PUBLISHED:
        return "With [uv](https://docs.astral.sh/uv/) alone: `uvx fastn-mcp demo`"
    return "**Not published yet:** nobody owns the name `fastn-mcp` on the package registry. Install from the clone."


def _clients() -> str:
    if not IS_PUBLISHED:
        return f"Clients: {', '.join(client.title for client in CLIENTS)}. One alone: `fastn-mcp install CLIENT`."
    rows = [(client.title, f"`fastn-mcp install {client.name}`", _buttons(client)) for client in CLIENTS]
    header = ("client", "one line", "or one click: the sandbox")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _buttons(client: McpClient) -> str:
    try:
        found = links(client, "fastn", ("--sandbox",), "profile")
    except NotInstalled:
        return ""
    return " ".join(
        f"[![Try it in {label}](docs/images/button-{label.lower().replace(' ', '-')}.svg)]({link})"
        for label, link in found.items()
    )


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


def fill_tables(text: str, tables: dict[str, str]) -> str:
    """The text with each table between its markers."""
    for name, table in tables.items():
        text = re.sub(
            rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- /{name} -->)",
            lambda found, table=table: f"{found[1]}{table}\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
    return text
