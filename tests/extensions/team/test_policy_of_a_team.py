"""Rules by who asks and with which client, over a team's HTTP server."""

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.policy_files import policy_file
from support.team_world import ALL, HEAD, NO_FORMS, TENANTS, TeamWorld, modern, request

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


Create = Callable[..., Awaitable[dict[str, Any]]]


@asynccontextmanager
async def creating(folder: Path, policy: str) -> AsyncGenerator[Create]:
    """Return what creates a customer as a member of `acme`, with a client that calls itself `name`."""
    policy_file(folder, policy)
    team = TeamWorld(folder, TEXT)
    numbers = itertools.count()

    async def create(name: str = "bytes", **claims: Any) -> dict[str, Any]:
        meta = NO_FORMS | {"io.modelcontextprotocol/clientInfo": {"name": name, "version": "1"}}
        held: dict[str, Any] = {"sub": "anna", "scope": ALL, **claims}
        token = team.provider.token(**held)
        customer = {"name": f"Customer {next(numbers)}"}
        body = request("create_customer", customer, _meta=meta)
        answer = (await caller.ask(token, body, **modern("create_customer"))).json()
        return answer["result"]["structuredContent"]

    async with team.served() as caller:
        yield create


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


async def test_client_is_the_one_of_the_token(tmp_path: Path) -> None:
    """One that calls itself like a trusted one gains nothing, and a token without a client counts as any client."""
    async with creating(tmp_path, REFUSED) as create:
        for name in ("ide-1", "IDE", "Claude Code"):
            assert "done" not in await create(name, azp="unknown-9")
        for claims in ({"azp": None}, {"azp": ""}, {"azp": None, "client_id": 7}):
            refused = await create(**claims)
            assert refused["outcome"] == "refused"
            assert "The client is not known" in refused["message"]
        for claim in ("client_id", "appid", "cid"):  # of other providers
            assert 'The client is "chat-7"' in (await create(azp=None, **{claim: "chat-7"}))["message"]


async def test_client_with_a_refused_name_is_refused(tmp_path: Path) -> None:
    async with creating(tmp_path, '[[rule]]\nwho = { client_name = "bytes*" }\nthen = "deny"\n') as create:
        assert (await create())["outcome"] == "refused"
        assert (await create("Claude Code"))["done"] == "create_customer"


UNKNOWN_GROUPS: list[dict[str, Any]] = [
    {},
    {"groups": None},
    {"groups": "staff,contractors"},
    {"groups": "staff contractors"},
    {"groups": '["contractors"]'},
    {"groups": {"contractors": True}},
    {"groups": [{"name": "contractors"}]},
    {"groups": ["staff", 7]},
    {"groups": True},
    {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://x.example"}}},
    {"groups": ["staff"], "_claim_names": {"groups": "src1"}},
    {"hasgroups": True},
]


async def test_groups_that_a_sign_in_does_not_say_count_as_any(tmp_path: Path) -> None:
    async with creating(tmp_path, '[[rule]]\nwho = { group = "contractors" }\nthen = "deny"\n') as create:
        for groups in (["staff"], "staff", list[str]()):
            assert (await create(groups=groups))["done"], groups
        for groups in (["staff", "Contractors"], "contractors"):
            assert (await create(groups=groups))["outcome"] == "refused", groups
        for claims in UNKNOWN_GROUPS:
            assert (await create(**claims))["outcome"] == "refused", claims


async def test_only_members_of_a_group_are_allowed(tmp_path: Path) -> None:
    text = '[defaults]\nwrite = "deny"\n[[rule]]\ntool = "create_customer"\nwho = { group = "ops" }\nthen = "allow"\n'
    others: list[dict[str, Any]] = [
        {"groups": ["Ops"]},
        {},
        {"groups": "ops,x"},
        {"groups": ["ops"], "_claim_names": {"groups": "s"}},
    ]
    async with creating(tmp_path, text) as create:
        for groups in (["ops", "x"], "ops"):
            assert (await create(groups=groups))["done"]
        for claims in others:
            assert (await create(**claims))["outcome"] == "refused", claims


async def test_tenant_and_person_of_the_sign_in_decide(tmp_path: Path) -> None:
    for who, is_refused in (('tenant = "acme"', True), ('tenant = "globex"', False), ('person = "a@x.example"', True)):
        async with creating(tmp_path, f'[[rule]]\nwho = {{ {who} }}\nthen = "deny"\n') as create:
            answer = await create(email="A@x.example", preferred_username="anna")
            assert (answer.get("outcome") == "refused") is is_refused
