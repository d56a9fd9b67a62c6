"""Refuse code that has to be decoded: two assignments on one line, walruses in expressions, functions that do too much.

    python .ci/density.py [FILE OR FOLDER ...]      the whole package without one
    python .ci/density.py --table                   a row for each room

The limits are those of the whole package. Locals are the names that a function binds, those of its comprehensions and
inner functions included, parameters not. Branches are `if`, `for`, `while`, `except`, `case`, conditional expressions,
`and` or `or`, and the loops of comprehensions.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

PACKAGE = Path(__file__).resolve().parent.parent / "fastn_mcp"

MAX_LOCALS = 15
MAX_BRANCHES = 20

BRANCHES = (
    *(ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case),
    *(ast.IfExp, ast.BoolOp, ast.comprehension),
)


@dataclass(frozen=True)
class Measure:
    name: str
    limit: float
    unit: str = ""
    """What there may be `limit` of in a thousand; none: `limit` is a number for the whole package."""

    def value(self, places: Sequence[str], totals: dict[str, int]) -> float:
        return 1000 * len(places) / max(totals[self.unit], 1) if self.unit else len(places)


PAIRED = Measure("assignments of two values on one line", 1, "lines")
WALRUSES = Measure("walruses", 3, "lines")
WALRUSES_ELSEWHERE = Measure("walruses outside of the test of an if or while statement", 0)
MANY_LOCALS = Measure(f"functions with more than {MAX_LOCALS} locals", 3, "functions")
MANY_BRANCHES = Measure(f"functions with more than {MAX_BRANCHES} branches", 0, "functions")
UNFORMATTED = Measure("comments `fmt: skip`", 8)

MEASURES = (PAIRED, WALRUSES, WALRUSES_ELSEWHERE, MANY_LOCALS, MANY_BRANCHES, UNFORMATTED)

Places = dict[Measure, list[str]]


def is_paired(node: ast.AST) -> TypeGuard[ast.Assign]:
    """Whether a statement assigns several values to several targets, rather than the parts of one value."""
    kinds = (ast.Tuple, ast.List)
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, kinds)
        and any(isinstance(target, kinds) for target in node.targets)
    )


def local_names(function: ast.AST) -> set[str]:
    names = (each for each in ast.walk(function) if isinstance(each, ast.Name))
    return {each.id for each in names if isinstance(each.ctx, ast.Store)}


def measured(tree: ast.AST) -> Iterator[tuple[Measure, int, str]]:
    """Yield what is measured in a module, with its line and a note."""
    nodes = [*ast.walk(tree)]
    tests = [node.test for node in nodes if isinstance(node, ast.If | ast.While)]
    in_tests = {id(each) for test in tests for each in ast.walk(test)}
    for node in nodes:
        if is_paired(node):
            yield PAIRED, node.lineno, ""
        elif isinstance(node, ast.NamedExpr):
            yield WALRUSES, node.lineno, ""
            if id(node) not in in_tests:
                yield WALRUSES_ELSEWHERE, node.lineno, ""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            number_of_locals = len(local_names(node))
            number_of_branches = sum(isinstance(each, BRANCHES) for each in ast.walk(node))
            if number_of_locals > MAX_LOCALS:
                yield MANY_LOCALS, node.lineno, f": {node.name} ({number_of_locals})"
            if number_of_branches > MAX_BRANCHES:
                yield MANY_BRANCHES, node.lineno, f": {node.name} ({number_of_branches})"


def count(files: Sequence[Path]) -> tuple[Places, dict[str, int]]:
    """Return the places of what is measured, and the numbers of lines and functions."""
    places: Places = {measure: [] for measure in MEASURES}
    totals = {"lines": 0, "functions": 0}
    for path in files:
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        tree = ast.parse(text)
        found = [*measured(tree)]
        for number, line in enumerate(lines, 1):
            if "# fmt: skip" in line:
                found.append((UNFORMATTED, number, ""))
        place = path.relative_to(PACKAGE.parent) if path.is_relative_to(PACKAGE) else path
        for measure, number, note in sorted(found, key=lambda each: each[1]):
            places[measure].append(f"{place}:{number}{note}")
        totals["lines"] += len(lines)
        totals["functions"] += sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))
    return places, totals


def problems(files: Sequence[Path]) -> list[str]:
    places, totals = count(files)
    found: list[str] = []
    for measure in MEASURES:
        value = measure.value(places[measure], totals)
        if value > measure.limit:
            unit = f" per 1,000 {measure.unit}" if measure.unit else ""
            found += [*places[measure], f"{value:.3g} {measure.name}{unit}; at most {measure.limit}", ""]
    return found[:-1]


def table() -> Iterator[str]:
    """Yield the counts of each room, and the shares of the package."""
    rooms = sorted(path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__")
    rows = {room.name: [*room.rglob("*.py")] for room in rooms}
    rows["(beside)"] = [*PACKAGE.glob("*.py")]
    rows["all"] = [*PACKAGE.rglob("*.py")]
    heads = ("lines", "functions", "paired", "walruses", "elsewhere", "locals", "branches", "fmt: skip")
    yield "".join(f"{head:>11}" for head in ("", *heads))
    for name, files in rows.items():
        places, totals = count(files)
        numbers = (*totals.values(), *(len(places[measure]) for measure in MEASURES))
        yield f"{name:>11}" + "".join(f"{number:11}" for number in numbers)
    places, totals = count(rows["all"])
    shares = (measure.value(places[measure], totals) if measure.unit else 0 for measure in MEASURES)
    yield f"{'per 1,000':>33}" + "".join(f"{share:11.2f}" if share else " " * 11 for share in shares)


def files_of(paths: Sequence[str]) -> list[Path]:
    found: set[Path] = set()
    for path in map(Path, paths):
        found |= {*path.resolve().rglob("*.py")} if path.is_dir() else {path.resolve()}
    return sorted(found)


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        sys.exit(print("\n".join(table())))
    sys.exit("\n".join(problems(files_of(sys.argv[1:] or [str(PACKAGE)]))) or None)
