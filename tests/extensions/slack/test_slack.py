"""Approval in Slack: by the real SDK, over real HTTP and WebSockets, against a Slack on the loopback."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.audit_entries import entries
from support.decisions import moved
from support.questions import a_question
from support.slack import APP, BOT, TEAM, Slack, check_blocks, until
from support.slack_world import DANA, KIM, MALLORY, SlackWorld, settings_of, slack_world
from support.team_world import HEAD, KEYS, TENANTS, TeamWorld
from support.webhook_world import approvers_file

from fastn_mcp.build.extensions import SECTIONS
from fastn_mcp.channels.approvers import load_approvers
from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.config.load import load
from fastn_mcp.errors import Declined, Refused, SettingsError, TargetChanged
from fastn_mcp.extensions.slack import blocks, client
from fastn_mcp.extensions.slack.channel import approvers_in
from fastn_mcp.guard.approval.votes import TerminalApprovals, unrecorded
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.tools.access import CreateRole, CreateSecret
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer

FOUR_EYES = '[defaults]\ndestroy = "four_eyes"\n'


@pytest.fixture
async def world(slack: Slack, tmp_path: Path) -> AsyncGenerator[SlackWorld]:
    async with slack_world(tmp_path, slack) as made:
        yield made


async def test_approved_call_is_sent_once_and_the_message_says_so(slack: Slack, world: SlackWorld) -> None:
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


async def test_decline_is_final_and_its_note_reaches_the_agent(slack: Slack, world: SlackWorld) -> None:
    call = world.run()
    message = await world.asked(call)
    assert await slack.decide(KIM, message, "decline", note="not today") == ""
    await world.shows(message, "Declined\n")
    assert "Decided by kim. Note: not today" in message.text
    declined = await world.call(call)
    assert isinstance(declined, Declined)
    assert declined.facts["note"] == "not today"
    assert world.changes == []


async def test_unused_approval_is_withdrawn(slack: Slack, world: SlackWorld) -> None:
    call = world.run()
    message = await world.asked(call)
    await slack.decide(DANA, message)
    await until(lambda: "withdraw" in message.buttons)
    assert await slack.decide(KIM, message, "withdraw", note="wait") == ""
    await world.shows(message, "Withdrawn")
    assert isinstance(await world.call(call), Declined)
    assert world.changes == []


async def test_typed_name_has_to_match(slack: Slack, world: SlackWorld) -> None:
    message = await world.asked(world.deletion())
    for typed in ("", "globex exports", "approve"):
        assert await slack.decide(DANA, message, typed=typed) == "The typed text does not match exactly."
    assert await slack.submit(DANA, typed="Globex Exports") == ""
    await world.shows(message, "Not used yet")


async def test_stranger_is_told_and_decides_nothing(slack: Slack, world: SlackWorld) -> None:
    message = await world.asked(world.run())
    for user, team in ((MALLORY, TEAM), (DANA, "T0OTHER")):
        told = len(slack.whispers)
        await slack.press(user, message, "approve", team=team)
        await until(lambda told=told: len(slack.whispers) > told)
        assert f"You ({team}/{user}) are not an approver here. Nothing was decided." in slack.whispers[-1][1]
    assert (slack.opened, (await world.open_request()).votes) == ({}, ())
    assert "are not an approver" in world.audited("answer_refused")[0]["message"]


async def test_names_stay_plain_text(slack: Slack, tmp_path: Path) -> None:
    name = '<!channel> <https://evil.example|Approve> & *bold* :tada: `code`\n"]}'
    async with slack_world(tmp_path, slack) as world:
        answer = await world.call(CreateCustomer(name=name))
        assert isinstance(answer, Done)
        message = await world.asked(DeleteCustomer(customer_id=str(answer.result.model_dump()["id"])))
        assert "<!channel>" in message.text
        assert not set("<>") & set(json.dumps(message.body["blocks"]))
        assert message.body["text"] == "A call waits for an approval."


async def test_request_too_long_for_slack_stays_on_the_other_channel(slack: Slack, world: SlackWorld) -> None:
    call = CreateRole(name="Everything", permissions=[f"{'&' * 60}:{n}" for n in range(400)])
    pending = await world.expect(PendingApproval, call)
    assert pending.where.endswith("Slack did not take the request (it is longer than Slack accepts).")
    assert slack.messages == []


EDITS: dict[str, dict[str, Any]] = {
    "another request": {"request": "ap_t1"},
    "other lines": {"shown": "0" * 64},
    "another tenant": {"tenant": "globex"},
    "a field more": {"note": "yes"},
    "no request": {"request": 7},
}


@pytest.mark.parametrize("edit", EDITS)
async def test_edited_button_or_dialog_decides_nothing(slack: Slack, world: SlackWorld, edit: str) -> None:
    message = await world.asked(world.run())
    await slack.press(DANA, message, "approve", **EDITS[edit])
    await slack.opens(DANA, message)
    for user in (DANA, KIM):
        response = await slack.submit(user, slack.opened[DANA], edits=EDITS[edit])
        assert "Nothing was decided." in response or "no such approval request" in response
        if user == DANA:
            await slack.opens(DANA, message)
    assert len(slack.whispers) == (0 if edit in ("a field more", "no request") else 1)
    assert (await world.open_request()).votes == ()
    assert world.changes == []


async def test_dialog_of_one_choice_makes_no_other(slack: Slack, world: SlackWorld) -> None:
    """The name has to be typed even if the dialog of a decline comes back as that of an approval."""
    message = await world.asked(world.deletion())
    dialog = await slack.opens(DANA, message, "decline")
    view: dict[str, Any] = {**dialog, "blocks": [*dialog["blocks"], TYPED]}
    assert "does not match" in await slack.submit(DANA, view, edits={"choice": "approve"})
    assert (await world.open_request()).votes == ()


TYPED: dict[str, Any] = {"type": "input", "block_id": "typed", "label": {}, "element": {}}


async def test_replayed_dialog_and_stale_message_decide_nothing(slack: Slack, world: SlackWorld) -> None:
    call = world.run()
    message = await world.asked(call)
    before = message.buttons
    view = await slack.opens(DANA, message)
    assert await slack.submit(DANA, view) == ""
    assert "has already been approved. Your answer was not recorded." in await slack.submit(DANA, view)
    await slack.press(KIM, message, "approve", button=before["approve"])
    await until(lambda: slack.whispers)
    assert slack.whispers[-1] == (KIM, "This request has already been approved. Your answer was not recorded.")
    await until(lambda: "withdraw" in message.buttons)
    await slack.decide(KIM, message, "withdraw")
    for user in (DANA, KIM):
        assert "the approval was withdrawn. Your answer was not recorded." in await slack.submit(user, view)
    assert isinstance(await world.call(call), Declined)
    assert world.changes == []


async def test_approval_of_a_changed_target_is_void(slack: Slack, world: SlackWorld) -> None:
    call = world.run()
    message = await world.asked(call)
    await slack.decide(DANA, message)
    world.sandbox.state.named("workflows", call.workflow_id, by="id")["description"] = "Changed meanwhile."
    assert isinstance(await world.call(call), TargetChanged)
    await world.shows(message, "Void\n")
    assert "The target changed before the call was sent. Nothing was sent." in message.text
    assert "Decided by" not in message.text, "dana approved it, and did not make it void"
    assert world.changes == []


async def test_expired_request_says_so(slack: Slack, world: SlackWorld) -> None:
    message = await world.asked(world.run())
    await slack.opens(DANA, message)
    world.clock.pass_(601)
    assert "This request has expired. Your answer was not recorded" in await slack.submit(DANA)
    await world.shows(message, "Expired\n")
    assert message.buttons == {}


async def test_stopped_request_says_so(slack: Slack, world: SlackWorld) -> None:
    message = await world.asked(world.run())
    request = await world.open_request()
    assert await moved(world.ledger, request.id, [RequestState.OPEN], RequestState.STOPPED, world.timestamp)
    await world.shows(message, "Stopped\n")
    assert "since changes were stopped" in await slack.decide(DANA, message.as_it_was)


async def test_four_eyes_count_people(slack: Slack, tmp_path: Path) -> None:
    """Two Slack users of one person count once, in a dialog that was opened before too."""
    async with slack_world(tmp_path, slack, FOUR_EYES) as world:
        call = world.deletion()
        pending = await world.expect(PendingApproval, call)
        where = (
            "A person has to approve in Slack. 2 people other than the requester have to approve this call. Approvals"
            " so far: 0."
        )
        assert pending.where.endswith(where)
        (message,) = slack.messages
        assert await slack.decide(DANA, message, typed="Globex Exports") == ""
        await world.shows(
            message, "2 people other than the requester have to approve this call. Approvals so far: 1 (dana)."
        )
        again = await slack.decide("U0DANA2", message, typed="Globex Exports")
        assert again == "You have already approved. One more person has to approve. Your answer was not recorded."
        assert isinstance(await world.call(call), PendingApproval)
        assert await slack.decide(KIM, message, typed="Globex Exports") == ""
        assert isinstance(await world.call(call), Done)
        await world.shows(message, "Decided by dana and kim.")
        assert (len(world.changes), len(slack.messages)) == (1, 1)


async def test_four_eyes_without_two_people_ask_nobody(slack: Slack, tmp_path: Path) -> None:
    alone = f'[dana]\nslack = ["{TEAM}/U0DANA", "{TEAM}/U0DANA2"]\n'
    async with slack_world(tmp_path, slack, FOUR_EYES, approvers=alone) as world:
        refused = await world.expect(Refused, world.deletion())
        assert "This call needs 2 approvers, and 1 of the listed approvers may decide" in str(refused)
        assert slack.messages == []


@pytest.mark.parametrize("entry", ['principal = "local"', 'effects = ["TRASH"]'])
async def test_own_calls_and_other_effects_are_not_theirs(slack: Slack, tmp_path: Path, entry: str) -> None:
    approvers = f'[dana]\nslack = ["{TEAM}/U0DANA"]\n{entry}\n[kim]\nslack = ["{TEAM}/U0KIM"]\n'
    async with slack_world(tmp_path, slack, approvers=approvers) as world:
        message = await world.asked(world.run())
        assert "dana may not decide on this call" in await slack.decide(DANA, message)
        assert await slack.decide(KIM, message) == ""


async def test_secret_is_not_typed_in_slack(slack: Slack, world: SlackWorld) -> None:
    call = CreateSecret(name="STRIPE")
    message = await world.asked(call)
    assert message.buttons.keys() == {"decline"}
    assert "The approver types the value on the page." in message.text
    forged = {**message.buttons["decline"], "action_id": "fastn_mcp_approve"}
    await slack.press(DANA, message, "approve", button=forged)
    await until(lambda: slack.whispers)
    assert slack.whispers[-1][1] == "The approver types the value on the page."
    assert slack.opened == {}


async def test_dialog_that_did_not_open_in_time_is_asked_for_again(slack: Slack, world: SlackWorld) -> None:
    message = await world.asked(world.run())
    slack.opens_dialogs = False
    told = "Slack did not open the dialog (expired_trigger_id). Nothing was decided. Press the button again."
    assert await slack.decide(DANA, message) == told
    slack.opens_dialogs = True
    assert await slack.decide(DANA, message) == ""


async def test_slow_decision_is_acknowledged_in_time_and_counts_once(
    slack: Slack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slack gives up after three seconds. A ledger that takes longer does not make it ask twice."""
    monkeypatch.setattr(client, "_ACKNOWLEDGE_WITHIN", 0.2)
    async with slack_world(tmp_path, slack) as world:
        message = await world.asked(world.run())
        await slack.opens(DANA, message)
        going_on, decide = anyio.Event(), world.ledger.decide

        async def slowly(*given: Any) -> Any:
            await going_on.wait()
            return await decide(*given)

        monkeypatch.setattr(world.ledger, "decide", slowly)
        assert "This takes longer than Slack waits." in await slack.submit(DANA)
        going_on.set()
        await world.shows(message, "Not used yet")


