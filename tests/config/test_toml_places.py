"""Lines of TOML keys. Whatever is wrong in a policy is named with its line."""

import tomllib
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_mcp.config.strict_toml import Key, places


def keys(value: object, at: Key = ()) -> set[Key]:
    """Every key and index of what `tomllib` read."""
    inside: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inside = list(cast("dict[str | int, Any]", value).items())
    elif isinstance(value, list):
        inside = list(enumerate(cast("list[Any]", value)))
    return {at, *(key for name, inner in inside for key in keys(inner, (*at, name)))} - {()}


HARD = r'''
title = "a # no comment \" ["    # a comment = [no key]
'quoted "key"' = 'C:\path\'
"esc\u0061pe" . b = 1
multi = """
[no.table]
x = "1"
still \""" text """""
lit = \'\'\'
[[nor]]
y = 2 \'\'\'\'
date = 1979-05-27 07:32:00
list = [ 1, # one
  [ "]", { deep = true } ],
  """
]""",
]
after = 1
inline = { a = 1, b.c = [ 2 ], "d e" = { } }

[a.b]   # c
k = 1
[[fruit]]
name = "apple"
[fruit.physical]
color = "red"
[[fruit.variety]]
name = "one"
[[fruit.variety]]
name = "two"
[[fruit]]
[[fruit.variety]]
name = "three"
'''.replace("\\'", "'")


def test_every_key_of_difficult_toml_has_a_line() -> None:
    assert set(places(HARD)) == keys(tomllib.loads(HARD))


@pytest.mark.parametrize(
    ("key", "begin"),
    [
        (("title",), "title ="),
        (('quoted "key"',), "'quoted"),
        (("multi",), "multi ="),
        (("date",), "date ="),
        (("list", 1, 1, "deep"), "list ="),
        (("after",), "after ="),
        (("inline", "b", "c"), "inline"),
        (("a", "b"), "[a.b]"),
        (("fruit", 0, "physical", "color"), "color"),
        (("fruit", 0, "variety", 1, "name"), 'name = "two"'),
        (("fruit", 1, "variety", 0, "name"), 'name = "three"'),
    ],
)
def test_key_has_its_own_line(key: Key, begin: str) -> None:
    assert HARD.split("\n")[places(HARD)[key] - 1].startswith(begin)


@pytest.mark.parametrize("item", ["[1],", "{ a = 1 },", "']',"])
def test_long_value_is_parsed_once(item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    loads = tomllib.loads

    def counted(text: str) -> dict[str, Any]:
        parsed.append(text)
        return loads(text)

    monkeypatch.setattr(tomllib, "loads", counted)
    text = "long = [\n" + f"  {item}\n" * 6000 + "]\nafter = 1\n"
    assert places(text)["after",] == 6003
    assert "".join(parsed) == f"{text}\n"


bare = st.sampled_from(["a", "b", "key-1", '"q.uoted"', "'[x]'"])
texts = st.text(st.sampled_from("ab\"'[]{}#=,.\\ \n"), max_size=8)
literals = texts.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"')
blocks = texts.map(lambda text: '"""\n' + text.replace("\\", "\\\\").replace('"', '\\"') + '"""')
values = st.recursive(
    literals | blocks | st.sampled_from(["1", "true", "1.5e3", "''", "07:32:00", "'''\n'x'''"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ",  # ]\n".join([*items, ""]) + "]")
        | st.dictionaries(bare, inner, max_size=2).map(
            lambda items: "{" + ", ".join(f"{key} = {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=5,
)
pairs = st.dictionaries(bare, values, max_size=3).map(
    lambda items: "".join(f"{key} = {value} # [c]\n" for key, value in items.items())
)
documents = st.tuples(pairs, st.lists(pairs, max_size=3)).map(
    lambda parts: parts[0] + "".join(f"\n[[ t . u ]]\n{part}" for part in parts[1])
)


@given(documents)
def test_places_has_exactly_the_keys_of_tomllib(text: str) -> None:
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = places(text)
    assert set(found) == keys(read)
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())
