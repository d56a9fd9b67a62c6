"""How Sphinx makes the site of docs/*.md: `make docs`. What is special is in `site_pages`, which needs no Sphinx."""

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import site_pages  # noqa: E402

from fastn_mcp import __version__  # noqa: E402

project = "fastn-mcp"
release = version = __version__
html_title = f"fastn-mcp {__version__}"
copyright = "fastn-mcp contributors"  # noqa: A001  Sphinx calls it so
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["site/**", "images/**"]
nitpicky = True

smartquotes = False  # --sandbox is no dash
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["own.css"]
html_search_scorer = str(HERE / "static" / "scorer.js")
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1d5f8a", "color-brand-content": "#1d5f8a"},
    "dark_css_variables": {"color-brand-primary": "#7fc4f0", "color-brand-content": "#7fc4f0"},
}
# Names in fences that are no language of Pygments are plain text.
highlight_language = "text"


def setup(app: Any) -> None:
    app.connect("source-read", _read)
    app.connect("build-finished", _finished)


def _read(app: Any, name: str, source: list[str]) -> None:
    text = site_pages.inside(source[0], name, Path(app.srcdir))
    source[0] = text + site_pages.toctrees(Path(app.srcdir)) if name == "index" else text


def _finished(app: Any, trouble: Exception | None) -> None:
    if trouble is None and app.builder.name == "html":
        site_pages.for_models(Path(app.srcdir), Path(app.outdir))
