"""Clicks and dialogs in Slack. A button opens a dialog that shows the request again; only its submission decides.

Slack vouches for the user. Everything else is compared with the request in the ledger.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import JsonValue

from fastn_mcp.channels.approver_answers import OTHER_LINES, AnswerRejected, ApproverAnswers
from fastn_mcp.channels.approvers import Approver
from fastn_mcp.channels.slack.blocks import Reference, SlackFailed, dialog, notice, plain, reference
from fastn_mcp.channels.slack.client import Payload, SlackWeb
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval_form import approved_elsewhere
from fastn_mcp.ledger.approval_request import ApprovalRequest

log = logging.getLogger(__name__)


class SlackDecisions:
    """Decides requests of one account. `refresh` is called with the id of a request whose message may be old."""

    def __init__(
        self, web: SlackWeb, approvers: Iterable[Approver], answers: ApproverAnswers, tenant: str,
        refresh: Callable[[str], object],
    ) -> None:  # fmt: skip
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
            why = f"{failed} It may have counted: the message of the request shows it."
        if not is_click:
            return notice(why)
        await self._tell(payload, why)
        return None

    async def _shown(self, payload: Payload, about: Reference) -> tuple[ApprovalRequest, Approver]:
        """Return the request as it was shown, and who decides it. Raises `AnswerRejected`."""
        user = payload["user"]
        if not (team := user.get("team_id")):
            raise AnswerRejected(401, "Slack did not say which workspace you are of. Nothing was decided.")
        name = f"{team}/{user['id']}"
        if (approver := self._approvers.get(name)) is None:
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
        channel, user = str(payload["container"]["channel_id"]), str(payload["user"]["id"])
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
