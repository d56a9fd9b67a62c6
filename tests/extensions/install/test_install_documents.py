"""An addition to a document can be removed again, leaving the rest as it was, whatever the document."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from support.document_strategies import json_texts, toml_texts

from fastn_mcp.extensions.install.edit import (
    Addition,
    Format,
    NoPlace,
    UnreadableConfig,
    find,
    insert,
    load,
    remove,
    same,
)

ENTRY = {"command": "/opt/fastn mcp/bin/fastn-mcp", "args": ["--profile", 'a"b'], "env": {"K": "${env:K}"}}
SERVER = Addition("mcpServers", "fastn", ENTRY)
INPUT = Addition("inputs", None, {"type": "promptString", "id": "fastn-api-key"})
TABLE = Addition("mcp_servers", "fastn", {"command": "fastn-mcp", "args": ["--sandbox"], "env_vars": ["K"]})
MARKS = st.sampled_from([b"", b"\xef\xbb\xbf"])


QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def with_(document: Any, addition: Addition) -> Any:
    """Return the document with the addition, in place of an entry of its name."""
    section: Any = document.get(addition.section, type(addition.contents)())
    whole = [addition.value, *section] if addition.key is None else section | addition.contents
    return document | {addition.section: whole}


def round_trip(format_: Format, content: bytes, additions: list[Addition]) -> bytes:
    before = load(format_, content)
    assume(not any(find(before, addition) is not None for addition in additions))
    try:
        then = insert(format_, content, additions)
    except NoPlace:
        assume(False)
        raise
    wanted = before
    for addition in additions:
        wanted = with_(wanted, addition)
    assert same(load(format_, then), wanted)
    return remove(format_, then, additions)


def assert_restored(format_: Format, content: bytes, additions: list[Addition]) -> None:
    """Check that the members of the document are as before, but for objects that were created on the paths."""
    left, wanted = load(format_, round_trip(format_, content, additions)), load(format_, content)
    for addition in additions:
        if addition.section not in wanted:
            assert not left.pop(addition.section, None)
    assert same(left, wanted)


@QUICK
@given(json_texts(comments=False), MARKS)
@example("", b"")
@example("\n", b"\xef\xbb\xbf")
@example("{}", b"")
@example('{"mcpServers": {}}', b"")
@example('{"mcpServers":{"x":1}}', b"")
@example('{"a": 1, "a": 2}', b"")
def test_json_is_restored(text: str, mark: bytes) -> None:
    assert_restored(Format.JSON, mark + text.encode(), [SERVER])


@QUICK
@given(json_texts(comments=True), MARKS)
@example("// nothing but this", b"")
@example('{\n  "mcpServers": {\n    "x": {}, // mine\n    // and this\n  },\n}\n', b"")
@example('{"inputs": [/* none */], "mcpServers": { /* nor here */ }}', b"")
@example('{"inputs": [{"id": "other"},],}', b"")
def test_json_with_comments_is_restored(text: str, mark: bytes) -> None:
    assert_restored(Format.JSONC, mark + text.encode(), [SERVER, INPUT])


@QUICK
@given(toml_texts(), MARKS)
@example("", b"")
@example("# only this", b"")
@example("a = 1\r\n[b]\r\n", b"")
def test_toml_is_restored(text: str, mark: bytes) -> None:
    assert_restored(Format.TOML, mark + text.encode(), [TABLE])


@QUICK
@given(json_texts(comments=True), st.sampled_from(["front", "back"]))
def test_members_added_meanwhile_stay(text: str, place: str) -> None:
    content = text.encode()
    before = load(Format.JSONC, content)
    assume(before != {} and all(find(before, one) is None for one in (SERVER, INPUT)))
    theirs = Addition("mcpServers", "theirs", {"command": "x"})
    assume(find(before, theirs) is None)
    try:
        if place == "front":
            base = insert(Format.JSONC, content, [theirs])
            then = insert(Format.JSONC, base, [SERVER])
            assert same(load(Format.JSONC, remove(Format.JSONC, then, [SERVER])), load(Format.JSONC, base))
        else:
            ours = insert(Format.JSONC, content, [SERVER])
            then = insert(Format.JSONC, ours, [theirs])
            left = remove(Format.JSONC, then, [SERVER])
            assert same(load(Format.JSONC, left), with_(before, theirs))
    except NoPlace:
        assume(False)


@QUICK
@given(toml_texts())
def test_extended_toml_table_is_removed_whole(text: str) -> None:
    try:
        then = insert(Format.TOML, text.encode(), [TABLE])
    except NoPlace:
        assume(False)
        raise
    more = b'\n[mcp_servers.fastn.tools.run_workflow]\napproval_mode = "approve"\n\n[later] # theirs\nx = 1\n'
    left = remove(Format.TOML, then + more, [TABLE])
    assert b"fastn-mcp" not in left
    assert left.endswith(b"[later] # theirs\nx = 1\n")
    assert left.startswith(text.rstrip("\r\n").encode())


def test_line_added_to_our_toml_table_does_not_join_another() -> None:
    then = insert(Format.TOML, b"# a comment without an end", [TABLE])
    left = remove(Format.TOML, then + b"cwd = '/x'\n\n[later]\nx = 1\n", [TABLE])
    assert left == b"# a comment without an end\n\n[later]\nx = 1\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": 1}', '{"mcpServers": {"fastn": {"command": "x"}}, "a": 1}'),
        (
            '{\n\t"mcpServers": {\n\t\t"other": {} // theirs\n\t}\n}\n',
            '{\n\t"mcpServers": {\n\t\t"fastn": {\n\t\t\t"command": "x"\n\t\t},\n\t\t"other": {} // theirs\n\t}\n}\n',
        ),
        (
            '{\r\n    "mcpServers": {}\r\n}',
            '{\r\n    "mcpServers": {\r\n        "fastn": {\r\n            "command": "x"\r\n        }\r\n    }\r\n}',
        ),
        ("", '{\n  "mcpServers": {\n    "fastn": {\n      "command": "x"\n    }\n  }\n}\n'),
    ],
)
def test_entry_has_the_layout_of_its_surroundings(before: str, after: str) -> None:
    addition = Addition("mcpServers", "fastn", {"command": "x"})
    then = insert(Format.JSONC, before.encode(), [addition])
    assert then.decode() == after


def test_existing_entry_is_replaced_in_place() -> None:
    content = b'{"mcpServers": {"fastn": {"url": "x"}, "b": 1}, "c": 2}'
    then = insert(Format.JSON, content, [SERVER])
    assert list(json.loads(then)["mcpServers"]) == ["fastn", "b"]
    assert json.loads(then) == {"mcpServers": {"fastn": ENTRY, "b": 1}, "c": 2}
    toml = insert(Format.TOML, b"[mcp_servers.fastn]\nurl = 'x'\n\n[z]\na = 1\n", [TABLE])
    assert load(Format.TOML, toml) == {"z": {"a": 1}, "mcp_servers": {"fastn": TABLE.value}}


@pytest.mark.parametrize(
    ("format_", "content", "expected"),
    [
        (Format.JSON, b'{"a": 1,}', "comments or trailing commas"),
        (Format.JSON, b'{"a": 1} // b', "comments or trailing commas"),
        (Format.JSON, b'{"a" 1}', "line 1, column 6"),
        (Format.JSONC, b'{"a": NaN}', "NaN is not JSON"),
        (Format.JSONC, b'{"a": [1,,]}', "line 1"),
        (Format.JSONC, b'{"a": "x // y}', "line 1"),
        (Format.JSONC, b"[" * 100_000, "nested too deeply"),
        (Format.JSONC, '{"a": "ü"}'.encode("utf-16"), "not UTF-8"),
        (Format.TOML, b"a = \n", "line 1"),
        (Format.TOML, b"a = 1\na = 2\n", "line 2"),
        (Format.TOML, b"a = " + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_invalid_document_is_reported(format_: Format, content: bytes, expected: str) -> None:
    with pytest.raises(UnreadableConfig, match=expected):
        insert(format_, content, [SERVER])


@pytest.mark.parametrize(
    ("format_", "content", "addition", "where"),
    [
        (Format.JSONC, b"[]", SERVER, "the document"),
        (Format.JSONC, b'{"mcpServers": null}', SERVER, "mcpServers"),
        (Format.JSONC, b'{"inputs": {}}', INPUT, "inputs"),
        (Format.TOML, b"mcp_servers = {}\n", TABLE, "mcp_servers"),
        (Format.TOML, b"mcp_servers = 1\n", TABLE, "mcp_servers"),
    ],
)
def test_missing_place_of_an_entry_is_reported(format_: Format, content: bytes, addition: Addition, where: str) -> None:
    with pytest.raises(NoPlace, match=where):
        insert(format_, content, [addition])


def test_removing_a_missing_entry_changes_nothing() -> None:
    for left in (b"", b'{"a": 1}', b'{"mcpServers": {}, "inputs": []}'):
        assert remove(Format.JSONC, left, [SERVER, INPUT]) == left


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": 1, // c\n "fastn": {} }', '{"a": 1 // c\n }'),
        ('{"a": 1 // c\r\n, "fastn": {}}', '{"a": 1 // c\r\n }'),
        ('{// c\n "fastn": {}}', "{// c\n }"),
        ('{// c {\n  "fastn": {}\n}', "{// c {\n}"),
        ('{// c\n "fastn": {} // ours\n}', "{// c\n // ours\n}"),
        ('{"a": "//", "fastn": {} }', '{"a": "//" }'),
    ],
)
def test_entry_after_a_line_comment_is_removed(before: str, after: str) -> None:
    content = f'{{"mcpServers": {before}}}'.encode()
    assert remove(Format.JSONC, content, [SERVER]).decode() == f'{{"mcpServers": {after}}}'
    assert find(load(Format.JSONC, insert(Format.JSONC, content, [SERVER])), SERVER) == ENTRY


def test_duplicate_entry_is_not_removed() -> None:
    """Removing one would make the other one count."""
    twice = b'{"mcpServers": {"fastn": 1, "fastn": 2}}'
    with pytest.raises(NoPlace, match="mcpServers"):
        remove(Format.JSON, twice, [SERVER])


def test_nan_equals_itself() -> None:
    """TOML has it, and it must not prevent a change."""
    nan, one = float("nan"), [{"a": [1.0, float("nan")]}]
    assert same(one, [{"a": [1.0, nan]}])
    assert not same(one, [{"a": [1.0, 2.0]}])
    assert not same(1, True)
    assert not same({"a": 1}, {"a": 1, "b": 1})
