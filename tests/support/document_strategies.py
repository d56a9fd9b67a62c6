"""Strategies for documents as people and programs write them: any layout, comments, line ends, marks."""

import itertools
import json
import tomllib
from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["mcpServers", "servers", "inputs", "fastn", "other", "a b", "", "//", 'q"q', "ü"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=8
)
SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["// no comment", "/* nor this */", ",]", ",}", '\\"', "{", "a,\n}"])
)
BLANKS = ["", "", " ", "\t", "\n", "\n  ", "\r\n\t", "  \n\n    "]
COMMENTS = ["// one\n", "/* two */", "/* three,\n} */", "//\n", '// "four": {\r\n', "/**/"]


def _gaps(kinds: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from([*kinds, *map("".join, itertools.product(kinds, repeat=2))])


GAPS = {False: _gaps(BLANKS), True: _gaps(BLANKS + COMMENTS)}
"""What stands between two signs, by whether comments are allowed."""
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
SERVERS = st.dictionaries(NAMES.filter(lambda name: name != "fastn"), VALUES, max_size=3)
OBJECTS = st.tuples(
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.fixed_dictionaries({}, optional={"mcpServers": SERVERS, "servers": SERVERS, "inputs": st.lists(VALUES)}),
).map(lambda parts: {**parts[0], **parts[1]})
INDENTS = st.sampled_from([None, None, 2, "\t"])
LINE_ENDS = st.sampled_from(["\n", "\r\n"])
LAST_LINE_ENDS = st.sampled_from(["", "\n"])


@st.composite
def json_texts(draw: st.DrawFn, *, comments: bool) -> str:
    """Draw a JSON text with an arbitrary layout."""

    def gap() -> str:
        return draw(GAPS[comments])

    def written(value: Any) -> str:
        if isinstance(value, dict):
            members = [
                f"{gap()}{json.dumps(name, ensure_ascii=draw(st.booleans()))}{gap()}:{gap()}{written(item)}{gap()}"
                for name, item in value.items()  # pyright: ignore[reportUnknownVariableType]
            ]
            return "{" + ",".join(members) + last(members) + gap() + "}"
        if isinstance(value, list):
            items = [f"{gap()}{written(item)}{gap()}" for item in value]  # pyright: ignore[reportUnknownVariableType]
            return "[" + ",".join(items) + last(items) + gap() + "]"
        return json.dumps(value, ensure_ascii=draw(st.booleans()))

    def last(members: list[str]) -> str:
        return "," if comments and members and draw(st.booleans()) else ""

    document, indent = draw(OBJECTS), draw(INDENTS)
    if indent is not None:  # as programs write it
        return json.dumps(document, indent=indent).replace("\n", draw(LINE_ENDS)) + draw(LAST_LINE_ENDS)
    return gap() + written(document) + gap()


_TOML = (
    "# a comment\n",
    "\n",
    'model = "gpt-5"  # as ever\n',
    "[profiles.'a b']\nlimit = nan\n",
    "[[hooks]]\non = 1979-05-27T07:32:00Z\n",
    "[mcp_servers.other]\n  command = 'true'\nargs = [\n  'a', # why\n]\n",
    "[mcp_servers.other.env]\nA = '''\n[mcp_servers.fastn]\n'''\n",
    "[mcp_servers]\n",
    "[tools]\nweb = { on = true, where = [1, 2] }\n",
    'mcp_servers.third.command = "x"\n',
)


@st.composite
def toml_texts(draw: st.DrawFn) -> str:
    """Draw a TOML text from parts that people write, without those that conflict."""
    parts = draw(st.lists(st.sampled_from(_TOML), unique=True, max_size=6))
    text = ""
    for part in sorted(parts, key=lambda part: part.startswith("[")):
        try:
            tomllib.loads(text + part)
        except tomllib.TOMLDecodeError:  # two parts that define the same
            continue
        text += part
    text = text.replace("\n", draw(LINE_ENDS))
    return text.rstrip("\r\n") if draw(st.booleans()) else text
