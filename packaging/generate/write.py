"""Write the generated files of the repository, or name those that differ: `write.py [--check]`.

`make surface` and `make check-generated` run it.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE)]

import surface  # noqa: E402
from command_page import reference  # noqa: E402
from module_tree import module_tree  # noqa: E402
from tool_pages import overview, tool_pages  # noqa: E402

ROOT = HERE.parents[1]


def documentation(docs: Path) -> dict[Path, str]:
    """The text of each generated page, and of each page with a generated part."""
    tables = {
        "tools": overview(),
        "settings": surface.settings_table(),
        "extensions": surface.extensions_table(),
        "commands": reference(),
        "modules": module_tree(),
    }
    files = {page: surface.fill_tables(page.read_text(encoding="utf-8"), tables) for page in docs.glob("*.md")}
    return files | {docs / "tools" / name: text for name, text in tool_pages().items()}


def differing(root: Path, files: dict[Path, str]) -> list[Path]:
    """The files that are missing or differ, and those of tools and toolsets that no longer exist."""
    stale = {path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text}
    written = {*(root / "tools").glob("*.json"), *(root / "docs" / "tools").glob("*.md")}
    return sorted(stale | (written - files.keys()))


def bring_up_to_date(paths: list[Path], files: dict[Path, str]) -> None:
    """Write each of `paths`, or remove it where nothing generates it."""
    for path in paths:
        if path in files:
            path.parent.mkdir(exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
        else:
            path.unlink()


def main(arguments: list[str]) -> int:
    files = surface.wanted(ROOT) | documentation(ROOT / "docs")
    changed = differing(ROOT, files)
    checked = "--check" in arguments
    sys.stdout.writelines(f"{'differs' if checked else 'written'}: {path.relative_to(ROOT)}\n" for path in changed)
    if checked:
        return 1 if changed else 0
    bring_up_to_date(changed, files)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
