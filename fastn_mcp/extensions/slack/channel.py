"""Approval requests as messages in Slack. The door of this extension is at the end.

A button opens a dialog that shows the request again; only its submission decides. Slack vouches for the user.
Everything else is compared with the request in the ledger.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import JsonValue

from fastn_mcp.build.extensions import ChannelOpening, HandlerOf
from fastn_mcp.channels.approvers import (
    OTHER_LINES,
    AnswerRejected,
    Approver,
    ApproverAnswers,
    able_approvers,
    load_approvers,
)
from fastn_mcp.channels.external import ExternalChannel
from fastn_mcp.channels.page.view import is_temporary, outcome
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError, Refused, SettingsError
from fastn_mcp.extensions.slack.blocks import Block, Reference, SlackFailed, dialog, message, notice, plain, reference
from fastn_mcp.extensions.slack.client import Payload, SlackSocket, SlackWeb
from fastn_mcp.extensions.slack.settings import slack_of
from fastn_mcp.guard.approval_form import approved_elsewhere
from fastn_mcp.guard.channel import Announcement, ChannelCapabilities
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change

log = logging.getLogger(__name__)

_POST_INTERVAL = 30
"""Seconds in which one process at most tries to post a request."""

_RETRY_PERIOD = 3600.0
"""Seconds after the expiry of a request in which a message that Slack did not take is tried again."""

_PERMANENT_ERRORS = {
    "message_not_found",
    "channel_not_found",
    "is_archived",
    "cant_update_message",
    "edit_window_closed",
}
"""Why a message is not tried again."""


class SlackDecisions:
    """Decides requests of one account. `refresh` is called with the id of a request whose message may be old."""

    def __init__(
        self,
        web: SlackWeb,
        approvers: Iterable[Approver],
        answers: ApproverAnswers,
        tenant: str,
        refresh: Callable[[str], None],
    ) -> None:
        self._web = web
        self._approvers = {user: each for each in approvers for user in each.slack}
        self._answers = answers
        self._tenant = tenant
        self._refresh = refresh

    async def __call__(self, payload: Payload, about: Reference) -> dict[str, Any] | None:
        """Handle a click or a submitted dialog. Return what the dialog shows next, if anything."""
        is_click = payload.get("type") == "block_actions"
        try:
            with self._answers.recorded():
                request, approver = await self._shown(payload, about)
                if about.choice == "approve" and (not is_click or approved_elsewhere(request)):
                    self._answers.check_typed(request, approver, _value(payload, "typed"))
                if is_click:
                    view = dialog(request, about.choice, self._tenant)
                    await self._web("views.open", trigger_id=str(payload.get("trigger_id")), view=view)
                    return None
                await self._answers.count(about.choice, request, approver, _value(payload, "note"))
            self._refresh(request.id)
            return None
        except AnswerRejected as rejected:
            why = rejected.why
            if rejected.status == 422 and not is_click:
                return {"response_action": "errors", "errors": {"typed": why}}
            self._refresh(about.request)
        except SlackFailed as failed:
            why = f"Slack did not open the dialog ({failed}). Nothing was decided. Press the button again."
        except FastnError as failed:
            why = f"{failed} Your answer may have counted: see the message of the request."
        if not is_click:
            return notice(why)
        await self._tell(payload, why)
        return None

    async def _shown(self, payload: Payload, about: Reference) -> tuple[ApprovalRequest, Approver]:
        """Return the request as it was shown, and who decides it. Raises `AnswerRejected`."""
        user = payload["user"]
        team = user.get("team_id")
        if not team:
            raise AnswerRejected(401, "Slack did not say which workspace you belong to. Nothing was decided.")
        name = f"{team}/{user['id']}"
        approver = self._approvers.get(name)
        if approver is None:
            raise AnswerRejected(
                401,
                f"You ({name}) are not an approver here. Nothing was decided. The operator of this server can add"
                f' slack = ["{name}"] to your entry in the approvers file.',
            )
        request = await self._answers.find(about.request, about.choice, approver)
        if about != reference(request, self._tenant, about.choice):
            raise AnswerRejected(409, OTHER_LINES, approver, request)
        return request, approver

    async def _tell(self, payload: Payload, text: str) -> None:
        """Show a text to who pressed a button, and to nobody else."""
        channel = str(payload["container"]["channel_id"])
        user = str(payload["user"]["id"])
        blocks: list[JsonValue] = [{"type": "section", "text": plain(text)}]
        try:
            await self._web("chat.postEphemeral", channel=channel, user=user, text="Not decided.", blocks=blocks)
        except SlackFailed as failed:
            log.warning("an answer was not shown in Slack: %s", failed)


def _value(payload: Payload, name: str) -> str | None:
    """Return what was entered in a field of a dialog."""
    values: dict[str, Any] = payload["view"]["state"]["values"] if "view" in payload else {}
    value = values.get(name, {}).get(name, {}).get("value")
    return value if isinstance(value, str) else None


class SlackChannel(ExternalChannel):
    """Approval channel in Slack, whose messages show what has become of a request.

    Unless it is the `only` one that tells people apart, other approvers of a call may decide on another channel.
    """

    name = "Slack"

    def __init__(
        self,
        settings: Settings,
        approvers: Mapping[str, Approver],
        answers: ApproverAnswers,
        tenant: str,
        follow: Callable[[str], None],
        *,
        only: bool,
    ) -> None:
        """`follow` is called with the id of a request whose messages may be old."""
        slack = slack_of(settings)
        self._web = SlackWeb(slack.url, slack.bot_token)
        self._approvers = [each for each in approvers.values() if each.slack]
        self.decisions = SlackDecisions(self._web, self._approvers, answers, tenant, refresh=follow)
        self._socket = SlackSocket(slack.app_token, slack.url, self.decisions)
        self._room = slack.channel
        self._here = set[object]()
        """Ids of the app's workspace and organization, once Slack has named them."""
        self._ledger = answers.ledger
        self._system = answers.system
        self._tenant = tenant
        self._only = only
        self._shown: dict[str, dict[str, Block]] = {}
        """Messages of open requests, as Slack took them last, by request; empty if it did not take one."""
        self._problems: dict[str, str] = {}
        """Why Slack did not take a request, by request."""

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(identifies_people=True, notifies=True, shows_outcome=True)

    def begin(self) -> None:
        self._socket.begin()

    async def aclose(self) -> None:
        await self._socket.aclose()

    async def ask(self, request: ApprovalRequest) -> Announcement:
        """Post a request, unless another process does it. Raises `Refused` if Slack did not take it."""
        able = able_approvers(self._approvers, request, enough=self._only)
        now = self._system.timestamp()
        try:
            body = message(request, (), now, self._tenant)
            nonce = f"slack {request.id} {int(now // _POST_INTERVAL)}"
            if request.messages:
                self._problems.pop(request.id, None)
            elif await self._ledger.use_nonce(nonce, now + 2 * _POST_INTERVAL, now):
                self._problems.pop(request.id, None)
                posted = await self._sent(body, able)
                self._shown[request.id] = dict.fromkeys(posted, body)
                await self._ledger.change_request(request.id, partial(ApprovalRequest.shown_in, messages=posted))
        except SlackFailed as failed:
            self._problems[request.id] = str(failed)
        problem = self._problems.get(request.id)
        if problem is not None:
            what = f"Slack did not take the request ({problem})."
            raise Refused(what, "Tell the operator, who can run: fastn-mcp doctor")
        if approved_elsewhere(request) is None:
            return Announcement(("in Slack",))
        return Announcement(notes=("It can be declined in Slack.",))

    async def _sent(self, body: Block, able: list[Approver]) -> list[str]:
        """Post a message. Return where it is. Raises `SlackFailed` if it is nowhere."""
        posted = list[str]()
        problem = SlackFailed("nobody who may decide belongs to the app's workspace")
        for each in [self._room] if self._room else await self._users(able):
            try:
                sent = await self._web("chat.postMessage", channel=each, **body)
                posted.append(f"{sent['channel']}/{sent['ts']}")
            except (SlackFailed, KeyError) as failed:
                problem = failed if isinstance(failed, SlackFailed) else SlackFailed("an unreadable response")
                log.warning("Slack did not take a message to %s: %s", each, problem)
        if not posted:
            raise problem
        return posted

    async def _users(self, able: list[Approver]) -> list[str]:
        """Return whom the app can write to: users of its own workspace, or of the organization that it is part of."""
        if not self._here:
            app = await self._web("auth.test")
            self._here = {app.get("team_id"), app.get("enterprise_id")}
        users = [user.partition("/") for each in able for user in each.slack]
        return [user for team, _, user in users if team in self._here]

    async def update(self, request: ApprovalRequest, changes: Sequence[Change]) -> bool:
        """Show the state of a request in its messages, if that differs from what they show."""
        now = self._system.timestamp()
        is_over = True
        if request.messages:
            direct = [each for each in changes if not is_temporary(each)]
            is_shown = await self._show(request, direct, now) or request.expires + _RETRY_PERIOD <= now
            is_begun = len(direct) >= len(request.used) or request.expires <= now
            is_decided = not request.is_open(now) and outcome(request, direct, now)[0] != "open"
            is_over = is_shown and is_begun and is_decided
        if is_over:
            self._shown.pop(request.id, None)
        return is_over

    async def _show(self, request: ApprovalRequest, changes: list[Change], now: float) -> bool:
        """Update each message that differs. Return False if one is to be tried again."""
        shown = self._shown.setdefault(request.id, {})
        try:
            body = message(request, changes, now, self._tenant)
        except SlackFailed as failed:
            log.warning("a message in Slack was not brought up to date: %s", failed)
            return True
        for each in request.messages:
            channel, _, timestamp = each.partition("/")
            try:
                if shown.get(each) != body:
                    await self._web("chat.update", channel=channel, ts=timestamp, **body)
                    shown[each] = body
            except SlackFailed as failed:
                if shown.get(each) != {}:
                    log.warning("a message in Slack was not brought up to date: %s", failed)
                shown[each] = body if str(failed) in _PERMANENT_ERRORS else {}
        return {} not in shown.values()


