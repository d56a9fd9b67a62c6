"""A picture of a terminal: what tmux holds, as PNG. Needs rich, pillow, chromium and a monospace font.

tmux capture-pane -e -p -t SESSION | python docs/images/make.py form-claude-code.png "Claude Code"
"""

import io
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

FONT = "'JetBrains Mono','DejaVu Sans Mono',Menlo,Consolas,monospace"
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]


def svg(ansi: str, title: str) -> str:
    text = Text.from_ansi(re.sub(r"(\n\s*){3,}", "\n\n", ansi.strip("\n").rstrip()))
    width = max(cell_len(line.plain.rstrip()) for line in text.split()) + 1
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(text, soft_wrap=True)
    drawn = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)
    return re.sub(r"font-family: [^;]*;", f"font-family: {FONT};", drawn)


def main(file: Path, title: str) -> None:
    drawn = svg(sys.stdin.read(), title)
    width, height = re.search(r'viewBox="0 0 (\d+)\S* (\d+)', drawn).groups()
    style = f"<meta charset=utf-8><style>body{{margin:0}}svg{{display:block;width:{width}px}}</style>"
    with TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(style + drawn)
        size = [f"--window-size={width},{height}", "--default-background-color=00000000"]
        shot = [f"--screenshot={file.resolve()}", f"--user-data-dir={folder}/profile", page.as_uri()]
        subprocess.run([*CHROMIUM, *QUIET, *size, *shot], check=True)  # noqa: S603
    Image.open(file).quantize(96).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
