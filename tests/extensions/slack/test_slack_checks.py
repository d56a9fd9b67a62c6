"""Doctor's checks of approval in Slack: each mistake of an operator has its next step, and no message is sent."""

from pathlib import Path

import pytest
from support.slack import Slack
from support.slack_world import settings_of

from fastn_mcp.build.check import Check, CheckResult
from fastn_mcp.build.extensions import SECTIONS, CheckedAccount
from fastn_mcp.config.load import load
from fastn_mcp.errors import SettingsError
from fastn_mcp.extensions.slack.checks import check
from fastn_mcp.runtime import System


async def checked(variables: dict[str, str]) -> list[Check]:
    settings = load({}, {"FASTN_API_KEY": "k", **variables}, None, sections=SECTIONS)
    return await check(CheckedAccount(settings, None, [], System().now()))


async def test_good_settings_are_fine(slack: Slack, tmp_path: Path) -> None:
    found = await checked(settings_of(tmp_path, slack))
    names = ["Slack app token", "Slack bot token", "Slack channel"]
    assert [(check.name, check.verdict) for check in found] == [(name, CheckResult.OK) for name in names]
    assert 'Workspace "Acme", as "fastn".' in found[1].here
    assert slack.messages == []


@pytest.mark.parametrize(
    ("change", "name", "seen", "step"),
    [
        ({"FASTN_SLACK_APP_TOKEN": "xapp-another-token"}, "Slack app token", "invalid_auth", "api.slack.com/apps"),
        ({"FASTN_SLACK_BOT_TOKEN": "xoxb-another-token"}, "Slack bot token", "invalid_auth", "install the app again"),
        ({"FASTN_SLACK_CHANNEL": "C0NOWHERE"}, "Slack channel", "channel_not_found", "/invite"),
        ({"FASTN_SLACK_CHANNEL": "C0OTHER"}, "Slack channel", "the app is not in it", "/invite"),
        ({"FASTN_SLACK_URL": "http://127.0.0.1:1/"}, "Slack app token", "no connection", "HTTPS_PROXY"),
    ],
)
async def test_mistake_has_its_next_step(
    slack: Slack, tmp_path: Path, change: dict[str, str], name: str, seen: str, step: str
) -> None:
    found = (await checked(settings_of(tmp_path, slack) | change))[-1]
    assert (found.name, found.verdict) == (name, CheckResult.FAILED)
    assert seen in found.finding
    assert step in found.next


async def test_answer_that_is_not_slacks_has_its_next_step(slack: Slack, tmp_path: Path) -> None:
    slack.faults["auth.test"] = ["portal"]
    last = (await checked(settings_of(tmp_path, slack)))[-1]
    assert (last.name, last.finding) == ("Slack bot token", "Slack answers: an unreadable response.")
    assert "in place of slack.com" in last.next


async def test_missing_scope_and_foreign_workspace_are_named(slack: Slack, tmp_path: Path) -> None:
    slack.faults["conversations.info"] = ["missing_scope"]
    found = await checked(settings_of(tmp_path, slack, '[dana]\nslack = ["T0OTHER/U0DANA"]'))
    assert (found[1].verdict, found[1].next) == (CheckResult.DIFFERS, 'Write: slack = ["T0TEAM/USER"]')
    assert "docs/webhook.md" in found[2].next
    with pytest.raises(SettingsError, match="has a Slack user"):
        await checked(settings_of(tmp_path, slack, '[dana]\nsecret = "at least 32 characters, as they say"'))
