"""Nothing tells people to fetch the package by its name before it is published: whoever takes the name would run."""

import re
import subprocess
from pathlib import Path

import pytest

from fastn_mcp import IS_PUBLISHED

ROOT = Path(__file__).parents[2]
FETCHED_BY_NAME = re.compile(
    r"""(?x)
    \b(?:uvx|pipx\ run|uv\ tool\ (?:run|install)|pipx\ install|uv\ add|pip3?\ install|npx|bunx|pnpm\ dlx)
    (?:\ +-[-\w]+(?:=\S+)?)*            # options
    \ +['"]?@?(?:[\w-]+/)?fastn-mcp\b   # the name itself, not a folder or a wheel
    | --from[",\ =]+'?fastn-mcp[\[\]\w@=.]*['",\ ]+fastn-mcp
    | "identifier":\ "fastn-mcp"
    | ^fastn[-_]mcp\s*(?:\[[\w,]+\])?\s*(?:[=~<>]=.*)?$   # a line of requirements.txt
    """,
    re.MULTILINE,
)
ABOUT_PUBLISHING = {"fastn_mcp/__init__.py", "packaging/generate/surface.py", "tests/packaging/test_published_names.py"}
"""Files with the name that is fetched once IS_PUBLISHED is true."""


def fetching_lines(text: str) -> list[str]:
    return [match.group() for match in FETCHED_BY_NAME.finditer(text)]


@pytest.mark.parametrize(
    "line",
    [
        "uvx fastn-mcp demo",
        "uvx --from fastn-mcp fastn-mcp",
        "uvx --python 3.12 --from 'fastn-mcp[otel]' fastn-mcp",
        '"args": ["--from", "fastn-mcp", "fastn-mcp"]',
        "pip install -U fastn-mcp",
        "pip install 'fastn-mcp[otel]'",
        "pipx install fastn-mcp",
        "uv tool install fastn-mcp",
        "npx -y fastn-mcp",
        "npx -y @fastn/fastn-mcp",
        "fastn-mcp==0.1.0",
    ],
)
def test_a_fetch_by_name_is_recognized(line: str) -> None:
    assert fetching_lines(line)


@pytest.mark.parametrize(
    "line",
    [
        "uvx --from . fastn-mcp demo",
        "uvx --from git+https://example.com/fastn-mcp@v1 fastn-mcp",
        "pip install '.[otel]'",
        "npx -y @modelcontextprotocol/inspector --cli fastn-mcp --sandbox",
        '"command": "fastn-mcp"',
    ],
)
def test_another_source_is_not_taken_for_a_fetch_by_name(line: str) -> None:
    assert not fetching_lines(line)


@pytest.mark.skipif(IS_PUBLISHED, reason="the package has an owner")
def test_no_file_tells_to_fetch_the_package_by_name_before_it_is_published() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {
        name: lines
        for name in listed.split("\0")
        if name and name not in ABOUT_PUBLISHING and (ROOT / name).is_file()
        if (lines := fetching_lines((ROOT / name).read_text(encoding="utf-8", errors="replace")))
    }
    assert found == {}
