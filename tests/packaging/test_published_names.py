"""Nothing tells people to fetch the package by its name before it is published: whoever takes the name would run."""

import re
import subprocess
from pathlib import Path

import pytest

from fastn_mcp import IS_PUBLISHED, install_extra

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
    ("line", "is_fetch"),
    [
        ("uvx fastn-mcp demo", True),
        ("uvx --from fastn-mcp fastn-mcp", True),
        ("uvx --python 3.12 --from 'fastn-mcp[otel]' fastn-mcp", True),
        ('"args": ["--from", "fastn-mcp", "fastn-mcp"]', True),
        ("pip install -U fastn-mcp", True),
        ("pip install 'fastn-mcp[otel]'", True),
        ("pipx install fastn-mcp", True),
        ("uv tool install fastn-mcp", True),
        ("npx -y fastn-mcp", True),
        ("npx -y @fastn/fastn-mcp", True),
        ("fastn-mcp==0.1.0", True),
        ("uvx --from . fastn-mcp demo", False),
        ("uvx --from git+https://example.com/fastn-mcp@v1 fastn-mcp", False),
        ("pip install '.[otel]'", False),
        ("npx -y @modelcontextprotocol/inspector --cli fastn-mcp --sandbox", False),
        ('"command": "fastn-mcp"', False),
    ],
)
def test_fetch_by_name_is_told_from_other_sources(line: str, is_fetch: bool) -> None:
    assert bool(fetching_lines(line)) is is_fetch


@pytest.mark.skipif(IS_PUBLISHED, reason="the package has an owner")
def test_no_file_fetches_the_package_by_name_before_it_is_published() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {
        name: lines
        for name in listed.split("\0")
        if name and name not in ABOUT_PUBLISHING and (ROOT / name).is_file()
        if (lines := fetching_lines((ROOT / name).read_text(encoding="utf-8", errors="replace")))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("prefix", "command"),
    [
        ("/srv/app/.venv", "pip install '.[slack]'"),
        ("/srv/share/uv/tools/fastn-mcp", "uv tool install '.[slack]'"),
        ("/srv/share/pipx/venvs/fastn-mcp", "pipx install --force '.[slack]'"),
        ("/srv/cache/uv/archive-v0/Xk2", "uvx --from '.[slack]' fastn-mcp"),
    ],
)
def test_extra_is_installed_as_the_program_was(prefix: str, command: str) -> None:
    assert install_extra("slack", prefix) == f"{command} in a clone of the repository"
