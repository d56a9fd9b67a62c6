"""Checks of approval in Slack: who may approve there, the tokens of the app, and the channel. Imports an extra."""

from fastn_mcp.build.check import Check, CheckGroup
from fastn_mcp.build.extensions import CheckedAccount
from fastn_mcp.extensions.slack.blocks import SlackFailed
from fastn_mcp.extensions.slack.channel import approvers_in
from fastn_mcp.extensions.slack.client import SlackWeb
from fastn_mcp.extensions.slack.settings import slack_of
from fastn_mcp.redaction import quote

_NEXT_STEPS = {
    "no connection": "Let this machine reach slack.com by HTTPS; HTTPS_PROXY names a proxy.",
    "an unreadable response": (
        "A proxy or a filter answers in place of slack.com: let requests to slack.com pass unchanged."
    ),
    "missing_scope": "Give the app the scopes of docs/webhook.md, and install it again.",
    "channel_not_found": "Copy the id from the channel's details; a private channel needs: /invite and the app's name.",
    "not_allowed_token_type": "app_token is the app-level token (xapp-), bot_token the bot's (xoxb-).",
}
_COPY_AGAIN = "Copy it from the app's page at api.slack.com/apps; after a change of scopes, install the app again."


async def check(account: CheckedAccount) -> list[Check]:
    """Check the Slack of an account. Sends no message. Raises `SettingsError`."""
    settings = account.settings
    group = CheckGroup.SETTINGS
    checks = list[Check]()
    name = "Slack app token"
    approvers = approvers_in(settings, account.issuer).values()
    slack = slack_of(settings)
    bot = SlackWeb(slack.url, slack.bot_token)
    app = SlackWeb(slack.url, slack.app_token)
    try:
        await app("apps.connections.open")
        checks.append(group.ok(name, "It opens connections of Socket Mode."))
        name = "Slack bot token"
        identity = await bot("auth.test")
        team = str(identity.get("team_id"))
        here = f"Workspace {quote(identity.get('team'))}, as {quote(identity.get('user'))}."
        if any(user.startswith(f"{team}/") for each in approvers for user in each.slack):
            checks.append(group.ok(name, "It is accepted.", here=here))
        else:
            finding = "It is accepted, but no approver belongs to its workspace."
            checks.append(group.differs(name, finding, f'Write: slack = ["{team}/USER"]', here))
        name = "Slack channel"
        if slack.channel is not None:
            channel = (await bot("conversations.info", channel=slack.channel)).get("channel", {})
            here = f"It is {quote(channel.get('name'))}."
            if channel.get("is_member") and not channel.get("is_archived"):
                checks.append(group.ok(name, "The app is in it.", here=here))
            else:
                finding = "It is archived, or the app is not in it."
                checks.append(group.failed(name, finding, "In that channel, send: /invite and the app's name.", here))
    except SlackFailed as failed:
        checks.append(group.failed(name, f"Slack answers: {failed}.", _NEXT_STEPS.get(str(failed), _COPY_AGAIN)))
    return checks
