"""The local approval page, opened in the person's browser by a file that posts a one-time key.

A server without approval requests imports neither templates nor an HTTP server, and opens no port.

Every user of the machine can read a browser's command line. It therefore only names a file that its owner alone can
read. The file contains the key and is removed once the key is used.
"""

import hashlib
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from html import escape
from pathlib import Path

import anyio
import anyio.to_thread

from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.config.command_line import PROGRAM, CommandLine
from fastn_mcp.config.paths import write_private
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.runtime import System

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<title>Approvals · fastn-mcp</title>
<form method="post" action="{action}">
<input type="hidden" name="key" value="{key}">
<button>Open the approval page</button>
</form>
<script>document.forms[0].submit()</script>
</html>
"""


_FILE_HOLDS = 600.0
"""Seconds after which a key file is removed: browsers open it immediately."""


def write(folder: Path, url: str, key: str, now: float) -> str:
    """Write the key file for the page at `url` and return its file: address. Raises `OSError`.

    Old key files, which a killed process may have left, are removed.
    """
    for old in folder.glob("*.html"):
        with suppress(OSError):
            if now - old.stat().st_mtime > _FILE_HOLDS:
                old.unlink()
    path = _path(folder, key)
    write_private(path, _PAGE.format(action=escape(f"{url}/enter"), key=escape(key)))
    return path.absolute().as_uri()


def remove(folder: Path, key: str) -> None:
    """Remove a key file, even one that another process wrote."""
    with suppress(OSError):
        _path(folder, key).unlink(missing_ok=True)


def _path(folder: Path, key: str) -> Path:
    # Named by the key's digest, so that the page can remove a file that `fastn-mcp approvals --open` wrote.
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.html"


PAGE_FILE = "page.json"
"""File in the state folder with the address of the running page and a key to it."""

KEY_FOLDER = "browser"
"""Folder beside it for the key files that browsers open."""

_BURST = 10.0
"""Seconds in which a newly opened tab also serves further requests."""


class ApprovalPage(Channel):
    """Approval channel that starts the page on the first request.

    `opener` opens the address of a key file in the person's browser; see `write`. `page_file` lets another process of
    the same person find the page and a key to it. Only its owner can read it.
    """

    name = "approval page"

    def __init__(
        self,
        ledger: Ledger,
        system: System,
        opener: Callable[[str], bool],
        page_file: Path,
        program: CommandLine = PROGRAM,
    ) -> None:
        """`program` is the command line that opens this page."""
        self._program = program
        self._inbox = Inbox(system)
        self._ledger = ledger
        self._system = system
        self._opener = opener
        self._page_file = page_file
        self._files = page_file.parent / KEY_FOLDER
        self._running: _RunningPage | None = None
        self._shown: dict[str, tuple[bool, float]] = {}
        """Per request: whether a browser showed the page, and when the request expires."""
        self._opening = anyio.Lock()

    def connect(self, account: InboxAccount) -> None:
        """Show the requests of an account, whose guard is built after this channel."""
        self._inbox = Inbox(self._system, account)

    @property
    def capabilities(self) -> ChannelCapabilities:
        """Its address has no key: it leads a browser that was let in to its session."""
        page = None if self._running is None else f"{self._running.url}/"
        return ChannelCapabilities(notifies=True, takes_secrets=True, page=page)

    async def ask(self, request: ApprovalRequest) -> Announcement:
        """Show a request on the page and say where it is decided.

        At most one tab is opened per request, and none if the page is in view or was just opened.
        """
        running = self._start()
        if not self._page_file.exists():
            self._write_page_file()
        async with self._opening:  # concurrent calls open one tab
            is_shown = await self._show_once(running, request)
        is_in_view = self._is_in_view(running)
        if is_shown:
            place = f"on the approval page, which is open in their browser ({running.url})"
            return Announcement((place,), is_in_view=is_in_view)
        command = self._program.to("approvals", "--open")
        note = f"No browser could be opened: `{command}`, in a terminal on this computer, opens it."
        return Announcement(("on the approval page",), (note,), is_in_view)

    async def aclose(self) -> None:
        """Stop the page, which ends its sessions and keys."""
        running = self._running
        self._running = None
        if running is None:
            return
        if read_page_file(self._page_file) == (running.url, running.access.key):
            self._page_file.unlink(missing_ok=True)
        remove(self._files, running.access.key)
        running.is_leaving = True
        await running.server.stop()

    def _is_in_view(self, running: "_RunningPage") -> bool:
        """Whether a browser shows the page, or was just opened for it."""
        return running.access.watching > 0 or self._system.monotonic() < running.fresh_until

    async def _show_once(self, running: "_RunningPage", request: ApprovalRequest) -> bool:
        now = self._system.timestamp()
        self._shown = {id_: shown for id_, shown in self._shown.items() if shown[1] > now}
        if request.id not in self._shown:
            is_shown = self._is_in_view(running)
            if not is_shown:
                open_ = partial(self._open, running.url, running.access.key)
                # In a thread, since opening a browser can block.
                is_shown = await anyio.to_thread.run_sync(open_, abandon_on_cancel=True)
                if is_shown:
                    running.fresh_until = self._system.monotonic() + _BURST
            self._shown[request.id] = (is_shown, request.expires)
        return self._shown[request.id][0]

    def _open(self, url: str, key: str) -> bool:
        with suppress(Exception):  # without a browser the request can still be decided
            if self._opener(write(self._files, url, key, self._system.timestamp())):
                return True
        remove(self._files, key)
        return False

    def _start(self) -> "_RunningPage":
        if self._running is None or self._running.server.ended:
            self._shown.clear()
            self._running = _RunningPage(
                self._ledger, self._inbox, self._system, used=self._key_used, program=self._program
            )
            self._write_page_file()
        return self._running

    def _key_used(self, key: str) -> None:
        remove(self._files, key)
        self._write_page_file()

    def _write_page_file(self) -> None:
        if (running := self._running) is not None:
            write_private(self._page_file, json.dumps({"url": running.url, "key": running.access.key}))


def read_page_file(file: Path) -> tuple[str, str] | None:
    """Return the address of the running page and a key to it, or None if the file is missing or invalid."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        page = json.loads(file.read_text())
        return page["url"], page["key"]
    return None


class _RunningPage:
    """The page on its own port, as a background task that outlives the call that started it."""

    def __init__(
        self, ledger: Ledger, inbox: Inbox, system: System, used: Callable[[str], None], program: CommandLine
    ) -> None:
        # Deferred imports: templates and the HTTP server.
        from fastn_mcp.channels.http_server import BackgroundServer
        from fastn_mcp.channels.page.access import LocalPageAccess
        from fastn_mcp.channels.page.app import page

        self.access = LocalPageAccess(inbox, system, program, used)
        self.is_leaving = False
        self.fresh_until = float("-inf")
        """Time until which the last opened tab serves new requests too."""
        # Listen before the task runs, so that a faster browser waits and is not refused.
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        port = int(listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}"
        origins = [self.url, f"http://localhost:{port}"]
        app = page(self.access, origins, ledger, system, is_leaving=lambda: self.is_leaving)
        self.server = BackgroundServer(app, listener, "approval page")
