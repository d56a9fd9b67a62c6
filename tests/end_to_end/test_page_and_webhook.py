"""A tenant with an approval page and a webhook: two processes, a real Valkey, a real receiver, real HTTP.

A request is decided by either, at any replica, and four eyes are two people, whichever way each of them answers.
"""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.page_visitor import Visitor
from support.ports import free_port
from support.replica_pair import Replicas, two_replicas
from support.valkey_server import ValkeyServer
from support.webhook_receiver import SECRET, example, received
from support.webhook_world import approvers_file, public

pytestmark = pytest.mark.anyio

POLICY = '[defaults]\ndestroy = "out_of_band"\n[[rule]]\ntool = "delete_connector"\nthen = "four_eyes"\n'
KEYS = {name: Ed25519PrivateKey.generate() for name in ("dana", "kim", "anna")}
RECEIVER = example()


@dataclass
class Question:
    """A request as it reached the receiver, and the result of the call once it has ended."""

    sent: dict[str, Any]
    expected: str
    results: list[dict[str, Any]]


@dataclass
class Company:
    """The replicas, whose tenant has a page and a webhook, and the receiver."""

    replicas: Replicas
    receiver: Any

    @asynccontextmanager
    async def deletion(self, kind: str, name: str) -> AsyncGenerator[Question]:
        """Yield the request about a deletion that an agent makes."""
        while not self.receiver.questions.empty():  # of a test that failed
            self.receiver.questions.get_nowait()
        async with self.replicas.deletion(kind, name) as results:
            sent = await anyio.to_thread.run_sync(lambda: self.receiver.questions.get(timeout=20))
            yield Question(sent, sent["expected"], results)

    async def answer(self, question: Question, name: str, decision: str = "approve") -> tuple[int, dict[str, Any]]:
        """Return what the other replica says to a signed answer."""
        text = question.expected if decision == "approve" else "not today"
        made = RECEIVER.answer(question.sent, name, KEYS[name], decision, text)
        async with httpx2.AsyncClient(timeout=30) as http:
            url = httpx2.URL(made.full_url).copy_with(port=self.replicas.other)
            response = await http.post(url, content=made.data, headers=dict(made.header_items()))
        return response.status_code, response.json()


async def approve(visitor: Visitor, question: Question) -> httpx2.Response:
    """Approve a request on the page. The form is the one of its decline where nobody may approve it."""
    fields = await visitor.form("approve", question.sent["grant"])
    return await visitor.send("approve", fields | {"extent": "once", "name": question.expected})


@pytest.fixture(scope="module")
def company(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Company]:
    folder, hook = tmp_path_factory.mktemp("company"), f"http://127.0.0.1:{free_port()}/"

    def tenant(issuer: str) -> str:
        """People have the same subject at the provider as their name in the file."""
        listed = (
            f'[{name}]\npublic_key = "{public(key)}"\nprincipal = "{issuer}|{name}"' for name, key in KEYS.items()
        )
        approvers_file(folder, "\n".join(listed))
        return f'webhook_url = "{hook}"\nwebhook_secret_env = "HOOK"\napprovers = "approvers.toml"\n'

    with (
        received(hook, RECEIVER) as receiver,
        two_replicas(folder, valkey.url(), wait=45, policy=POLICY, tenant=tenant, env={"HOOK": SECRET}) as replicas,
    ):
        yield Company(replicas, receiver)


async def test_page_or_webhook_decides_at_another_replica(company: Company) -> None:
    before = company.replicas.deleted()
    async with company.deletion("customer", "Globex") as question:
        status, answer = await company.answer(question, "dana")
        assert (status, answer["state"]) == (200, "approved")
    assert question.results[0]["done"] == "delete_customer"
    async with (
        company.replicas.visitor("dana", company.replicas.other) as dana,
        company.deletion("customer", "Acme") as question,
    ):
        await dana.until("Delete customer")
        assert (await approve(dana, question)).status_code == 303
        assert (await company.answer(question, "kim"))[0] == 409
    assert question.results[0]["done"] == "delete_customer"
    assert company.replicas.deleted() == before + 2


async def test_decline_on_page_or_webhook_ends_the_request(company: Company) -> None:
    async with company.replicas.visitor("kim", company.replicas.other) as kim:
        async with company.deletion("connector", "Slack") as question:
            await kim.until("Delete connector")
            assert (await approve(kim, question)).status_code == 303
            assert (await company.answer(question, "dana", "decline"))[1]["state"] == "declined"
            assert "Nothing waits for you" in await kim.look()
        assert (question.results[0]["outcome"], question.results[0]["note"]) == ("declined", "not today")
        async with company.deletion("connector", "HubSpot") as question:
            assert (await company.answer(question, "kim"))[1]["state"] == "waiting"
            await kim.until("You approved it, and another has to.")
            fields = await kim.form("decline", question.sent["grant"])
            assert (await kim.send("decline", fields | {"note": "I was wrong."})).status_code == 303
            assert (await company.answer(question, "dana"))[0] == 409
        assert question.results[0]["note"] == "I was wrong."


async def test_four_eyes_needs_two_people_across_page_and_webhook(company: Company) -> None:
    """Who approved by the webhook has approved on the page too, and the one who asked never counts."""
    before, issuer = company.replicas.deleted(), company.replicas.provider.issuer
    async with (
        company.replicas.visitor("dana", company.replicas.one) as dana,
        company.replicas.visitor("kim", company.replicas.other) as kim,
    ):
        async with company.deletion("connector", "Shopify") as question:
            assert (await company.answer(question, "anna"))[0] == 403
            assert (await company.answer(question, "dana"))[1] == {
                "decided": False, "state": "waiting", "approvals": 1, "needed": 2,
            }  # fmt: skip
            assert "2 different people have to approve this call: 1 did so far (you)." in await dana.until(
                "1 did so far"
            )
            forced = await dana.form("decline", question.sent["grant"])
            sent = forced | {"extent": "once", "name": question.expected}
            assert (await dana.send("approve", sent)).status_code == 403
            assert "1 did so far (dana)" in await kim.look()
            assert company.replicas.deleted() == before
            assert (await approve(kim, question)).status_code == 303
        assert question.results[0]["done"] == "delete_connector"
        async with company.deletion("connector", "Zendesk") as question:
            await dana.until("Delete connector")
            assert (await approve(dana, question)).status_code == 303
            assert (await company.answer(question, "dana"))[0] == 409
            assert company.replicas.deleted() == before + 1
            assert (await company.answer(question, "kim"))[1]["state"] == "approved"
        assert question.results[0]["done"] == "delete_connector"
    approvals = [line for _, line in company.replicas.audited("approved") if line["grant"] == question.sent["grant"]]
    who = [line["approver"] for line in approvals]
    assert sorted(who) == [f"{issuer}|dana", f"{issuer}|kim"]
