"""Each request is a file `ID.txt`; a person answers in `ID.answer`: `yes`, the name that has to be typed, or `no`.

The folder belongs to one person, so it tells nobody apart, and is for a server of one person.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fastn_mcp.build.extensions import ChannelOpening, HandlerOf, Receiver
from fastn_mcp.channels.external import ExternalChannel
from fastn_mcp.config.model import Settings
from fastn_mcp.config.paths import require_own_folder, write_private
from fastn_mcp.errors import FastnError, Refused, SettingsError
from fastn_mcp.guard.approval.votes import NotCounted, count_vote
from fastn_mcp.guard.approval_form import form_text, is_typed
from fastn_mcp.guard.channel import Announcement, ChannelCapabilities, NobodyAble
from fastn_mcp.ledger.approval_request import ApprovalRequest, Vote
from fastn_mcp.ledger.change import Change
from fastn_mcp_folder.settings import folder_of

log = logging.getLogger(__name__)

_PAUSE = 0.2
"""Seconds between two looks at the folder."""


class FolderChannel(ExternalChannel):
    name = "folder"
    decisions = None

    def __init__(self, folder: Path, opening: ChannelOpening) -> None:
        self._folder = folder
        self._opening = opening
        self._ledger = opening.answers.ledger
        self._task: asyncio.Task[None] | None = None

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(shows_outcome=True)

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def ask(self, request: ApprovalRequest) -> Announcement:
        if request.typed is not None:
            raise NobodyAble("A secret cannot be typed into the folder.")
        file = self._folder / f"{request.id}.txt"
        if not file.exists():
            how = f"Write your answer into {request.id}.answer."
            try:
                write_private(file, f"{form_text(request)}\n{how}\n")
            except OSError as error:
                raise Refused(f"The folder for approval requests cannot be written ({error.strerror}).") from None
        return Announcement((f"in the folder {self._folder}",))

    async def update(self, request: ApprovalRequest, changes: Sequence[Change]) -> bool:
        """Remove the files of a request that is decided or has expired."""
        if request.is_open(self._opening.answers.system.timestamp()):
            return False
        for suffix in ("txt", "answer"):
            (self._folder / f"{request.id}.{suffix}").unlink(missing_ok=True)
        return True

    async def _watch(self) -> None:
        while True:
            for file in sorted(self._folder.glob("*.answer")):
                try:
                    await self._answered(file)
                except (FastnError, OSError) as error:
                    log.warning("an answer in the folder does not count: %s", error)
            await asyncio.sleep(_PAUSE)

    async def _answered(self, file: Path) -> None:
        """Count an answer, then remove its file."""
        answer = file.read_text(encoding="utf-8").strip()
        if not answer:
            return  # it is still being written
        try:
            await self._count(file.stem, answer)
        finally:
            file.unlink(missing_ok=True)

    async def _count(self, request_id: str, answer: str) -> None:
        request = await self._ledger.find(request_id)
        if request is None or request.account != self._opening.answers.account:
            log.warning("an answer in the folder is for no request of this account")
            return
        approves = answer.lower() != "no"
        expected = request.expected or "yes"
        if approves and not is_typed(expected, answer):
            log.warning("an answer in the folder is not what has to be typed")
            return
        vote = Vote(self.name, approves=approves, at=self._opening.answers.system.timestamp())
        counted = await count_vote(vote, request, self._ledger, by=self.name, record=self._opening.record)
        if isinstance(counted, NotCounted):
            log.warning("an answer in the folder does not count: %s", counted.why)
        self._opening.follow(request.id)


# --- the door ---


def check_settings(settings: Settings, issuer: str | None) -> None:
    """Raise `SettingsError` if others can answer, or if the server is a team's."""
    if issuer is not None:
        raise SettingsError("The extension folder is for a server of one person.", "Remove [extensions.folder].")
    folder = folder_of(settings)
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder.", f"Run: mkdir -m 700 {folder}")
    require_own_folder(folder)


def open_channel(settings: Settings, opening: ChannelOpening) -> FolderChannel:
    check_settings(settings, opening.issuer)
    return FolderChannel(folder_of(settings), opening)


def receivers(accounts: Mapping[str, Settings], handler_of: HandlerOf) -> Iterable[Receiver]:
    """Nothing comes from a service."""
    return ()
