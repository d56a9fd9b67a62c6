"""What is secret and what is unsafe to print: one module decides, and what one place hides, every place hides."""

import ast
import json
import logging
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from pydantic import JsonValue
from pydantic_core import from_json
from support.decisions import allowed

import fastn_mcp
from fastn_mcp import redaction
from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.audit.log import AuditEvent, about, written
from fastn_mcp.errors import Failed
from fastn_mcp.extensions.telemetry.exporter import LogRecordHandler
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.permission import Permission, new_change
from fastn_mcp.guard.questions import facts_of, question_of, target_id
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.change_start import StartResult
from fastn_mcp.policy.asker import Asker
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import (
    REDACTED,
    Redactor,
    is_own_key,
    is_secret_name,
    name_as_read,
    own_key_row,
    redact,
    redact_row,
    redact_text,
    safe,
    safe_json,
    sanitize,
)
from fastn_mcp.runtime import System
from fastn_mcp.server.log import JsonLines
from fastn_mcp.server.rendering import render, render_error, render_preview
from fastn_mcp.tools.customers import GetCustomer, UpdateCustomer
from fastn_mcp.tools.tool import Effect

CANARY = "kAnar13nvogel-41"
KEY = "fsk_live_kAnar13nvogel41"
BASIC = b64encode(f"user:{CANARY}".encode()).decode()

_names = st.sampled_from(
    ["apiKey", "api_key", "password", "clientSecret", "access-token", "Authorization", "X-Api-Key", "db_pwd", "pin",
     "credentials", "privateKey", "set-cookie", "connectionString", "API KEY", "\uff50assword", "pass\u200bword"]
)  # fmt: skip
_header_names = st.sampled_from(["Authorization", "X-Api-Key", "Set-Cookie", "proxy-authorization"])


def _pair(naming: str, holding: str, name: str) -> JsonValue:
    return {naming: name, "type": "text", holding: CANARY}


_texts = st.one_of(
    st.just(f"https://user:{CANARY}@host.example/path?a=1"),
    st.just(f"postgres://{CANARY}@host.example"),
    st.just(f"sent Bearer {CANARY} and got 401"),
    st.just(f"Basic {BASIC}"),
    st.just(f"the key {KEY}."),
    st.builds(
        "https://x.example/?page=2&{}={}#end".format, st.sampled_from(["api_key", "token", "sig"]), st.just(CANARY)
    ),
    st.builds("{}: {}".format, _header_names, st.just(CANARY)),
    st.builds("curl -H '{}: {}' x".format, _header_names, st.just(CANARY)),
    _names.map(lambda name: json.dumps({name: CANARY})),
    _names.map(lambda name: "answer: " + json.dumps({"body": json.dumps({name: [CANARY]})}) + " (end)"),
    st.sampled_from(["password", "apiKey"]).map(lambda name: json.dumps({name: CANARY})[:-2]),
    st.just(f"{{'password': '{CANARY}'}}"),
)
_planted: st.SearchStrategy[JsonValue] = st.one_of(
    _texts,
    _names.map(lambda name: {name: CANARY}),
    _names.map(lambda name: {name: {"user": "u", "deep": [{"x": CANARY}]}}),
    _names.map(lambda name: {name: [CANARY, CANARY]}),
    st.builds(
        _pair,
        st.sampled_from(["name", "key", "id", "field", "Name"]),
        st.sampled_from(["value", "Value"]),
        st.sampled_from(["apiKey", "password", "X-Api-Key", "access token"]),
    ),
    _header_names.map(lambda name: [[name, CANARY], ["Accept", "*/*"]]),
    st.just({f"Bearer {CANARY}": 1}),
    st.just({"secrets": [{"id": "sec_1", "name": "DB", "plaintext": CANARY}]}),
)
_harmless: st.SearchStrategy[JsonValue] = st.sampled_from(
    ["x", 1, None, True, "Acme", {"region": "eu"}, ["a", "b"], "Ünïcode"]
)


def _under(value: JsonValue, other: JsonValue) -> JsonValue:
    return {"a": other, "inner": value}


