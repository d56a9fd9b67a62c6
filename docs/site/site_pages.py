"""The pages of the site: their order, their links out of docs/, and the texts for models. Standard library only.

`docs/index.md` is the one list of pages: the navigation and `llms.txt` are made of its headings and links.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = "https://github.com/fastn-ai/fastn-mcp/blob/main"
"""Where a file that is no page is shown."""

REST = "More"
"""The heading of pages that the index does not name."""

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<to>[^)\s]+)\)")
_ENTRY = re.compile(r"^- \[(?P<title>[^\]]+)\]\((?P<to>[\w./-]+\.md)\)(?:: (?P<about>.*))?$")
_FENCE = re.compile(r"^ *```")


@dataclass(frozen=True, slots=True)
class Page:
    """A page as the index names it."""

    file: str
    title: str
    about: str


def pages(docs: Path) -> dict[str, list[Page]]:
    """All pages under their headings, in order; those that the index does not name come last."""
    found: dict[str, list[Page]] = {}
    heading = ""
    for line in (docs / "index.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif entry := _ENTRY.match(line):
            found.setdefault(heading, []).append(Page(entry["to"], entry["title"], entry["about"] or ""))
    named = {"index.md", *(page.file for listed in found.values() for page in listed)}
    here = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    if rest := [Page(name, title(docs / name), "") for name in here if name not in named]:
        found.setdefault(REST, []).extend(rest)
    return found


def title(page: Path) -> str:
    """Its first heading."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return next((line[2:] for line in lines if line.startswith("# ")), page.stem)


def toctrees(docs: Path) -> str:
    """The navigation, as Sphinx reads it."""
    trees = [
        f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n"
        + "".join(f"{page.title} <{page.file.removesuffix('.md')}>\n" for page in listed)
        + "```\n"
        for heading, listed in pages(docs).items()
    ]
    return "\n" + "".join(trees)


def inside(text: str, name: str, docs: Path) -> str:
    """The text of a page, with each link to a file outside of docs/ as one into the repository.

    A link to a file that is not there stays as it is, and the build says so.
    """
    folder = (docs / f"{name}.md").parent
    root = docs.parent.resolve()

    def link(found: re.Match[str]) -> str:
        to, hash_, anchor = found["to"].partition("#")
        file = (folder / to).resolve()
        if not to.startswith("../") or file.is_relative_to(docs.resolve()) or not file.exists():
            return found[0]
        return f"[{found['text']}]({REPOSITORY}/{file.relative_to(root).as_posix()}{hash_}{anchor})"

    return "\n".join(line if fenced else _LINK.sub(link, line) for line, fenced in _lines(text))


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is code."""
    fenced = False
    for line in text.split("\n"):
        edge = _FENCE.match(line) is not None
        yield line, fenced or edge
        fenced ^= edge


def llms(docs: Path) -> str:
    """`llms.txt`: what there is to read, as links to the pages' Markdown. See llmstxt.org."""
    index = (docs / "index.md").read_text(encoding="utf-8")
    about = " ".join(index.split("\n\n")[1].split())
    parts = [f"# fastn-mcp\n\n> {about}\n"]
    for heading, listed in pages(docs).items():
        rows = [f"- [{page.title}]({page.file})" + (f": {page.about}" if page.about else "") for page in listed]
        parts.append(f"## {heading}\n\n" + "\n".join(rows) + "\n")
    parts.append("## Optional\n\n- [Everything in one file](llms-full.txt): all pages above, in this order\n")
    return "\n".join(parts)


def llms_full(docs: Path) -> str:
    """All pages in one text, in the order of the index."""
    listed = [page.file for group in pages(docs).values() for page in group]
    texts = [f"<!-- {name} -->\n\n{_page(docs, name).strip()}\n" for name in ["index.md", *listed]]
    return "\n".join(texts)


def for_models(docs: Path, site: Path) -> None:
    """Write `llms.txt`, `llms-full.txt` and each page's Markdown beside the pages of a built site."""
    (site / "llms.txt").write_text(llms(docs), encoding="utf-8")
    (site / "llms-full.txt").write_text(llms_full(docs), encoding="utf-8")
    for listed in [[Page("index.md", "", "")], *pages(docs).values()]:
        for page in listed:
            (site / page.file).parent.mkdir(parents=True, exist_ok=True)
            (site / page.file).write_text(_page(docs, page.file), encoding="utf-8")


def _page(docs: Path, name: str) -> str:
    return inside((docs / name).read_text(encoding="utf-8"), name.removesuffix(".md"), docs)
