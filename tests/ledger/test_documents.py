"""A field of a record is added in one place, and what another version wrote is read, or refuses."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.begun import claimed, counted, rated, used
from support.questions import a_question
from support.stores import NOW, change, grant, permit, put
from support.valkey_server import ValkeyServer
from support.values import not_none

from fastn_mcp.account.typed_argument import TypedArgument, TypedField
from fastn_mcp.errors import NOTHING_SENT
from fastn_mcp.ledger import approval_request, documents
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.change_start import BudgetLimit, StartResult
from fastn_mcp.ledger.documents import (
    LAYOUT,
    BudgetUse,
    CallerState,
    ListedCalls,
    Mark,
    NewerLayout,
    Unreadable,
    key_of,
    layout_write,
    load,
    write,
)
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.question import FieldChange
from fastn_mcp.ledger.stop import Stop, StopOrders
from fastn_mcp.ledger.store import Document, Write
from fastn_mcp.policy.decision import PLANNED, StepUp

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
from support.begun import claimed, counted, rated, used
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

FULL = replace(
    grant(),
    state=RequestState.APPROVED,
    votes=(Vote("dana", True, NOW, "Dana", True, NOW - 5, "mfa", ("dana", "dana@example.com")),),
    used=("call 1",),
    step_up=StepUp("https://team.example/approvals", ("destroy",), 600.0, ("mfa",)),
    typed=TypedArgument("value", (TypedField("value"),)),
    records=(("customer", "cus_1"),),
    permit=permit().given(NOW + 900),
    question=a_question(
        facts=(("Details", "active"),),
        changes=(FieldChange("plan", "Free", {"is": ["Growth", 1.5, None]}),),
        used_by=({"kind": "triggers", "count": 1, "all": [{"id": "t1", "state": "live"}]},),
        pending=("Go on?", {"tool": "x"}),
        defaults={"environment": "live"},
        notes=("It is off.",),
        calls=(a_question(number=2, target=None), a_question(number=3, refused="rule 7")),
    ),
)
STOP = Stop("s1", NOW, "Dana", "agent went wrong", lifted=NOW + 1, lifted_by="Kim")


def document(value: str, key: str = "approval g1") -> Document:
    return Document(key, value, 1)


def stored(record: object, id_: str = "g1") -> str:
    return not_none(write(record, id_).value)


def test_field_that_is_added_to_the_class_is_stored(tmp_path: Path, valkey: ValkeyServer) -> None:
    source = Path(approval_request.__file__).read_text(encoding="utf-8")
    last = f"    used: tuple[str, ...] = ()\n{_doc_of_used(source)}"
    assert source.count(last) == 1
    copy = tmp_path / "approval_request.py"
    copy.write_text(source.replace(last, last + _FIELDS), encoding="utf-8")
    places = [f"sqlite:{tmp_path / 'ledger.sqlite'}", valkey.url()]
    arguments = [sys.executable, "-c", _ROUND_TRIP, str(copy), str(Path(__file__).parents[1]), *places]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def _doc_of_used(source: str) -> str:
    after = source.partition("    used: tuple[str, ...] = ()\n")[2]
    return after.partition("\n")[0] + "\n"


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (ApprovalRequest, FULL),
        (Change, change()),
        (Change, replace(change(), list_id="b", call_id="call 3", number=3)),
        (StopOrders, StopOrders(7, (STOP, replace(STOP, id="s2", epoch=7)))),
    ],
)
def test_stored_record_is_loaded_as_it_was(kind: type[Any], record: object) -> None:
    assert load(kind, document(stored(record))) == record


def test_field_that_an_earlier_version_lacked_has_its_default() -> None:
    text = json.loads(stored(grant()))
    for name in ("records", "undoes", "permit"):
        del text["record"][name]
    assert load(ApprovalRequest, document(json.dumps(text))) == grant()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("added_later",), 1),
        (("votes", 0, "added_later"), 1),
        (("calls", "call 1", "added_later"), 1),
        (("step_up", "added_later"), 1),
        (("votes", 0, "approves"), "true"),
        (("votes", 0), ["dana", True, NOW]),
        (("state",), "from-a-newer-version"),
        (("created",), "1"),
        (("used",), [1]),
        (("permit", "added_later"), 1),
        (("permit", "until"), "1"),
        (("question",), {}),
        (("question",), []),
        (("question", "added_later"), 1),
        (("question", "effect"), "reassuring"),
        (("question", "lost"), None),
        (("question", "facts", 0), ["Only a name"]),
        (("question", "changes", 0, "added_later"), 1),
        (("question", "calls", 0, "title"), 1),
        (("calls",), {"first": {"binding": "b"}}),
        (("expires",), None),
    ],
)
def test_approval_of_another_format_is_unreadable(at: tuple[str | int, ...], value: object) -> None:
    """Also what an approver said with it: a condition that this version does not know is not left out."""
    text: Any = json.loads(stored(FULL))
    part = text["record"]
    for each in at[:-1]:
        part = part[each]
    part[at[-1]] = value
    with pytest.raises(Unreadable) as unreadable:
        load(ApprovalRequest, document(json.dumps(text)))
    assert str(unreadable.value) == (
        "The stored approval g1 cannot be read. Nothing was sent."
        " A person has to update this server, or wait until the approval has expired."
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "7", '{"layout":1}', '{"record":{}}', '{"layout":"1","record":{}}'),
        *('{"layout":0,"record":{}}', '{"layout":true,"record":{}}', f'{{"layout":1,"record":{"[" * 5_000}'),
    ],
)
def test_text_that_is_not_a_document_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        load(Mark, document(text, "mark key"))


def test_missing_field_is_unreadable() -> None:
    text = json.loads(stored(change()))
    del text["record"]["outcome"], text["record"]["at"]
    with pytest.raises(Unreadable, match="The stored change c1 cannot be read"):
        load(Change, document(json.dumps(text), "change c1"))


def test_unreadable_record_is_named_by_its_kind_and_id() -> None:
    unreadable = Unreadable(f"budget {'b' * 65}\u202e")
    assert (unreadable.kind, unreadable.id, unreadable.known) == ("budget", "b" * 64, NOTHING_SENT)
    assert unreadable.what == f"The stored budget {'b' * 64} cannot be read."
    assert unreadable.next_step == "A person has to update this server, or restore the ledger (docs/operations.md)."


def test_record_that_could_not_be_read_again_is_not_written() -> None:
    nested: Any = "x"
    for _ in range(210):
        nested = [nested]
    for before in ({"a": nested}, {"a": "\ud800"}):
        with pytest.raises(ValueError, match=r".+"):
            write(replace(change(), before=before), "c1")


def test_ids_of_several_parts_do_not_collide() -> None:
    assert key_of(BudgetUse, "a", "b c") != key_of(BudgetUse, "a b", "c")
    assert key_of(BudgetUse, 'a", "b', "c") != key_of(BudgetUse, "a", 'b", "c')


# --- layouts -------------------------------------------------------------------------------------------------------


def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process is of the next version: an approval says who asked as `caller`."""

    def upgrade(kind: str, record: Any) -> Any:
        if kind == "approval":
            record["note"] = f"{record.pop('remark')}, upgraded"
        return record

    monkeypatch.setattr(documents, "UPGRADES", (*documents.UPGRADES, upgrade))


