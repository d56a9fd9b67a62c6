"""`server.json`: what the MCP registry is told of this package.

The schema comes from the package `skillsaw` and is held by its digest. A copy here would name registries' hosts.
"""

import hashlib
import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from registry import with_bundle
from surface import server_json

from fastn_mcp import IS_PUBLISHED, __version__
from fastn_mcp.config.model import SOURCES

ROOT = Path(__file__).parents[2]
SERVER: dict[str, Any] = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))
PUBLISHED = server_json(SERVER, is_published=True)
SCHEMA_SHA256 = "3fba09590c99f61735d234822279f4223fab9e300c0a81e81c91ab62a4114de0"


def problems(document: dict[str, Any]) -> list[str]:
    resource = importlib.resources.files("skillsaw") / "schemas/mcp_registry/v2025_12_11/server.schema.json"
    schema = resource.read_bytes()
    assert hashlib.sha256(schema).hexdigest() == SCHEMA_SHA256
    errors = Draft7Validator(json.loads(schema)).iter_errors(document)  # pyright: ignore[reportUnknownMemberType]
    return [f"{error.json_path}: {error.message}" for error in errors]


def test_server_json_matches_the_registrys_schema() -> None:
    assert problems(SERVER) == problems(PUBLISHED) == []
    assert len(SERVER["description"]) <= 100
    assert {package["registryType"] for package in PUBLISHED["packages"]} == {"pypi", "oci"}
    assert [remote["type"] for remote in SERVER["remotes"]] == ["streamable-http"]


def test_server_json_with_a_bundle_matches_the_registrys_schema() -> None:
    assert problems(with_bundle(SERVER, "https://github.com/fastn-ai/fastn-mcp", "fastn-mcp.mcpb", b"data")) == []


def test_package_is_left_out_until_its_name_is_owned() -> None:
    names = {package["identifier"].partition(":")[0] for package in server_json(PUBLISHED, False)["packages"]}
    assert names == {"ghcr.io/fastn-ai/fastn-mcp"}
    assert ("fastn-mcp" in {package["identifier"] for package in SERVER["packages"]}) is IS_PUBLISHED


def test_versions_are_that_of_the_package() -> None:
    pypi, oci = PUBLISHED["packages"]
    assert (SERVER["version"], pypi["version"], oci["identifier"].rpartition(":")[2]) == (__version__,) * 3


def test_packages_name_every_variable() -> None:
    own = [source.variable for source in SOURCES]
    own += [f"FASTN_SLACK_{name}" for name in ("APP_TOKEN", "BOT_TOKEN", "CHANNEL", "URL")]
    own += ["FASTN_TELEMETRY_AUDIT_EXPORT"]
    for package in SERVER["packages"]:
        assert [told["name"] for told in package["environmentVariables"]] == own


def test_secrets_are_marked_and_only_the_key_is_required() -> None:
    told = {variable["name"]: variable for variable in SERVER["packages"][0]["environmentVariables"]}
    secret = {name for name, variable in told.items() if variable.get("isSecret")}
    assert secret == {
        "FASTN_API_KEY",
        "FASTN_HTTP_TOKEN",
        "FASTN_LEDGER",
        "FASTN_NOTIFY",
        "FASTN_SLACK_APP_TOKEN",
        "FASTN_SLACK_BOT_TOKEN",
        "FASTN_PROXY",
        "FASTN_STATE_SECRET",
        "FASTN_WEBHOOK_SECRET",
        "FASTN_WEBHOOK_URL",
    }
    assert [name for name, variable in told.items() if variable.get("isRequired")] == ["FASTN_API_KEY"]
    assert told["FASTN_DEADLINE"]["format"] == "number"
    assert told["FASTN_AUTH"]["choices"] == ["header", "bearer"]


def test_readme_proves_ownership_to_the_registry() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"<!-- mcp-name: (\S+) -->", readme) == [SERVER["name"]]
