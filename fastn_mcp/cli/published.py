"""What directories are told of this package: `server.json` and the bundle's manifest, filled from the code. Pure.

What people write in them (titles, texts, addresses) is left as it is.
"""

import json
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from fastn_mcp import IS_PUBLISHED, __version__
from fastn_mcp.procedures.catalog import OFFERS
from fastn_mcp.settings import SOURCES, Settings, Source

Document = dict[str, Any]


def server_json(document: Document) -> Document:
    """For the MCP registry: the version, and the settings of each package."""
    packages = [_package(package) for package in document["packages"]]
    return document | {"version": __version__, "packages": packages}


def manifest(document: Document) -> Document:
    """For a client that installs the bundle: the version, the tools, and what it asks its user for."""
    sources = {source.field: source for source in SOURCES}
    asked = {name: _asked(sources[name], given) for name, given in document["user_config"].items()}
    # Compiled once, or each start would take twice as long.
    variables = {"UV_COMPILE_BYTECODE": "1"}
    variables |= {sources[name].variable: f"${{user_config.{name}}}" for name in asked}
    server = document["server"]
    return document | {
        "version": __version__,
        "server": server | {"mcp_config": server["mcp_config"] | {"env": variables}},
        "tools": [{"name": offer.tool_name(), "description": offer.__doc__} for offer in OFFERS],
        "user_config": asked,
    }


PUBLISHED: dict[str, Callable[[Document], Document]] = {
    "server.json": server_json,
    "packaging/bundle/manifest.json": manifest,
}
"""The files, from the root of the repository."""


def filled(name: str, text: str) -> str:
    """A file of `PUBLISHED` as it ought to be."""
    return json.dumps(PUBLISHED[name](json.loads(text)), indent=2, ensure_ascii=False) + "\n"


def _package(package: Document) -> Document:
    told = package | {"environmentVariables": [_variable(source) for source in SOURCES]}
    if package["registryType"] == "oci":  # its version is the tag
        return told | {"identifier": f"{package['identifier'].rpartition(':')[0]}:{__version__}"}
    told.pop("runtimeHint", None)
    return told | {"version": __version__} | ({"runtimeHint": "uvx"} if IS_PUBLISHED else {})


def _variable(source: Source) -> Document:
    field = Settings.model_fields[source.field]
    numbers = {bool: "boolean", float: "number", int: "number"}
    shape = next((name for kind, name in numbers.items() if field.annotation is kind), "string")
    told: Document = {"name": source.variable, "description": field.description, "format": shape}
    if source.field == "api_key":
        return told | {"isRequired": True, "isSecret": True}
    if not field.repr:
        told["isSecret"] = True
    if field.default is not None:
        told["default"] = json.dumps(field.default).strip('"')
    if choices := _choices(source):
        told["choices"] = choices
    return told


def _asked(source: Source, given: Document) -> Document:
    """Never without a default: what the user leaves out would reach the server as `${user_config.NAME}`."""
    field = Settings.model_fields[source.field]
    choices = f" One of: {', '.join(_choices(source))}." if _choices(source) else ""
    told = given | {"description": f"{field.description}{choices}"}
    return told if given.get("required") else told | {"default": "" if field.default is None else field.default}


def _choices(source: Source) -> list[str]:
    annotation = Settings.model_fields[source.field].annotation
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []
