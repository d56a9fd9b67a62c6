"""Whether the tests of the rest pass where an extension is missing: python .ci/without_extension.py NAME.

In a clone of the last commit the extension is deleted, with the tests that import it, and the other tests run. Those
that are marked `extension` with its name are skipped.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"

LISTS_ALL = ("surface", "write")
"""Modules of packaging/generate, which write pages and manifests that list every extension."""


def main(name: str, arguments: list[str]) -> int:
    """Clone, delete and run; return the exit code of the tests."""
    clone = ROOT / ".cache" / "without" / name
    shutil.rmtree(clone, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(clone)], check=True)
    shutil.rmtree(clone / "fastn_mcp" / "extensions" / name)
    deleted = [file.relative_to(ROOT) for file in tests_that_import(f"fastn_mcp.extensions.{name}", *LISTS_ALL)]
    for file in deleted:
        (clone / file).unlink(missing_ok=True)
    print(f"Without {name}. Its tests:", *deleted, sep="\n  ", flush=True)
    make = ["make", "--no-print-directory", "-C", str(clone), "test", f"ARGS={' '.join(arguments)}"]
    return subprocess.run(make, check=False).returncode


def tests_that_import(*modules: str) -> list[Path]:
    """Return the files of tests that import one of the modules, or one of these files."""
    imported = {file: imports_of(file) for file in TESTS.rglob("*.py")}
    gone: set[Path] = set()
    names = {*modules}
    while more := {file for file in imported.keys() - gone if any(is_within(each, names) for each in imported[file])}:
        gone |= more
        names |= {module_of(file) for file in more}
    return sorted(gone)


def imports_of(file: Path) -> set[str]:
    """Return the modules, and the names within modules, that a file imports when it is loaded."""
    names: set[str] = set()
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            names |= {each.name for each in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module is not None:
            names |= {f"{statement.module}.{each.name}" for each in statement.names}
    return names


def is_within(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def module_of(file: Path) -> str:
    """Return the name by which tests import a file: `support.world`, or that of a test, which nothing imports."""
    parts = file.relative_to(TESTS).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not (ROOT / "fastn_mcp" / "extensions" / sys.argv[1] / "__init__.py").is_file():
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
