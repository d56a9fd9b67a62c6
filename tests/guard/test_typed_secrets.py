"""Secrets that a person types with their approval: into the request to Fastn, and nowhere else."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import JsonValue
from support.policy_files import ALLOWING, CONFIRMING
from support.values import not_none
from support.world import Call, FormLater, FormNow, World, batch_of, plan_of, planned

from fastn_mcp.errors import FastnError, NotSent, Refused
from fastn_mcp.guard.approval.votes import NotCounted
from fastn_mcp.guard.approval_form import Answer, Approve, PendingApproval, used_up
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.rules import FileRules
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.connectors import CreateConnection

CANARY = "canary-typed-by-a-person"
CALL = CreateSecret(name="STRIPE_KEY")


@dataclass(frozen=True)
class Case:
    """A call that lacks its secret."""

    tool: str
    argument: str
    typed: JsonValue
    sentence: str

    def call(self, world: World) -> Call:
        return CALL if self.tool == "create_secret" else CreateConnection(connector_id=connector(world, "gamma"))


CASES = [
    Case("create_secret", "value", CANARY, 'Store secret "STRIPE_KEY". You enter its value.'),
    Case(
        "create_connection", "credentials", {"apiKey": CANARY},
        'Connect "Gamma" at "gamma.app" for your own account (no customer). You enter its credentials.',
    ),
]  # fmt: skip
each_tool = pytest.mark.parametrize("case", CASES, ids=lambda case: case.tool)


def connector(world: World, slug: str) -> str:
    return str(world.sandbox.state.named("connectors", slug)["id"])


def sent(world: World, argument: str) -> list[JsonValue]:
    bodies: list[Any] = [heard.body for heard in world.changes]
    return [body[argument] for body in bodies]


def kept_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_every_secret_argument_can_be_typed() -> None:
    assert {tool.tool_name() for tool in TOOLS.values() if tool.secrets()} == {case.tool for case in CASES}


@each_tool
@pytest.mark.parametrize("rules", [CONFIRMING, ALLOWING], ids=["confirming", "allowing"])
async def test_typed_secret_reaches_fastn_once_and_is_found_nowhere_else(
    tmp_path: Path, rules: FileRules, case: Case
) -> None:
    world = World(tmp_path, Policy(rules=rules))
    call = case.call(world)
    forms = world.form(), FormLater()
    for form in forms:
        asked = await world.expect(PendingApproval, call, form)
        if form is forms[0]:
            assert asked.where.startswith(
                f"A person types the {case.argument} outside the client. If the value is in this"
            )
            assert (
                "a person should rotate it and enter the new one. A person has to approve on the desk." in asked.where
            )
        else:
            assert asked.where == "Approval has already been requested. A person has to approve on the desk."
        assert form.asked == []
    request = await world.open_request()
    assert request.question.lines()[0] == case.sentence
    typed = not_none(request.typed)
    assert typed.name == case.argument
    await world.approve_typed(request, case.typed)
    assert CANARY.encode() not in kept_in(tmp_path)
    done = await world.expect(Done, call, forms[0])
    assert sent(world, case.argument) == [case.typed]
    world.close()
    assert CANARY.encode() not in kept_in(tmp_path)
    assert CANARY not in repr(done)


@each_tool
async def test_terminal_takes_the_secret_with_the_approval(tmp_path: Path, case: Case) -> None:
    world = World(tmp_path)
    call = case.call(world)

    def types(question: ApprovalRequest) -> Answer:
        assert question.typed is not None
        return Approve(secret=question.typed.value(dict.fromkeys(["value", "apiKey"], CANARY)))

    await world.expect(Done, call, FormNow(types, world.clock, is_terminal=True))
    assert sent(world, case.argument) == [case.typed]
    world.close()
    assert CANARY.encode() not in kept_in(tmp_path)


@each_tool
async def test_approval_without_a_typed_secret_sends_nothing(world: World, case: Case) -> None:
    call = case.call(world)
    await world.call(call)
    await world.approve_open_request()
    refused = await world.expect(Refused, call)
    assert refused.what == f"Nobody has typed the {case.argument}."
    assert refused.next_step == "Call again for a new approval request."
    await world.expect(PendingApproval, call)
    assert world.changes == []


async def test_typed_value_belongs_to_one_request_and_ends_with_it(world: World) -> None:
    other = CreateSecret(name="OTHER")
    await world.call(CALL)
    first = await world.open_request()
    now = world.timestamp
    for approver in ("page", "another"):  # that of the second is sealed for the first
        sealed = world.typed.seal(first, approver, CANARY, now)
        await world.call(other)
        second = next(request for request in await world.ledger.waiting(now) if request.id != first.id)
        moved_there = replace(sealed, approver="page")
        request = first if approver == "another" else second
        assert await world.ledger.decide(request, Vote("page", True, now), "page", secret=moved_there) is not None
        await world.expect(Refused, CALL if request is first else other)
    assert world.changes == []


async def test_value_in_the_call_needs_an_approval(world: World) -> None:
    call = CreateSecret(name="A", value="given")
    assert call.person_types is None
    await world.expect(Done, call, world.form())


@each_tool
async def test_secret_without_a_person_refuses_the_call(tmp_path: Path, case: Case) -> None:
    unattended = World(tmp_path, Policy("unattended", plan=plan_of(planned(case.tool))))
    refused = await unattended.expect(Refused, case.call(unattended))
    assert f"Nobody is there to type the {case.argument}." in refused.what
    attended = World(tmp_path)
    attended.desk.takes_secrets = False
    refused = await attended.expect(Refused, case.call(attended))
    assert refused.what == f"Nobody can type the {case.argument} where this server asks."
    by_whom = "Name a variable that holds it, or a person" if case.tool == "create_secret" else "A person"
    assert refused.next_step == f"{by_whom} makes the call at a terminal: fastn-mcp call {case.tool}"
    call = case.call(attended)
    batch = batch_of(*(type(call).model_validate(call.arguments() | {"name": name}) for name in "AB"))
    refused = await attended.expect(NotSent, batch)
    assert refused.what == f"Call 1, {case.tool}: a person can type the {case.argument} of a single call only."
    assert attended.changes == []


def test_value_and_variable_exclude_each_other() -> None:
    with pytest.raises(NotSent, match="give value or value_from_env, or neither"):
        parse(TOOLS, "create_secret", {"name": "A", "value": "x", "value_from_env": "Y"})


ASKED, OPTIONAL, SHOWN = (True, True), (False, True), (False, False)
"""Whether a field is required, and whether it is hidden while it is typed."""

METHODS: list[tuple[str, JsonValue, dict[str, tuple[bool, bool]] | None, bool]] = [
    ("no auth", {"type": "NO_AUTH"}, None, True),
    ("in the browser", {"type": "OAUTH_2"}, None, True),
    ("an older word", {"type": "oauth"}, None, True),
    ("bearer", {"type": "BEARER"}, {"token": ASKED}, True),
    ("api key", {"type": "API_KEY", "config": None}, {"apiKey": ASKED, "headerName": SHOWN}, True),
    ("basic", {"type": "BASIC"}, {"credentials": ASKED}, True),
    (
        "by list", {"type": "INPUT", "config": {"fields": [{"name": "shop"}, {"key": "pin", "required": False}]}},
        {"shop": ASKED, "pin": OPTIONAL}, True,
    ),
    ("by name", {"type": "BASIC", "fields": ["user", "password"]}, {"user": ASKED, "password": ASKED}, True),
    (
        "by schema", {"type": "INPUT", "config": {"schema": {"properties": {"a": {}, "b": {}}, "required": ["a"]}}},
        {"a": ASKED, "b": OPTIONAL}, True,
    ),
    ("of an api key", {"type": "API_KEY", "fields": ["key"]}, {"key": ASKED}, True),
    ("unfit names", {"type": "INPUT", "fields": ["a", 'b"><script>']}, {"credentials": ASKED}, True),
    ("many names", {"type": "INPUT", "fields": [*"abcdefghi"]}, {"credentials": ASKED}, True),
    ("twice the same", {"type": "INPUT", "fields": ["a", "a"]}, {"credentials": ASKED}, True),
    ("of a sign-in", {"type": "BEARER", "config": {"params": {"prompt": "consent"}}}, {"token": ASKED}, True),
    ("another type", {"type": "SAML"}, {"credentials": OPTIONAL}, False),
    ("no type", {"title": "x"}, {"credentials": OPTIONAL}, False),
    ("no row", "bearer", {"credentials": OPTIONAL}, False),
]  # fmt: skip
"""An auth method, the fields that a person types, and whether Fastn said so."""


@pytest.mark.parametrize(("_", "method", "fields", "is_certain"), METHODS, ids=[case[0] for case in METHODS])
async def test_auth_method_names_the_fields_to_type(
    world: World, _: str, method: JsonValue, fields: dict[str, tuple[bool, bool]] | None, is_certain: bool
) -> None:
    """An undocumented method is one optional object."""
    world.sandbox.state.named("connectors", "gamma")["authMethods"] = [method]
    judged = await world.judge.judge_call(CreateConnection(connector_id=connector(world, "gamma")), Asker())
    typed = judged.resolved.typed
    if fields is None:
        assert typed is None
        return
    assert typed is not None
    assert {each.name: (each.is_required, each.is_hidden) for each in typed.fields} == fields
    assert typed.is_certain is is_certain
    asked = (await world.judge.questions.with_question(judged)).people_question
    assert asked.unchecked == ("" if is_certain else "Which credentials it takes was not checked.")


async def test_default_auth_method_is_used(world: World) -> None:
    """Several without a default, and one that is missing, are unknown."""
    methods: list[dict[str, JsonValue]] = [{"id": "m1", "type": "OAUTH_2"}, {"id": "m2", "type": "BEARER"}]
    world.sandbox.state.named("connectors", "gamma")["authMethods"] = methods
    key = connector(world, "gamma")

    async def certain(method: str | None = None) -> bool | None:
        typed = (
            await world.judge.judge_call(CreateConnection(connector_id=key, auth_method_id=method), Asker())
        ).resolved.typed
        return None if typed is None else typed.is_certain

    assert await certain() is False
    assert await certain("m2") is True
    assert await certain("m1") is None
    assert await certain("m3") is False
    methods[0]["isDefault"] = True
    assert await certain() is None


async def test_connector_that_changes_its_fields_voids_the_approval(world: World) -> None:
    call = CASES[1].call(world)
    await world.call(call)
    await world.approve_typed(await world.open_request(), {"apiKey": CANARY})
    world.sandbox.state.named("connectors", "gamma")["authMethods"][0]["type"] = "BASIC"
    refused = await world.expect(FastnError, call)
    assert refused.outcome == "target_changed"
    assert world.changes == []


async def test_unknown_connector_may_take_no_credentials(world: World) -> None:
    """The person knows the app, and Fastn decides; without a person nothing is sent."""
    call = CreateConnection(connector_id="unheard")
    await world.expect(PendingApproval, call)
    request = await world.open_request()
    assert request.question.title.endswith("You enter its credentials, if it takes any.")
    assert not_none(request.typed).value({}) is None
    await world.approve_typed(request, None)
    await world.expect(FastnError, call)
    assert [heard.body for heard in world.changes] == [{"connectorId": "unheard"}]


DIFFERS = "What you typed differs from what the first approver typed. Nothing was decided."


@pytest.fixture
def four_eyes(tmp_path: Path) -> World:
    world = World.with_rules(tmp_path, '[[rule]]\ntool = "create_secret"\nthen = "four_eyes"\n')
    world.desk.identifies_people = True
    return world


async def test_two_approvers_must_type_the_same_secret(four_eyes: World) -> None:
    """The second hears that they differ, and nothing of the first value."""
    world = four_eyes
    await world.expect(PendingApproval, CALL)
    request = await world.open_request()
    assert isinstance(await world.approve_typed(request, CANARY, by="dana"), ApprovalRequest)
    assert await world.approve_typed(request, "another", by="kim") == NotCounted(DIFFERS)
    assert (await world.open_request()).approvers == ["dana"]
    await world.expect(PendingApproval, CALL)
    assert isinstance(await world.approve_typed(request, CANARY, by="kim"), ApprovalRequest)
    await world.expect(Done, CALL)
    assert sent(world, "value") == [CANARY]


async def test_two_approvers_at_once_are_compared_with_each_other(four_eyes: World) -> None:
    world = four_eyes
    await world.call(CALL)
    request = await world.open_request()
    decide = world.ledger.decide

    async def overtaken(request: ApprovalRequest, *vote: Any, **more: Any) -> ApprovalRequest | None:
        """Count another vote first: after the comparison, and before the vote that was compared."""
        world.ledger.decide = decide
        assert isinstance(await world.approve_typed(request, CANARY, by="dana"), ApprovalRequest)
        return await decide(request, *vote, **more)

    world.ledger.decide = overtaken
    assert await world.approve_typed(request, "another", by="kim") == NotCounted(DIFFERS)
    assert (await world.open_request()).approvers == ["dana"]


async def test_one_of_four_calls_for_one_secret_sends_it(world: World) -> None:
    await world.call(CALL)
    request = await world.open_request()
    await world.approve_typed(request, CANARY)
    answers: list[object] = []
    sealed, begun = world.ledger.sealed, anyio.Event()
    reads = 0

    async def read_together(approval_id: str, approver: str, now: float) -> str | None:
        nonlocal reads
        reads += 1
        if reads == 4:
            begun.set()
        await begun.wait()
        return await sealed(approval_id, approver, now)

    world.ledger.sealed = read_together

    async def call() -> None:
        answers.append(await world.call(CALL))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(call)
    assert [isinstance(answer, Done) for answer in answers].count(True) == 1
    refused = {str(answer) for answer in answers if not isinstance(answer, Done)}
    assert refused == {str(used_up())}
    assert sent(world, "value") == [CANARY]
    assert not_none(await world.ledger.find(request.id)).state is RequestState.USED
