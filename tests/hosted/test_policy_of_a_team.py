"""Rules by who asks and with which client, over a team's HTTP server."""

from pathlib import Path
from typing import Any

import pytest
from support.policy_files import policy_file
from support.team_world import ALL, HEAD, META, TENANTS, TeamWorld, modern, request

pytestmark = pytest.mark.anyio

TEXT = HEAD + TENANTS.replace('mode = "guarded"', 'mode = "guarded"\npolicy = "policy.toml"', 1)
REFUSED = """[defaults]
write = "out_of_band"

[[rule]]
who = { client = "chat-7" }
then = "deny"
reason = "not approved by IT"

[[rule]]
tool = "create_customer"
who = { client = "ide-1" }
then = "allow"
"""
CREATE = {"name": "Initech"}


async def created(folder: Path, policy: str, name: str = "bytes", **claims: Any) -> dict[str, Any]:
    """Create a customer as a member of `acme`, with a client that calls itself `name`."""
    policy_file(folder, policy)
    team = TeamWorld(folder, TEXT)
    meta = META | {"io.modelcontextprotocol/clientInfo": {"name": name, "version": "1"}}
    async with team.served() as caller:
        who: dict[str, Any] = {"sub": "anna", "scope": ALL, **claims}
        token = team.provider.token(**who)
        body = request("create_customer", CREATE, _meta=meta | {"io.modelcontextprotocol/clientCapabilities": {}})
        answer = (await caller.ask(token, body, **modern("create_customer"))).json()
        return answer["result"]["structuredContent"]


async def test_one_of_two_clients_is_refused_altogether(tmp_path: Path) -> None:
    policy_file(tmp_path, REFUSED)
    team = TeamWorld(tmp_path, TEXT)
    async with team.served() as caller:
        ide, chat = (team.provider.token(sub="anna", scope=ALL, azp=client) for client in ("ide-1", "chat-7"))
        calls: list[tuple[str, dict[str, Any]]] = [
            ("create_customer", CREATE),
            ("create_secret", {"name": "A"}),
            ("invite_user", {"email": "k@x.example", "role": "Viewer"}),
        ]
        for tool, arguments in calls:
            refused = await caller.result(chat, tool, **arguments)
            assert refused["outcome"] == "refused"
            assert 'policy.toml line 4: rule *. The client is "chat-7". Not approved by IT' in refused["message"]
        assert (await caller.result(chat, "list_customers"))["data"]
        assert (await caller.result(ide, "create_customer", **CREATE))["done"] == "create_customer"


@pytest.mark.parametrize("name", ["ide-1", "IDE", "Claude Code"])
async def test_client_that_calls_itself_like_a_trusted_one_gains_nothing(tmp_path: Path, name: str) -> None:
    assert "done" not in await created(tmp_path, REFUSED, name, azp="unknown-9")


async def test_client_with_a_refused_name_is_refused(tmp_path: Path) -> None:
    text = '[[rule]]\nwho = { client_name = "bytes*" }\nthen = "deny"\n'
    assert (await created(tmp_path, text))["outcome"] == "refused"
    assert (await created(tmp_path, text, "Claude Code"))["done"] == "create_customer"


@pytest.mark.parametrize("claims", [{"azp": None}, {"azp": ""}, {"azp": None, "client_id": 7}])
async def test_token_without_a_client_counts_as_any_client(tmp_path: Path, claims: dict[str, Any]) -> None:
    refused = await created(tmp_path, REFUSED, **claims)
    assert refused["outcome"] == "refused"
    assert "The client is not known" in refused["message"]


@pytest.mark.parametrize("claim", ["client_id", "appid", "cid"])
async def test_client_is_read_from_the_claim_of_each_provider(tmp_path: Path, claim: str) -> None:
    claims: dict[str, Any] = {"azp": None, claim: "chat-7"}
    assert 'The client is "chat-7"' in (await created(tmp_path, REFUSED, **claims))["message"]


GROUPS: list[tuple[dict[str, Any], bool]] = [
    ({"groups": ["staff"]}, False),
    ({"groups": "staff"}, False),
    ({"groups": []}, False),
    ({"groups": ["staff", "Contractors"]}, True),
    ({"groups": "contractors"}, True),
    ({}, True),
    ({"groups": None}, True),
    ({"groups": "staff,contractors"}, True),
    ({"groups": "staff contractors"}, True),
    ({"groups": '["contractors"]'}, True),
    ({"groups": {"contractors": True}}, True),
    ({"groups": [{"name": "contractors"}]}, True),
    ({"groups": ["staff", 7]}, True),
    ({"groups": True}, True),
    ({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://x.example"}}}, True),
    ({"groups": ["staff"], "_claim_names": {"groups": "src1"}}, True),
    ({"hasgroups": True}, True),
]


@pytest.mark.parametrize(("claims", "is_refused"), GROUPS)
async def test_groups_that_a_sign_in_does_not_say_count_as_any(
    tmp_path: Path, claims: dict[str, Any], *, is_refused: bool
) -> None:
    text = '[[rule]]\nwho = { group = "contractors" }\nthen = "deny"\n'
    assert ((await created(tmp_path, text, **claims)).get("outcome") == "refused") is is_refused


@pytest.mark.parametrize(
    ("claims", "is_allowed"),
    [
        ({"groups": ["ops", "x"]}, True), ({"groups": "ops"}, True), ({"groups": ["Ops"]}, False), ({}, False),
        ({"groups": "ops,x"}, False), ({"groups": ["ops"], "_claim_names": {"groups": "s"}}, False),
    ],
)  # fmt: skip
async def test_only_members_of_a_group_are_allowed(tmp_path: Path, claims: dict[str, Any], *, is_allowed: bool) -> None:
    text = '[defaults]\nwrite = "deny"\n[[rule]]\ntool = "create_customer"\nwho = { group = "ops" }\nthen = "allow"\n'
    assert ((await created(tmp_path, text, **claims)).get("done") == "create_customer") is is_allowed


async def test_tenant_and_person_of_the_sign_in_decide(tmp_path: Path) -> None:
    for who, is_refused in (('tenant = "acme"', True), ('tenant = "globex"', False), ('person = "a@x.example"', True)):
        text = f'[[rule]]\nwho = {{ {who} }}\nthen = "deny"\n'
        answer = await created(tmp_path, text, name="bytes", email="A@x.example", preferred_username="anna")
        assert (answer.get("outcome") == "refused") is is_refused
