"""Approval requests as messages in Slack, beside another approval channel, which stays when Slack is down.

A button opens a dialog that shows the request again; only its submission decides. Slack vouches for the user.
Everything else is compared with the request in the ledger.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import JsonValue

from fastn_mcp.channels.approvers import (
    OTHER_LINES,
    AnswerRejected,
    Approver,
    ApproverAnswers,
    load_approvers,
    require_able,
)
from fastn_mcp.channels.http_server import BackgroundTasks
from fastn_mcp.channels.page.view import is_temporary, outcome
from fastn_mcp.channels.slack.blocks import Block, Reference, SlackFailed, dialog, message, notice, plain, reference
from fastn_mcp.channels.slack.client import Payload, SlackSocket, SlackWeb
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError, Refused, SettingsError
from fastn_mcp.guard.approval_form import approved_elsewhere
from fastn_mcp.guard.caller import Announcement, ApprovalChannel
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change

log = logging.getLogger(__name__)

_DELIVERY_TIMEOUT = 3.0
"""Seconds for which a call waits to learn whether Slack took its request."""

_POST_INTERVAL = 30
"""Seconds in which one process at most tries to post a request."""

_UPDATE_INTERVAL = 5.0
"""Seconds after which messages are looked at again, whatever the ledger reports."""

_MAX_RESUMED = 100
"""Decided requests whose messages a process that begins looks at."""

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
        refresh: Callable[[str], object],
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
                f' slack = ["{name}"] to your entry in the file of approvers.',
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


class SlackChannel:
    """Approval channel in Slack, beside `channel`. Its messages are kept up to date as long as anything can happen."""

    def __init__(
        self,
        settings: Settings,
        channel: ApprovalChannel,
        approvers: Mapping[str, Approver],
        answers: ApproverAnswers,
        tenant: str,
    ) -> None:
        self.capabilities = replace(channel.capabilities, identifies_people=True, notifies=True)
        self._web = SlackWeb(settings.slack_url, settings.slack_bot_token)
        self._approvers = [each for each in approvers.values() if each.slack]
        self.decisions = SlackDecisions(self._web, self._approvers, answers, tenant, refresh=self._follow)
        self._socket = SlackSocket(settings.slack_app_token or "", settings.slack_url, self.decisions)
        self._room = settings.slack_channel
        self._here = set[object]()
        """Ids of the app's workspace and organization, once Slack has named them."""
        self._channel = channel
        self._answers = answers
        self._ledger = answers.ledger
        self._system = answers.system
        self._tenant = tenant
        self._tasks = BackgroundTasks()
        self._watching: asyncio.Task[None] | None = None
        self._shown: dict[str, dict[str, Block]] = {}
        """Messages that are kept up to date, as Slack took them last, by request; empty if it did not take one."""
        self._problems: dict[str, str] = {}
        """Why Slack did not take a request, by request."""

    @property
    def url(self) -> str | None:
        return self._channel.url

    def begin(self, *, listens: bool = True) -> None:
        """Go on with the messages of earlier processes and, if it `listens`, receive decisions."""
        if listens:
            self._socket.begin()
        self._tasks.begin(self._resume())

    async def aclose(self) -> None:
        await self._socket.aclose()
        await self._tasks.aclose()

    async def announce(self, request: ApprovalRequest) -> Announcement:
        """Publish a request on both. Raises `Refused` if it can be decided on neither."""
        announced = refused = None
        if request.needed == 1 or self._channel.capabilities.identifies_people:
            try:
                announced = await self._channel.announce(request)
            except Refused as error:
                refused = error
        able = [each for each in self._approvers if each.may_answer(request)]
        if announced is None:
            if refused is not None and not able:
                raise refused
            require_able(able, request)
            if (elsewhere := approved_elsewhere(request)) is not None:
                raise Refused(elsewhere, "A person has to make the change in the dashboard.")
        elif not able:
            return announced
        await asyncio.wait({self._tasks.begin(self._post(request, able))}, timeout=_DELIVERY_TIMEOUT)
        problem = self._problems.get(request.id)
        if announced is not None:
            also = "also decide" if approved_elsewhere(request) is None else "decline it"
            slack = f"Slack did not take the request ({problem})." if problem else f"They can {also} in Slack."
            return replace(announced, where=f"{announced.where} {slack}")
        if problem:
            why = f"Nobody could be asked: Slack did not take the request ({problem})."
            raise refused or Refused(why, "Tell the operator, who can run: fastn-mcp doctor")
        return Announcement(f"A person decides in Slack. {request.progress()}".rstrip(), self.url)

    async def _post(self, request: ApprovalRequest, able: list[Approver]) -> None:
        """Post a request unless that was done, or another process does it."""
        id_ = request.id
        now = self._system.timestamp()
        posted = list[str]()
        try:
            body = message(request, (), now, self._tenant)
            nonce = f"slack {id_} {int(now // _POST_INTERVAL)}"
            if request.messages:
                self._problems.pop(id_, None)
            elif await self._ledger.use_nonce(nonce, now + 2 * _POST_INTERVAL, now):
                self._problems.pop(id_, None)
                posted = await self._sent(body, able)
                self._shown[id_] = dict.fromkeys(posted, body)
        except SlackFailed as failed:
            self._problems[id_] = str(failed)
            log.warning("Slack did not take a request: %s", failed)
        if posted:
            await self._ledger.change_request(id_, partial(ApprovalRequest.shown_in, messages=posted))
        self._follow(id_)

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

    async def _resume(self) -> None:
        now = self._system.timestamp()
        for request in [*await self._ledger.waiting(now), *await self._ledger.decided(_MAX_RESUMED)]:
            is_own = (request.account, request.tenant) == (self._answers.account, self._tenant)
            if request.messages and is_own and request.expires > now:
                self._follow(request.id)

    def _follow(self, id_: str) -> None:
        """Keep the messages of a request up to date from now on."""
        self._shown.setdefault(id_, {})
        if self._watching is None or self._watching.done():
            self._watching = self._tasks.begin(self._watch())

    async def _watch(self) -> None:
        seen = ""
        while self._shown:
            try:
                for id_ in list(self._shown):
                    await self._update(id_)
                seen = await self._ledger.wait_for_change(seen, _UPDATE_INTERVAL, self._system.sleep)
            except FastnError:
                await self._system.sleep(_UPDATE_INTERVAL)

    async def _update(self, id_: str) -> None:
        """Show the state of a request in its messages, if that differs from what they show."""
        now = self._system.timestamp()
        request = await self._ledger.find(id_)
        if request is None or not request.messages:
            self._shown.pop(id_, None)
            return
        changes = await self._ledger.changes_by([id_]) if request.used else []
        direct = [each for each in changes if not is_temporary(each)]
        is_shown = await self._show(request, direct, now) or request.expires + _RETRY_PERIOD <= now
        is_begun = len(direct) >= len(request.used) or request.expires <= now
        if is_shown and not request.is_open(now) and is_begun and outcome(request, direct, now)[0] != "open":
            self._shown.pop(id_, None)

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


def slack_approvers(settings: Settings, issuer: str | None) -> Mapping[str, Approver]:
    """Return the approvers of the file. Raises `SettingsError` if a setting is missing, or nobody is in Slack."""
    for name in ("slack_app_token", "slack_bot_token", "approvers"):
        if getattr(settings, name) is None:
            raise SettingsError(f"Slack is set up, but {name} is not set.", f"Set FASTN_{name.upper()}: docs/slack.md.")
    assert settings.approvers is not None  # noqa: S101 - checked above
    approvers = load_approvers(settings.approvers, issuer)
    if not any(each.slack for each in approvers.values()):
        raise SettingsError(f"Nobody in {settings.approvers} has a Slack user.", "See docs/slack.md.")
    return approvers
