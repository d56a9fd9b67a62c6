"""Reads of one answer: through the snapshot, and within what Fastn's rate limit leaves."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.account.snapshot import AccountSnapshot, Prefix
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.cost import spent
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import NOTHING_SENT, Disabled, FastnError, LeftOut
from fastn_mcp.records.formats import stamp
from fastn_mcp.records.rows import FastnObject, Row
from fastn_mcp.runtime import System
from fastn_mcp.tools.operation import Call, Send
from fastn_mcp.tools.paging import List

RESERVE = 3
"""Requests of the rate limit that answers leave for the guard."""

MIN_REQUESTS = 12
MAX_REQUESTS = 60
"""Bounds of the default for the requests per answer."""

REQUESTS_WITHOUT_LIMIT = 25
"""Maximum number of requests per answer while Fastn has named no limit."""

_MIN_STATED_AGE = 1.0
"""Age in seconds from which on an answer says as of when it is."""

MAX_WAIT = 10.0
"""Maximum wait in seconds of one answer for the rate limit to reset."""


@dataclass(frozen=True, slots=True)
class SharedReads:
    """What the answers of one account share: the snapshot, and the client with its rate limit."""

    client: FastnClient
    snapshot: AccountSnapshot
    system: System
    requests_per_answer: int | None = None
    """Maximum number; by default half of what the rate limit leaves, from `MIN_REQUESTS` to `MAX_REQUESTS`."""


class AnswerReads:
    """Sends the reads of one answer that the snapshot does not hold, as far as the rate limit goes.

    A request of another answer counts from the moment in which it is sent.
    """

    def __init__(self, shared: SharedReads, send: Send, permit: Callable[[Call], None]) -> None:
        """`permit` raises for a read that the caller may not make, also if its result is stored."""
        self._shared = shared
        self._limit = shared.client.limit
        self._send = send
        self._permit = permit
        self._most = shared.requests_per_answer
        self._system = system = shared.system
        self.began = self.oldest = system.monotonic()
        """Time of the oldest read that the answer uses, on the monotonic clock."""
        self._sent = 0
        self._waited = 0.0
        self._left_out: str | None = None
        self._one_by_one = asyncio.Lock()

    @cached_property
    def snapshot(self) -> AccountSnapshot:
        """The snapshot as of the first read; a call that reads nothing through it costs nothing."""
        return self._shared.snapshot.for_answer()

    @property
    def settings(self) -> Settings:
        """Settings of the account that is read."""
        return self._shared.client.settings

    @property
    def as_of(self) -> datetime:
        """Time of the oldest read that the answer uses."""
        return self._system.now() - timedelta(seconds=self._system.monotonic() - self.oldest)

    def age(self) -> dict[str, JsonValue]:
        """Return as of when the answer is, as `as_of`, if it uses what was read for an earlier one."""
        return {"as_of": stamp(self.as_of)} if self.began - self.oldest > _MIN_STATED_AGE else {}

    @property
    def affordable(self) -> int:
        """Number of requests that the answer may still send."""
        left = self._limit.requests_left
        if self._most is None and left is not None:
            self._most = max(MIN_REQUESTS, min(MAX_REQUESTS, (left + self._sent) // 2))
        most = (REQUESTS_WITHOUT_LIMIT if self._most is None else self._most) - self._sent
        return max(0, most if left is None else min(most, left - RESERVE))

    async def __call__(self, call: Call) -> FastnObject:
        """Return the result of a read. Raises a `FastnError`: `LeftOut` if the limit leaves no request for it."""
        self._permit(call)
        result, begun = await self.snapshot.read(call, self._planned)
        self.use(begun)
        return result

    def use(self, begun: float) -> None:
        """Note that the answer uses what was read at that time, on the monotonic clock."""
        self.oldest = min(self.oldest, begun)
        cost = spent.get()
        if cost is not None and self.oldest < self.began:
            cost.oldest = self.oldest

    def stored(self, listing: List[Any]) -> Prefix:
        """Return the stored rows of a list, as far as they were read without a gap; none if there are none."""
        stored = self.snapshot.stored(listing)
        if stored is None or not self._may_use(listing):
            return Prefix((), is_complete=False, total=None)
        self.use(stored.begun)
        return stored.prefix

    def listed(self, listing: List[Any], key: str) -> Row | None:
        """Return the row with this id of a stored list of that kind; None if none has it."""
        listed = self.snapshot.listed(type(listing), key)
        if listed is None or not self._may_use(listing):
            return None
        self.use(listed[1])
        return listed[0]

    @property
    def redactor(self) -> Callable[[JsonValue], JsonValue]:
        """Redacts the key of the account that is read."""
        return self._shared.client.redactor

    def refusal(self, call: Call) -> FastnError | None:
        """Return why the caller may not make this read, as its tool is disabled or not permitted; None if they may."""
        try:
            self._permit(call)
        except FastnError as error:
            return error
        return None

    def _may_use(self, listing: List[Any]) -> bool:
        """Whether the tool of a stored list is enabled. Raises another `FastnError` if the caller may not read it."""
        try:
            self._permit(cast(Call, listing))
        except Disabled:
            return False
        return True

    async def _planned(self, call: Call) -> FastnObject:
        """Send a read. While the limit is not known, or used up, the reads go one by one."""
        if not self.affordable or self._is_limit_unknown:
            async with self._one_by_one:
                if not self.affordable:
                    await self._wait_for_reset()
                if self._is_limit_unknown:  # the others wait until the response states it
                    return await self._counted(call)
        return await self._counted(call)

    @property
    def _is_limit_unknown(self) -> bool:
        return self._limit.requests_left is None and self._limit.may_be_stated

    async def _counted(self, call: Call) -> FastnObject:
        self._sent += 1
        return await self._send(call)

    async def _wait_for_reset(self) -> None:
        """Wait if the limit resets soon. Raises `LeftOut` if it does not, or if the answer has sent its share."""
        left = self._limit.requests_left
        seconds = self._limit.resets_in or 0.0
        if left is not None and left <= RESERVE and 0 < seconds <= MAX_WAIT - self._waited:
            self._waited += seconds
            await self._system.sleep(seconds)
            return
        if self._left_out is None:  # the same for all reads of the answer
            when = f" in {math.ceil(seconds)} s" if left is not None and left <= RESERVE and seconds else ""
            self._left_out = f"Left out to stay within Fastn's rate limit. Call again{when} to continue."
        raise LeftOut(self._left_out, certainty=NOTHING_SENT)
