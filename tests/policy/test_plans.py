"""Signed run plans: what they cover, whose signature holds, and that nobody is ever asked in an unattended run."""

import base64
import itertools
import json
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from support.faulty_sandbox import FaultMoment, Reset
from support.world import World, batch_of, policy_from

from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.build.composition import plan_account_of, policy_of
from fastn_mcp.config.load import load
from fastn_mcp.errors import Refused, SettingsError
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.conditions import Choice, Glob
from fastn_mcp.policy.decision import Decision
from fastn_mcp.policy.permit import Permit
from fastn_mcp.policy.plan import Plan, PlanAccount, would_allow
from fastn_mcp.policy.plan_file import (
    BadSignature,
    Signature,
    new_key,
    opened,
    parsed,
    public,
    sealed,
    sign,
    signatures_of,
    signed,
    unsigned,
    with_key,
    written,
)
from fastn_mcp.policy.policy import Policy
from fastn_mcp.tools.access import CreateApiKey, CreateSecret
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.connectors import CreateConnection
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import CreateWorkflow, RunWorkflow

NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
HEAD = 'name = "night"\naccount = "test"\nuntil = 2026-11-26T00:00:00Z\n'
DANA, LEE = new_key(), new_key()
_RUNS = itertools.count(1)


class Desk:
    """A person's desk: a plan, at first to delete the customer `a`, signed by whom, with whose keys known."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "plan.toml"
        self.keys = folder / "plan-keys.toml"
        self.account = PlanAccount("test", "3f9a1c22" + "0" * 56)
        self.records: dict[str, str] = {}
        self.keys.write_text(with_key(with_key("", "dana", public(DANA)), "lee", public(LEE)))
        self.write(allow("delete_customer", "a"))

    def write(self, allow: str, head: str = HEAD, by: tuple[str, ...] = ("dana",)) -> "Desk":
        self.file.write_text(head + allow)
        data = self.file.read_bytes()
        keys = {"dana": DANA, "lee": LEE}
        self.sign(*(sign(data, name, NOW, self.account, self.records, keys[name]) for name in by))
        return self

    def read(self, account: PlanAccount | None = None, now: datetime = NOW) -> Plan:
        return signed(self.file, self.keys, account or self.account, now)

    def refused(
        self, match: str | None = None, account: PlanAccount | None = None, now: datetime = NOW
    ) -> SettingsError:
        with pytest.raises(SettingsError, match=match) as caught:
            self.read(account, now)
        return caught.value

    def sign(self, *signatures: Signature) -> None:
        """Put these in place of its signatures."""
        signatures_of(self.file).write_bytes(written(signatures))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def unattended(folder: Path, plan: Plan | None, rules: str = "") -> World:
    return World(folder, policy_from(folder, rules, "unattended", plan), tokens=f"run{next(_RUNS)}-")


def allow(tool: str, target: str | None = None, more: str = "") -> str:
    return f'[[allow]]\ntool = "{tool}"\n' + (f'target = "{target}"\n' if target else "") + more + "\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[[alow]]\ntool = "x"', 4, "there is no key 'alow' in the file (did you mean 'allow'?)"),
        ("", 1, "the file needs the key 'allow'"),
        (allow("delete_custmer", "a"), 5, "is none (did you mean 'delete_customer'?)"),
        (allow("list_customers"), 5, "only reads, which needs no plan"),
        (allow("delete_customer"), 4, "needs a target"),
        (allow("delete_customer", "*"), 6, "'*' limits nothing"),
        (allow("delete_customer", "[*]"), 6, "'[*]' limits nothing"),
        (allow("delete_customer", "?!?"), 6, "'?!?' limits nothing"),
        ('[[allow]]\ntool = "delete_customer"\ntarget = ["a", " "]', 6, "' ' limits nothing"),
        (allow("create_customer", "x", 'arguments = "any"'), 4, "target: this tool has none"),
        (allow("create_customer"), 4, 'needs arguments, when, or arguments = "any"'),
        (allow("create_customer", more='arguments = "all"'), 6, 'its JSON text, or "any"'),
        (allow("run_workflow", "w", f"arguments = {{ input = {{ a = {[0] * 2_000} }} }}"), 7, "input: 2,001 values"),
        (allow("create_customer", more='arguments = { nmae = "x" }'), 6, "there is no 'nmae' (did you mean 'name'?)"),
        (allow("create_secret", more='arguments = { value = "x" }'), 6, "value is a secret, which no plan may hold"),
        (allow("create_customer", more='arguments = {}\nwhen = { plan = "x" }'), 7, "nothing left to compare"),
        (allow("create_customer", more='when = { plann = "x" }'), 6, "none of its tools has an argument 'plann'"),
        (allow("create_customer", more="when = { plan = 3 }"), 6, "plan has to be compared with a text"),
        (allow("run_workflow", "w", "arguments = { workflow_id = 'w' }"), 7, "arguments: there is no 'workflow_id'"),
        (allow("run_workflow", "w", "arguments = { wait_seconds = 3 }"), 7, "arguments: there is no 'wait_seconds'"),
        (allow("create_customer", more="arguments = { extra = { n = nan } }"), 6, "no dates"),
        (allow("create_customer", more='arguments = \'{"extra": {"n": NaN}}\''), 6, "no dates"),
        (allow("create_customer", more="arguments = '[]'"), 6, 'its JSON text, or "any"'),
        (allow("delete_customer", "a", "count = 10001"), 7, "count: must be less than or equal to 10000"),
        (allow("delete_customer", "a", "count = 0"), 7, "count: must be greater than or equal to 1"),
        (allow("create_customer", more="arguments = { extra = { d = 2026-01-01 } }"), 6, "no dates"),
    ],
)
def test_invalid_plan_is_refused_with_its_line(desk: Desk, text: str, line: int, words: str) -> None:
    desk.write(text)
    refused = desk.refused()
    assert f"plan.toml, line {line}: " in str(refused)
    assert words in str(refused)


def test_plan_on_the_page_is_valid(desk: Desk) -> None:
    page = (Path(__file__).parents[2] / "docs" / "unattended.md").read_text(encoding="utf-8")
    desk.file.write_text(page.split("```toml\n")[1].split("```")[0])
    assert len(unsigned(desk.file)[1].permits) == 2


def test_signatures_are_written_as_json_that_a_person_can_read(desk: Desk) -> None:
    text = signatures_of(desk.file).read_text()
    assert text.startswith('{\n  "signatures": [\n    {\n      "by": "dana",\n')
    assert text.endswith("}\n")


def test_time_without_its_offset_is_refused(desk: Desk) -> None:
    desk.write(allow("delete_customer", "a"), HEAD.replace("00Z", "00"))
    desk.refused("line 3: until: must have an offset")


def test_plan_that_one_person_signed_twice_has_one_signer(desk: Desk) -> None:
    assert desk.write(allow("delete_customer", "a"), by=("dana", "dana")).read().signers == ("dana",)
    assert desk.write(allow("delete_customer", "a"), by=("dana", "lee", "dana")).read().signers == ("dana", "lee")


@pytest.mark.parametrize(
    ("line", "good"),
    [
        (f'dana = "{public(DANA)}"', True),
        (f'dana = "{public(DANA)[:8]} {public(DANA)[8:]}"', False),
        (f'dana = "{public(DANA)[:8]}*{public(DANA)[8:]}"', False),
        (f'dana = "{base64.b64encode(bytes(31)).decode()}"', False),
        (f'dana = "{base64.b64encode(bytes(33)).decode()}"', False),
        ("dana = 7", False),
        ('dana = "ä"', False),
        (f'dana = "{public(DANA)}"\nlee = ""', False),
    ],
    ids=[
        "right",
        "a space in it",
        "another character in it",
        "31 bytes",
        "33 bytes",
        "a number",
        "no base64",
        "one wrong of two",
    ],
)
def test_public_key_is_32_bytes_in_base64(desk: Desk, line: str, good: bool) -> None:
    desk.keys.write_text(line)
    if good:
        assert desk.read().signers == ("dana",)
        return
    desk.refused(r"line \d: (dana|lee): is not a public key of 32 bytes in base64")


def test_key_of_two_names_is_refused(desk: Desk) -> None:
    """One person would sign as two, which calls that take four eyes need."""
    desk.keys.write_text(with_key(with_key("", "dana", public(DANA)), "lee", public(DANA)))
    desk.refused(r"line 2: lee has the public key of dana")


def test_key_of_a_known_name_is_never_replaced() -> None:
    text = with_key("", "dana", public(DANA))
    assert with_key(text, "dana", public(DANA)) == text
    assert tomllib.loads(with_key(text, "lee", public(LEE))) == {"dana": public(DANA), "lee": public(LEE)}
    with pytest.raises(ValueError, match=r"^dana$"):
        with_key(text, "dana", public(LEE))


def test_altered_signature_text_is_refused(desk: Desk) -> None:
    (mark,) = parsed(signatures_of(desk.file).read_bytes())
    for value in (mark.value + " ", mark.value[:4] + "\n" + mark.value[4:], mark.value[:-4]):
        desk.sign(replace(mark, value=value))
        desk.refused("is invalid: the plan was edited")


@pytest.mark.parametrize("place", ["the plan", "its signatures"])
def test_plan_with_one_changed_byte_is_refused(desk: Desk, place: str) -> None:
    file = desk.file if place == "the plan" else signatures_of(desk.file)
    whole = file.read_bytes()
    accepted = 0
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            desk.read()
            accepted += 1
        except SettingsError:
            pass
    # White space around the signatures is no part of what is signed.
    assert accepted == 0 if place == "the plan" else accepted < len(whole) / 4
    file.write_bytes(whole)
    assert desk.read().signers == ("dana",)


def test_plan_of_an_unknown_signer_is_refused(desk: Desk) -> None:
    stranger = new_key()
    desk.sign(sign(desk.file.read_bytes(), "eve", NOW, desk.account, {}, stranger))
    desk.refused("'eve' may not sign")


def test_one_invalid_signature_refuses_the_plan(desk: Desk) -> None:
    data = desk.file.read_bytes()
    marks = (sign(data, "dana", NOW, desk.account, {}, DANA), sign(data, "lee", NOW, desk.account, {}, DANA))
    desk.sign(*marks)
    desk.refused("the signature of 'lee' is invalid")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"signatures": []}', b'{"signatures": [1]}', b"\xff"])
def test_unsigned_plan_is_refused(desk: Desk, content: bytes) -> None:
    signatures_of(desk.file).write_bytes(content)
    desk.refused("A person signs the plan with: fastn-mcp plan approve")
    signatures_of(desk.file).unlink()
    desk.refused("plan approve")


def test_plan_for_another_account_or_expired_is_refused(desk: Desk) -> None:
    desk.refused(
        r"is for test, and this is live at live\.fastn\.ai", replace(desk.account, name="live at live.fastn.ai")
    )
    end = datetime(2026, 11, 26, tzinfo=UTC)
    assert desk.read(now=end - timedelta(seconds=1))
    for late in (end, end + timedelta(days=1)):
        desk.refused("has expired", now=late)
    assert desk.read(now=end - timedelta(days=90))
    desk.refused("is valid for more than 90 days", now=end - timedelta(days=90, seconds=1))


def test_plan_says_when_it_begins_and_expires(desk: Desk) -> None:
    plan = replace(desk.read(), begins=NOW)
    assert plan.out_of_time(NOW - timedelta(minutes=1)) == 'The plan "night" begins at 2026-11-25T09:00Z.'
    assert plan.out_of_time(NOW) == plan.out_of_time(plan.until - timedelta(seconds=1)) == ""
    expired = 'The plan "night" expired at 2026-11-26T00:00Z. Write and sign a new one.'
    assert plan.out_of_time(plan.until) == expired


def test_plan_signed_for_one_key_does_not_hold_for_another_of_the_same_host(desk: Desk) -> None:
    desk.write(allow("delete_customer", "a"), by=("dana", "lee"))
    other = PlanAccount("test", "77aa0e4b" + "0" * 56)
    refused = desk.refused(account=other)
    assert refused.what == (f"{desk.file}: 'dana' signed it for test (key 3f9a1c22), and this is test (key 77aa0e4b).")
    assert refused.next_step == f"A person signs the plan with: fastn-mcp plan approve {desk.file} --as NAME"
    data = desk.file.read_bytes()
    marks = (sign(data, "dana", NOW, other, {}, DANA), sign(data, "lee", NOW, desk.account, {}, LEE))
    desk.sign(*marks)
    desk.refused(r"'lee' signed it for test \(key 3f9a1c22\)", other)
    moved = tuple(replace(mark, account=other) for mark in marks)
    desk.sign(*moved)
    desk.refused("the signature of 'lee' is invalid", other)


def test_server_with_another_key_of_the_host_does_not_start_with_a_plan(desk: Desk) -> None:
    desk.keys.chmod(0o600)
    variables = {"FASTN_PLAN": str(desk.file), "FASTN_PLAN_KEYS": str(desk.keys), "FASTN_MODE": "unattended"}
    one, other = (load({}, {**variables, "FASTN_API_KEY": f"fsk_live_{letter * 40}"}, None) for letter in "ab")
    desk.account = plan_account_of(one)
    until = datetime.now(UTC) + timedelta(days=1)
    head = f'name = "n"\naccount = "default at live.fastn.ai"\nuntil = {until.isoformat()}\n'
    desk.write(allow("delete_customer", "a"), head)
    assert policy_of(one, {"FASTN_CONFIG_DIR": str(desk.file.parent)}).plan is not None
    with pytest.raises(SettingsError) as caught:
        policy_of(other, {"FASTN_CONFIG_DIR": str(desk.file.parent)})
    assert f"signed it for {desk.account}, and this is {plan_account_of(other)}." in caught.value.what
    assert "plan approve" in caught.value.next_step
    assert "fsk_" not in str(caught.value)


def test_missing_or_invalid_file_is_named_with_the_next_command(desk: Desk) -> None:
    keys_hint = 'It has a line for each signer: name = "public key". fastn-mcp plan approve creates the first.'
    plan_hint = f"Correct the line, then run: fastn-mcp plan verify {desk.file}"
    desk.keys.write_text("x =")
    refused = desk.refused()
    assert str(refused).startswith(f"{desk.keys}, at its end: not TOML")
    assert refused.next_step == keys_hint
    desk.keys.write_text("x = " + "[" * 9_999)
    desk.refused(r"plan-keys\.toml: not a file of public keys: it is nested too deeply")
    desk.keys.unlink()
    refused = desk.refused()
    assert (refused.what, refused.next_step) == (f"There is no file of public keys {desk.keys}.", keys_hint)
    (desk.file.parent / "plan.toml.sig").unlink()
    refused = desk.refused()
    assert refused.what == f"There is no file of signatures {desk.file}.sig."
    assert refused.next_step == f"A person signs the plan with: fastn-mcp plan approve {desk.file} --as NAME"
    for content, words in (("x =", "at its end: not TOML"), ("x = 1", "line 1: ")):
        desk.file.write_text(content)
        with pytest.raises(SettingsError) as caught:
            unsigned(desk.file)
        assert str(caught.value).startswith(f"{desk.file}, {words}")
        assert caught.value.next_step == plan_hint
    desk.file.write_text("x = " + "[" * 9_999)
    with pytest.raises(SettingsError, match=r"plan\.toml: not a plan: it is nested too deeply"):
        unsigned(desk.file)
    desk.file.unlink()
    for read in (partial(unsigned, desk.file), desk.read):
        with pytest.raises(SettingsError) as caught:
            read()
        assert caught.value.what == f"There is no plan {desk.file}."
        assert caught.value.next_step == "Correct the path, or write one: fastn-mcp plan new"


@pytest.mark.posix
def test_plan_file_that_others_can_write_is_refused(desk: Desk) -> None:
    for file in (desk.file, desk.keys, signatures_of(desk.file)):
        file.chmod(0o666)
        desk.refused("can be changed by users other than its owner")
        file.chmod(0o600)
    assert desk.read()


def test_private_key_needs_its_passphrase() -> None:
    data = sealed(DANA, "correct horse")
    assert public(opened(data, "correct horse")) == public(DANA)
    with pytest.raises(BadSignature):
        opened(data, "battery staple")
    assert b"ENCRYPTED" in data
    another_kind = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"correct horse")
    )
    with pytest.raises(BadSignature, match="not an Ed25519 key"):
        opened(another_kind, "correct horse")
    with pytest.raises(BadSignature, match="cannot be opened"):
        opened(b"", "correct horse")


TIMEOUT_4_OR_5 = allow("create_workflow", more='when = { name = "A*", timeout_ms = [4, 5] }')
RUN_IN_TEST = allow("run_workflow", "wf_1", 'when = { environment = "test" }')
SWITCH_OFF = allow("update_trigger", "t1", 'arguments = { status = "Disabled" }')
NAMED_A = allow("create_customer", more='when = { name = "A*" }')
EXACT = allow("create_customer", more='arguments = { name = "A", extra = { n = 1 } }')


def flow(timeout: int) -> CreateWorkflow:
    return CreateWorkflow(name="A", timeout_ms=timeout)


@pytest.mark.parametrize(
    ("entry", "call", "covered"),
    [
        (allow("delete_customer", "cus_1"), DeleteCustomer(customer_id="cus_1"), True),
        (allow("delete_customer", "cus_1"), DeleteCustomer(customer_id="CUS_1"), False),
        (allow("delete_customer", "cus_1"), DeleteCustomer(customer_id="cus_12"), False),
        (allow("delete_customer", "cus_?"), DeleteCustomer(customer_id="cus_7"), True),
        (allow("delete_customer", "cus_1"), DeleteTrigger(trigger_id="cus_1"), False),
        (EXACT, CreateCustomer(name="A", extra={"n": 1}), True),
        (EXACT, CreateCustomer(name="A", extra={"n": True}), False),
        (allow("create_customer", more='arguments = { name = "A" }'), CreateCustomer(name="A", plan="Free"), False),
        (allow("create_customer", more='arguments = { name = "A" }'), CreateCustomer(name="a"), False),
        (allow("create_customer", more='arguments = "any"'), CreateCustomer(name="A", plan="Free"), True),
        (NAMED_A, CreateCustomer(name="Acme"), True),
        (NAMED_A, CreateCustomer(name="Beta"), False),
        (NAMED_A, CreateCustomer(name="acme"), False),
        (TIMEOUT_4_OR_5, flow(5), True),
        (TIMEOUT_4_OR_5, flow(6), False),
        (
            allow("create_customer", more='arguments = { name = "A", extra = { n = 1, m = 2 } }'),
            CreateCustomer(name="A", extra={"m": 2, "n": 1}),
            True,
        ),
        (NAMED_A, CreateCustomer(name="Acme", extra={"region": "US"}), False),
        (RUN_IN_TEST, RunWorkflow(workflow_id="wf_1", environment="test", wait_seconds=9), True),
        (RUN_IN_TEST, RunWorkflow(workflow_id="wf_1"), False),
        (SWITCH_OFF, UpdateTrigger(trigger_id="t1", status="Disabled"), True),
        (SWITCH_OFF, UpdateTrigger(trigger_id="t1", status="Active"), False),
    ],
)
def test_entry_covers_exact_calls_and_patterns(desk: Desk, entry: str, call: Any, covered: bool) -> None:
    """An argument that is not named must not be given."""
    assert any(desk.write(entry).read().covering(by_arguments(call), NOW)) is covered


def test_plan_holds_from_begin_to_expiry(desk: Desk) -> None:
    head = HEAD + "begins = 2026-11-25T10:00:00Z\n"
    plan = desk.write(allow("delete_customer", "a"), head).read()
    call = DeleteCustomer(customer_id="a")
    assert not any(plan.covering(by_arguments(call), NOW))
    for hours, holds in ((0.99, False), (1, True), (2, True), (14.99, True), (15, False), (16, False)):
        assert any(plan.covering(by_arguments(call), NOW + timedelta(hours=hours))) is holds, hours


@pytest.mark.parametrize(
    "call",
    [
        DeleteCustomer(customer_id="cus:1@x"),
        CreateCustomer(name='A "b"\n\\', extra={"n": 1, "list": [1, "x", True], "in": {"a": 1.5}}),
        UpdateTrigger(trigger_id="t", routes=[{"routeId": "wf_1", "environment": "live"}]),
        CreateSecret(name="X", value_from_env="STRIPE"),
        RunWorkflow(workflow_id="w", input={"ü": "字\U0001f511"}),
        CreateCustomer(name="字", extra={"note": None, "regions": [None, {"zone": None, "of": "EU"}]}),
    ],
)
def test_entry_named_by_a_refusal_allows_the_call(desk: Desk, call: Any) -> None:
    resolved, plan = by_arguments(call), desk.write(would_allow(call) + "\n").read()
    desk.records = {each.key: each.fingerprint() for each in plan.bound(plan.permits[0], resolved)}
    plan = desk.write(would_allow(call) + "\n").read()
    assert any(plan.covering(resolved, NOW))
    assert "1 x " in "\n".join(plan.words())


def test_entry_is_described_in_words() -> None:
    conditions = {"environment": Choice((Glob("test"), Glob("dev"))), "timeout_ms": Choice((5,))}
    bounded = Permit(
        name="p", budget="b", tool="run_workflow", targets=("wf_1", "wf_2"), conditions=conditions, count=3, signers=1
    )
    assert bounded.words() == (
        "3 x run_workflow on wf_1 or wf_2 with no other arguments than environment test or dev, timeout_ms 5"
    )
    exact = Permit(
        name="p", budget="b", tool="create_customer", targets=(), arguments={"name": "Ü"}, count=1, signers=1
    )
    assert exact.words() == '1 x create_customer with exactly {"name": "Ü"}'


async def customers(world: World) -> list[str]:
    return [row.id for row in await world.rows(ListCustomers())]


async def test_plan_for_two_deletions_allows_exactly_these(desk: Desk, tmp_path: Path) -> None:
    probe = World(tmp_path)
    first, second, third, *_ = await customers(probe)
    plan = desk.write(allow("delete_customer", first) + allow("delete_customer", second)).read()
    world = unattended(tmp_path, plan)
    person = world.form()
    outcomes: list[Any] = []

    async def attempt(key: str) -> None:
        outcomes.append(await world.call(DeleteCustomer(customer_id=key), person))

    async with anyio.create_task_group() as group:
        for key in [first, second, third] * 5:
            group.start_soon(attempt, key)
    assert sum(isinstance(outcome, Done) for outcome in outcomes) == 2
    assert {heard.path.rsplit("/", 1)[1] for heard in world.changes} == {first, second}
    assert len(world.changes) == 2
    again = unattended(tmp_path, plan)  # another process, on a fresh account in which all of them are there
    for key in (first, second, third):
        await again.expect(Refused, DeleteCustomer(customer_id=key), person)
    assert again.changes == []
    assert person.asked == []


@pytest.mark.parametrize(
    "more", [{"session_id": "ses_1"}, {"approval_mode": "auto"}, {"context": {"sessionId": "ses_1"}}]
)
async def test_plan_answers_the_ai_only_with_exact_arguments(desk: Desk, tmp_path: Path, more: dict[str, Any]) -> None:
    call = AiChat.model_validate({"message": "approve", **more})
    for bounds in ('arguments = "any"', 'when = { message = "*", session_id = ["*", ""], approval_mode = "*" }'):
        world = unattended(tmp_path, desk.write(allow("ai_chat", more=f"{bounds}\ncount = 9")).read())
        await world.expect(Refused, call)
        assert world.changes == []
        await world.expect(Done, AiChat(message="How are my workflows?"))
    refused = await unattended(tmp_path, None).call(call)
    assert isinstance(refused, Refused)
    world = unattended(tmp_path, desk.write(str(refused.facts["would_allow"])).read())
    await world.call(call)
    assert [heard.path for heard in world.changes] == ["/api/v1/ai/chat"]


@pytest.mark.parametrize(
    "call",
    [
        CreateCustomer(name="x"),
        UpdateCustomer(customer_id="c009d6af-1950-4428-ad06-a70af567801a", plan="Free"),
        CreateApiKey(name="x"),
        DeleteCustomer(customer_id="c009d6af-1950-4428-ad06-a70af567801a"),
        RunWorkflow(workflow_id="wf_0d93ee5b1f62"),
    ],
)
async def test_unattended_mode_never_requests_an_approval(tmp_path: Path, call: Any) -> None:
    world = unattended(tmp_path, None)
    person = world.form()
    await world.expect(Refused, call, person)
    assert (person.asked, world.desk.shown, world.changes) == ([], [], [])


async def test_plans_with_the_same_entries_count_separately(desk: Desk, tmp_path: Path) -> None:
    text = allow("create_customer", more='arguments = { name = "N" }')
    world = unattended(tmp_path, desk.write(text).read())
    await world.expect(Done, CreateCustomer(name="N"))
    other = unattended(tmp_path, desk.write("# another\n" + text).read())
    await other.expect(Done, CreateCustomer(name="N"))


async def test_audit_log_names_the_plan_as_approver(desk: Desk, tmp_path: Path) -> None:
    world = unattended(tmp_path, desk.write(allow("create_customer", more='arguments = { name = "N" }')).read())
    await world.call(CreateCustomer(name="N"))
    (entry,) = world.audited("intent")
    assert (entry["approved_by"], entry["rule"]) == ("plan", "plan plan.toml line 4")


@pytest.mark.parametrize(
    ("rules", "signers", "made"),
    [
        ('[defaults]\nwrite = "confirm"', 1, True),
        ('[defaults]\nwrite = "out_of_band"', 1, True),
        ('[defaults]\nwrite = "deny"', 1, False),
        ('[defaults]\nwrite = "four_eyes"', 1, False),
        ('[defaults]\nwrite = "four_eyes"', 2, True),
        ("[budget]\nwrite = 0", 1, False),
        ('[[window]]\neffects = "write"\nopen = "Sun 00:00-01:00 UTC"', 1, False),
    ],
)
async def test_plan_replaces_approvals_but_no_denial_or_budget(
    desk: Desk, tmp_path: Path, rules: str, signers: int, made: bool
) -> None:
    """Four eyes need two signatures."""
    plan = desk.write(allow("create_customer", more='arguments = { name = "N" }'), by=("dana", "lee")[:signers]).read()
    outcome = await unattended(tmp_path, plan, rules).call(CreateCustomer(name="N"))
    assert isinstance(outcome, Done) is made, outcome


async def test_plan_replaces_approvals_in_guarded_mode(desk: Desk, tmp_path: Path) -> None:
    world = World(tmp_path)
    first, second, *_ = await customers(world)
    plan = desk.write(allow("delete_customer", first)).read()
    guarded = World(tmp_path, Policy("guarded", plan=plan))
    person = guarded.form()
    await guarded.expect(Done, DeleteCustomer(customer_id=first), person)
    assert person.asked == []
    await guarded.expect(Done, DeleteCustomer(customer_id=second), person)
    assert len(person.asked) == 1


async def test_unknown_outcome_is_not_repeated_in_unattended_mode(desk: Desk, tmp_path: Path) -> None:
    plan = desk.write(allow("create_customer", more='arguments = { name = "N" }\ncount = 9')).read()
    world = unattended(tmp_path, plan)
    world.sandbox.faults.add(Reset(method="POST", path=CreateCustomer.route.path, moment=FaultMoment.AFTER))
    first = await world.call(CreateCustomer(name="N"))
    second = await world.call(CreateCustomer(name="N"))
    assert "unknown" in str(getattr(first, "outcome", ""))
    assert isinstance(second, Refused)
    assert len(world.changes) == 1
    assert world.desk.shown == []


def test_plan_is_described_in_words(desk: Desk) -> None:
    text = (
        allow("delete_customer", "cus_1", "count = 2")
        + allow("run_workflow", "wf_*", 'when = { environment = ["test", ""] }')
        + allow("create_customer", more='arguments = "any"')
    )
    text += allow("create_customer", more='arguments = { name = "Ü" }') + allow("delete_trigger", "t")
    _, plan = unsigned(desk.write(text).file)
    assert list(plan.words()) == [
        "Plan night, for test, valid until 2026-11-26T00:00Z, unsigned.",
        "plan plan.toml line 4: 2 x delete_customer on cus_1.",
        "plan plan.toml line 8: 1 x run_workflow on wf_* with no other arguments than environment test or not given.",
        "plan plan.toml line 12: 1 x create_customer with any arguments.",
        'plan plan.toml line 15: 1 x create_customer with exactly {"name": "Ü"}.',
        "plan plan.toml line 18: 1 x delete_trigger on t.",
    ]
    signed_by_two = desk.write(text, HEAD + "begins = 2026-11-25T11:00:00+01:00\n", ("dana", "lee")).read()
    first = "Plan night, for test, valid from 2026-11-25T10:00Z until 2026-11-26T00:00Z, signed by dana, lee."
    assert next(signed_by_two.words()) == first


def several(*targets: str) -> Tool[Any]:
    return batch_of(*(DeleteCustomer(customer_id=target) for target in targets))


async def test_plan_allows_a_batch_if_it_covers_each_call(desk: Desk, tmp_path: Path) -> None:
    world = unattended(tmp_path, None)
    first, second, third, *_ = [str(row.id) for row in await world.rows(ListCustomers())]
    plan = desk.write(allow("delete_customer", first) + allow("delete_customer", second)).read()
    world = unattended(tmp_path, plan)
    outcome = await world.expect(Refused, several(first, third, second))
    assert outcome.what.startswith("Call 2, delete_customer: ")
    assert f'target = "{third}"' in str(outcome.facts["would_allow"])
    assert world.changes == []
    await world.expect(Done, several(first, second))
    await world.expect(Refused, DeleteCustomer(customer_id=third))
    assert len(world.changes) == 2


async def test_batch_beyond_the_count_of_an_entry_is_refused(desk: Desk, tmp_path: Path) -> None:
    world = unattended(tmp_path, None)
    ids = [str(row.id) for row in await world.rows(ListCustomers())]
    targets = json.dumps(ids[:3])
    plan = desk.write(f'[[allow]]\ntool = "delete_customer"\ntarget = {targets}\ncount = 2\n').read()
    world = unattended(tmp_path, plan)
    outcome = await world.expect(Refused, several(*ids[:3]))
    assert outcome.what.startswith("Call 3, delete_customer: ")
    assert world.changes == []
    await world.expect(Done, several(*ids[:2]))
    again = unattended(tmp_path, plan)
    await again.expect(Refused, several(ids[2]))
    await again.expect(Done, several(*ids[:2]))
    assert again.changes == []


async def bound(world: World, desk: Desk, text: str, *calls: Operation[Any]) -> Plan:
    """Return a plan with this text, signed for the records of these calls as they are."""
    plan = desk.write(text).read()
    for call in calls:
        resolved = (await world.judge.judge_call(call, Asker())).resolved
        permits = [permit for permit in plan.permits if permit.covers(resolved)]
        desk.records |= {each.key: each.fingerprint() for permit in permits for each in plan.bound(permit, resolved)}
    return desk.write(text).read()


def connecting(world: World) -> tuple[CreateConnection, dict[str, Any]]:
    row = world.sandbox.state.named("connectors", "Gamma", by="name")
    return CreateConnection(connector_id=str(row["id"]), credentials={"apiKey": "s3cret"}), row


@pytest.mark.parametrize("field", ["domain", "name", "slug", "visibility"])
@pytest.mark.parametrize("bounds", ["exact", "pattern"])
async def test_plan_is_void_once_a_named_record_changed(tmp_path: Path, desk: Desk, field: str, bounds: str) -> None:
    world = unattended(tmp_path, None)
    connect, row = connecting(world)
    call, key = connect.model_copy(update={"credentials": None}), str(row["id"])
    entry = {"exact": f'arguments = {{ connector_id = "{key}" }}', "pattern": f'when = {{ connector_id = "{key}" }}'}
    plan = await bound(world, desk, f'[[allow]]\ntool = "create_connection"\n{entry[bounds]}\n', call)
    world = unattended(tmp_path, plan)
    row = connecting(world)[1]
    assert any(plan.covering((await world.judge.judge_call(call, Asker())).resolved, NOW))
    row[field] = "evil.example"
    resolved = (await world.judge.judge_call(call, Asker())).resolved
    assert not any(plan.covering(resolved, NOW))
    name = "evil.example" if field == "name" else "Gamma"
    assert plan.differing(resolved) == f'connector "{name}"'


async def test_refusal_says_that_a_record_changed_since_the_plan_was_signed(tmp_path: Path, desk: Desk) -> None:
    world = unattended(tmp_path, None)
    key = str(world.sandbox.state.named("customers", "acme-corp")["id"])
    call = RunWorkflow(workflow_id="wf_b5880b29eb25", customer_id=key)
    world = unattended(tmp_path, await bound(world, desk, would_allow(call), call))
    world.sandbox.state.named("customers", "acme-corp")["name"] = "Globex"
    outcome = await world.expect(Refused, call)
    assert 'The customer "Globex" has changed since the plan was signed. Sign the plan again.' in outcome.what
    assert world.changes == []


@pytest.mark.parametrize("field", ["routes", "schedule", "status"])
async def test_plan_to_switch_a_trigger_on_is_void_once_it_starts_something_else(
    tmp_path: Path, desk: Desk, field: str
) -> None:
    world = unattended(tmp_path, None)
    call = UpdateTrigger(trigger_id=world.id_of("triggers", "Nightly contact sync"), status="Active")
    world = unattended(tmp_path, await bound(world, desk, would_allow(call), call))
    row = world.sandbox.state.rows["triggers"][call.trigger_id]
    row[field] = {"routes": [row["routes"][0] | {"payload": {"all": True}}], "schedule": "* * * * *"}.get(
        field, "Active"
    )
    decision = await world.decision(call)
    assert decision is (Decision.ALLOW if field == "status" else Decision.DENY)


async def test_plan_may_change_what_its_own_trigger_starts(tmp_path: Path, desk: Desk) -> None:
    world = unattended(tmp_path, None)
    key = world.id_of("triggers", "Nightly contact sync")
    change, activate = (
        UpdateTrigger(trigger_id=key, schedule="0 5 * * *"),
        UpdateTrigger(trigger_id=key, status="Active"),
    )
    text = "\n".join(map(would_allow, (change, activate)))
    world = unattended(tmp_path, await bound(world, desk, text, change, activate))
    for call in (change, activate):
        await world.expect(Done, call)
    world = unattended(tmp_path, None)
    text = allow("update_trigger", key, 'when = { schedule = "0 * * * *" }')
    by_pattern = UpdateTrigger(trigger_id=key, schedule="0 6 * * *")
    world = unattended(tmp_path, await bound(world, desk, text, by_pattern))
    assert await world.decision(by_pattern) is Decision.ALLOW


async def test_entries_for_several_triggers_cover_what_they_name(tmp_path: Path, desk: Desk) -> None:
    world = unattended(tmp_path, None)
    one, other = (world.id_of("triggers", name) for name in ("Nightly contact sync", "Daily TikTok sync"))
    activate, exact = 'arguments = { status = "Active" }', 'arguments = { schedule = "0 5 * * *" }'
    both = f'target = ["{one}", "{other}"]\ncount = 2\n{exact}'
    text = allow("update_trigger", one, activate) + allow("update_trigger", more=both)
    text += allow("update_trigger", other, 'arguments = { timezone = "UTC" }')
    text += allow("update_trigger", f"{other[:8]}*", activate)
    calls = [UpdateTrigger(trigger_id=key, schedule="0 5 * * *") for key in (one, other)]
    calls += [UpdateTrigger(trigger_id=one, status="Active"), UpdateTrigger(trigger_id=other, timezone="UTC")]
    world = unattended(tmp_path, await bound(world, desk, text, *calls))
    for call in (*calls, UpdateTrigger(trigger_id=other, status="Active")):
        await world.expect(Done, call)


async def test_plan_may_overwrite_a_record_that_another_call_names(tmp_path: Path, desk: Desk) -> None:
    world = unattended(tmp_path, None)
    workflow = world.sandbox.state.named("workflows", "process-new-orders")
    routes: list[Any] = [{"routeId": workflow["id"], "environment": "test"}]
    overwrite = CreateWorkflow(name=workflow["name"], slug="process-new-orders", code="c")
    start = CreateTrigger(name="New", type="webhook", routes=routes)
    text = "\n".join(map(would_allow, (overwrite, start)))
    world = unattended(tmp_path, await bound(world, desk, text, overwrite, start))
    assert [await world.decision(call) for call in (overwrite, start)] == [Decision.ALLOW] * 2


@pytest.mark.parametrize("is_taken", [False, True])
async def test_plan_to_create_does_not_cover_overwriting_what_was_made_since(
    tmp_path: Path, desk: Desk, is_taken: bool
) -> None:
    world = unattended(tmp_path, None)
    call = CreateWorkflow(name="Nightly", slug="nightly", code="c")
    world = unattended(tmp_path, await bound(world, desk, would_allow(call), call))
    if is_taken:
        world.sandbox.state.named("workflows", "process-new-orders")["slug"] = "nightly"
    verdict, _ = await world.judged(call)
    assert verdict.decision is (Decision.DENY if is_taken else Decision.ALLOW)
    assert ("has changed since the plan was signed" in verdict.reason) is is_taken


def test_signature_covers_the_records(desk: Desk) -> None:
    desk.records = {"connector c1": "0" * 64}
    desk.write(allow("delete_customer", "a"))
    file = signatures_of(desk.file)
    file.write_bytes(file.read_bytes().replace(b"0" * 64, b"1" * 64))
    desk.refused("the signature of 'dana' is invalid")
