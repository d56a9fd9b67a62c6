"""How the page is opened in a browser, the files by which it is found, and how an open page learns of changes."""

import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2
import pytest
from support.page_visitor import Visitor, posted_by
from support.page_world import Desk, deletion_of_customer, enter, update_of_workflow

from fastn_mcp.channels.page.access import SESSION_HOLDS
from fastn_mcp.channels.page.page import ApprovalPage, read_page_file
from fastn_mcp.ledger.approval_request import RequestState


def modes(url: str) -> tuple[int, int] | None:
    """Return the modes of a key file and its folder, or None if the file is gone."""
    file = Path(httpx2.URL(url).path)
    return (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) if file.exists() else None


async def test_request_opens_the_browser_once(desk: Desk) -> None:
    await desk.ask(deletion_of_customer())
    message = [await desk.announce("grant-1") for _ in range(3)]
    (url,) = desk.opened
    action, fields = posted_by(url)
    page, key = action.removesuffix("/enter"), fields["key"]
    assert len(set(message)) == 1
    assert page in message[0]
    assert key not in message[0] + url
    assert (read_page_file(desk.page_file) or ("", ""))[1] not in message[0]
    assert modes(url) == (0o600, 0o700)
    async with httpx2.AsyncClient(trust_env=False) as http:
        assert (await enter(http, page, key)).status_code == 200
    assert modes(url) is None


async def test_key_files_are_removed_with_their_keys(desk: Desk) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow())
    folder = desk.page_file.parent / "browser"
    folder.mkdir(parents=True)
    (folder / "left.html").write_text("of a process that was killed")
    os.utime(folder / "left.html", (0, 0))
    await desk.announce("grant-1")
    assert [Path(httpx2.URL(url).path) for url in desk.opened] == list(folder.iterdir())
    desk.opens = False
    desk.clock.passed += 60
    await desk.announce("grant-2")
    assert list(folder.iterdir()) == []  # what no browser opened is removed at once
    await desk.file()
    await desk.page.aclose()
    assert list(folder.iterdir()) == []


async def test_requests_in_a_burst_share_one_tab(desk: Desk) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow(), deletion_of_customer("grant-3"))
    async with anyio.create_task_group() as both:
        both.start_soon(desk.announce, "grant-1")
        both.start_soon(desk.announce, "grant-1")
    await desk.announce("grant-2")
    assert len(desk.opened) == 1
    desk.clock.passed += 60
    await desk.announce("grant-3")
    await desk.announce("grant-1")
    assert len(desk.opened) == 2


async def test_visible_page_is_not_opened_again(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    async with visitor.http.stream("GET", f"{visitor.room}events") as events:
        await anext(events.aiter_lines())
        desk.opened.clear()
        desk.clock.passed += 60
        message = await desk.announce("grant-1")
    assert desk.opened == []
    assert "is open in their browser" in message


async def test_missing_browser_is_explained(desk: Desk) -> None:
    await desk.ask(deletion_of_customer())

    def opener(url: str) -> bool:
        raise OSError(url)

    page = ApprovalPage(desk.ledger, desk.system, opener, desk.page_file)
    message = (await page.ask(deletion_of_customer())).sentence(deletion_of_customer())
    assert "No browser could be opened" in message
    assert "`fastn-mcp approvals --open`" in message
    assert "enter" not in message
    await page.aclose()


async def test_page_file_is_private_and_its_key_changes(desk: Desk) -> None:
    url, first = await desk.key()
    assert desk.page_file.stat().st_mode & 0o777 == 0o600
    assert desk.page_file.parent.stat().st_mode & 0o777 == 0o700
    assert set(json.loads(desk.page_file.read_text())) == {"url", "key"}
    desk.clock.passed += 86_400  # valid as long as the page runs
    async with httpx2.AsyncClient(trust_env=False) as http:
        assert (await enter(http, url, first)).status_code == 200
        _, second = read_page_file(desk.page_file) or ("", first)
        assert second != first
        assert (await enter(http, url, first)).status_code == 403
        assert (await enter(http, url, second)).status_code == 200
    assert desk.page_file.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in desk.page_file.parent.iterdir()) == ["browser", desk.page_file.name]


async def test_deleted_page_file_is_written_again(desk: Desk) -> None:
    await desk.ask(deletion_of_customer())
    await desk.announce("grant-1")
    desk.page_file.unlink()
    assert read_page_file(desk.page_file) is None
    await desk.announce("grant-1")
    assert read_page_file(desk.page_file) is not None
    await desk.page.aclose()
    assert not desk.page_file.exists()


async def test_page_file_of_another_process_is_kept(desk: Desk) -> None:
    await desk.announce("any")
    desk.page_file.write_text('{"url": "http://127.0.0.1:1", "key": "theirs"}')
    await desk.page.aclose()
    assert read_page_file(desk.page_file) == ("http://127.0.0.1:1", "theirs")


async def test_closed_page_restarts_for_a_new_request(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    async with visitor.http.stream("GET", f"{visitor.room}events") as events:
        await anext(events.aiter_lines())
        with anyio.fail_after(5):
            await desk.page.aclose()
    with pytest.raises(httpx2.TransportError):
        await visitor.http.get(visitor.room)
    await desk.announce("grant-1")
    assert len(desk.opened) == 2
    await desk.page.aclose()
    await desk.page.aclose()


async def test_page_ends_when_the_process_is_cancelled(desk: Desk) -> None:
    await desk.announce("any")
    with anyio.CancelScope() as stopping:
        stopping.cancel()
        await desk.page.aclose()
    assert not desk.page_file.exists()
    await desk.announce("any")
    assert len(desk.opened) == 2


async def test_expired_request_can_be_shown_again(desk: Desk) -> None:
    now = desk.clock.now().timestamp()
    await desk.ask(replace(deletion_of_customer(), expires=now + 30))
    await desk.announce("grant-1")
    desk.clock.passed += 31
    await desk.announce("grant-1")
    assert len(desk.opened) == 2


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
        await desk.ask(deletion_of_customer())
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
    await desk.ask(deletion_of_customer())
    answer = await visitor.http.get(f"{visitor.room}now")
    assert answer.text.startswith("<main")
    assert answer.text.endswith("</main>")
    assert "Delete customer" in answer.text
    assert "<footer" not in answer.text