async def downgrade(ledger: Ledger, request: ApprovalRequest) -> None:
    """Store a request as the version before did."""
    text = json.loads(stored(request))
    text["record"]["remark"] = text["record"].pop("note")
    await put(ledger, replace(write(request, request.id), value=json.dumps(text)))


async def test_stops_uses_and_approvals_of_the_version_before_are_read(
    ledger: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.open(grant("g1"))
    await ledger.open(grant("g2"))
    await ledger.add_stop(replace(STOP, lifted=None, lifted_by=""))
    limit = BudgetLimit("plan 1", PLANNED, 2)
    assert await counted(ledger, limit)
    await ledger.begin(replace(change(), list_id="b1", call_id="call 1", number=1))
    for name in ("g1", "g2"):
        await downgrade(ledger, replace(grant(name), note="as before"))
    next_version(monkeypatch)
    assert [stop.id for stop in await other.holding()] == ["s1"]
    assert await other.spent("plan 1", PLANNED) == 1
    assert [each.id for each in await other.changes_of("b1")] == ["c1"]
    assert not_none(await other.find("g1")).note == "as before, upgraded"
    assert [each.id for each in await other.waiting(NOW)] == ["g1", "g2"]
    assert await other.decide(grant("g1"), Vote("dana", True, NOW), "terminal") is not None
    assert await used(other, "g1", "call 1", NOW)
    assert [await counted(other, limit) for _ in range(2)] == [True, False]
    listed = replace(change("c2"), list_id="b1", call_id="call 1", number=1)
    assert await other.begin(listed) is StartResult.STARTED_BEFORE


def first_layout(request: ApprovalRequest, *groups: str) -> Any:
    """Return the document of a request as layout 1 had it: it needed an approver of each of these groups."""
    text = json.loads(stored(request))
    text["layout"] = 1
    text["record"]["second"] = list(groups)
    for vote in text["record"]["votes"]:
        vote["groups"] = []
    return document(json.dumps(text), f"approval {request.id}")


def test_request_of_the_first_layout_is_read_unless_it_needs_a_group() -> None:
    request = replace(grant("g1"), votes=(Vote("dana", True, NOW),))
    assert load(ApprovalRequest, first_layout(request)) == request
    with pytest.raises(Unreadable):
        load(ApprovalRequest, first_layout(request, "security"))


async def test_changes_are_refused_once_a_newer_version_has_written(
    ledger: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a process that began before. What it can read, it reads."""
    await ledger.open(grant("g1"))
    await ledger.begin(change("c1"))
    await ledger.add_stop(STOP)
    with monkeypatch.context() as newer:
        next_version(newer)
        await counted(other, BudgetLimit("write", "monday", 5))
        await other.open(grant("g3"))
    refused = [
        lambda: ledger.open(grant("g2")),
        lambda: ledger.decide(grant("g1"), Vote("dana", True, NOW), "terminal"),
        lambda: ledger.begin(change("c2")),
        lambda: ledger.settle(replace(change("c1"), outcome="done")),
        lambda: counted(ledger, BudgetLimit("destroy", "monday", 5)),
        lambda: rated(ledger, "destroy", 5, 60, NOW),
        lambda: ledger.use_nonce("n1", NOW + 60, NOW),
        lambda: claimed(ledger, "c1"),
        lambda: ledger.add_stop(replace(STOP, id="s2")),
        lambda: ledger.mark_audit("log", 1, "head"),
        ledger.check_layout,
    ]
    for step in refused:
        with pytest.raises(NewerLayout) as caught:
            await step()
        assert str(caught.value) == (
            "The ledger was written by a newer version of fastn-mcp. Nothing was sent."
            " Reading still works. Update this server."
        )
    assert await ledger.find("g1") == grant("g1")
    assert await ledger.stops() == [replace(STOP, epoch=1)]
    assert [each.id for each in await ledger.waiting(NOW)] == ["g1"]
    assert [each.id for each in await ledger.changes("default at live.fastn.ai", 5, NOW + 1)] == ["c1"]
    with pytest.raises(Unreadable):
        await ledger.find("g3")
    with pytest.raises(Unreadable):
        await ledger.spent("write", "monday")


async def test_damaged_layout_refuses_changes(ledger: Ledger) -> None:
    for value in ("{", "[]", '{"layout":"1"}', "{}"):
        await put(ledger, Write(LAYOUT, value))
        with pytest.raises(Unreadable, match="The stored layout"):
            await ledger.begin(change())


def test_layout_is_recorded_once_and_after_an_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    first = not_none(layout_write(None))
    recorded = document(not_none(first.value), LAYOUT)
    assert layout_write(recorded) is None
    next_version(monkeypatch)
    assert not_none(layout_write(recorded)).value == '{"layout": 3}'


# --- what decides and what is listed -------------------------------------------------------------------------------


async def damage(ledger: Ledger, record: Any, *id_: str) -> None:
    """Store what another version would have, under the indexes of this record."""
    text = json.loads(not_none(write(record, *id_).value))
    text["record"]["added_later"] = 1
    await put(ledger, replace(write(record, *id_), value=json.dumps(text)))


ACCOUNT = "default at live.fastn.ai"


async def test_unreadable_approval_is_left_out_of_lists_and_decides_nothing(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("g1", "g2"):
        await ledger.open(grant(name))
    await damage(ledger, grant("g2"), "g2")
    assert [found.id for found in await ledger.waiting(NOW)] == ["g1"]
    assert caplog.messages[-1] == "left out of a list, since this version cannot read them: 1 (approval g2)"
    assert await ledger.expire(ACCOUNT, NOW + 599) == []
    assert [found.id for found in await ledger.expire(ACCOUNT, NOW + 600)] == ["g1"]
    assert await ledger.still_open(["g1", "g2"]) == set()
    await damage(ledger, replace(FULL, id="g3"), "g3")
    for decision in (
        lambda: ledger.find("g2"),
        lambda: ledger.latest("call of g2", NOW),
        lambda: used(ledger, "g3", "call 1", NOW),
        lambda: ledger.decide(grant("g2"), Vote("dana", True, NOW), "terminal"),
        lambda: ledger.open_requests(ACCOUNT, NOW),
        lambda: ledger.permits_of(FULL.holder, NOW),
        lambda: ledger.begin(change(), temporary_approval_id="g3"),
    ):
        with pytest.raises(Unreadable, match=r"The stored approval g[23] cannot be read"):
            await decision()
    assert await ledger.temporary_approvals(NOW) == []
    assert [found.id for found in await ledger.decided(5)] == ["g1"]


async def test_unreadable_stop_change_decline_or_use_refuses(ledger: Ledger) -> None:
    begun = replace(
        change(), repeat_id="call", unsettled_until=NOW + 600, list_id="b1", call_id="call 1", number=1, approval="g1"
    )
    await damage(ledger, StopOrders(1, (STOP,)), "all")
    await damage(ledger, begun, "c1")
    await put(ledger, write(ListedCalls({"call 1": ("c1", "done")}), "b1"))
    await damage(ledger, ListedCalls({"call 1": ("c1", "conflict")}), "b2")
    await damage(ledger, CallerState(), "local")
    await damage(ledger, BudgetUse(0), "destroy", "monday")
    await damage(ledger, documents.RateUses(), "destroy")
    await damage(ledger, Mark(), "key")
    for decision in (
        lambda: ledger.stops(),
        lambda: ledger.add_stop(STOP),
        lambda: ledger.lift_stop(STOP),
        lambda: ledger.holding(),
        lambda: ledger.unsettled("call", NOW),
        lambda: ledger.change(ACCOUNT, "c1"),
        lambda: ledger.recent_changes(ACCOUNT, 5),
        lambda: claimed(ledger, "c1"),
        lambda: ledger.changes_of("b1"),
        lambda: ledger.changes_of("b2"),
        lambda: ledger.begin(replace(begun, id="c2", list_id="b2")),
        lambda: ledger.declines("local"),
        lambda: ledger.open(grant()),
        lambda: ledger.spent("destroy", "monday"),
        lambda: counted(ledger, BudgetLimit("write", "monday", 5), BudgetLimit("destroy", "monday", 5)),
        lambda: rated(ledger, "destroy", 5, 60, NOW),
        lambda: ledger.rate_uses("destroy", 60, NOW),
        lambda: ledger.marked("key"),
        lambda: ledger.mark("key", NOW + 1, NOW),
    ):
        with pytest.raises(Unreadable, match="cannot be read"):
            await decision()
    assert await ledger.spent("write", "monday") == 0
    assert await ledger.changes(ACCOUNT, 5, NOW + 1) == []
    assert await ledger.changes_by(["g1"]) == []
    assert await ledger.under_way(NOW - 1) == []


async def test_at_most_ten_unreadable_approvals_are_named(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"g{number:02}" for number in range(11)]
    for number, name in enumerate(names):
        await damage(ledger, grant(name, expires=NOW + 600 + number), name)
    assert await ledger.waiting(NOW) == []
    named = ", ".join(f"approval {name}" for name in names[:10])
    assert caplog.messages[-1] == f"left out of a list, since this version cannot read them: 11 ({named})"