def _in_a_list(value: JsonValue, other: JsonValue) -> JsonValue:
    return [other, {"row": value}]


def _as_text(value: JsonValue) -> JsonValue:
    return {"text": json.dumps(value)}


def _around(inner: st.SearchStrategy[JsonValue]) -> st.SearchStrategy[JsonValue]:
    around: list[st.SearchStrategy[JsonValue]] = [
        inner,
        st.builds(_under, inner, _harmless),
        st.builds(_in_a_list, inner, _harmless),
        inner.map(_as_text),
    ]
    return st.one_of(around)


_structures = _around(_around(_planted))


class _Kept:
    """A journal of one change."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    async def begin(self, change: Change, **_: object) -> StartResult:
        self.changes.append(change)
        return StartResult.STARTED


def _as_result(value: JsonValue) -> object:
    return render(GetCustomer(customer_id="c"), FastnObject.model_validate({"id": "c", "held": value}), {})


def _as_error(value: JsonValue) -> object:
    return render_error(Failed("It failed.", facts={"fastn": {"details": value}}).data())


def _as_log(value: JsonValue) -> object:
    return JsonLines(()).format(_logged(value))


def _logged(value: JsonValue) -> logging.LogRecord:
    return logging.LogRecord("fastn_mcp", logging.INFO, "", 1, "got %s", (json.dumps(value),), None)


def _as_audit(value: JsonValue) -> object:
    entry = about(AuditEvent.INTENT, _update(value), Asker(), "test")
    return dict(written(entry, System()))


def _as_journal(value: JsonValue) -> object:
    kept = _Kept()
    journalling = ChangeJournal(cast(Any, kept), "test", System())
    target = FastnObject.model_validate({"id": "c", "name": "Acme", "metadata": {"held": value}})
    approved = allowed(_update(value), target=target)

    async def begin() -> None:
        change = await new_change(
            approved, Permission("policy"), list_id="", asker=Asker(), account="test", read=cast(Any, None),
            deadline=0.0, system=System(),
        )  # fmt: skip
        await journalling.begin(change)

    with pytest.raises(StopIteration):
        begin().send(None)
    return repr(kept.changes)


def _update(value: JsonValue) -> UpdateCustomer:
    return UpdateCustomer(customer_id="c", name="New", extra={"held": value})


def _shown(value: JsonValue) -> Any:
    target = FastnObject.model_validate({"id": "c", "name": "Acme", "held": [value]})
    resolved = by_arguments(_update(value), target=target)
    return question_of(facts_of(resolved, Effect.WRITE), "test", target_id(resolved))


def _as_card(value: JsonValue) -> object:
    return _shown(value).data()


def _as_question(value: JsonValue) -> object:
    return _shown(value).lines()


def _as_preview(value: JsonValue) -> object:
    return render_preview(_shown(value).data_for_agent())


def _as_telemetry(value: JsonValue) -> object:
    exported = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exported))
    LogRecordHandler(provider, JsonLines(())).emit(_logged(value))
    return [str(each.log_record.body) for each in exported.get_finished_logs()]


SINKS: dict[str, Callable[[JsonValue], object]] = {
    "result": _as_result,
    "error": _as_error,
    "log": _as_log,
    "audit": _as_audit,
    "journal": _as_journal,
    "ledger card": _as_card,
    "question": _as_question,
    "preview": _as_preview,
    "telemetry": _as_telemetry,
}


@pytest.mark.parametrize("sink", SINKS)
@given(value=_structures)
def test_secret_is_redacted_in_every_output(sink: str, value: JsonValue) -> None:
    output = json.dumps(SINKS[sink](value), ensure_ascii=False, default=str)
    assert CANARY not in output
    assert BASIC not in output
    assert KEY not in output


@given(value=_structures)
def test_redaction_is_idempotent(value: JsonValue) -> None:
    once = safe(value)
    assert redact(once) == once
    assert REDACTED in json.dumps(once)


@pytest.mark.parametrize(
    "value",
    [
        {"tokens": 5, "secrets": 4, "apiKeys": {"used": 3, "limit": 5}, "maxTokens": 100},
        {"password": {"type": "string", "description": "The password of the shop"}},
        {"keyPrefix": "fsk_live_", "last4": "abcd", "tokenType": "bearer", "secretName": "DB", "credentialId": "c1"},
        {"authorizationUrl": "https://a.example/o?response_type=code&state=xyz&client_id=1"},
        {"permissions": ["secrets:read", "secrets:write"], "required": ["apiKey", "region"]},
        {"name": "Rotate tokens", "content": "Basic authentication or Bearer authentication"},
        {"text": "see http://host:80/a?b=c@d, mail a@b.example", "log": "Refresh token: expired"},
        {"hasSecret": True, "token": None, "cron": "0 0 * * *", "nextCursor": "eyJvIjoyMH0"},
    ],
)
def test_redaction_keeps_harmless_values(value: JsonValue) -> None:
    assert redact(value) == value
    assert safe(value) == value


def test_default_of_a_secret_field_is_redacted_and_its_description_is_not() -> None:
    schema: JsonValue = {"apiKey": {"type": "string", "description": "From the dashboard", "default": CANARY}}
    assert redact(schema) == {"apiKey": {"type": "string", "description": "From the dashboard", "default": REDACTED}}


def test_row_of_a_secret_shows_only_known_fields() -> None:
    """The names under which a value could come are not known, so those of harmless fields are listed."""
    row: dict[str, JsonValue] = {
        "id": "s", "name": "DB", "value": CANARY, "plaintext": CANARY, "current": {"val": CANARY}, "versions": [CANARY],
        "updatedAt": "2026-01-01", "environment": "live", "uses": 3, "maskedKey": "fsk_live_****abcd",
        "hint": CANARY * 2,
    }  # fmt: skip
    shown = redact_row(row)
    assert CANARY not in json.dumps(shown)
    kept = {"id": "s", "name": "DB", "updatedAt": "2026-01-01", "environment": "live", "uses": 3}
    assert {name: shown[name] for name in kept} == kept
    assert shown["maskedKey"] == "fsk_live_****abcd"


def _spellings() -> dict[str, str]:
    percent = "".join(f"%{ord(letter):02x}" for letter in KEY)
    return {
        "as it is": KEY,
        "inside": f"x{KEY}y",
        "percent-encoded": percent,
        "percent-encoded in part": KEY.replace("k", "%6B"),
        "percent-encoded twice": quote(percent),
        "escaped": json.dumps(KEY).replace("f", "\\u0066"),
        "escaped twice": json.dumps(json.dumps(KEY).replace("v", "\\u0076")),
        "base64": b64encode(KEY.encode()).decode(),
        "base64, one before": b64encode(b"a" + KEY.encode() + b"tail").decode(),
        "base64, two before": b64encode(b"ab" + KEY.encode()).decode(),
        "basic": "Basic " + b64encode(f"{KEY}:".encode()).decode(),
    }


@pytest.mark.parametrize("spelling", _spellings())
def test_known_key_is_found_in_every_encoding(spelling: str) -> None:
    text = _spellings()[spelling]
    redactor = Redactor([KEY])
    assert redactor.may_stand_in(json.dumps(text).encode())
    assert REDACTED in redactor.text(text)
    assert redactor.find({"extra": {"headers": ["x", text]}}) == "extra.headers[1]"
    assert redactor.find({"extra": {text: 1}}) is not None
    assert KEY not in redactor.text(text)


@pytest.mark.parametrize(
    ("row", "own"),
    [
        ({"last4": "el41"}, True),
        ({"last4": "el42"}, False),
        ({"maskedKey": "fsk_live_****el41"}, True),
        ({"maskedKey": "fsk_live_••••el42"}, False),
        ({"hint": "…el41"}, True),
        ({"hint": "...el42"}, False),
        ({"hint": "el41"}, True),
        ({"hint": "my laptop"}, None),
        ({"prefix": "fsk_live_kA"}, None),
        ({"prefix": "fsk_live_zz"}, False),
        ({"keyPrefix": "fsk_live_"}, None),
        ({"keyPrefix": "fsk_live_", "last4": "el41"}, True),
        ({"mode": "Test"}, False),
        ({"mode": "Live"}, None),
        ({"key": KEY}, True),
        ({"id": "8", "name": "CI"}, None),
    ],
)
def test_own_key_is_recognized_by_the_parts_in_a_row(row: dict[str, object], own: bool | None) -> None:
    """Which fields Fastn shows is not known; where they do not tell, it could be ours."""
    assert is_own_key(KEY, row) is own


def test_own_key_row_is_the_only_one_that_nothing_contradicts() -> None:
    own = {"id": 1, "keyPrefix": "fsk_live_", "last4": "el41", "mode": "Live"}
    test = {"id": 2, "keyPrefix": "fsk_test_", "last4": "el41", "mode": "Test"}
    other = {"id": 3, "last4": "el42"}
    unclear = {"id": 4, "keyPrefix": "fsk_live_"}
    assert own_key_row(KEY, [test, other, unclear, own]) is own
    assert own_key_row(KEY, [test, other, unclear]) is None
    assert own_key_row(KEY, [own, {**own, "id": 5}]) is None
    assert own_key_row(KEY, [{"id": 6, "last4": "el41", "mode": "Test"}]) is None


_UNSEEN = (
    "a0 3000 2000 2009 202f 205f 1680 200b 200d 2060 feff ad 2800 3164 115f ffa0 34f 180e fe0f 202e fffc 7 7f 2028 "
    "e0041 e0100 13441 1d159"
)


@pytest.mark.parametrize("blank", [chr(int(code, 16)) for code in _UNSEEN.split()])
def test_invisible_blanks_are_made_visible(blank: str) -> None:
    """No two names look alike because of what cannot be seen in one."""
    assert sanitize(f"PAY{blank}KEY") == f"PAY\\u{{{ord(blank):x}}}KEY"
    assert safe({f"a{blank}": f"b{blank}"}) == {f"a\\u{{{ord(blank):x}}}": f"b\\u{{{ord(blank):x}}}"}


@pytest.mark.parametrize(
    "name", [" PAY_KEY", "PAY_KEY\u00a0", "PAY\u200b_KEY", "\uff30AY_KEY", "pay_key\t", "PAY_KEY\ufeff"]
)
def test_names_are_compared_as_a_person_reads_them(name: str) -> None:
    assert name_as_read(name) == "pay_key"


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "\\",
            '"',
            "{",
            "[",
            "://",
            "eyJ-",
            "fsk_",
            "a=",
            "Bearer ",
            "x:",
            "-----BEGIN ",
            "%",
            '\\"',
            "{'a':",
            '"a":"',
        ),
        *(
            "basic ",
            "x-token: ",
            "token=",
            "?key=",
            "'token':'",
            "eyJaaaaaaaa.",
            "://a@",
            "-----BEGIN PRIVATE KEY-----",
        ),
        *("-----BEGIN PRIVATE KEY-----", "x-token:get ", "a.aaa:", "x-pin: 4\n"),
        *('"token"', "Bearer a", 'x-api-key:\\"token\\":', "aaaa-", "\u00e9"),
    ],
)
def test_hostile_text_takes_time_in_proportion_to_its_length(piece: str) -> None:
    """Nothing that Fastn sends makes redaction slow. Four times the length takes far less than sixteen times."""

    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        began = time.process_time()
        redact_text(text)
        Redactor([KEY]).text(text)
        return time.process_time() - began

    short = min(seconds(15_000) for _ in range(3))
    assert min(seconds(60_000) for _ in range(3)) < max(10 * short, 0.05)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Note: X-Api-Key: canary", "Note: X-Api-Key: [hidden]"),
        ("next=a?token=canary", "next=a?token=[hidden]"),
        ("see 'note': 'my \"password\": \"canary\"'", "see 'note': 'my \"password\": \"[hidden]\"'"),
        ("X-Api-Key: canary [hidden] canary", "X-Api-Key: [hidden]"),
    ],
)
def test_secret_within_a_harmless_value_is_redacted(text: str, shown: str) -> None:
    assert redact_text(text.replace("[hidden]", REDACTED)) == shown.replace("[hidden]", REDACTED)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer canary, canary", "Authorization: Bearer [hidden]"),
        ("token=Bearer canary1 end", "token=[hidden] end"),
        ("token=https://u:ca;nary@host", "token=[hidden]"),
        ("X-Key-Value: -----BEGIN PRIVATE KEY-----\nca\n-----END PRIVATE KEY-----\nb", "X-Key-Value: [hidden]\nb"),
        ('X-Api-Key: a\\"token\\": \\"canary\\" b', "X-Api-Key: [hidden]"),
        ("Bearer abcdef-----BEGIN PRIVATE KEY-----\ncanary", "Bearer [hidden]"),
        ("eyJ-token: canary", "eyJ-token: [hidden]"),
        ("x-token-fsk_live_canary: canary", "x-token-[hidden]: [hidden]"),
        ("'apiKey' : 5Bearer canary", "'apiKey' : '[hidden]'Bearer [hidden]"),
    ],
)
def test_secret_that_begins_within_another_is_redacted_whole(text: str, shown: str) -> None:
    """A value ends at its own mark; what begins within it may not."""
    assert redact_text(text).replace(REDACTED, "[hidden]") == shown
    assert redact_text(redact_text(text)) == redact_text(text)


_NAMES = [
    *("id", "name", "apiKey", "note", "value", "tokens", "x-token", "key", "createdAt", "url", "a b", "headers"),
    "Bearer abcdefgh",
]
_PIECES = [
    *(
        "x-api-key:abc",
        "X-Secret :v",
        "x-pin2: 4",
        "my-password:abc",
        "secret: v",
        "Authorization:abc",
        "http:x-token:z",
    ),
    *(
        "https://e.com/a?b=1",
        "?key=9",
        "key=9",
        "&token=abc",
        "tok%65n=abc",
        ".sig=abc",
        "#sig=abc",
        "://u:p@h",
        "a@b.c",
    ),
    *("Bearer abcdefgh", "basic dXNlcjpw", "fsk_live_abcdefgh", "eyJabcdefghij.abc", "'apiKey': 'x'", "'apiKey' : 5"),
    *("2026-01-01T00:00:00Z", "a", "5", " ", "=", ":", "-", "\x7f", "\n", "{", "[1]", '"', "\\"),
]
_TEXTS = st.lists(st.sampled_from(_PIECES), min_size=1, max_size=3).map("".join)
_LONG_WORDS = st.sampled_from(["x" * 60, "a.b-c" * 40, "\u00e9" * 30])
_LONG_TEXTS = st.lists(_TEXTS | _LONG_WORDS, min_size=5, max_size=60).map("".join)
_ROWS = st.dictionaries(
    st.sampled_from(_NAMES),
    st.recursive(
        _TEXTS | st.sampled_from([None, True, 5, ""]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)


@settings(max_examples=200)
@given(_TEXTS)
@example("2026-01-01T00:00:00Z (fsk_live_abcdefgh)")
@example("2026-01-01T00:00:00Z (Bearer abcdefgh)")
def test_skipped_text_holds_no_secret(text: str) -> None:
    shown = redact_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_is_ordinary", "".__eq__)
        assert redact_text(text) == shown


def test_json_of_too_many_values_in_a_text_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing it would hold up every thread, and unparsed its secrets are not all found."""
    monkeypatch.setattr(redaction, "_MAX_JSON_VALUES", 100)
    text = json.dumps({"password": {"x": CANARY}, "numbers": [1] * 101})
    assert redact_text(text) == REDACTED
    assert redact_text("a, b: c" * 101) == "a, b: c" * 101