async def test_redelivered_dialog_counts_once(slack: Slack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not acknowledged comes again, as a retry."""
    slack.acknowledge_within = 0.3
    monkeypatch.setattr(client, "_ACKNOWLEDGE_WITHIN", 60)
    async with slack_world(tmp_path, slack, FOUR_EYES) as world:
        message = await world.asked(world.deletion())
        await slack.opens(DANA, message)
        going_on, find, calls = anyio.Event(), world.ledger.find, list[str]()

        async def slowly(id_: str) -> Any:
            calls.append(id_)
            if len(calls) < 3:
                await going_on.wait()
            else:
                going_on.set()
            return await find(id_)

        monkeypatch.setattr(world.ledger, "find", slowly)  # pyright: ignore[reportPrivateUsage]
        await slack.submit(DANA, typed="Globex Exports")
        await until(lambda: len(calls) > 3)
        monkeypatch.undo()
        await world.shows(message, "Approvals so far: 1 (dana)")
        assert len((await world.open_request()).votes) == 1


async def test_rate_limit_is_waited_for(slack: Slack, world: SlackWorld) -> None:
    slack.faults["chat.postMessage"] = ["429"]
    message = await world.asked(world.run())
    assert [method for method, _ in slack.calls].count("chat.postMessage") == 2
    assert await slack.decide(DANA, message) == ""


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("lost", "no connection"),
        ("not_in_channel", "not_in_channel"),
        ("portal", "an unreadable response"),
        ("bare", "an unreadable response"),
    ],
)
async def test_request_stays_open_elsewhere_while_slack_is_down(
    slack: Slack, world: SlackWorld, fault: str, why: str
) -> None:
    slack.faults["chat.postMessage"] = [fault]
    call = world.run()
    pending = await world.expect(PendingApproval, call)
    assert (
        pending.where
        == "This client cannot show an approval form. A person has to approve on the desk. Slack did not take the"
        f" request ({why})."
    )
    assert slack.messages == []
    world.clock.pass_(31)
    pending = await world.expect(PendingApproval, call)
    assert pending.where == "Approval has already been requested. A person has to approve on the desk, or in Slack."
    await world.approve_open_request()
    assert isinstance(await world.call(call), Done)
    await world.shows(slack.messages[0], "Done\n")


async def test_four_eyes_are_refused_while_slack_is_down(slack: Slack, tmp_path: Path) -> None:
    async with slack_world(tmp_path, slack, FOUR_EYES) as world:
        slack.faults["chat.postMessage"] = ["internal_error"]
        refused = await world.expect(Refused, world.deletion())
        assert "Nobody could be asked. Slack did not take the request (internal_error)." in str(refused)
        assert "Nothing was sent." in str(refused)


async def test_connection_is_renewed_when_slack_says_so(
    slack: Slack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.01)
    async with slack_world(tmp_path, slack) as world:
        message = await world.asked(world.run())
        await until(lambda: slack.sockets)
        (old,) = slack.sockets
        slack.bad_tickets = 2
        await slack.run(slack.disconnect())
        await until(lambda: slack.sockets and old not in slack.sockets)
        assert await slack.decide(DANA, message) == ""


async def test_each_approver_gets_a_message_without_a_channel(slack: Slack, tmp_path: Path) -> None:
    async with slack_world(tmp_path, slack, variables={"FASTN_SLACK_CHANNEL": ""}) as world:
        call = world.run()
        await world.asked(call)
        assert {message.channel for message in slack.messages} == {"D0DANA", "D0DANA2", "D0KIM"}
        assert await slack.decide(KIM, slack.messages[0], "decline", note="no") == ""
        for message in slack.messages:
            await world.shows(message, "Decided by kim. Note: no")


@pytest.mark.parametrize("refusals", [["url"], ["handshake"], ["handshake", "handshake", "url"]])
async def test_refused_connection_asks_for_another_address(
    slack: Slack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refusals: list[str]
) -> None:
    """A ticket works once, so that the address of an attempt that failed is never tried again."""
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.01)
    slack.bad_tickets = refusals.count("handshake")
    slack.faults["apps.connections.open"] = ["internal_error"] * refusals.count("url")
    async with slack_world(tmp_path, slack) as world:
        message = await world.asked(world.run())
        assert await slack.decide(DANA, message) == ""
    assert [each.levelname for each in caplog.records].count("WARNING") == 1
    assert "Slack delivers no decisions" in caplog.text
    assert "ticket" not in caplog.text


DIRECT = {"FASTN_SLACK_CHANNEL": ""}


async def test_approver_who_left_does_not_keep_others_from_being_told(slack: Slack, tmp_path: Path) -> None:
    slack.departed.add(DANA)
    async with slack_world(tmp_path, slack, FOUR_EYES, variables=DIRECT) as world:
        call = world.deletion()
        assert "A person has to approve in Slack. 2 people" in (await world.expect(PendingApproval, call)).where
        assert [message.channel for message in slack.messages] == ["D0DANA2", "D0KIM"]


async def test_posted_request_has_no_problem_any_more(slack: Slack, tmp_path: Path) -> None:
    slack.departed |= {DANA, "U0DANA2", KIM}
    async with slack_world(tmp_path, slack, variables=DIRECT) as world:
        call = world.run()
        assert "(user_not_found)" in (await world.expect(PendingApproval, call)).where
        request = await world.open_request()  # which another process posts
        await world.ledger.change_request(request.id, lambda current: current.shown_in(messages=["D0KIM/1"]))
        assert (await world.expect(PendingApproval, call)).where.endswith("on the desk, or in Slack.")


@pytest.mark.parametrize(("team", "told"), [(TEAM, ["D0KIM"]), ("T0OTHER", [])])
async def test_user_of_another_workspace_is_not_written_to(
    slack: Slack, tmp_path: Path, team: str, told: list[str]
) -> None:
    people = f'[dana]\nslack = ["T0OTHER/{DANA}"]\n[kim]\nslack = ["{team}/{KIM}"]\n'
    async with slack_world(tmp_path, slack, approvers=people, variables=DIRECT) as world:
        pending = await world.expect(PendingApproval, world.run())
        assert [message.channel for message in slack.messages] == told
        assert ("(nobody who may decide belongs to the app's workspace)" in pending.where) == (not told)


@pytest.mark.parametrize("fault", ["internal_error", "message_not_found"])
async def test_message_that_was_not_updated_is_tried_again(slack: Slack, tmp_path: Path, fault: str) -> None:
    """Unless it is gone, and then the others are updated nevertheless."""
    async with slack_world(tmp_path, slack, variables=DIRECT) as world:
        await world.asked(world.run())
        if fault == "message_not_found":
            del slack.messages[0]
        else:
            slack.faults["chat.update"] = [fault, fault]
        assert await slack.decide(KIM, slack.messages[-1], "decline", note="no") == ""
        for message in slack.messages:
            await world.shows(message, "Decided by kim. Note: no")
            assert message.buttons == {}
        await until(lambda: not world.channel._shown)  # pyright: ignore[reportPrivateUsage]
        assert [method for method, _ in slack.calls].count("chat.update") == (3 if fault == "message_not_found" else 5)


async def test_dialog_without_the_workspace_of_its_user_decides_nothing(slack: Slack, world: SlackWorld) -> None:
    message = await world.asked(world.run())
    await slack.opens(DANA, message)
    response = await slack.submit(DANA, team=None)
    assert response == "Slack did not say which workspace you belong to. Nothing was decided."
    assert (await world.open_request()).votes == ()


NOTICE: Any = blocks.notice("x")["view"]


async def test_unreadable_dialog_says_so(slack: Slack, tmp_path: Path) -> None:
    async with slack_world(tmp_path, slack):
        for metadata in ("", "[]", "no JSON", None):
            for callback in (blocks.DIALOG, "another"):
                view: Any = {**NOTICE, "private_metadata": metadata, "callback_id": callback}
                assert "Nothing was decided." in await slack.submit(DANA, view), (metadata, callback)


async def test_dialog_of_a_tenant_that_is_not_of_the_app_decides_nothing(slack: Slack, tmp_path: Path) -> None:
    issuer = "https://login.example.com/realms/team"
    approvers_file(tmp_path, f'[dana]\nprincipal = "{issuer}|dana"\nslack = "{TEAM}/{DANA}"\n')
    tokens = '[tenant.extensions.slack]\napp_token_env = "SLACK_APP"\nbot_token_env = "SLACK_BOT"\n'
    of_app = f'approvers = "approvers.toml"\n{tokens}url = "{slack.url}"\n[[tenant]]\nname = "globex"'
    text = HEAD + TENANTS.replace('[[tenant]]\nname = "globex"', of_app)
    team = TeamWorld(tmp_path, text, environment={**KEYS, "SLACK_APP": APP, "SLACK_BOT": BOT})
    async with team.served():
        for tenant, told in {
            "globex": "This request belongs to no tenant that decides through this app.",
            "own": "This request belongs to no tenant that decides through this app.",
            "nobody": "This request belongs to no tenant that decides through this app.",
            "acme": "This approval request does not exist.",
        }.items():
            about = blocks.Reference(request="r1", shown="0" * 64, tenant=tenant)
            view = {**NOTICE, "callback_id": blocks.DIALOG, "private_metadata": about.model_dump_json()}
            response = await slack.submit(DANA, view)
            assert told in response
    logs = {path.parent.name: entries(path) for path in tmp_path.glob("tenants/**/audit*.jsonl")}  # noqa: ASYNC240
    assert [entry["event"] for entry in logs.pop("acme")] == ["answer_refused"]
    assert not any(logs.values())  # that of a tenant cannot be filled by an app of another


async def test_new_process_brings_messages_up_to_date(slack: Slack, world: SlackWorld) -> None:
    call = world.run()
    message = await world.asked(call)
    await world.aclose()
    await world.approve_open_request()
    assert "approve" in message.buttons
    group, other = world.asking()
    other.begin()
    group.begin()
    await world.shows(message, "Not used yet")
    await until(lambda: len(slack.sockets) == 1)
    await slack.decide(KIM, message, "withdraw")
    await world.shows(message, "Withdrawn")
    await group.aclose()
    await other.aclose()


async def test_two_processes_post_a_request_once(slack: Slack, world: SlackWorld) -> None:
    slack.faults["chat.postMessage"] = ["internal_error"]
    await world.expect(PendingApproval, world.run())
    world.clock.pass_(31)
    request = await world.open_request()
    other, _ = world.asking()
    async with anyio.create_task_group() as tasks:
        for group in (world.group, other, world.group, other):
            tasks.start_soon(group.ask, request)
    assert len(slack.messages) == 1
    await other.aclose()


async def test_tokens_are_never_shown(slack: Slack, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    slack.faults["apps.connections.open"] = ["invalid_auth"]
    async with slack_world(tmp_path, slack) as world:
        await until(lambda: "Slack delivers no decisions (invalid_auth)" in caplog.text)
        slack.faults["chat.postMessage"] = ["invalid_auth"]
        pending = await world.expect(PendingApproval, world.run())
        for token in (APP, BOT):
            assert token in world.settings.secrets
            assert token not in repr(world.settings) + pending.where + caplog.text + world.audit_path.read_text()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[dana]\nslack = ["U0DANA"]', "is not TEAM/USER"),
        ('[dana]\nslack = []\neffects = ["TRASH"]', "slack"),
        ('[dana]\nslack = ["T01/U01"]\n[kim]\nslack = ["T01/U02", "T01/U01"]', "kim has the Slack user of another"),
        ('[dana]\nslack = "T01/U01"\nsecrets = "x"', "secrets"),
    ],
)
def test_invalid_slack_user_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        load_approvers(approvers_file(tmp_path, text))


def test_incomplete_settings_stop_the_start(slack: Slack, tmp_path: Path) -> None:
    def approvers(variables: dict[str, str]) -> object:
        return approvers_in(load({}, {"FASTN_API_KEY": "k", **variables}, None, sections=SECTIONS), None)

    good = settings_of(tmp_path, slack)
    for missing in ("app_token", "bot_token"):
        variable = f"FASTN_SLACK_{missing.upper()}"
        told = f"The extension slack needs {missing}. Set it in [extensions.slack] or as {variable}."
        with pytest.raises(SettingsError, match=re.escape(told)):
            approvers({**good, variable: ""})
    with pytest.raises(SettingsError, match=r"Set FASTN_APPROVERS: docs/webhook\.md"):
        approvers({**good, "FASTN_APPROVERS": ""})
    nobody = settings_of(tmp_path, slack, '[dana]\nsecret = "at least 32 characters, as they say"')
    with pytest.raises(SettingsError, match="has a Slack user"):
        approvers(nobody)


async def test_long_lines_fit_and_what_does_not_is_left_as_it_was(slack: Slack, world: SlackWorld) -> None:
    """A decision that no longer fits a message ends neither it nor the updates of others."""
    message = await world.asked(world.run())
    request = await world.open_request()
    for length in (546, 547, 550, 551):
        long = replace(request, question=a_question(title="&" * length))
        check_blocks(blocks.message(long, (), world.timestamp, "")["blocks"], 50, {"section", "header", "actions"})
    too_long = a_question(title="&" * 40 * 546)
    await world.ledger.change_request(request.id, lambda current: replace(current, question=too_long))
    other = await world.asked(world.deletion())
    await slack.decide(DANA, other, typed="Globex Exports")
    await world.shows(other, "Not used yet")
    assert "approve" in message.buttons


async def test_races_between_slack_page_and_terminal_send_once(slack: Slack, world: SlackWorld) -> None:
    inbox = Inbox(world.system, InboxAccount(None, world.ledger, unrecorded, world.typed))
    terminal = TerminalApprovals(world.ledger, world.audit, world.system)
    for number in range(6):
        call, sent = world.run(), len(world.changes)
        message = await world.asked(call)
        request, (pending,) = await world.open_request(), await inbox.waiting(world.timestamp)
        results: list[object] = []

        async def repeat(call: Any = call, results: list[object] = results) -> None:
            results.append(await world.call(call))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slack.decide, DANA, message)
            tasks.start_soon(slack.decide, KIM, message, "approve" if number % 2 else "decline")
            tasks.start_soon(inbox.approve, pending, world.timestamp)
            tasks.start_soon(terminal.approve, request)
            for _ in range(4):
                tasks.start_soon(repeat)
        for _ in range(2):
            await repeat()
        made = sum(isinstance(each, Done) for each in results)
        assert made == len(world.changes) - sent <= 1, results
        world.clock.pass_(1000)


def test_slack_is_imported_only_where_it_is_set_up() -> None:
    code = (
        "import sys, fastn_mcp.cli.serve, fastn_mcp.build.composition, fastn_mcp.extensions.team.builder\n"
        "sys.exit(' '.join({'slack_sdk', 'aiohttp', 'fastn_mcp.extensions.slack.client'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
