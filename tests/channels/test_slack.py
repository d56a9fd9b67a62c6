"""Approval in Slack: by the real SDK, over real HTTP and WebSockets, against a Slack on the loopback."""

from collections.abc import Generator
from pathlib import Path

import pytest
from support.slack import TEAM, Slack, served_slack, until
from support.slack_world import DANA, KIM, MALLORY, slack_world

from fastn_mcp.errors import Declined
from fastn_mcp.guard.batch import Done

pytestmark = pytest.mark.anyio


@pytest.fixture
def slack() -> Generator[Slack]:
    with served_slack() as made:
        yield made


async def test_approved_call_is_sent_once_and_the_message_says_so(slack: Slack, tmp_path: Path) -> None:
    async with slack_world(tmp_path, slack) as world:
        call = world.deletion()
        message = await world.asked(call)
        assert 'Delete customer "Globex Exports"' in message.text
        assert message.buttons["approve"]["text"]["text"] == 'Delete "Globex Exports"'
        assert await slack.decide(DANA, message, typed="Globex Exports") == ""
        await world.shows(message, "Not used yet")
        assert message.buttons.keys() == {"withdraw"}
        assert isinstance(await world.call(call), Done)
        await world.shows(message, "Done")
        assert "Decided by dana." in message.text
        assert message.buttons == {}
        assert len(world.changes) == 1
        (entry,) = world.audited("approved")
        assert (entry["approver"], entry["approved_by"]) == ("dana", "verified")


async def test_decline_is_final_and_its_note_reaches_the_agent(slack: Slack, tmp_path: Path) -> None:
    async with slack_world(tmp_path, slack) as world:
        call = world.run()
        message = await world.asked(call)
        assert await slack.decide(KIM, message, "decline", note="not today") == ""
        await world.shows(message, "Declined\n")
        assert "Decided by kim. Note: not today" in message.text
        declined = await world.call(call)
        assert isinstance(declined, Declined)
        assert declined.facts["note"] == "not today"
        assert world.changes == []


async def test_unused_approval_is_withdrawn(slack: Slack, tmp_path: Path) -> None:
    async with slack_world(tmp_path, slack) as world:
        call = world.run()
        message = await world.asked(call)
        await slack.decide(DANA, message)
        await until(lambda: "withdraw" in message.buttons)
        assert await slack.decide(KIM, message, "withdraw", note="wait") == ""
        await world.shows(message, "Withdrawn")
        assert isinstance(await world.call(call), Declined)
        assert world.changes == []


async def test_typed_name_has_to_match(slack: Slack, tmp_path: Path) -> None:
    async with slack_world(tmp_path, slack) as world:
        message = await world.asked(world.deletion())
        for typed in ("", "globex exports", "approve"):
            assert await slack.decide(DANA, message, typed=typed) == "The typed text does not match exactly."
        assert await slack.submit(DANA, typed="Globex Exports") == ""
        await world.shows(message, "Not used yet")


async def test_stranger_is_told_and_decides_nothing(slack: Slack, tmp_path: Path) -> None:
    async with slack_world(tmp_path, slack) as world:
        message = await world.asked(world.run())
        for user, team in ((MALLORY, TEAM), (DANA, "T0OTHER")):
            told = len(slack.whispers)
            await slack.press(user, message, "approve", team=team)
            await until(lambda told=told: len(slack.whispers) > told)
            assert f"You ({team}/{user}) are not an approver here. Nothing was decided." in slack.whispers[-1][1]
        assert (slack.opened, (await world.open_request()).votes) == ({}, ())
        assert "are not an approver" in world.audited("answer_refused")[0]["message"]
