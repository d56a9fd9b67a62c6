"""Mutate the guard and the rooms below it, and count the mutants that their tests kill.

Usage: `mutants.py [--sample [SEED]] [MODULE...]`.

Without `--sample` every mutant of the named modules is tried (`guard.undo`, `policy.matching`, `audit` for a whole
package; without a name those of all whose function changed since they were last tried), and fewer than 95 % killed are
a failure. With it a few functions are drawn, by a seed that is printed: the day, unless one is given. They are tried
without the long tests, random searches and those that race processes: they take minutes, and some fail by chance where
the machine is busy.
"""

import argparse
import ast
import json
import random
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("audit", "guard", "ledger", "policy")
ROOM_FILES = [f"fastn_mcp/{room}/*" for room in ROOMS]
MUTATED = f"only_mutate = {json.dumps(ROOM_FILES)}"
ROOM_TESTS = [f"tests/{room}" for room in ROOMS]
TESTS = f"test_selection = {json.dumps(ROOM_TESTS)}"
SAMPLED = [room for room in ROOM_TESTS if room != "tests/ledger"]
_LEFT_OUT = ["--ignore-glob=*_properties.py", "--ignore-glob=*test_guard_machine.py", "-mnot long"]
SAMPLE_TESTS = f"test_selection = {json.dumps([*SAMPLED, *_LEFT_OUT])}"
COPIED = ("docs", "examples", "fastn_mcp", "packaging", "tests", "tools")
SAMPLED_LINES = 15
"""Lines of code that a sample has at least: some 20 mutants."""
LONGEST = 10
"""Lines of the longest function in a sample: each of its mutants runs all tests that reach it."""
WANTED = 0.95
SAMPLE_WANTED = 0.6
"""A sample is of few functions, and one of them can be mostly words."""
KILLED = {"killed", "timeout", "segfault"}
_CASELESS = re.compile(
    r"(SELECT|INSERT|UPDATE|DELETE|PRAGMA|BEGIN|COMMIT|ROLLBACK|WHERE|ORDER)\b.*|[A-Z]{2,}|[+-]inf", re.DOTALL
)
"""Statements of SQL, and commands of Valkey with their options."""


def workspace(name: str, files: list[str], tests: str = TESTS) -> Path:
    """A folder in which mutmut finds the project, mutates these files only, and runs these tests."""
    folder = ROOT / ".cache" / name
    folder.mkdir(parents=True, exist_ok=True)
    for copied in COPIED:
        if not (folder / copied).exists():
            (folder / copied).symlink_to(ROOT / copied)
    # mutmut renews what it mutates, and keeps the rest as it was copied first.
    shutil.rmtree(folder / "mutants/tests", ignore_errors=True)
    for path in (ROOT / "fastn_mcp").rglob("*.*"):
        if path.suffix != ".py":
            (folder / "mutants" / path.relative_to(ROOT)).unlink(missing_ok=True)
    settings = (ROOT / "pyproject.toml").read_text()
    for wanted, replacement in ((MUTATED, f"only_mutate = {json.dumps(files)}"), (TESTS, tests)):
        if wanted not in settings:
            sys.exit(f"pyproject.toml does not hold {wanted}")
        settings = settings.replace(wanted, replacement)
    (folder / "pyproject.toml").write_text(settings)
    return folder


def mutmut(folder: Path, *arguments: str) -> str:
    """What mutmut says, which is shown where it fails."""
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(re.sub(r"[^\n]*\r", "", ended.stdout[-20_000:]) + ended.stderr)
    return ended.stdout


def hidden_conditions() -> Iterator[str]:
    """The conditions in expressions that mutmut skips, since they begin on a line of `do_not_mutate_patterns`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    skipped = re.compile("|".join(f"(?:{pattern})" for pattern in settings["do_not_mutate_patterns"]))
    for path in room_modules():
        lines = path.read_text().splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.expr) and skipped.search(lines[node.lineno - 1]) and is_conditional(node):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"


def is_conditional(expression: ast.expr) -> bool:
    """Whether something in it depends on a condition."""
    return any(
        isinstance(node, ast.IfExp | ast.BoolOp | ast.Compare | ast.Not | ast.Lambda)
        or (isinstance(node, ast.comprehension) and bool(node.ifs))
        for node in ast.walk(expression)
    )


def room_modules() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / "fastn_mcp" / room).rglob("*.py"))


def functions() -> Iterator[tuple[Path, str, int]]:
    """Each function and method of the rooms: its file, mutmut's name for it, its lines."""
    for path in room_modules():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    prefix = f"xǁ{node.name}ǁ" if isinstance(node, ast.ClassDef) else "x_"
                    yield path, f"{module}.{prefix}{inner.name}", len(ast.unparse(inner).splitlines())


