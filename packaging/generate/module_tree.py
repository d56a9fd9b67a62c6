"""The package's modules, each with the first line of its docstring, for `docs/contributing/modules.md`."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "fastn_mcp"


def module_tree() -> str:
    """A table for each package, in the order of their paths."""
    parts: list[str] = []
    for folder in [PACKAGE, *sorted(path for path in PACKAGE.rglob("*") if (path / "__init__.py").exists())]:
        own = sorted(path for path in folder.glob("*.py") if not path.name.startswith("__"))
        place = "fastn_mcp" if folder == PACKAGE else str(folder.relative_to(PACKAGE))
        rows = [f"| `{path.stem}` | {_first_line(path)} |" for path in own]
        head = f"| **{place}** | {_first_line(folder / '__init__.py')} |"
        parts.append("\n".join([head, "|---|---|", *rows]))
    return "\n\n".join(parts)


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].replace("|", "\\|")
