"""A field of a record is added in one place: how both ledgers store it follows from its type."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
from fastn_mcp.ledger.serialization import columns, load, store
from support.stores import grant
from support.valkey_server import ValkeyServer

from fastn_mcp.ledger import approval_request

_FIELDS = """
    zone: str | None = None
    weight: float = 0.0
    is_urgent: bool = False
    origin: RequestState = RequestState.STALE
    witnesses: Mapping[int, tuple[Vote, ...]] = field(default_factory=dict[int, tuple[Vote, ...]])
"""
"""Added after the last field of `ApprovalRequest`."""

_ROUND_TRIP = """
import importlib.util, sys
from dataclasses import replace
from pathlib import Path

source, folder, *places = sys.argv[1:]
spec = importlib.util.spec_from_file_location("fastn_mcp.ledger.approval_request", source)
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.path += [folder]

import anyio
from support.stores import grant, opened

async def check(place):
    vote = module.Vote("dana", True, 1.5)
    more = dict(zone="eu", weight=0.25, is_urgent=True, origin=module.RequestState.USED, witnesses={7: (vote,)})
    ledger = opened(place)
    await ledger.open(replace(grant("plain"), call="a"))
    await ledger.open(replace(grant("full"), **more))
    changed = await ledger.change_request("full", lambda request: replace(request, weight=0.5, zone="us"))
    assert changed == await ledger.find("full") == replace(grant("full"), **more | {"weight": 0.5, "zone": "us"})
    plain = await ledger.find("plain")
    assert plain == replace(grant("plain"), call="a")
    assert (plain.zone, plain.is_urgent, plain.origin, plain.witnesses) == (None, False, module.RequestState.STALE, {})
    await ledger.aclose()

for place in places:
    anyio.run(check, place)
"""


def test_field_that_is_added_to_the_class_is_stored(tmp_path: Path, valkey: ValkeyServer) -> None:
    """By both ledgers."""
    source = Path(approval_request.__file__).read_text(encoding="utf-8")
    last = f"    used: tuple[int, ...] = ()\n{_doc_of_used(source)}"
    assert source.count(last) == 1
    copy = tmp_path / "approval_request.py"
    copy.write_text(source.replace(last, last + _FIELDS), encoding="utf-8")
    places = [f"sqlite:{tmp_path / 'ledger.sqlite'}", valkey.url()]
    arguments = [sys.executable, "-c", _ROUND_TRIP, str(copy), str(Path(__file__).parents[1]), *places]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def _doc_of_used(source: str) -> str:
    after = source.partition("    used: tuple[int, ...] = ()\n")[2]
    return after.partition("\n")[0] + "\n"


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    label: str | None


@dataclass(frozen=True, slots=True)
class Record:
    id: str
    count: int
    share: float
    is_on: bool
    colour: Colour
    points: tuple[Point, ...]
    by_number: Mapping[int, Point]
    note: str | None = None
    rows: Mapping[str, float | None] | None = None


RECORD = Record("r", 3, 0.5, True, Colour.RED, (Point(1, "a"), Point(2.5, None)), {4: Point(0.5, "b")})


def test_columns_follow_from_the_types() -> None:
    assert columns(Record) == (
        "id TEXT NOT NULL PRIMARY KEY, count INTEGER NOT NULL, share REAL NOT NULL, is_on INTEGER NOT NULL,"
        " colour TEXT NOT NULL, points TEXT NOT NULL, by_number TEXT NOT NULL, note TEXT, rows TEXT"
    )


def test_stored_record_is_loaded_as_it_was() -> None:
    stored = store(RECORD)
    assert stored["is_on"] == 1
    assert stored["colour"] == "red"
    assert load(Record, stored) == RECORD
    assert load(Record, {name: str(value) for name, value in stored.items() if value is not None}) == RECORD


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"added_later": "1"}, ValueError),
        ({"count": None}, TypeError),
        ({"count": "x"}, ValueError),
        ({"colour": "blue"}, ValueError),
        ({"points": "{"}, ValueError),
        ({"points": "[[1]]"}, TypeError),
        ({"points": "7"}, TypeError),
        ({"by_number": "[]"}, AttributeError),
    ],
)
def test_record_of_another_format_is_an_error(changes: dict[str, str | None], error: type[Exception]) -> None:
    with pytest.raises(error):
        load(Record, store(RECORD) | changes)


def test_missing_field_is_an_error_unless_it_may_be_none() -> None:
    stored = store(RECORD)
    assert load(Record, {name: value for name, value in stored.items() if name != "note"}) == RECORD
    with pytest.raises(KeyError):
        load(Record, {name: value for name, value in stored.items() if name != "count"})


def test_request_is_stored_with_the_types_of_its_columns() -> None:
    assert {type(value) for value in store(grant()).values()} == {str, float, int, type(None)}
