"""Lays the bundle out, ready for `mcpb pack`: `bundle.py WHEEL FOLDER`.

The folder is a project of uv: the wheel, what it needs as `packaging/requirements.txt` pins it, and a lock. What is
installed is held by the digests of the lock, and each of them is one that `make lock` had reviewed.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from uv import find_uv_bin

HERE = Path(__file__).parent
PIN = re.compile(r"^([a-z0-9][^\\\n]+)", re.MULTILINE)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def pins(requirements: str) -> list[str]:
    """Each requirement as it stands in a project: `click==8.5.1`, `pywin32==312 ; sys_platform == 'win32'`."""
    return [pin.strip() for pin in PIN.findall(requirements)]


def project(wheel: str, requirements: str) -> str:
    """The `pyproject.toml` of a bundle."""
    name, version, *_ = wheel.split("-")
    listed = "".join(f"    {json.dumps(pin)},\n" for pin in ["fastn-mcp", *pins(requirements)])
    return f"""\
[project]
name = "{name.replace("_", "-")}-bundle"
version = "{version}"
requires-python = ">=3.11"
dependencies = [
{listed}]

[tool.uv]
package = false

[tool.uv.sources]
fastn-mcp = {{ path = "{wheel}" }}
"""


def unreviewed(lock: str, requirements: str) -> list[str]:
    """The packages of a lock of which some file's digest is not among the requirements'."""
    known = set(DIGEST.findall(requirements))
    return [
        package["name"]
        for package in tomllib.loads(lock)["package"]
        if "registry" in package["source"]
        if not {file["hash"] for file in (*package.get("wheels", ()), *filter(None, [package.get("sdist")]))} <= known
    ]


def main(wheel: Path, folder: Path) -> None:
    requirements = (HERE / "requirements.txt").read_text(encoding="utf-8")
    shutil.copytree(HERE / "bundle", folder)
    shutil.copy(HERE.parent / "LICENSE", folder)
    shutil.copy(wheel, folder)
    (folder / "pyproject.toml").write_text(project(wheel.name, requirements), encoding="utf-8")
    subprocess.run([find_uv_bin(), "lock", "--quiet", "--no-config", "--directory", folder], check=True)
    if strange := unreviewed((folder / "uv.lock").read_text(encoding="utf-8"), requirements):
        sys.exit(f"The index has files that requirements.txt does not know, of {', '.join(strange)}. Run: make lock")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
