"""Refuse module names that nobody would search for, and class names that mean two things."""

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "fastn_mcp"

GERUND_OR_PARTICIPLE = re.compile(r"(ing|ed)$")
NOUNS = {
    "billing", "error_mapping", "finding", "keyring", "matching", "paging", "parsing", "ranking",
    "rendering",
}  # fmt: skip
"""Words of the field that only look like it."""


def problems() -> list[str]:
    found: list[str] = []
    classes: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        place = str(path.relative_to(PACKAGE.parent))
        name = path.parent.name if path.stem == "__init__" else path.stem
        if GERUND_OR_PARTICIPLE.search(name) and name not in NOUNS:
            found.append(f"{place}: name the module by a noun that says what is in it")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(f"{place}:{node.lineno}")
    for name, places in sorted(classes.items()):
        if len(places) > 1:
            found.append(f"{name} is the name of {len(places)} classes: {', '.join(places)}")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(problems()) or None)
