"""Secrets are never shown, and this server's own key is never sent on: by a real client, in both protocol versions."""

from base64 import b64encode
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from mcp.types import CallToolResult
from pydantic import JsonValue
from pydantic_core import to_json
from support.fake_fastn import KEY as FAKE_KEY
from support.fake_fastn import Fastn, client, error_of, reply
from support.fastn_process import held
from support.hostile_account import Edited
from support.policy_files import ALLOWING, CONFIRMING, rules_of
from support.scripted_client import LATEST, Program, connected, each_version
from support.server_process import approval, body
from support.world import World, batch_of

from fastn_mcp.build.composition import may_own
from fastn_mcp.errors import NotSent
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.guard.key_files import SecretValues
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.redaction import REDACTED
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.customers import CreateCustomer, UpdateCustomer
from fastn_mcp.tools.operation import Request
from fastn_mcp.tools.tool import AnyTool, Effect

CANARY = "kAnar13nvogel-41"
HELD: dict[str, JsonValue] = held(CANARY)


def planted(folder: Path, more: dict[str, JsonValue], policy: Policy | None = None) -> World:
    """Return a world whose Fastn answers with `more` in each object with an id, and echoes requests in its errors."""

    def with_more(value: Any) -> Any:
        if isinstance(value, list):
            return [with_more(item) for item in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        fields = {name: with_more(item) for name, item in cast("dict[str, Any]", value).items()}
        return fields | (more if "id" in fields else {})

    def edit(value: Any, status: int, request: Request) -> Any:
        if status < 400:
            return with_more(value)
        return {"error": {"code": "NO", "message": f"got {to_json(request.body).decode()}", "details": HELD}}

    return World(folder, policy, exchange=Edited(edit).around)


def everything(folder: Path) -> str:
    """Return all files in the state folder, except those of new keys, which belong there."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "keys"]
    assert {"audit.jsonl", "ledger.sqlite3"} <= {path.name for path in files} or not files
    return "\n".join(path.read_bytes().decode("latin-1") for path in files)


SPELLED = {
    "as it is": KEY,
    "inside a text": f"use {KEY} please",
    "percent-encoded": quote(KEY).replace("k", "%6b").replace("_", "%5F"),
    "escaped in JSON": '{"x": "\\u0066' + KEY[1:] + '"}',
    "in base64": b64encode(f"x{KEY}:".encode()).decode(),
}


async def test_own_key_in_an_argument_is_refused_first(tmp_path: Path) -> None:
    world = World(tmp_path, Policy(rules=CONFIRMING))
    person = Program(world, approval)
    before = len(world.sandbox.requests)
    async with connected(world, LATEST, person) as client:
        for text in SPELLED.values():
            named: dict[str, Any] = {"name": text, "slug": "x"}
            calls: list[tuple[str, dict[str, Any], str]] = [
                (
                    "create_customer",
                    {"name": "x", "slug": "x", "extra": {"metadata": {"a": [text]}}},
                    "extra.metadata.a[0]",
                ),
                ("create_secret", {"name": "STOLEN", "value": text}, "value"),
                ("ai_chat", {"message": text}, "message"),
                ("list_customers", {"search": text}, "search"),
                ("create_customer", {**named, "dry_run": True}, "name"),
                (
                    "apply_changes",
                    {"changes": [{"tool": "create_customer", "arguments": named}]},
                    "changes[0].arguments.name",
                ),
            ]
            for tool, arguments, where in calls:
                result = await client.call_tool(tool, arguments)
                assert isinstance(result, CallToolResult)
                assert result.is_error, tool
                answer = body(result)
                assert answer["outcome"] == "not_sent", answer
                assert answer["message"].startswith(f"{where}: holds the API key"), answer
                assert KEY not in to_json(answer).decode()
    assert len(world.sandbox.requests) == before
    assert person.messages == []
    world.close()
    state = everything(tmp_path)
    assert KEY not in state
    assert not [text for text in SPELLED.values() if text in state]


@each_version
async def test_own_key_as_a_tool_or_argument_name_is_redacted(version: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    async with connected(world, version) as client:
        answer = body(await client.call_tool("list_customers", {KEY: 1}))
        assert KEY not in to_json(answer).decode()
        with pytest.raises(Exception) as refused:  # noqa: PT011 - of whatever class the client makes it
            await client.call_tool(KEY, {})
        assert KEY not in str(refused.value)
        with pytest.raises(Exception) as unread:  # noqa: PT011
            await client.read_resource(f"fastn://customers/{KEY}")
        assert KEY not in repr(unread.value) + str(getattr(unread.value, "error", ""))


@each_version
async def test_secret_values_and_api_keys_never_reach_the_model(version: str, tmp_path: Path) -> None:
    sent: dict[str, JsonValue] = {
        "value": CANARY,
        "key": CANARY,
        "plaintext": CANARY,
        "versions": [{"content": CANARY}],
        "pin": 4711,
    }
    world = planted(tmp_path, sent, Policy("guarded"))
    world.own = may_own(KEY)
    person = Program(world, approval)
    async with connected(world, version, person) as client:
        texts: list[str] = []
        for tool in ("list_secrets", "list_api_keys"):
            for shape in ({"detail": "concise"}, {"detail": "full"}, {"limit": 100}):
                answer = body(await client.call_tool(tool, shape))
                assert answer["data"], answer
                texts.append(to_json(answer).decode())
        created = body(await client.call_tool("create_secret", {"name": "NEW", "value": "a-value-of-it"}))
        gone = body(await client.call_tool("delete_secret", {"secret_id": created["data"]["id"]}))
        key = body(await client.call_tool("create_api_key", {"name": "CI", "extra": {"key": "", "note": "x"}}))
        texts += [to_json(answer).decode() for answer in (created, gone, key)]
    for text in texts:
        assert CANARY not in text
        assert "4711" not in text
    world.close()
    assert CANARY not in everything(tmp_path)


async def test_own_environment_variables_cannot_be_used_as_secrets(tmp_path: Path) -> None:
    """FASTN_SECRET_ENV=* allows every variable except this server's settings and secrets."""
    environment = {"FASTN_API_KEY": KEY, "COPY_OF_IT": f"x{KEY}", "FASTN_PROFILE": "a", "STRIPE": "sk-other-value"}
    world = World(tmp_path, Policy(rules=ALLOWING))
    world.dispatch = world.dispatching(SecretValues(environment, ["*"], [KEY]), None)
    person = Program(world, approval)
    async with connected(world, LATEST, person) as client:
        for name in ("FASTN_API_KEY", "COPY_OF_IT", "FASTN_PROFILE", "fastn_api_key"):
            answer = body(await client.call_tool("create_secret", {"name": "STOLEN", "value_from_env": name}))
            assert answer["outcome"] == "not_sent", answer
            assert KEY not in to_json(answer).decode()
        assert world.changes == []
        answer = body(await client.call_tool("create_secret", {"name": "OTHER", "value_from_env": "STRIPE"}))
        assert answer.get("done") == "create_secret", answer
    world.close()
    assert KEY not in everything(tmp_path)


async def test_missing_variable_is_refused_before_an_approval_request(tmp_path: Path) -> None:
    world = World(tmp_path, Policy(rules=CONFIRMING))
    world.dispatch = world.dispatching(SecretValues({"THERE": "a-value"}, ["THERE", "MISSING"]), None)
    missing, person = CreateSecret(name="NEW", value_from_env="MISSING"), world.form()
    with pytest.raises(NotSent, match="value_from_env: this variable is not set"):
        await world.preview(missing)
    for call in (missing, batch_of(CreateCustomer(name="x"), missing)):
        refused = await world.expect(NotSent, call, person)
        assert "value_from_env: this variable is not set" in refused.what
    assert (person.asked, world.changes) == ([], [])
    await world.expect(Done, CreateSecret(name="NEW", value_from_env="THERE"), person)
    assert len(person.asked) == 1


CHANGING = [offer for offer in ALL_TOOLS if offer.effect is not Effect.READ and offer is not ApplyChanges]
"""A batch takes calls of these; `test_row_read_and_sent_back_loses_no_secret` gives it one."""


def with_hidden(offer: AnyTool) -> list[dict[str, Any]]:
    """Return arguments of a tool with the redaction mark in each text, list and object."""
    schema = offer.input_schema()
    plain: dict[str, Any] = {"string": "x", "integer": 1, "boolean": True, "object": {}, "array": [], "number": 1}
    enums = {name: field["enum"][0] for name, field in schema["properties"].items() if field.get("enum")}
    needed = {name: plain[schema["properties"][name]["type"]] for name in schema.get("required", [])} | enums
    holding: dict[str, list[Any]] = {
        "string": [REDACTED, f"postgres://{REDACTED}@db.example"],
        "object": [{"a": {"b": [1, {"password": REDACTED}]}}, {f"a {REDACTED}": 1}],
        "array": [[{"a": REDACTED}], [REDACTED]],
    }
    return [
        {**needed, name: value}
        for name, field in schema["properties"].items()
        if name not in enums
        for value in holding.get(field["type"], [])
    ]


async def test_redacted_value_is_not_sent_back(tmp_path: Path) -> None:
    """In no argument of a changing tool, at no depth; it would replace the real value."""
    world = World(tmp_path, Policy(rules=ALLOWING))
    person = Program(world, approval)
    async with connected(world, LATEST, person) as client:
        before = len(world.sandbox.requests)
        for offer in CHANGING:
            refused = 0
            for arguments in with_hidden(offer):
                answer = body(await client.call_tool(offer.tool_name(), arguments))
                assert answer["outcome"] == "not_sent", answer
                refused += f"holds {REDACTED}" in answer["message"]
            assert refused, offer
    assert len(world.sandbox.requests) == before
    assert person.messages == []


async def test_row_read_and_sent_back_loses_no_secret(tmp_path: Path) -> None:
    world = planted(tmp_path, {"metadata": HELD}, Policy(rules=ALLOWING))
    async with connected(world, LATEST, Program(world, approval)) as client:
        row = body(await client.call_tool("list_customers", {"detail": "full"}))["data"][0]
        arguments = {"customer_id": row["id"], "extra": {"metadata": {**row["metadata"], "region": "us"}}}
        answer = body(await client.call_tool("update_customer", arguments))
        assert answer["outcome"] == "not_sent", answer
        assert answer["message"].startswith("extra.metadata.apiKey: holds [hidden-by-fastn-mcp]"), answer
        batch = {"changes": [{"tool": "update_customer", "arguments": arguments}]}
        answer = body(await client.call_tool("apply_changes", batch))
        assert answer["outcome"] == "not_sent", answer
        assert answer["message"].startswith(
            "changes[0].arguments.extra.metadata.apiKey: holds [hidden-by-fastn-mcp]"
        ), answer
        answer = body(await client.call_tool("find", {"query": REDACTED}))
        assert "outcome" not in answer, answer
    assert world.changes == []


async def test_code_with_a_css_selector_of_hidden_elements_is_sent(tmp_path: Path) -> None:
    """Only our own mark is refused."""
    code = "export default async function(ctx) { return ctx.page.find('[hidden]'); }"
    world = World(tmp_path, Policy(rules=ALLOWING))
    async with connected(world, LATEST, Program(world, approval)) as client:
        arguments = {"name": "Selector", "slug": "selector", "code": code}
        answer = body(await client.call_tool("create_workflow", arguments))
        assert answer.get("done") == "create_workflow", answer


@pytest.mark.parametrize(
    "row",
    [
        {"maskedKey": f"fsk_test_****{KEY[-4:]}"},
        {"hint": f"…{KEY[-4:]}"},
        {"prefix": KEY[:11]},
        {},
    ],
)
async def test_key_that_may_be_our_own_is_not_revoked(row: dict[str, JsonValue], tmp_path: Path) -> None:
    """It is not known which part of a key Fastn shows, so a key that could match is refused."""
    world = planted(tmp_path, {"last4": None, "keyPrefix": None, "mode": "Test", **row})
    world.own = may_own(KEY)
    person = Program(world, approval)
    async with connected(world, LATEST, person) as client:
        keys = body(await client.call_tool("list_api_keys", {"detail": "full"}))["data"]
        answer = body(await client.call_tool("revoke_api_key", {"api_key_id": str(keys[0]["id"])}))
    assert answer["outcome"] == "refused", answer
    assert answer["rule"] == "own key"
    assert person.messages == []
    assert world.changes == []


async def test_name_with_blanks_or_invisible_letters_is_protected(tmp_path: Path) -> None:
    """A server that trims or normalises the name would overwrite the protected secret."""
    rules = rules_of(tmp_path, '[[protect]]\nsecret = "PAY_KEY"\nthen = "deny"\n')
    world = World(tmp_path / "state", Policy("guarded", rules))
    person = Program(world, approval)
    async with connected(world, LATEST, person) as client:
        for name in LOOK_ALIKES:
            answer = body(await client.call_tool("create_secret", {"name": name, "value": "another-value"}))
            assert answer["outcome"] == "refused", answer
    assert person.messages == []
    assert world.changes == []


LOOK_ALIKES = (" PAY_KEY", "PAY_KEY ", "PAY\u200b_KEY", "\ufeffPAY_KEY", "PAY_KEY\u00a0", "\uff30AY_KEY", "pay_key")


@each_version
async def test_blank_in_a_name_is_visible_in_the_form_and_the_result(version: str, tmp_path: Path) -> None:
    """The person who decides can distinguish two names that look alike."""
    world = World(tmp_path, Policy(rules=CONFIRMING))
    person = Program(world, approval)
    async with connected(world, version, person) as client:
        for blank in ("\u00a0", "\u3000", "\u2009", "\u200b", "\u2800", "\u3164"):
            slug = f"acme-{ord(blank):x}"
            answer = body(await client.call_tool("create_customer", {"name": f"Acme{blank}GmbH", "slug": slug}))
            rows = body(await client.call_tool("list_customers", {"search": slug}))
            escaped = f"Acme\\u{{{ord(blank):x}}}GmbH"
            assert escaped in person.messages[-1]
            assert answer["data"]["name"] == escaped
            assert [row["name"] for row in rows["data"]] == [escaped]


@pytest.mark.parametrize("secret", ["p" * 40 + "-" + "q" * 900, "admin:hunter"], ids=["long", "like a permission"])
@pytest.mark.parametrize("status", [403, 422, 429, 500])
@pytest.mark.parametrize("shape", ["message", "details"])
async def test_secret_in_an_error_is_redacted_before_it_is_cut_or_read(secret: str, status: int, shape: str) -> None:
    texts: dict[str, Any] = {"message": f"{secret} is no value", "details": {"x": ["y" * 1_800, secret]}}
    fastn = Fastn(reply(status, {"error": {shape: texts[shape]}}))
    error = await error_of(client(fastn), CreateSecret(name="A_B", value=secret))
    shown = to_json(error.data()).decode() + str(error)
    assert secret[:10] not in shown
    assert REDACTED in shown


@pytest.mark.parametrize("status", [403, 422, 429, 500])
async def test_key_in_the_error_of_the_read_before_an_update_is_redacted_before_it_is_cut(status: int) -> None:
    fastn = Fastn(reply(status, {"error": {"message": "x" * 490 + FAKE_KEY}}))
    error = await error_of(client(fastn, update="merge"), UpdateCustomer(customer_id="c1", name="Acme"))
    assert {request.method for request in fastn.requests} == {"GET"}
    assert FAKE_KEY[:8] not in to_json(error.data()).decode()
