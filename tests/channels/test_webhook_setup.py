"""Invalid webhook settings stop the start and name the line or the setting."""

import os
from pathlib import Path

import anyio
import anyio.abc
import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.identity_provider import ISSUER
from support.webhook_world import SECRET, URL, WebhookWorld, approvers_file, public
from support.world import World

from fastn_mcp.channels.approvers import ApproverAnswers, exposed, load_approvers
from fastn_mcp.channels.webhook.webhook import AnswerAddress, Webhook, webhook_of
from fastn_mcp.config.load import load
from fastn_mcp.errors import Refused, SettingsError
from fastn_mcp.ledger.approval_request import ApprovalRequest

KEY, OTHER = (public(Ed25519PrivateKey.from_private_bytes(bytes([n] * 32))) for n in (1, 2))
SHARED = "a secret that is long enough to be one"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it names no approver"),
        ('dana = "key"', "line 1: dana must be a table, for example [dana]"),
        ("[dana]", "needs either a public_key or a secret"),
        (f'[dana]\npublic_key = "{KEY}"\nsecret = "{SHARED}"', "needs either a public_key or a secret"),
        ('[dana]\npublic_key = "abc"', "line 2: public_key: must be the 32 bytes"),
        ('[dana]\nsecret = "short-canary"', "line 2: secret: must be a text of 32 characters"),
        (
            f'[dana]\npublic-key = "{KEY}"',
            "line 2: there is no key 'public-key' in [dana] (did you mean 'public_key'?)",
        ),
        (f'[dana]\npublic_key = "{KEY}"\neffects = ["DELETE"]', "line 3: effects: "),
        (f'[dana]\npublic_key = "{KEY}"\neffects = []', "line 3: effects: "),
        (f'[dana]\npublic_key = "{KEY}"\nprincipal = 7', "line 3: principal: must be a text"),
        (f'["dana smith"]\npublic_key = "{KEY}"', "a name is at most 64"),
        (f'[dana]\npublic_key = "{KEY}"\n[kim]\npublic_key = "{KEY}"', "kim has the credential of another approver"),
        (f'[dana]\nsecret = "{SHARED}"\n[kim]\nsecret = "{SHARED}"', "kim has the credential of another approver"),
        (f'[dana]\npublic_key = "{KEY}"\n[Dana]\npublic_key = "{OTHER}"', "Dana has the name of another approver"),
        (
            f'[dana]\npublic_key = "{KEY}"\nprincipal = "x"\n[kim]\npublic_key = "{OTHER}"\nprincipal = "X"',
            "kim has the principal of another approver",
        ),
    ],
    ids=range(15),
)
def test_invalid_approvers_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_approvers(approvers_file(tmp_path, text))
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)
    assert SHARED not in str(caught.value)


@pytest.mark.parametrize(
    "principal",
    ["", "dana", f"{ISSUER}|", f"{ISSUER}/|dana", f"{ISSUER.upper()}|dana", f"{ISSUER}| dana", f"{ISSUER}|dana "],
)
def test_approver_of_a_team_needs_a_sign_in(tmp_path: Path, principal: str) -> None:
    """Without it, nobody could tell whether they are somebody at the page, or the one who asks."""
    line = f'\nprincipal = "{principal}"' if principal else ""
    path = approvers_file(tmp_path, f'[dana]\npublic_key = "{KEY}"{line}')
    with pytest.raises(SettingsError, match="line 1: dana needs principal = ") as caught:
        load_approvers(path, ISSUER)
    assert f'"{ISSUER}|SUBJECT"' in str(caught.value)


def test_people_of_a_team_are_counted_by_their_sign_in(tmp_path: Path) -> None:
    path = approvers_file(tmp_path, f'[dana]\npublic_key = "{KEY}"\nprincipal = "{ISSUER}|auth0|7"')
    assert load_approvers(path, ISSUER)["dana"].person == f"{ISSUER}|auth0|7"
    assert load_approvers(path)["dana"].person == "dana"


@pytest.mark.parametrize(
    ("mode", "owner", "group", "user", "is_exposed"),
    [
        (0o440, 0, 10001, 10001, False),  # a Kubernetes secret with fsGroup
        (0o400, 10001, 10001, 10001, False),
        (0o444, 0, 10001, 10001, True),
        (0o460, 0, 10001, 10001, True),
        (0o440, 0, 100, 10001, True),
        (0o440, 10001, 10001, 10001, True),
        (0o440, 500, 10001, 10001, True),
        (0o440, 0, 0, 0, True),
    ],
)
def test_mounted_file_may_be_group_readable(mode: int, owner: int, group: int, user: int, is_exposed: bool) -> None:
    """Kubernetes mounts secrets owned by root and the process's group."""
    file = os.stat_result((mode, 0, 0, 1, owner, group, 0, 0, 0, 0))
    assert exposed(file, user, {10001} if user else {0}) is is_exposed


