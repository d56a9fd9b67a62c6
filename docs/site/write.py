"""Writes what is generated in docs/, or says what differs: `write.py [--check]`. `make surface` runs it."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE)]

from command_page import reference  # noqa: E402
from module_tree import module_tree  # noqa: E402
from tool_pages import overview, tool_pages  # noqa: E402

from fastn_mcp.cli.surface import fill_tables, settings_table  # noqa: E402

DOCS = HERE.parent


def wanted(docs: Path) -> dict[Path, str]:
    """What each generated file ought to hold."""
    parts = {"tools": overview(), "settings": settings_table(), "commands": reference(), "modules": module_tree()}
    files = {page: fill_tables(page.read_text(encoding="utf-8"), parts) for page in docs.glob("*.md")}
    return files | {docs / "tools" / name: text for name, text in tool_pages().items()}


def main(arguments: list[str]) -> int:
    files = wanted(DOCS)
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    gone = sorted(set((DOCS / "tools").glob("*.md")) - files.keys())
    if "--check" in arguments:
        sys.stdout.writelines(f"differs: {path.relative_to(DOCS.parent)}\n" for path in [*stale, *gone])
        return 1 if stale or gone else 0
    (DOCS / "tools").mkdir(exist_ok=True)
    for path in stale:
        path.write_text(files[path], encoding="utf-8")
        sys.stdout.write(f"written: {path.relative_to(DOCS.parent)}\n")
    for path in gone:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
