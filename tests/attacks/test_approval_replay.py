"""A person's approval sends its own call, once: neither another call nor in another process."""

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from mcp import Client, MCPError
from mcp.types import ElicitRequest, ElicitResult, InputRequiredResult
from support.decisions import moved
from support.direct_sandbox import Fastn
from support.policy_files import ALLOWING, CONFIRMING, CONFIRMS, rules_of
from support.scripted_client import Program, changing, one_in_four
from support.server_process import ERAS, approval, body
from support.slack import Slack, served_slack
from support.slack_world import DANA, SlackWorld
from support.world import FormLater, World, called_with

from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.catalog import ALL_TOOLS, TOOLS, parse
from fastn_mcp.server.handlers import build
from fastn_mcp.tools.customers import UpdateCustomer

OUT_OF_BAND = ("page", "slack")
SEAL = "a secret that all processes of a fleet have"
WORKFLOW = "wf_b5880b29eb25"

GLOBEX, GAMMA = "5c4bc270-6e5f-4523-afd7-6538d17c6c3a", "709c1143-a681-498f-a56f-b396497b2d74"
ORGANIZATION = "ucl:org_9c41d07be2f84a36b15d:live"
CONNECTION = f"{ORGANIZATION}:0c6eeceb-caab-4f9a-a04e-a5265045745f:4430aaa2-29d0-4db2-ae06-757298121be8:default"

OTHER: Mapping[str, dict[str, Any]] = {
    "create_customer": {"name": "Initrode"},
    "update_customer": {"name": "Acme Inc"},
    "delete_customer": {"customer_id": GLOBEX},
    "create_connector": {"slug": "initrode"},
    "update_connector": {"description": "Slides."},
    "delete_connector": {"connector_id": GAMMA},
    "create_connection": {"credentials": {"apiKey": "another"}},
    "delete_connection": {"connection_id": CONNECTION},
    "create_workflow": {"name": "Another one"},
    "update_workflow": {"description": "Every day."},
    "delete_workflow": {"workflow_id": WORKFLOW},
    "run_workflow": {"input": {"a": 2}},
    "create_trigger": {"name": "Another hook"},
    "update_trigger": {"schedule": "*/5 * * * *"},
    "delete_trigger": {"trigger_id": "f014f76e-5754-4e25-a7c2-5bcffab9c00a"},
    "invite_user": {"role": "Admin"},
    "create_role": {"permissions": ["*"]},
    "create_api_key": {"name": "Another"},
    "revoke_api_key": {"api_key_id": "3"},
    "create_secret": {"value": "another"},
    "delete_secret": {"secret_id": "sec_4a9427d666a6"},
    "ai_chat": {"message": "Delete all workflows."},
    "ai_build": {"prompt": "Send all orders to me"},
}
"""For each changing tool, the arguments that turn the approved call into another one."""

WORKSPACE: list[Slack] = []
"""The Slack in which people approve."""


@pytest.fixture(scope="module", autouse=True)
def workspace() -> Generator[None]:
    with served_slack() as slack:
        WORKSPACE[:] = [slack]
        yield


ALONE = ("create_api_key", "ai_chat", "ai_build")
"""Tools that are never part of a batch."""


@dataclass(frozen=True)
class Call:
    """A call that needs approval, and another one of the same tool, which nobody approved."""

    tool: str
    arguments: dict[str, Any]
    other: dict[str, Any]


async def calls(world: World) -> list[Call]:
    """Return a call of each tool and of each procedure that changes something."""
    single = [Call(tool, given, given | OTHER[tool]) for tool, given in changing(world)]
    waiting = next(call for call in single if call.tool == "run_workflow")
    wait = {"wait_seconds": 1, "idempotency_key": "another"}
    every = [*single, Call("run_workflow", waiting.arguments | wait, waiting.other | wait)]
    for call in single:
        if call.tool not in ALONE:
            one, other = ({"tool": call.tool, "arguments": given} for given in (call.arguments, call.other))
            every.append(Call("apply_changes", _batch(one), _batch(other)))
    first, second = [change.id for change in await world.ledger.changes(world.journalling.account, 2, 1e12)]
    return [Call("undo_change", {"change_id": first}, {"change_id": second}), *every]


def _batch(call: dict[str, Any]) -> dict[str, Any]:
    added = {"tool": "create_customer", "arguments": {"name": "Batched"}}
    return {"changes": [call, added], "batch": f"of {call['tool']}"}


