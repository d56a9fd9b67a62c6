"""A person whom two channels name differently is one person."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from support.approval_world import ACME_WITH_POLICY, APPROVERS, PAGE, PEOPLE, SITE, ApprovalWorld, serving
from support.identity_provider import ISSUER, listening
from support.team_world import HEAD
from support.webhook_world import approvers_file, public, signed_approval

NAME = "Globex Exports"
FOUR = '[[rule]]\ntool = "delete_customer"\nthen = "four_eyes"\n'
HOOK = """
webhook_url = "{hook}/acme"
webhook_secret_env = "HOOK"
approvers = "approvers.toml"
"""


@dataclass
class BothChannels:
    """A team where `person` answers by webhook too, and the approvers file names them by their e-mail address."""

    world: ApprovalWorld
    person: str
    keys: dict[str, Ed25519PrivateKey]

    async def by_webhook(self, name: str = "") -> httpx2.Response:
        """Answer the open request by webhook, as this person."""
        name, request = name or self.person, self.world.audit("asked")[-1]["grant"]
        sent = signed_approval(self.keys[name], request, name, NAME, self.world.now)
        return await self.world.caller.http.post(f"{SITE}/tenants/acme/approvals/{request}", **sent)


@asynccontextmanager
async def both_channels(folder: Path, person: str) -> AsyncGenerator[BothChannels]:
    async def receive(_: Request) -> Response:
        return Response(status_code=204)

    keys = {name: Ed25519PrivateKey.generate() for name in (person, "eve")}
    lines = [
        f'[{name}]\npublic_key = "{public(keys[name])}"\nprincipal = "{ISSUER}|{name}@acme.example"' for name in keys
    ]
    approvers_file(folder, "\n".join(lines))
    with listening(Starlette(routes=[Route("/acme", receive, methods=["POST"])])) as hook:
        async with serving(folder, HEAD + PAGE + APPROVERS + ACME_WITH_POLICY + HOOK.format(hook=hook), FOUR) as world:
            yield BothChannels(world, person, keys)


@pytest.fixture
def email(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dana", "kim"):
        monkeypatch.setitem(PEOPLE, name, PEOPLE[name] | {"email": f"{name.title()}@acme.example"})


@pytest.mark.usefixtures("email")
@pytest.mark.parametrize("first", ["page", "webhook"])
async def test_page_and_webhook_count_one_person_once(tmp_path: Path, first: str) -> None:
    """The approvers file names her by her e-mail address, her sign-in by a subject."""
    async with both_channels(tmp_path, "dana") as team, team.world.browser("dana") as dana:
        asks = partial(team.world.delete, by="amir", email="amir@acme.example")
        assert "have to approve this call. Approvals so far: 0" in (await asks())["message"]
        form = await dana.form("approve") | {"extent": "once", "name": NAME}
        votes = [partial(dana.send, "approve", form), team.by_webhook]
        answers = [await vote() for vote in (votes if first == "page" else votes[::-1])]
        assert [answer.status_code < 400 for answer in answers] == [True, False]
        assert re.search("(You have|who may be you, has) already approved", answers[1].text)
        assert "already approved. One more person has to approve." in await dana.read()
        async with team.world.browser("kim") as kim:
            assert (await kim.approve(name=NAME)).status_code == 303
        assert (await asks())["done"] == "delete_customer"


@pytest.mark.usefixtures("email")
async def test_requester_is_recognized_on_the_page_by_their_email(tmp_path: Path) -> None:
    """Some providers put another subject into the tokens of each client."""
    async with both_channels(tmp_path, "kim") as team, team.world.browser("dana") as dana:
        await team.world.delete(by="anna", email="dana@acme.example")
        assert "This is your own call, and other people have to approve it." in await dana.read()


async def test_sign_in_without_an_email_may_be_the_approver_named_by_one(tmp_path: Path) -> None:
    """Neither the requester's token nor the ID token of the page says an e-mail address."""
    async with both_channels(tmp_path, "dana") as team, team.world.browser("dana") as dana:
        await team.world.delete(by="amir")
        assert "It may be their own" in (await team.by_webhook()).text
        await team.world.delete(by="anna", email="anna@acme.example")
        assert (await team.by_webhook()).status_code == 200
        assert "who may be you, has already approved. One more person has to approve." in await dana.read()


async def test_requester_named_by_their_email_does_not_approve_by_webhook(tmp_path: Path) -> None:
    async with both_channels(tmp_path, "amir") as team:
        asks = partial(team.world.delete, by="amir", email="amir@acme.example", email_verified=False)
        assert "have to approve this call. Approvals so far: 0" in (await asks())["message"]
        refused = await team.by_webhook()
        assert (refused.status_code, "It may be their own" in refused.text) == (403, True)
        assert (await team.by_webhook("eve")).status_code == 200
        assert "have to approve this call. Approvals so far: 1" in (await asks())["message"]
