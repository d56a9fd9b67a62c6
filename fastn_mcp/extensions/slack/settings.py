"""Settings of Slack: the table [extensions.slack]."""

from typing import Annotated

from pydantic import AfterValidator, Field

from fastn_mcp.config.addresses import callable_address
from fastn_mcp.config.model import Settings
from fastn_mcp.config.sections import ChannelSection


class SlackSection(ChannelSection):
    app_token: Annotated[str, Field(pattern="^xapp-[A-Za-z0-9-]{8,}$")] = Field(
        description="App-level token (xapp-), to decide approval requests in Slack (webhook.md).", repr=False
    )
    bot_token: Annotated[str, Field(pattern="^xoxb-[A-Za-z0-9-]{8,}$")] = Field(
        description="Bot token (xoxb-) of the same Slack app.", repr=False
    )
    channel: Annotated[str, Field(pattern="^[CG][A-Z0-9]{2,}$")] | None = Field(
        None,
        description=(
            "Id of the Slack channel for approval requests, such as C0123ABCD; by default each approver gets a message."
        ),
    )
    url: Annotated[str, AfterValidator(callable_address)] = Field(
        "https://slack.com/api/", description="URL of Slack's Web API; https://slack-gov.com/api/ for GovSlack."
    )


section = SlackSection


def slack_of(settings: Settings) -> SlackSection:
    """Return the settings of Slack of an account that uses it."""
    slack = settings.extensions["slack"]
    assert isinstance(slack, SlackSection)  # noqa: S101 - read as `section`
    return slack
