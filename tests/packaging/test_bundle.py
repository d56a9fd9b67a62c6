"""The bundle: what its manifest promises is what the server is. `make bundle` installs it and speaks to it."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import bundle
import icon
import pytest
from surface import manifest

from fastn_mcp import __version__
from fastn_mcp.config.load import load
from fastn_mcp.config.model import SOURCES
from fastn_mcp.procedures.catalog import ALL_TOOLS

ROOT = Path(__file__).parent.parent.parent
MANIFEST: dict[str, Any] = json.loads((ROOT / "packaging/bundle/manifest.json").read_text(encoding="utf-8"))
ENVIRONMENT: dict[str, str] = MANIFEST["server"]["mcp_config"]["env"]


def test_manifest_names_the_version_and_the_tools() -> None:
    assert MANIFEST["version"] == __version__
    assert [(tool["name"], tool["description"]) for tool in MANIFEST["tools"]] == [
        (offer.tool_name(), offer.__doc__) for offer in ALL_TOOLS
    ]


def test_key_is_required_and_passed_as_a_secret_variable() -> None:
    """Arguments are seen by every process of the machine."""
    key = MANIFEST["user_config"]["api_key"]
    assert (key["required"], key["sensitive"]) == (True, True)
    assert ENVIRONMENT["FASTN_API_KEY"] == "${user_config.api_key}"
    assert "user_config" not in json.dumps(MANIFEST["server"]["mcp_config"]["args"])


def test_each_form_field_reaches_a_setting() -> None:
    variables = {source.variable for source in SOURCES}
    for variable, value in ENVIRONMENT.items():
        if variable == "UV_COMPILE_BYTECODE":
            continue
        assert variable in variables
        asked = MANIFEST["user_config"][value.removeprefix("${user_config.").removesuffix("}")]
        assert asked.get("required") or "default" in asked


def test_defaults_of_the_form_load() -> None:
    """A client writes true and false in lower case, and an empty text where there is nothing."""
    answers = {name: asked.get("default", "fsk_test_x") for name, asked in MANIFEST["user_config"].items()}
    written = {name: json.dumps(value).strip('"') for name, value in answers.items()}
    environment = {
        variable: written[match[1]]
        for variable, value in ENVIRONMENT.items()
        if (match := re.fullmatch(r"\$\{user_config\.(\w+)\}", value))
    }
    unset = load({}, {"FASTN_API_KEY": "fsk_test_x"}, None)
    assert load({}, environment, None).model_dump() == unset.model_dump()


def test_unknown_setting_in_the_form_is_an_error() -> None:
    wrong = MANIFEST | {"user_config": {"api_kye": {"type": "string", "title": "x", "description": "x"}}}
    with pytest.raises(KeyError, match="api_kye"):
        manifest(wrong)


def test_project_of_the_bundle_pins_everything_with_its_marker() -> None:
    requirements = (
        "click==8.5.1 \\\n    --hash=sha256:aa\npywin32==312 ; sys_platform == 'win32' \\\n    --hash=sha256:bb\n"
    )
    assert bundle.pins(f"# comment\n{requirements}") == ["click==8.5.1", "pywin32==312 ; sys_platform == 'win32'"]
    project = bundle.project("fastn_mcp-1.2.3-py3-none-any.whl", requirements)
    assert 'version = "1.2.3"' in project
    assert "\"pywin32==312 ; sys_platform == 'win32'\"" in project


def test_file_with_an_unreviewed_digest_is_found() -> None:
    """An index that serves something else under a version that is pinned."""
    known, other = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    lock = """
[[package]]
name = "{}"
source = {{ registry = "https://index.example/simple" }}
sdist = {{ hash = "{}" }}
wheels = [{{ hash = "{}" }}]
[[package]]
name = "ours"
source = {{ virtual = "." }}
"""
    assert bundle.unreviewed(lock.format("click", known, known), f"--hash={known}") == []
    assert bundle.unreviewed(lock.format("click", known, other), f"--hash={known}") == ["click"]
    assert bundle.unreviewed(lock.format("click", other, known), f"--hash={known}") == ["click"]


def test_icon_is_drawn_from_the_svg_of_the_pages() -> None:
    svg = icon.SVG.read_text(encoding="utf-8")
    small = icon.png(svg, 16)
    assert hashlib.sha256(small).hexdigest() == hashlib.sha256(icon.png(svg, 16)).hexdigest()
    assert small != icon.png(svg.replace("2f5bd0", "000000"), 16)
    header = (ROOT / "packaging/bundle/icon.png").read_bytes()[16:24]
    assert [int.from_bytes(part, "big") for part in (header[:4], header[4:])] == [icon.SIZE, icon.SIZE]
