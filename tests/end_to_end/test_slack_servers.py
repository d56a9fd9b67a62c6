"""Approval in Slack with real servers: of one person over stdio and HTTP, and of a team with two replicas on Valkey."""

import json
import re
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from support.local_page import form_in, posted_by, recording_browser
from support.replica_pair import Replicas, two_replicas
from support.server_process import Upstream, body, each_transport_and_era, environment, served
from support.slack import APP, BOT, CHANNEL, TEAM, Message, Slack, served_slack, until
from support.slack_world import DANA, KIM, settings_of
from support.terminal import sitting
from support.valkey_server import ValkeyServer
from support.webhook_world import approvers_file

pytestmark = pytest.mark.anyio


@pytest.fixture
def slack() -> Generator[Slack]:
    with served_slack() as made:
        yield made


async def on_the_page(key_file: str, message: Message, name: str) -> None:
    """Approve the request of a message on the local page."""
    url, keys = posted_by(key_file)
    async with httpx2.AsyncClient(follow_redirects=True) as person:
        entered = await person.post(url, data=keys, headers={"Origin": "null"})
        address = entered.url.join(re.findall(r"url=([^\"]+)", entered.text)[0])
        id_ = reference(message)["request"]
        page = await person.get(address.copy_set_param("request", id_))
        forms = re.findall(r'<form class="approve"[^>]*action="([^"]*)"(.*?)</form>', page.text, re.DOTALL)
        ((action, form),) = (each for each in forms if f'value="{id_}"' in each[1])
        origin = f"{page.url.scheme}://{page.url.netloc.decode()}"
        fields = form_in(form) | {"name": name, "extent": "once"}
        sent = await person.post(str(page.url.join(action)), data=fields, headers={"Origin": origin})
        assert sent.status_code == 200, sent.text


def reference(message: Message) -> dict[str, Any]:
    return json.loads(next(iter(message.buttons.values()))["value"])


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
            (found,) = body(await client.call_tool("list_customers", {"search": name}))["data"]

            async def delete(id_: str = found["id"]) -> None:
                answers.append(body(await client.call_tool("delete_customer", {"customer_id": id_})))

            tasks.start_soon(delete)
        await until(lambda: len(slack.messages) == len(names))
        first, second, third = (next(each for each in slack.messages if name in each.text) for name in names)
        assert await slack.decide(DANA, first, typed="Globex Exports") == ""
        await until(opened.exists)
        await on_the_page(opened.read_text().split()[0], second, "Acme Corp")
        await until(lambda: "approve" not in second.buttons)
        await anyio.to_thread.run_sync(at_the_terminal)
        await until(lambda: len(answers) == len(names), 60)
        assert [answer["done"] for answer in answers] == ["delete_customer"] * 3, answers
        for message, by in ((first, "dana"), (second, "approval page"), (third, "terminal")):
            await until(lambda message=message: "Done\n" in message.text)
            assert by in message.text
    assert [change.partition(" ")[0] for change in upstream.changes()] == ["DELETE"] * 3


POLICY = '[defaults]\ndestroy = "out_of_band"\n[[rule]]\ntool = "delete_connector"\nthen = "four_eyes"\n'


class Company:
    """A team whose tenant has a page and Slack."""

    def __init__(self, replicas: Replicas, slack: Slack) -> None:
        self.replicas = replicas
        self.slack = slack

    @asynccontextmanager
    async def deletion(self, kind: str, name: str) -> AsyncGenerator[tuple[Message, list[dict[str, Any]]]]:
        """Yield the message about a deletion that an agent makes, and its result once it has ended."""
        known = len(self.slack.messages)
        async with self.replicas.deletion(kind, name) as results:
            await until(lambda: len(self.slack.messages) > known)
            yield self.slack.messages[-1], results


@pytest.fixture(scope="module")
def company(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Company]:
    folder = tmp_path_factory.mktemp("company")
    with served_slack() as slack:

        def tenant(issuer: str) -> str:
            people = {"dana": [DANA, "U0DANA2"], "kim": [KIM], "anna": ["U0ANNA"]}
            entries = (
                f'[{name}]\nprincipal = "{issuer}|{name}"\nslack = {json.dumps([f"{TEAM}/{user}" for user in users])}'
                for name, users in people.items()
            )
            approvers_file(folder, "\n".join(entries))
            tokens = 'slack_app_token_env = "SLACK_APP"\nslack_bot_token_env = "SLACK_BOT"\n'
            return f'{tokens}slack_channel = "{CHANNEL}"\nslack_url = "{slack.url}"\napprovers = "approvers.toml"\n'

        env = {"SLACK_APP": APP, "SLACK_BOT": BOT}
        with two_replicas(folder, valkey.url(), wait=45, policy=POLICY, tenant=tenant, env=env) as replicas:
            yield Company(replicas, slack)


async def test_either_replica_hears_slack_and_the_call_is_sent_once(company: Company) -> None:
    slack = company.slack
    await until(lambda: len(slack.sockets) == 2)
    for name in ("Globex", "Acme"):  # Slack delivers to one connection after the other
        before = company.replicas.deleted()
        async with company.deletion("customer", name) as (message, results):
            typed = results or message.text.partition('Delete customer "')[2].partition('"')[0]
            outcomes = [""] * 3

            async def decide(at: int, user: str, choice: str, message: Message = message, typed: Any = typed) -> None:
                outcomes[at] = await slack.decide(user, message, choice, typed=typed)  # noqa: B023

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(decide, 0, DANA, "approve")
                tasks.start_soon(decide, 1, KIM, "approve")
            assert outcomes.count("") == 2
        assert results[0]["done"] == "delete_customer"
        await until(lambda message=message: "Done\n" in message.text)
        assert company.replicas.deleted() == before + 1
