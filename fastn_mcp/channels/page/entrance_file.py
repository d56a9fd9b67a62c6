"""The file that a browser opens to enter the approval page: a form that posts a one-time key by itself.

A browser is told what to open on its command line, which every user of the machine can read. So that names a file which
only its owner can read, and the key stands in the file. It is removed once the key was used.
"""

import hashlib
from contextlib import suppress
from html import escape
from pathlib import Path

from fastn_mcp.channels.page.entry import KEY_HOLDS
from fastn_mcp.private_files import write_private

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<title>Approvals - fastn-mcp</title>
<form method="post" action="{action}">
<input type="hidden" name="key" value="{key}">
<button>Open the approval page</button>
</form>
<script>document.forms[0].submit()</script>
</html>
"""


def write(folder: Path, url: str, key: str, now: float) -> str:
    """Write the file for a key to the page at `url`; its address for a browser. Raises `OSError`.

    Files of keys that have run out, which a process that was killed may have left, are removed.
    """
    for old in folder.glob("*.html"):
        with suppress(OSError):
            if now - old.stat().st_mtime > KEY_HOLDS:
                old.unlink()
    path = _path(folder, key)
    write_private(path, _PAGE.format(action=escape(f"{url}/enter"), key=escape(key)))
    return path.absolute().as_uri()


def remove(folder: Path, key: str) -> None:
    """Remove the key file, also one that another process wrote."""
    with suppress(OSError):
        _path(folder, key).unlink(missing_ok=True)


def _path(folder: Path, key: str) -> Path:
    # Named by the key's digest: the page removes what `fastn-mcp approvals --open` has written in another process.
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.html"
