"""The pages say all that there is to say of tools, outcomes and settings, and models get them too."""

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import site_pages
from check import troubles
from tool_pages import toolsets

from fastn_mcp import errors
from fastn_mcp.config.model import SOURCES
from fastn_mcp.errors import NOTHING_CHANGED, NOTHING_SENT, AppliedUnreadable, FastnError, Incomplete, UnknownOutcome
from fastn_mcp.extensions.install.clients import NotInstalled
from fastn_mcp.procedures.catalog import ALL_TOOLS

DOCS = Path(__file__).parents[2] / "docs"


def kinds() -> Iterator[type[FastnError]]:
    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, FastnError) and "outcome" in vars(found):
            yield found
    yield NotInstalled


def test_first_hour_is_short() -> None:
    """At most 20 modules and 4,500 lines, all of which exist."""
    section = (DOCS / "architecture.md").read_text().partition("### The first hour")[2].partition("\n## ")[0]
    modules = dict.fromkeys(re.findall(r"`([\w/]+\.py)`", section))
    lines = sum(len((DOCS.parent / "fastn_mcp" / module).read_text().splitlines()) for module in modules)
    assert 10 < len(modules) <= 20
    assert 4_000 < lines <= 4_500


OUTCOMES = {kind.outcome: kind for kind in kinds() if kind is not FastnError}
SECTIONS = {
    found[1]: found[2]
    for found in re.finditer(
        r"^### `(\w+)`\n(.*?)(?=^##|\Z)", (DOCS / "troubleshooting.md").read_text(), re.DOTALL | re.MULTILINE
    )
}


def test_troubleshooting_has_exactly_the_outcomes_of_the_errors() -> None:
    assert SECTIONS.keys() == OUTCOMES.keys()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_outcome_section_has_meaning_sent_and_next(outcome: str) -> None:
    match = re.fullmatch(r"\n(.+?)\n\n\*Sent:\* (.+?)\n\n\*Next:\* .+\n*", SECTIONS[outcome], re.DOTALL)
    assert match is not None
    meaning, sent = match.groups()
    assert meaning.endswith(".")
    kind = OUTCOMES[outcome]
    expected = {NOTHING_SENT: "nothing", NOTHING_CHANGED: "yes, and", "": ""}
    special: dict[type[FastnError], str] = {
        UnknownOutcome: "yes. Whether it was done is not known.",
        AppliedUnreadable: "yes, and it was done.",
        Incomplete: "the rows say it",
        NotInstalled: "nothing",
        errors.SettingsError: "nothing",
    }
    assert sent.startswith(special.get(kind, expected.get(kind.certainty, "?")))


def test_every_tool_has_a_page_and_every_setting_a_row() -> None:
    pages = {toolset: (DOCS / "tools" / f"{toolset}.md").read_text() for toolset in toolsets()}
    sections = [name for text in pages.values() for name in re.findall(r"^## (\w+)$", text, re.MULTILINE)]
    assert sorted(sections) == sorted(tool.tool_name() for tool in ALL_TOOLS)
    settings = (DOCS / "settings.md").read_text()
    for source in SOURCES:
        assert f"`{source.field}`" in settings
        assert f"`{source.variable}`" in settings


def test_index_names_every_page_once() -> None:
    listed = [page.file for group in site_pages.pages(DOCS).values() for page in group]
    assert listed[0] == "start.md"
    assert len(listed) == len(set(listed))
    for name in listed:
        assert (DOCS / name).is_file()


def test_page_missing_from_the_index_is_listed_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("# x\n\nWhat it is.\n\n## One\n\n- [First](a.md): about a\n")
    (tmp_path / "a.md").write_text("# A\n")
    (tmp_path / "b.md").write_text("# The second\n")
    assert "- [First](a.md): about a" in site_pages.llms(tmp_path)
    assert f"## {site_pages.REST}\n\n- [The second](b.md)" in site_pages.llms(tmp_path)
    assert ":caption: One\n\nFirst <a>\n" in site_pages.toctrees(tmp_path)


def test_llms_txt_lists_the_pages(tmp_path: Path) -> None:
    """An `llms.txt`, as llmstxt.org has it: a title, a summary, headings with links that lead somewhere."""
    site_pages.for_models(DOCS, tmp_path)
    text = (tmp_path / "llms.txt").read_text()
    assert text.startswith("# fastn-mcp\n\n> An MCP server")
    links = re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", text, re.MULTILINE)
    assert {"start.md", "tools.md", "troubleshooting.md", "llms-full.txt"} <= set(links)
    for link in links:
        assert (tmp_path / link).is_file(), link
    assert len((tmp_path / "llms.txt").read_bytes()) < 8_000
    full = (tmp_path / "llms-full.txt").read_text()
    assert all(f"\n## {tool.tool_name()}\n" in full for tool in ALL_TOOLS)


