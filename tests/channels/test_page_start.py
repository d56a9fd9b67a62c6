"""How a question is brought before a person, and by which file the page is found."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2
import pytest
from approval_desk import Desk, Visitor, enter, posted_by, question, update_of_workflow

from fastn_mcp.channels.page.page import ApprovalPage, read_page_file

pytestmark = pytest.mark.anyio


def modes(url: str) -> tuple[int, int] | None:
    """The modes of a file that a browser is told to open, and of its folder; None where it is gone."""
    file = Path(httpx2.URL(url).path)
    return (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) if file.exists() else None


async def test_a_question_opens_the_browser_once_and_no_key_is_ever_said(desk: Desk) -> None:
    """Ours: the key goes to the browser alone; asking again for the same grant opens nothing."""
    await desk.ask(question())
    said = [await desk.page.show("grant-1") for _ in range(3)]
    (url,) = desk.opened
    page, key = posted_by(url)
    assert len(set(said)) == 1
    assert page in said[0]
    assert key not in said[0] + url
    assert (read_page_file(desk.page_file) or ("", ""))[1] not in said[0]
    assert modes(url) == (0o600, 0o700)
    async with httpx2.AsyncClient(trust_env=False) as http:
        assert (await enter(http, page, key)).status_code == 200
    assert modes(url) is None


async def test_files_for_the_browser_end_with_their_keys_or_the_page(desk: Desk) -> None:
    """Ours: no key lies about longer than it opens, whether it was used, ran out, or a process was killed."""
    await desk.ask(question(), update_of_workflow())
    folder = desk.page_file.parent / "browser"
    folder.mkdir(parents=True)
    (folder / "left.html").write_text("of a process that was killed")
    os.utime(folder / "left.html", (0, 0))
    await desk.page.show("grant-1")
    assert [Path(httpx2.URL(url).path) for url in desk.opened] == list(folder.iterdir())
    desk.opens = False
    desk.clock.passed += 60
    await desk.page.show("grant-2")
    assert len(list(folder.iterdir())) == 1  # what no browser took is gone at once
    await desk.file()
    await desk.page.aclose()
    assert list(folder.iterdir()) == []


async def test_questions_in_a_burst_share_one_tab_and_later_ones_open_another(desk: Desk) -> None:
    """Ours: ten questions do not open ten tabs, and no question is left where nobody looks."""
    await desk.ask(question(), update_of_workflow(), question("grant-3"))
    async with anyio.create_task_group() as both:
        both.start_soon(desk.page.show, "grant-1")
        both.start_soon(desk.page.show, "grant-1")
    await desk.page.show("grant-2")
    assert len(desk.opened) == 1
    desk.clock.passed += 60
    await desk.page.show("grant-3")
    await desk.page.show("grant-1")
    assert len(desk.opened) == 2


async def test_a_page_that_somebody_looks_at_is_not_opened_again(desk: Desk, visitor: Visitor) -> None:
    """Ours: an open page shows what is new by itself."""
    await desk.ask(question())
    async with visitor.http.stream("GET", f"{visitor.room}events") as events:
        await anext(events.aiter_lines())
        desk.opened.clear()
        desk.clock.passed += 60
        said = await desk.page.show("grant-1")
    assert desk.opened == []
    assert "is open in their browser" in said


async def test_without_a_browser_the_words_say_another_way(desk: Desk) -> None:
    """Ours: an opener that fails, by answer or exception, does not fail the question."""
    await desk.ask(question())

    def opener(url: str) -> bool:
        raise OSError(url)

    page = ApprovalPage(desk.ledger, desk.system, opener, desk.page_file)
    said = await page.show("grant-1")
    assert "No browser could be opened" in said
    assert "`fastn-mcp approvals --open`" in said
    assert "enter" not in said
    await page.aclose()


async def test_the_door_is_its_owners_alone_and_changes_with_each_use(desk: Desk) -> None:
    """Ours: another process of the same person gets in by a file, once for each key."""
    url, first = await desk.key()
    assert desk.page_file.stat().st_mode & 0o777 == 0o600
    assert desk.page_file.parent.stat().st_mode & 0o777 == 0o700
    assert set(json.loads(desk.page_file.read_text())) == {"url", "key"}
    desk.clock.passed += 86_400  # it waits as long as the page runs
    async with httpx2.AsyncClient(trust_env=False) as http:
        assert (await enter(http, url, first)).status_code == 200
        _, second = read_page_file(desk.page_file) or ("", first)
        assert second != first
        assert (await enter(http, url, first)).status_code == 403
        assert (await enter(http, url, second)).status_code == 200
    assert desk.page_file.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in desk.page_file.parent.iterdir()) == ["browser", desk.page_file.name]


async def test_a_door_that_went_away_is_made_again_and_ends_with_the_page(desk: Desk) -> None:
    """Ours: several processes share the file; the one that is left still has a door, and none leads nowhere."""
    await desk.ask(question())
    await desk.page.show("grant-1")
    desk.page_file.unlink()
    assert read_page_file(desk.page_file) is None
    await desk.page.show("grant-1")
    assert read_page_file(desk.page_file) is not None
    await desk.page.aclose()
    assert not desk.page_file.exists()


async def test_a_door_of_another_process_is_left_alone(desk: Desk) -> None:
    """Ours: what ends takes only its own door with it."""
    await desk.page.show("any")
    desk.page_file.write_text('{"url": "http://127.0.0.1:1", "key": "theirs"}')
    await desk.page.aclose()
    assert read_page_file(desk.page_file) == ("http://127.0.0.1:1", "theirs")


async def test_a_closed_page_answers_no_more_and_starts_anew_when_asked(desk: Desk, visitor: Visitor) -> None:
    """Ours: sessions end with the page, also those with an open stream."""
    await desk.ask(question())
    async with visitor.http.stream("GET", f"{visitor.room}events") as events:
        await anext(events.aiter_lines())
        with anyio.fail_after(5):
            await desk.page.aclose()
    with pytest.raises(httpx2.TransportError):
        await visitor.http.get(visitor.room)
    await desk.page.show("grant-1")
    assert len(desk.opened) == 2
    await desk.page.aclose()
    await desk.page.aclose()


async def test_a_page_ends_also_when_the_process_is_told_to_stop(desk: Desk) -> None:
    """Ours: a cancelled server still gives its port and its door back."""
    await desk.page.show("any")
    with anyio.CancelScope() as stopping:
        stopping.cancel()
        await desk.page.aclose()
    assert not desk.page_file.exists()
    await desk.page.show("any")
    assert len(desk.opened) == 2


async def test_a_grant_that_ran_out_may_be_shown_anew(desk: Desk) -> None:
    """Ours: what was opened is remembered as long as the grant lives, and no longer."""
    now = desk.clock.now().timestamp()
    await desk.ask(replace(question(), expires=now + 30))
    await desk.page.show("grant-1")
    desk.clock.passed += 31
    await desk.page.show("grant-1")
    assert len(desk.opened) == 2


def test_a_server_that_never_asks_imports_no_templates_and_no_http_server() -> None:
    """Ours: the page costs nothing until it is first needed."""
    heavy = "('jinja2', 'starlette', 'uvicorn')"
    program = f"import sys, fastn_mcp.channels.page; print([name for name in {heavy} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"