@settings(max_examples=200)
@given(_LONG_TEXTS)
def test_text_is_redacted_the_same_in_pieces(text: str) -> None:
    """A long text is searched piece by piece, so that no search holds up other threads."""
    shown = redact_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_WINDOW", 300)
        assert redact_text(text) == shown


@settings(max_examples=200)
@given(st.lists(_ROWS, min_size=2, max_size=4), st.integers(1, 3))
def test_row_is_redacted_in_a_list_as_alone(rows: list[dict[str, JsonValue]], times: int) -> None:
    alone = list(map(safe, rows))
    assert safe(cast(JsonValue, rows * times)) == alone * times
    assert safe(cast(JsonValue, [*rows, "\u00e9"])) == [*alone, "\u00e9"]
    shown, raw = safe_json(rows[0])
    assert raw is not None
    assert from_json(raw) == shown == alone[0]


# --- one place ---------------------------------------------------------------------------------------------------

_PACKAGE = Path(fastn_mcp.__file__).parent
_PATTERNS = ("compile", "search", "match", "sub", "fullmatch", "findall")


def _is_about_secrets(text: str) -> bool:
    return re.search(r"passw|secret|token|bearer|api.{0,8}key|fsk_", text, re.IGNORECASE) is not None


def _constants(nodes: Iterable[ast.expr]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _rules_in(source: str) -> dict[int, str]:
    """What looks like a rule of its own: a pattern with names of secrets, a list of such names, or a mark for one."""
    found: dict[int, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value == REDACTED:
            found[node.lineno] = REDACTED
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _PATTERNS:
            if ast.unparse(node.func.value) == "re" and any(map(_is_about_secrets, _constants(node.args[:1]))):
                found[node.lineno] = "a pattern"
        elif isinstance(node, (ast.List, ast.Set, ast.Tuple)):
            names = [text for text in _constants(node.elts) if re.fullmatch(r"\w+", text) and is_secret_name(text)]
            if len(names) > 1 and not all(map(str.isupper, names)):
                found[node.lineno] = ", ".join(names)
    return found


_ALLOWED = {
    "extensions/slack/channel.py": "settings",
    "config/model.py": "settings and toolsets",
    "extensions/doctor/operations.py": "resources that permissions are about",
    "account/entries.py": "kinds of resources",
    "extensions/team/claim_match.py": "settings",
    "extensions/team/sign_in.py": "addresses of the provider",
    "extensions/team/team_config.py": "settings",
    "procedures/audit_log.py": "kinds of resources and of actors",
    "procedures/ranking.py": "words of queries",
    "records/platform.py": "words of questions about what is done in the dashboard",
}
"""Modules with such a list that is no rule for what is hidden, and what it is."""


def test_no_other_module_has_a_redaction_rule() -> None:
    """A second list of secret names, a second pattern or a second mark would differ from the first one day."""
    found = {
        f"{place}:{line}": text
        for path in sorted(_PACKAGE.rglob("*.py"))
        if (place := path.relative_to(_PACKAGE).as_posix()) != "redaction.py" and place not in _ALLOWED
        for line, text in _rules_in(path.read_text(encoding="utf-8")).items()
    }
    assert found == {}


def test_rule_in_another_module_would_be_found() -> None:
    """The test above is no test if it cannot fail."""
    assert _rules_in('X = re.compile(r"passw|token")')
    assert _rules_in('X = ("password", "token")')
    assert _rules_in('HIDDEN = "[hidden-by-fastn-mcp]"')
    assert not _rules_in("x = {'name': 'key'}")


def test_names_of_secrets_are_told_from_names_about_them() -> None:
    assert all(
        map(is_secret_name, ["apiKey", "X-API-Key", "client_secret", "dbPwd", "user.pwd", "jwt", "x-amz-signature"])
    )
    assert not any(map(is_secret_name, ["secretId", "tokenType", "tokenExpiresAt", "key", "bypass", "spin", "compass"]))


@pytest.mark.parametrize("permission", ["api-keys:create", "api-keys:*", "api-keys:revoke", "users:write"])
def test_permission_is_shown_whole(permission: str) -> None:
    """Only what is not known to be an action is a secret after the name of one."""
    assert redact_text(permission) == permission
    assert redact_text("my-password:hunter2") == "my-password:[hidden-by-fastn-mcp]"
    assert redact_text("api-key: create") == "api-key: [hidden-by-fastn-mcp]"
