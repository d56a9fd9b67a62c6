"""Approval in Slack with real servers: of one person over stdio and HTTP, and of a team with two replicas on Valkey."""

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from support.local_page import approve_form, recording_browser
from support.otlp_receiver import Receiver, values
from support.replica_pair import STATE_SECRET, two_replicas
from support.server_process import KEY, Upstream, body, each_transport_and_era, environment, served
from support.slack import APP, BOT, CHANNEL, TEAM, Message, Slack, until
from support.slack_world import DANA, KIM, settings_of
from support.terminal import sitting
from support.valkey_server import ValkeyServer
from support.webhook_world import approvers_file


@each_transport_and_era
async def test_three_waiting_calls_are_decided_in_slack_on_the_page_and_at_the_terminal(
    slack: Slack, upstream: Upstream, tmp_path: Path, transport: str, era: str
) -> None:
    browser, opened = recording_browser(tmp_path)
    env = environment(upstream) | settings_of(tmp_path, slack)
    env |= {"BROWSER": browser, "FASTN_APPROVAL_WAIT_SECONDS": "45"}
    names, answers = ("Globex Exports", "Acme Corp", "Katana"), list[dict[str, Any]]()

    def at_the_terminal() -> None:
        with sitting(["-m", "fastn_mcp", "approvals"], env) as person:
            person.sees("Katana")
            person.types("Katana\n")
            person.sees("Approved")

    async with served(env, transport, era) as client, anyio.create_task_group() as tasks:
        for name in names:
            (customer,) = body(await client.call_tool("list_customers", {"search": name}))["data"]

            async def delete(id_: str = customer["id"]) -> None:
                answers.append(body(await client.call_tool("delete_customer", {"customer_id": id_})))

            tasks.start_soon(delete)
        await until(lambda: len(slack.messages) == len(names))
        first, second, third = (next(each for each in slack.messages if name in each.text) for name in names)
        assert await slack.decide(DANA, first, typed="Globex Exports") == ""
        await until(opened.exists)
        request = json.loads(second.buttons["approve"]["value"])["request"]
        await approve_form(opened.read_text().split()[0], request, name="Acme Corp")
        await until(lambda: "approve" not in second.buttons)
        await anyio.to_thread.run_sync(at_the_terminal)
        await until(lambda: len(answers) == len(names), 60)
        assert [answer["done"] for answer in answers] == ["delete_customer"] * 3, answers
        for message, by in ((first, "dana"), (second, "approval page"), (third, "terminal")):
            await until(lambda message=message: "Done\n" in message.text)
            assert by in message.text
    assert [change.partition(" ")[0] for change in upstream.changes()] == ["DELETE"] * 3


@pytest.mark.extension("telemetry", "valkey")
async def test_team_on_two_replicas_decides_in_slack_and_a_collector_gets_its_record(
    slack: Slack, valkey: ValkeyServer, collector: Receiver, tmp_path: Path
) -> None:
    """Every extension at once. Either replica hears Slack, and each call is sent once."""

    def settings(issuer: str) -> str:
        people = {"dana": DANA, "kim": KIM}.items()
        entries = (f'[{name}]\nprincipal = "{issuer}|{name}"\nslack = "{TEAM}/{user}"' for name, user in people)
        approvers_file(tmp_path, "\n".join(entries))
        tokens = 'app_token_env = "SLACK_APP"\nbot_token_env = "SLACK_BOT"\n'
        section = f'[tenant.extensions.slack]\n{tokens}channel = "{CHANNEL}"\nurl = "{slack.url}"\n'
        return f'approvers = "approvers.toml"\n{section}'

    env = {"SLACK_APP": APP, "SLACK_BOT": BOT, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    env |= {"FASTN_TELEMETRY_AUDIT_EXPORT": "fail-closed"}
    with two_replicas(tmp_path, valkey.url(), wait=45, settings=settings, env=env) as replicas:
        await until(lambda: len(slack.sockets) == 2)
        for number, name in enumerate(("Globex", "Acme"), 1):  # Slack delivers to one connection after the other
            async with replicas.deletion("customer", name) as results:
                await until(lambda number=number: len(slack.messages) == number)
                message = slack.messages[-1]
                typed = message.text.partition('Delete customer "')[2].partition('"')[0]
                decisions: list[str] = []

                async def decide(user: str, message: Message = message, typed: str = typed) -> None:
                    decisions.append(await slack.decide(user, message, typed=typed))  # noqa: B023

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(decide, DANA)
                    tasks.start_soon(decide, KIM)
                assert decisions.count("") == 1
            assert results[0]["done"] == "delete_customer"
            await until(lambda message=message: "Done\n" in message.text)
            assert replicas.deleted() == number
        token = replicas.token()
        logged = [line for _, line in replicas.audited("approved")]
    calls = [values(span.attributes) for span in collector.spans if span.name == "tools/call delete_customer"]
    assert [call["fastn_mcp.profile"] for call in calls] == ["acme", "acme"]
    bodies = [json.loads(record.body.string_value) for record in collector.records if record.event_name]
    approvals = [line for line in bodies if line["event"] == "approved"]
    assert len(approvals) == 2
    assert approvals == logged
    exported = collector.everything()
    assert [text for text in (APP, BOT, KEY, token, STATE_SECRET) if text in exported] == []
