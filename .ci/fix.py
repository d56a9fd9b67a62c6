"""Format the code as `make check` wants it, over-long strings, comments and docstrings included.

Ruff fixes and formats, but splits no strings. Black can (a preview feature): it gets the files with a line that is too
long, and ruff formats them once more. What is left is a comment or a docstring, and is broken at a space.
"""

import ast
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

BIN = Path(sys.executable).parent
WIDTH = 120
SPLIT_STRINGS = ("--quiet", "--preview", "--enable-unstable-feature=string_processing", f"--line-length={WIDTH}")


def run(tool: str, *arguments: str) -> str:
    return subprocess.run([BIN / tool, *arguments], stdout=subprocess.PIPE, text=True, check=False).stdout


def long_lines() -> dict[Path, list[int]]:
    """Numbers of the lines that are too long, by file."""
    rows = json.loads(run("ruff", "check", "--select=E501", "--output-format=json", "."))
    lines = defaultdict[Path, list[int]](list)
    for row in rows:
        lines[Path(row["filename"])].append(row["location"]["row"])
    return lines


def docstring_lines(text: str) -> set[int]:
    """Numbers of the lines of docstrings, those of attributes included."""
    docstrings = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr))
    return {
        number
        for node in docstrings
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def broken(line: str) -> list[str]:
    """A comment on a line of its own, or a line of a docstring, in lines that are short enough."""
    prefix = line[: len(line) - len(line.lstrip(" #"))]
    lines = []
    while len(line) > WIDTH and (at := line.rfind(" ", len(prefix) + 1, WIDTH + 1)) > 0:
        lines.append(line[:at].rstrip())
        line = prefix + line[at:].strip()
    return [*lines, line]


def main() -> None:
    run("ruff", "check", "--fix-only", "--quiet", ".")
    run("ruff", "format", "--quiet", ".")
    if files := long_lines():
        run("black", *SPLIT_STRINGS, *map(str, files))
        run("ruff", "format", "--quiet", ".")
    for file, numbers in long_lines().items():
        text = file.read_text(encoding="utf-8")
        lines, prose = text.split("\n"), docstring_lines(text)
        for number in reversed(numbers):
            if number in prose or lines[number - 1].lstrip().startswith("#"):
                lines[number - 1 : number] = broken(lines[number - 1])
        file.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
