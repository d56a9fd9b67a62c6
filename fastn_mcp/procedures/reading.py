"""Reads side by side, and a record of what could not be read: a read that fails is said, and sinks nothing."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import anyio

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.rows import Row, row_of
from fastn_mcp.offer import Record
from fastn_mcp.procedures.target import Call, Send
from fastn_mcp.tools.listing import Listed


class Reading:
    """The reads of one procedure, each under a name for people."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.found: dict[str, Record] = {}
        self.failed: dict[str, FastnError] = {}
        self.bounds: list[str] = []
        """Where what was read is not all, or may not be what was asked for."""

    async def together(self, calls: Mapping[str, Call]) -> None:
        """Make these reads, as far as they succeed."""

        async def read(what: str, call: Call) -> None:
            try:
                self.found[what] = await self._send(call)
            except FastnError as error:
                self.failed[what] = error

        async with anyio.create_task_group() as group:
            for what, call in calls.items():
                group.start_soon(read, what, call)

    def row(self, what: str) -> Row | None:
        """What was read; None where it could not be."""
        return row_of(self.found[what]) if what in self.found else None

    def page(self, what: str) -> list[Row] | None:
        """The rows of a page; None where it could not be read."""
        if what not in self.found:
            return None
        page = cast("Listed[Record]", self.found[what])
        if page.not_checked:
            self.bounds.append(f"{what}: the rows do not say their {', '.join(page.not_checked)}")
        return rows(page.items)

    def following(self, what: str) -> str | None:
        """The cursor of the next page; None where there is none."""
        return cast("Listed[Record]", self.found[what]).next_cursor if what in self.found else None

    def not_checked(self) -> list[str]:
        """What could not be read, and what was read only in part."""
        return [*(f"{what}: {error.what}" for what, error in self.failed.items()), *dict.fromkeys(self.bounds)]


def rows(records: Iterable[Any]) -> list[Row]:
    """Records as they came."""
    return [row_of(record) for record in records]