async def opened(
    folder: Path, channel: str, policy: Policy | None = None, bound: str = "one", **settings: Any
) -> World:
    """Open a process on the ledger of `folder`, whose account has two changes that can be undone.

    Its requests go to this channel if no form asks.
    """
    policy = policy or Policy(rules=CONFIRMING)
    world = (
        SlackWorld(folder, WORKSPACE[0], policy, bound=bound, **settings)
        if channel == "slack"
        else World(folder, policy, bound=bound, **settings)
    )
    customers = [world.sandbox.state.named("customers", slug)["id"] for slug in ("acme-corp", "globex-exports")]
    updates = [UpdateCustomer(customer_id=str(id_), name=f"Renamed {n}") for n, id_ in enumerate(customers)]
    if not await world.ledger.changes(world.journalling.account, 2, 1e12):
        earlier = World(folder, Policy(rules=ALLOWING), world.clock, f"e-{world.bound}-", bound=world.bound)
        for update in updates:
            assert isinstance(await earlier.call(update), Done)
        earlier.close()
    fastn = Fastn(world.sandbox)
    for update in updates:
        assert fastn(update).status == 200
    world.sandbox.requests.clear()
    return world


@dataclass
class Agent:
    """A client of one process. A person approves one call, and the client makes any call with that approval.

    The approval comes by the client's form (`sealed`), by the same without the seal of its state (`unsealed`), or
    out-of-band (`page`, `slack`).
    """

    world: World
    client: Client
    channel: str

    async def approved(self, call: Call) -> Any:
        """Return what a client holds after a person approved the call; None if the call needs no approval."""
        if self.channel in OUT_OF_BAND:
            answer = body(await self.client.call_tool(call.tool, call.arguments))
            if answer.get("status") != "approval_required":
                return None
            (grant,) = await self.world.ledger.waiting(self.now)
            self.world.clock.pass_(5)
            if self.channel == "slack":
                slack = WORKSPACE[0]
                assert await slack.decide(DANA, slack.messages[-1], typed=grant.expected or "") == ""
                return grant
            assert await moved(
                self.world.ledger, grant.id, [RequestState.OPEN], RequestState.APPROVED, self.now, by="local_page"
            )
            return grant
        if self.channel == "unsealed":
            asking = await self.world.call(parse(TOOLS, call.tool, call.arguments).call, FormLater())
            if not isinstance(asking, PendingApproval) or asking.request.out_of_band:
                return None
            self.world.clock.pass_(5)
            name = asking.request.expected
            content = {"decision": "approve"} if name is None else {"name": name}
            return asking.request.id, ("accept", content)
        asked = await self.client.session.call_tool(call.tool, call.arguments, allow_input_required=True)
        if not isinstance(asked, InputRequiredResult):
            return None
        assert asked.input_requests is not None
        ((name, request),) = asked.input_requests.items()
        schema = cast(Any, cast(ElicitRequest, request).params).requested_schema
        self.world.clock.pass_(5)
        answer = ElicitResult(action="accept", content=approval(schema["properties"]))
        return asked.request_state, {name: answer}

    async def calls(self, tool: str, arguments: dict[str, Any], approved: Any) -> object:
        match self.channel:
            case "page" | "slack":
                return await self.client.call_tool(tool, arguments)
            case "sealed":
                state, answers = approved
                try:
                    return await self.client.session.call_tool(
                        tool, arguments, request_state=state, input_responses=answers, allow_input_required=True
                    )
                except MCPError as error:
                    return error
            case _:
                try:
                    call = parse(TOOLS, tool, arguments).call
                    return await self.world.dispatch(call, called_with(FormLater(submitted=approved)))
                except FastnError as error:
                    return error

    @property
    def now(self) -> float:
        return self.world.clock.at.timestamp()


@asynccontextmanager
async def agent(world: World, channel: str, version: str, seal: str | None = None) -> AsyncGenerator[Agent]:
    """Connect a client. People in Slack are heard by the process that is given no seal."""
    server = build(world.dispatch, ALL_TOOLS, {}, [seal or SEAL])
    form = None if channel in OUT_OF_BAND else Program(world, lambda _: None, action="decline")
    if isinstance(world, SlackWorld) and seal is None:
        world.channel.begin()
    async with Client(server, mode=ERAS[version], elicitation_callback=form) as client:
        yield Agent(world, client, channel)
    if isinstance(world, SlackWorld):
        await world.channel.aclose()


T = TypeVar("T")
CHANNELS = [("sealed", "2026-07-28"), ("unsealed", "2026-07-28"), ("page", "2025-11-25"), ("slack", "2026-07-28")]
each_channel = pytest.mark.parametrize(("channel", "version"), CHANNELS)
# Only in the newer protocol does the answer to a form arrive in another request; the page and Slack work in both.
OTHER_VERSIONS = [("slack", "2025-11-25"), ("page", "2026-07-28")]
EVERY_CHANNEL = [*CHANNELS, *OTHER_VERSIONS]
each_channel_and_version = pytest.mark.parametrize(
    ("channel", "version"), [*CHANNELS, *(pytest.param(*each, marks=pytest.mark.long) for each in OTHER_VERSIONS)]
)


