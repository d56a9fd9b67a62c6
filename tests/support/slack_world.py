"""An account whose requests also go to a Slack, by the real SDK, and whose approvers are people there."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastn_mcp.build.extensions import SECTIONS
from fastn_mcp.channels.approvers import ApproverAnswers
from fastn_mcp.channels.group import ChannelGroup
from fastn_mcp.config.load import load
from fastn_mcp.extensions.slack.channel import SlackChannel, approvers_in
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.key_files import SecretValues
from fastn_mcp.ledger.identity import bound_account
from fastn_mcp.policy.policy import Policy
from support.clock import SteadyClock
from support.policy_files import rules_of
from support.slack import APP, BOT, CHANNEL, TEAM, Message, Slack, until
from support.webhook_world import approvers_file
from support.world import Desk, World

PEOPLE = f"""
[dana]
slack = ["{TEAM}/U0DANA", "{TEAM}/U0DANA2"]
[kim]
slack = ["{TEAM}/U0KIM"]
"""
DANA, KIM, MALLORY = "U0DANA", "U0KIM", "U0MALLORY"


def settings_of(folder: Path, slack: Slack, approvers: str = PEOPLE, **more: str) -> dict[str, str]:
    """Return the variables by which a server asks in this Slack."""
    return {
        "FASTN_SLACK_APP_TOKEN": APP,
        "FASTN_SLACK_BOT_TOKEN": BOT,
        "FASTN_SLACK_CHANNEL": CHANNEL,
        "FASTN_SLACK_URL": slack.url,
        "FASTN_APPROVERS": str(approvers_file(folder, approvers)),
        **more,
    }


class SlackWorld(World):
    """`dana`, who has two users, and `kim` may approve everything, unless `approvers` says otherwise."""

    def __init__(
        self, folder: Path, slack: Slack, policy: Policy | str = "", approvers: str = PEOPLE, **more: Any
    ) -> None:
        rules = Policy(rules=rules_of(folder, policy)) if isinstance(policy, str) and policy else policy or None
        variables = more.pop("variables", {})
        super().__init__(
            folder, rules if isinstance(rules, Policy) else None, clock=more.pop("clock", SteadyClock()), **more
        )
        self.slack = slack
        environment = {"FASTN_API_KEY": "k", **settings_of(folder, slack, approvers), **variables}
        self.settings = load({}, environment, None, sections=SECTIONS)
        self.beside: Desk = self.desk
        """The channel beside Slack."""
        self.group, self.channel = self.asking()
        self.desk = self.group
        self.dispatch = self.dispatching(SecretValues({}, []), None)

    def asking(self) -> tuple[ChannelGroup, SlackChannel]:
        """Return the channels beside the desk, and Slack's among them, as a process that has just started has them."""
        account = bound_account("test", self.bound)
        answers = ApproverAnswers(account, "", self.ledger, self.audit, self.system)
        group = ChannelGroup(self.ledger, self.system, account, "")
        group.add(self.beside)
        approvers = approvers_in(self.settings, None)
        only = not self.beside.capabilities.identifies_people
        slack = SlackChannel(self.settings, approvers, answers, "", follow=group.follow, only=only)
        group.add(slack)
        return group, slack

    async def aclose(self) -> None:
        """End as a process does: what Slack shows is not updated any more."""
        await self.group.aclose()
        await self.channel.aclose()

    async def asked(self, call: Any) -> Message:
        """Return the message about the request that a call opens."""
        assert isinstance(await self.call(call), PendingApproval)
        return self.slack.messages[-1]

    async def shows(self, message: Message, text: str) -> None:
        await until(lambda: text in message.text)


@asynccontextmanager
async def slack_world(folder: Path, slack: Slack, policy: Policy | str = "", **more: Any) -> AsyncGenerator[SlackWorld]:
    world = SlackWorld(folder, slack, policy, **more)
    world.channel.begin()
    world.group.begin()
    try:
        yield world
    finally:
        await world.aclose()
