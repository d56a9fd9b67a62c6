"""The extensions of the examples, built and installed as packages of somebody else."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("extension_*"))


def install_extensions(folder: Path) -> Path:
    """Build the wheel of each example and install it. Return the folder, which is for `sys.path`."""
    installed = folder / "site-packages"
    for example in EXAMPLES:
        source, wheels = folder / "source" / example.name, folder / "wheels" / example.name
        shutil.copytree(example, source)
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        subprocess.run(build, cwd=source, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
        (wheel,) = wheels.iterdir()
        ZipFile(wheel).extractall(installed)
    return installed