def sample(seed: int) -> tuple[list[str], list[str]]:
    """Files and functions of a sample: none of the ledger, whose tests race processes."""
    found = [one for one in functions() if one[2] <= LONGEST and "ledger" not in one[0].parts]
    random.Random(seed).shuffle(found)
    files, names, lines = set[str](), list[str](), 0
    while lines < SAMPLED_LINES:
        path, name, length = found.pop()
        files.add(str(path.relative_to(ROOT)))
        names.append(name)
        lines += length
    return sorted(files), names


def parsed(path: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The mutants of a file and their originals, by mutmut's names."""
    return {
        node.name: node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "__mutmut_" in node.name
    }


def caseless_texts(function: ast.AST) -> set[str]:
    """The statements and commands for a database in it, in lower case."""
    texts = (
        node.value for node in ast.walk(function) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text.lower() for text in texts if _CASELESS.fullmatch(text)}


def without_ignored(function: ast.FunctionDef | ast.AsyncFunctionDef, caseless: set[str]) -> str:
    """The body of a function without what is ignored: the type in `cast`, and the case of these texts."""

    class Blanked(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            is_cast = isinstance(node.func, ast.Name) and node.func.id == "cast" and len(node.args) == 2
            return node.args[1] if is_cast else node

        def visit_Constant(self, node: ast.Constant) -> ast.Constant:
            if isinstance(node.value, str) and node.value.lower() in caseless:
                return ast.Constant(node.value.lower())
            return node

    return "\n".join(ast.dump(Blanked().visit(line)) for line in function.body)


def equivalents(folder: Path) -> set[str]:
    """The mutants that differ from their original only in what Python, or the database, ignores."""
    found = set[str]()
    for path in sorted(path for room in ROOMS for path in (folder / "mutants/fastn_mcp" / room).rglob("*.py")):
        relative = path.relative_to(folder / "mutants").with_suffix("")
        module = ".".join(relative.parts).removesuffix(".__init__")
        functions = parsed(path)
        originals = {name: f"{name.rpartition('__mutmut_')[0]}__mutmut_orig" for name in functions}
        ledger = "ledger" in relative.parts
        caseless = {name: caseless_texts(functions[name]) if ledger else set[str]() for name in set(originals.values())}
        bodies = {name: without_ignored(function, caseless[originals[name]]) for name, function in functions.items()}
        found.update(
            f"{module}.{name}"
            for name, original in originals.items()
            if name != original and bodies[name] == bodies[original]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, nargs="?", const=int(time.time() // 86_400), metavar="SEED")
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    options = parser.parse_args()
    if hidden := list(hidden_conditions()):
        sys.exit("Move these conditions to lines that are mutated:\n" + "\n".join(hidden))
    if options.sample is not None:
        shutil.rmtree(ROOT / ".cache/mutants-sample", ignore_errors=True)
        files, names = sample(options.sample)
        print(f"Sample {options.sample}: {', '.join(name.removeprefix('fastn_mcp.') for name in names)}")
        folder, wanted, suffix = workspace("mutants-sample", files, SAMPLE_TESTS), SAMPLE_WANTED, "__mutmut_*"
    else:
        folder, wanted, suffix = workspace("mutants", ROOM_FILES), WANTED, "*"
        names = [f"fastn_mcp.{module}" for module in options.modules]
    mutmut(folder, "run", "--max-children", "1", *(f"{name}{suffix}" for name in names))
    found = dict(re.findall(r"^ +(\S+): (.+)$", mutmut(folder, "results", "--all", "true"), re.MULTILINE))
    wanted_names = tuple(f"{name}{suffix[:-1]}" for name in names)
    statuses = {name: status for name, status in found.items() if not names or name.startswith(wanted_names)}
    same = equivalents(folder)
    statuses = {name: status for name, status in statuses.items() if name not in same}
    if options.sample is not None:
        # Some functions are reached by other tests only, which a sample has no time for.
        statuses = {name: status for name, status in statuses.items() if status != "no tests"}
    survivors = sorted(name for name, status in statuses.items() if status not in KILLED)
    modules = Counter(re.sub(r"\.x[_ǁ].*", "", name) for name in statuses)
    for module, count in sorted(modules.items()):
        alive = sum(re.sub(r"\.x[_ǁ].*", "", name) == module for name in survivors)
        print(f"{module}: {count - alive} of {count} killed")
    if survivors:
        print(f"Show one: (cd {folder.relative_to(ROOT)} && {Path(sys.executable).with_name('mutmut')} show NAME)")
    for name in survivors:
        print(f"  {statuses[name]}: {name}")
    killed = 1 - len(survivors) / max(len(statuses), 1)
    print(f"{len(statuses) - len(survivors)} of {len(statuses)} mutants killed: {killed:.1%}")
    if killed < wanted:
        sys.exit(f"At least {wanted:.0%} have to be.")


if __name__ == "__main__":
    main()