def test_approvers_file_must_be_private(tmp_path: Path) -> None:
    path = approvers_file(tmp_path, f'[dana]\npublic_key = "{KEY}"')
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="can be read by users other than its owner"):
        load_approvers(path)
    with pytest.raises(SettingsError, match="There is no approvers file"):
        load_approvers(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FASTN_WEBHOOK_URL": "http://hooks.example.com/"}, "webhook_url (environment FASTN_WEBHOOK_URL) is wrong"),
        ({"FASTN_WEBHOOK_URL": "https://user:canary@hooks.example.com/"}, "webhook_url"),
        ({"FASTN_WEBHOOK_URL": "ftp://hooks.example.com/canary"}, "webhook_url"),
        ({"FASTN_WEBHOOK_SECRET": "canary"}, "webhook_secret (environment FASTN_WEBHOOK_SECRET) is wrong"),
        ({"FASTN_WEBHOOK_SECRET": ""}, "webhook_url is set, but webhook_secret is not"),
        ({"FASTN_APPROVERS": ""}, "webhook_url is set, but approvers is not"),
        ({"FASTN_APPROVAL_LISTEN": "8790"}, "approval_listen (environment FASTN_APPROVAL_LISTEN) is wrong"),
        ({"FASTN_APPROVAL_LISTEN": "127.0.0.1:99999"}, "approval_listen"),
        ({"FASTN_APPROVAL_LISTEN": "0.0.0.0:8790"}, "approval_url is not set"),
        ({"FASTN_APPROVAL_URL": "http://approvals.example.com"}, "approval_url"),
        ({"FASTN_WEBHOOK_SECRET": SHARED}, "is also the secret of an approver"),
    ],
)
def test_invalid_setting_is_only_named(tmp_path: Path, world: World, change: dict[str, str], message: str) -> None:
    file = approvers_file(tmp_path, f'[dana]\nsecret = "{SHARED}"')
    environment = {
        "FASTN_API_KEY": "fsk_live_1", "FASTN_WEBHOOK_URL": URL, "FASTN_WEBHOOK_SECRET": SECRET,
        "FASTN_APPROVERS": str(file),
    }  # fmt: skip
    assert set_up(environment, world) is not None
    with pytest.raises(SettingsError) as caught:
        set_up(environment | change, world)
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)


def set_up(environment: dict[str, str], world: World) -> Webhook | None:
    answers = ApproverAnswers("test", "", world.ledger, world.audit, world.system)
    return webhook_of(load({}, environment, None), answers, stays=True)


@pytest.fixture
def hooked(tmp_path: Path) -> WebhookWorld:
    return WebhookWorld(tmp_path)


async def opened(hooked: WebhookWorld) -> ApprovalRequest:
    request = await hooked.request(await hooked.asked(hooked.run()))
    hooked.receiver.came.clear()
    return request


async def test_answer_server_has_only_one_route(hooked: WebhookWorld) -> None:
    webhook = hooked.asking(address=AnswerAddress("127.0.0.1", 0))
    announced = await webhook.ask(await opened(hooked))
    assert announced.places == ("by the webhook at hooks.example.com",)
    callback = hooked.receiver.questions[0]["callback"]
    async with httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.post(callback, content=b"x" * 16_385)).status_code == 413
        assert hooked.audited("answer_refused")[-1]["message"] == "It is too large, or its connection was lost."
        assert (await http.post(callback, content=b"{}")).status_code == 400
        assert (await http.get(callback)).status_code == 405
        assert (await http.get(callback.rpartition("/approvals")[0])).status_code == 404
    await webhook.aclose()


async def test_port_of_another_server_is_shared(hooked: WebhookWorld) -> None:
    request = await opened(hooked)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = int(listener.listeners[0].extra(anyio.abc.SocketAttribute.local_port))  # noqa: S610 - not Django
        webhook = hooked.asking(address=AnswerAddress("127.0.0.1", port))
        webhook.begin()
        await webhook.ask(request)
        assert hooked.receiver.questions[0]["callback"] == f"http://127.0.0.1:{port}/approvals/{request.id}"
        await webhook.aclose()
    nowhere = hooked.asking(address=AnswerAddress("192.0.2.1", 8790))
    with pytest.raises(Refused, match="Answers to the webhook cannot be received at port 8790"):
        await nowhere.ask(request)
