"""`server.json`: what the MCP registry is told of this package.

The schema comes from the package `skillsaw` and is held by its digest. A copy here would name registries' hosts.
"""

import hashlib
import importlib.resources
import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jsonschema import Draft7Validator

from fastn_mcp import __version__
from fastn_mcp.settings import SOURCES, Settings, Source

ROOT = Path(__file__).parent.parent
SERVER: dict[str, Any] = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))
SCHEMA_SHA256 = "3fba09590c99f61735d234822279f4223fab9e300c0a81e81c91ab62a4114de0"


def variable(source: Source) -> dict[str, Any]:
    """What the registry should be told of one setting."""
    field = Settings.model_fields[source.field]
    numbers = {bool: "boolean", float: "number", int: "number"}
    shape = next((name for kind, name in numbers.items() if field.annotation is kind), "string")
    told: dict[str, Any] = {"name": source.variable, "description": field.description, "format": shape}
    if source.field == "api_key":
        return told | {"isRequired": True, "isSecret": True}
    if not field.repr:
        told["isSecret"] = True
    if field.default is not None:
        told["default"] = json.dumps(field.default).strip('"')
    if get_origin(field.annotation) is Literal:
        told["choices"] = list(get_args(field.annotation))
    return told


def test_the_registrys_schema_accepts_server_json() -> None:
    resource = importlib.resources.files("skillsaw") / "schemas/mcp_registry/v2025_12_11/server.schema.json"
    schema = resource.read_bytes()
    assert hashlib.sha256(schema).hexdigest() == SCHEMA_SHA256
    problems = Draft7Validator(json.loads(schema)).iter_errors(SERVER)  # pyright: ignore[reportUnknownMemberType]
    assert [f"{error.json_path}: {error.message}" for error in problems] == []


def test_server_json_has_the_version_of_the_package() -> None:
    assert [SERVER["version"], *(package["version"] for package in SERVER["packages"])] == [__version__] * 2


def test_server_json_lists_every_setting_of_the_environment_as_the_settings_say() -> None:
    (package,) = SERVER["packages"]
    assert package["environmentVariables"] == [variable(source) for source in SOURCES]


def test_the_readme_proves_to_the_registry_that_the_package_is_ours() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"<!-- mcp-name: (\S+) -->", readme) == [SERVER["name"]]