# --- the door --------------------------------------------------------------------------------------------------------


def approvers_in(settings: Settings, issuer: str | None) -> Mapping[str, Approver]:
    """Return the approvers of the file. Raises `SettingsError` if there is none, or nobody is in Slack."""
    if settings.approvers is None:
        raise SettingsError("Slack is set up, but approvers is not set.", "Set FASTN_APPROVERS: docs/webhook.md.")
    approvers = load_approvers(settings.approvers, issuer)
    if not any(each.slack for each in approvers.values()):
        raise SettingsError(f"Nobody in {settings.approvers} has a Slack user.", "See docs/webhook.md.")
    return approvers


check_settings = approvers_in


def open_channel(settings: Settings, opening: ChannelOpening) -> SlackChannel:
    approvers = approvers_in(settings, opening.issuer)
    return SlackChannel(settings, approvers, opening.answers, opening.tenant, follow=opening.follow, only=opening.only)


def receivers(accounts: Mapping[str, Settings], handler_of: HandlerOf) -> Iterator[SlackSocket]:
    """Yield a connection for each Slack app. What comes by it decides for the tenants of that app only."""
    apps: dict[tuple[str, str], set[str]] = {}
    for tenant, settings in accounts.items():
        slack = slack_of(settings)
        apps.setdefault((slack.app_token, slack.url), set()).add(tenant)
    for (token, url), names in apps.items():
        yield SlackSocket(token, url, partial(_handle, names, handler_of))


async def _handle(
    names: Collection[str], handler_of: HandlerOf, payload: Payload, about: Reference
) -> dict[str, Any] | None:
    """Handle what came by the connection of an app, for the tenants of these `names`."""
    if about.tenant in names:
        async with handler_of(about.tenant) as decisions:
            if decisions is not None:
                answer: dict[str, Any] | None = await decisions(payload, about)
                return answer
    log.warning("a message from Slack names no tenant of its app")
    return notice("This request belongs to no tenant that decides through this app. Nothing was decided.")
