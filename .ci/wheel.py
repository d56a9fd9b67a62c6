"""Install dist/*.whl into a new environment, pinned, and start it there by smoke.py. On any system, without make."""

import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".cache" / "wheel"
PROGRAMS = HOME / ("Scripts" if sys.platform == "win32" else "bin")

(wheel,) = (ROOT / "dist").glob("*.whl")
venv.create(HOME, clear=True, with_pip=True)
# pip takes no hashes for what a wheel asks for.
pins = re.findall(r"^([a-z].*) \\$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
(HOME / "pins.txt").write_text("\n".join(pins), encoding="utf-8")
python = str(PROGRAMS / "python")
subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", str(HOME / "pins.txt"), str(wheel)], check=True)
subprocess.run([sys.executable, str(ROOT / ".ci" / "smoke.py"), str(PROGRAMS / "fastn-mcp")], check=True)