def share(every: Sequence[T], number: int, step: int) -> Sequence[T]:
    """Return one in `step` of the calls. With as many numbers as steps, each call is in one of the shares."""
    return every[number % step :: step]


@each_channel_and_version
@one_in_four
async def test_approval_sends_its_call_once_by_any_tool(channel: str, version: str, step: int, tmp_path: Path) -> None:
    world = await opened(tmp_path, channel)
    async with agent(world, channel, version) as caller:
        for call in share(await calls(world), EVERY_CHANNEL.index((channel, version)), step):
            account = deepcopy(world.sandbox.state)
            approved = await caller.approved(call)
            assert world.changes == [], call
            result = await caller.calls(call.tool, call.arguments, approved)
            sent = len(world.changes)
            assert sent >= 1, (call, result)
            for _ in range(2):
                await caller.calls(call.tool, call.arguments, approved)
                world.clock.pass_(60)
            assert len(world.changes) == sent, call
            world.clock.pass_(1000)
            world.sandbox.state = account
            world.sandbox.requests.clear()


async def test_seal_of_a_request_expires_with_its_approval(tmp_path: Path) -> None:
    world = World(tmp_path, Policy(rules=CONFIRMING, approval_lifetime=1e-6))
    async with agent(world, "sealed", "2026-07-28") as caller:
        with pytest.raises(MCPError, match="expired requestState"):
            await caller.client.call_tool("create_customer", {"name": "Initech"})
    assert world.changes == []


RULES = "[budget]\nexternal = 50\n"
TARGETS = ("customers", "connectors", "connections", "workflows", "triggers", "apiKeys", "secrets")


def altered(world: World, call: Call) -> bool:
    """Change the target of the call; False if it creates something."""
    state = world.sandbox.state
    change = call.arguments.get("changes", [{"tool": call.tool, "arguments": call.arguments}])[0]
    ids = [str(value) for value in change["arguments"].values()]
    if call.tool == "undo_change":
        ids = [str(state.named("customers", slug)["id"]) for slug in ("acme-corp", "globex-exports")]
    elif change["tool"].startswith("create_"):
        return False
    rows = [row for collection in TARGETS for row in state.all(collection) if str(row["id"]) in ids]
    for row in rows:
        row["name"] = f"{row.get('name')}, changed meanwhile"
    return bool(rows)


@each_channel_and_version
@one_in_four
async def test_approval_covers_no_other_call_or_state(channel: str, version: str, step: int, tmp_path: Path) -> None:
    world = await opened(tmp_path, channel)
    every = await calls(world)
    pairs = [*zip(every, [*every[1:], every[0]], strict=True)]
    changed = 0
    async with agent(world, channel, version) as caller:
        for call, following in share(pairs, EVERY_CHANNEL.index((channel, version)), step):
            approved = await caller.approved(call)
            assert approved is not None, call
            result = await caller.calls(call.tool, call.other, approved)
            assert world.changes == [], ("other arguments", call, result)
            result = await caller.calls(following.tool, following.arguments, approved)
            assert world.changes == [], ("another tool", call, result)
            world.clock.pass_(601)
            result = await caller.calls(call.tool, call.arguments, approved)
            assert world.changes == [], ("ran out", call, result)
            world.clock.pass_(1000)
            approved = await caller.approved(call)
            if altered(world, call):
                changed += 1
                result = await caller.calls(call.tool, call.arguments, approved)
                assert world.changes == [], ("target changed", call, result)
            world.clock.pass_(1000)
    assert changed >= (20 if step == 1 else 3)


OTHERS = ["the same", "key", "mode", "policy", "live key", "seal"]


@each_channel
@one_in_four
@pytest.mark.parametrize("other", OTHERS)
async def test_approval_of_another_process_is_void(
    other: str, channel: str, version: str, step: int, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "key": {"bound": "two"},
        "mode": {"policy": Policy("unattended", CONFIRMING)},
        "policy": {"policy": Policy(rules=rules_of(tmp_path, RULES + CONFIRMS))},
        "live key": {"policy": Policy(rules=CONFIRMING, live=True)},
    }.get(other, {})
    first = await opened(tmp_path, channel)
    second = await opened(tmp_path, channel, clock=first.clock, tokens="u", **settings)
    every, tried = await calls(first), 0
    seal = "the secret of another fleet altogether" if other == "seal" else SEAL
    async with agent(first, channel, version) as asked, agent(second, channel, version, seal) as attacker:
        for call in share(every, OTHERS.index(other) + CHANNELS.index((channel, version)), step):
            approved = await asked.approved(call)
            if approved is None:
                continue
            tried += 1
            result = await attacker.calls(call.tool, call.arguments, approved)
            if other == "the same" or (other == "seal" and channel != "sealed"):
                assert second.changes, (call, result)
                break
            assert second.changes == [], (call, result)
            first.clock.pass_(1000)
    assert first.changes == []
    assert tried >= (1 if second.changes else 10 // step)
