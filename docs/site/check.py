"""Looks at a built site as a browser would: `check.py FOLDER`. Standard library only.

Sphinx has checked the links of the Markdown. This checks what came of them: each link within the site leads to a file
and an anchor that are there, each link out of it has the form of one, and no page loads anything from another host.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from typing_extensions import override  # comes with Sphinx too

_LOADS = {("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src"), ("link", "href"), ("object", "data")}
_ELSEWHERE = {"canonical", "alternate", "next", "prev", "author", "help"}


class Found(HTMLParser):
    """The anchors of a page, where it leads, and what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.silent: list[str] = []
        """Pictures without words for those who do not see them."""

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img" and not given.get("alt"):
            self.silent.append(given.get("src", ""))
        for name, value in given.items():
            if (tag, name) in _LOADS and given.get("rel") not in _ELSEWHERE:
                self.loads.append(value)


def troubles(site: Path) -> list[str]:
    """What is wrong with the site, a line each."""
    found = {page.resolve(): _read(page) for page in sorted(site.rglob("*.html"))}
    said: list[str] = []
    for page, has in found.items():
        name = page.relative_to(site.resolve())
        said += [f"{name}: loads {load}, from another host" for load in has.loads if urlsplit(load).netloc]
        said += [f"{name}: {wrong}" for link in has.links if (wrong := _wrong(link, page, site.resolve(), found))]
        said += [f"{name}: the picture {picture} has no words" for picture in has.silent]
    for sheet in site.rglob("*.css"):
        if "url(http" in (text := sheet.read_text(encoding="utf-8")) or "@import" in text:
            said.append(f"{sheet.name}: loads something from elsewhere")
    for name in ("llms.txt", "llms-full.txt"):
        if not (site / name).is_file():
            said.append(f"{name} is missing")
    return said


def _read(page: Path) -> Found:
    found = Found()
    found.feed(page.read_text(encoding="utf-8"))
    return found


def _wrong(link: str, page: Path, site: Path, found: dict[Path, Found]) -> str:
    parts = urlsplit(link)
    if parts.scheme == "mailto":
        return "" if "@" in parts.path else f"{link} is no address"
    if parts.scheme or parts.netloc:
        well = parts.scheme == "https" and "." in parts.netloc and not any(c.isspace() for c in link)
        return (
            ""
            if well or parts.hostname in ("127.0.0.1", "localhost")
            else f"{link} is no link of the form https://host/path"
        )
    file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if file.is_dir():
        file /= "index.html"
    if not file.is_relative_to(site) or not file.exists():
        return f"{link} leads nowhere"
    anchor = unquote(parts.fragment)
    if anchor and file in found and anchor not in found[file].anchors:
        return f"{link}: the page has no such anchor"
    return ""


if __name__ == "__main__":
    wrong = troubles(Path(sys.argv[1]))
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    sys.exit(1 if wrong else 0)
