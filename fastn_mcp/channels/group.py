"""All channels of an account, asked together. A slow or failed one does not hold up the others.

It also keeps messages up to date: a channel that shows the outcome of a request is told of every change of it, in
whichever process it was made.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import NoReturn

from fastn_mcp.channels.background import BackgroundTasks
from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.approval_form import approved_elsewhere
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities, NobodyAble
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

_PATIENCE = 3.0
"""Seconds for which a request waits for slow channels once it can be decided on another."""

_UPDATE_INTERVAL = 5.0
"""Seconds after which requests are looked at again, whatever the ledger reports."""

_MAX_RESUMED = 100
"""Decided requests that a process that begins looks at."""


class ChannelGroup(Channel):
    """Channels of one account, the most preferred first."""

    name = "approval channels"

    def __init__(self, ledger: Ledger, system: System, account: str, tenant: str) -> None:
        self._channels: list[Channel] = []
        self._ledger = ledger
        self._system = system
        self._account = account
        self._tenant = tenant
        self._tasks = BackgroundTasks()
        self._followed = set[str]()
        """Ids of the requests that are kept up to date."""
        self._following: asyncio.Task[None] | None = None

    def add(self, channel: Channel) -> None:
        """Ask by this channel too, from now on."""
        self._channels.append(channel)

    @property
    def capabilities(self) -> ChannelCapabilities:
        """What any of them can do."""
        each = [channel.capabilities for channel in self._channels]
        return ChannelCapabilities(
            identifies_people=any(one.identifies_people for one in each),
            notifies=any(one.notifies for one in each),
            takes_secrets=any(one.takes_secrets for one in each),
            shows_outcome=any(one.shows_outcome for one in each),
            page=next((one.page for one in each if one.page is not None), None),
        )

    async def ask(self, request: ApprovalRequest) -> Announcement:
        """Publish a request on every channel that can serve it. Raises a `Refused` if it can be approved on none."""
        able = [each for each in self._channels if request.needed == 1 or each.capabilities.identifies_people]
        asking = _Asking(request, [each.name for each in able])
        if len(able) == 1:
            await self._ask_on(able[0], asking)
        else:
            waiting = {self._tasks.begin(self._ask_on(each, asking)) for each in able}
            if waiting:
                _, waiting = await asyncio.wait(waiting, timeout=_PATIENCE)
            while waiting and not asking.can_be_approved:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not asking.can_be_approved:
            asking.refuse()
        return asking.announcement()

    async def _ask_on(self, channel: Channel, asking: "_Asking") -> None:
        try:
            announced = await channel.ask(asking.request)
            if not isinstance(announced, Announcement):
                raise TypeError("it has not said where the request is decided")
        except NobodyAble as problem:
            asking.problems[channel.name] = problem
            return
        except FastnError as problem:
            log.warning("a request was not published (%s): %s", channel.name, problem.what)
            asking.problems[channel.name] = problem
            return
        except Exception:  # a channel may be of somebody else's
            log.exception("the channel %s failed", channel.name)
            asking.problems[channel.name] = Refused(f"The {channel.name} failed.", "The server log has the details.")
            return
        asking.announced[channel.name] = announced
        if channel.capabilities.shows_outcome:
            self.follow(asking.request.id)

    async def update(self, request: ApprovalRequest, changes: Sequence[Change]) -> bool:
        is_over = [await each.update(request, changes) for each in self._channels]
        return all(is_over)

    def begin(self) -> None:
        """Go on with the requests of earlier processes."""
        if self.capabilities.shows_outcome:
            self._tasks.begin(self._resume())

    def follow(self, id_: str) -> None:
        """Keep a request up to date from now on, where it is shown."""
        self._followed.add(id_)
        if self._following is None or self._following.done():
            self._following = self._tasks.begin(self._follow())

    async def aclose(self) -> None:
        await self._tasks.aclose()

    async def _resume(self) -> None:
        now = self._system.timestamp()
        for request in [*await self._ledger.waiting(now), *await self._ledger.decided(_MAX_RESUMED)]:
            is_own = (request.account, request.tenant) == (self._account, self._tenant)
            if is_own and request.out_of_band and request.expires > now:
                self.follow(request.id)

    async def _follow(self) -> None:
        seen = ""
        while self._followed:
            try:
                for id_ in list(self._followed):
                    await self._update(id_)
                seen = await self._ledger.wait_for_change(seen, _UPDATE_INTERVAL, self._system.sleep)
            except FastnError:
                await self._system.sleep(_UPDATE_INTERVAL)

    async def _update(self, id_: str) -> None:
        request = await self._ledger.find(id_)
        if request is not None:
            changes = await self._ledger.changes_by([id_]) if request.used else []
            if not await self.update(request, changes):
                return
        self._followed.discard(id_)


class _Asking:
    """What the channels have answered so far about one request, by channel."""

    def __init__(self, request: ApprovalRequest, channels: Sequence[str]) -> None:
        self.request = request
        self.channels = channels
        """Names of the channels that are asked, the most preferred first."""
        self.announced: dict[str, Announcement] = {}
        self.problems: dict[str, FastnError] = {}

    @property
    def can_be_approved(self) -> bool:
        return any(each.places for each in self.announced.values())

    def announcement(self) -> Announcement:
        """Return where the request is decided, in the order of the channels."""
        announced = [self.announced[name] for name in self.channels if name in self.announced]
        problems = [self.problems[name] for name in self.channels if name in self.problems]
        late = [name for name in self.channels if name not in self.announced and name not in self.problems]
        notes = [note for each in announced for note in each.notes]
        notes += [each.what for each in problems if not isinstance(each, NobodyAble)]
        if late:
            notes.append(f"Not reached yet: {', '.join(late)}.")
        places = tuple(place for each in announced for place in each.places)
        return Announcement(places, tuple(notes), any(each.is_in_view for each in announced))

    def refuse(self) -> NoReturn:
        """Raise why the request can be approved nowhere: rather that people were not reached than that none may."""
        problems = [self.problems[name] for name in self.channels if name in self.problems]
        unreached = next((each for each in problems if not isinstance(each, NobodyAble)), None)
        if isinstance(unreached, Refused):
            raise Refused(f"Nobody could be asked. {unreached.what}", unreached.next_step)
        if unreached is not None:
            raise unreached
        if problems:
            raise problems[0]
        what = approved_elsewhere(self.request) or "No channel of this server can show the request."
        raise NobodyAble(what, "A person has to make the change in the dashboard.")
