"""The event stream that tells an open page about changes."""

from collections.abc import AsyncIterator

import anyio
from support.page_visitor import Visitor
from support.page_world import Desk, question

from fastn_mcp.channels.page.access import SESSION_HOLDS
from fastn_mcp.ledger.approval_request import RequestState


async def event(lines: AsyncIterator[str]) -> list[str]:
    event_lines: list[str] = []
    with anyio.fail_after(10):
        while line := await anext(lines):
            event_lines.append(line)
    return event_lines


async def test_changes_are_announced_without_content(desk: Desk, visitor: Visitor) -> None:
    async with visitor.http.stream("GET", f"{visitor.room}events") as events:
        assert events.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = events.aiter_lines()
        first = await event(lines)
        await desk.ask(question())
        second = await event(lines)
        await desk.becomes("grant-1", RequestState.DECLINED, by="terminal")
        third = await event(lines)
    assert [name for name, _ in (first, second, third)] == ["event: changed"] * 3
    assert len({number for _, number in (first, second, third)}) == 3


async def test_keep_alives_detect_dead_connections(visitor: Visitor) -> None:
    async with visitor.http.stream("GET", f"{visitor.room}events") as events:
        lines = events.aiter_lines()
        await event(lines)
        assert await event(lines) == [": still here"]


async def test_stream_ends_with_its_session(desk: Desk, visitor: Visitor) -> None:
    async with visitor.http.stream("GET", f"{visitor.room}events") as events:
        lines = events.aiter_lines()
        await event(lines)
        desk.clock.passed += SESSION_HOLDS + 1
        with anyio.fail_after(10):
            assert [line async for line in lines] == []


async def test_changing_part_is_served_alone(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(question())
    answer = await visitor.http.get(f"{visitor.room}now")
    assert answer.text.startswith("<main")
    assert answer.text.endswith("</main>")
    assert "Delete customer" in answer.text
    assert "<footer" not in answer.text