def test_link_out_of_the_docs_leads_to_the_repository() -> None:
    text = "[a](../examples/policy.toml) [b](policy.md) [c](../nowhere) ![d](../LICENSE)\n```\n[e](../tools)\n```"
    assert site_pages.inside(text, "start", DOCS) == text.replace(
        "[a](../examples", f"[a]({site_pages.REPOSITORY}/examples"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('<a href="b.html">x</a>', "b.html leads nowhere"),
        ('<a href="#no">x</a>', "#no: the page has no such anchor"),
        ('<a href="http://plain.example/">x</a>', "no link of the form"),
        ('<a href="../../out.html">x</a>', "leads nowhere"),
        ('<script src="https://cdn.example/x.js"></script>', "from another host"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "from another host"),
        ('<img src="a.png">', "has no words"),
    ],
)
def test_check_of_a_built_site_finds_mistakes(body: str, message: str, tmp_path: Path) -> None:
    """Links are checked; ours: nothing comes from another host."""
    for name in ("llms.txt", "llms-full.txt"):
        (tmp_path / name).touch()
    page = tmp_path / "a.html"
    page.write_text('<a id="top" href="#top">x</a> <a href="https://fastn.ai/x">x</a> <a href="a.html#top">x</a>')
    assert troubles(tmp_path) == []
    page.write_text(body)
    (found,) = troubles(tmp_path)
    assert message in found


REFERENCE = {"command-line.md", "contributing/measured.md", "contributing/modules.md"}
"""Pages of tables, most of them generated. A reader looks something up in them instead of reading them."""


def words(page: Path) -> int:
    text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"))
    return len([word for word in text.split() if re.search(r"\w", word)])


def test_readme_has_at_most_700_words() -> None:
    assert words(DOCS.parent / "README.md") <= 700


GUIDES = {"start.md", "approving.md", "policy.md", "unattended.md", "hosting.md", "operations.md"}
"""Each is complete for its reader."""


def test_page_has_at_most_1800_words_and_a_guide_2500() -> None:
    pages = {page.relative_to(DOCS).as_posix(): words(page) for page in DOCS.rglob("*.md")}
    long = {page for page, number in pages.items() if number > (2_500 if page in GUIDES else 1_800)}
    assert long == REFERENCE


def test_there_are_at_most_32_pages_beside_tools_and_contributing() -> None:
    assert len({*DOCS.glob("*.md")} - {DOCS / "tools.md"}) <= 32


CREATED = {"count_connections", "get_user", "notification_file", "NAME"}
"""Files that a reader of `docs/contributing/` creates, each with or without a test."""


@pytest.mark.parametrize("page", sorted(DOCS.glob("contributing/*.md")), ids=lambda page: page.stem)
@pytest.mark.extension
def test_contributing_page_names_files_that_exist(page: Path) -> None:
    named = re.findall(r"(?:fastn_mcp|tests|docs|tools)/[\w/.-]+\.(?:py|md|json)", page.read_text(encoding="utf-8"))
    missing = [name for name in named if not (DOCS.parent / name).is_file()]
    assert [name for name in missing if not _is_created(Path(name))] == []


@pytest.mark.parametrize("page", sorted(DOCS.glob("contributing/*.md")), ids=lambda page: page.stem)
@pytest.mark.extension
def test_contributing_page_imports_what_exists(page: Path) -> None:
    imports = re.findall(r"^from (fastn_mcp[\w.]*) import (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    existing = [(module, names) for module, names in imports if module.rpartition(".")[2] not in CREATED]
    assert [
        (module, name) for module, names in existing for name in names.split(", ") if not _exists(module, name)
    ] == []


def _is_created(file: Path) -> bool:
    return file.stem.removeprefix("test_") in CREATED or "NAME" in file.parts


def _exists(module: str, name: str) -> bool:
    return find_spec(module) is not None and hasattr(import_module(module), name)


_NAMES = re.compile(r"(?<=\.)\w*[a-z]_\w*\(|(?<![\w.])(?:_[a-z]\w+|(?!FASTN_)[A-Z][A-Z0-9]*_[A-Z0-9_]+)\b")
"""Methods that are called, private names and constants."""


@cache
def source() -> str:
    files = [path for folder in ("fastn_mcp", "tests") for path in (DOCS.parent / folder).rglob("*.py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files if path != Path(__file__))


@pytest.mark.parametrize(
    "page", sorted({*DOCS.glob("contributing/*.md")} - {DOCS / "contributing/index.md"}), ids=lambda page: page.stem
)
def test_contributing_page_uses_names_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))
    theirs = set(re.findall(r"(?:def |^)(\w+)(?=\(| = |: )", code, re.MULTILINE))
    named = {name for name in _NAMES.findall(code) if name.rstrip("(") not in theirs}
    assert [name for name in sorted(named) if re.search(rf"\b{re.escape(name)}", source()) is None] == []


def test_pages_that_the_package_names_exist() -> None:
    pages = {page.name for page in DOCS.rglob("*.md")} | {"skill.md"}
    named = {
        (path.name, page)
        for path in (DOCS.parent / "fastn_mcp").rglob("*.py")
        for page in re.findall(r"\b[a-z][a-z-]*\.md\b", path.read_text())
    }
    assert {(path, page) for path, page in named if page not in pages} == set()
    assert ("model.py", "approving.md") in named
