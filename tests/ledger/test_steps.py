"""Steps of the ledger against other processes, lost replies and what a process knew before."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from support.begun import claimed, counted, rated, used
from support.memory_store import MemoryStore
from support.stores import NOW, change, grant
from support.values import not_none

from fastn_mcp.ledger import known_documents
from fastn_mcp.ledger.approval_request import RequestState, Vote
from fastn_mcp.ledger.change_start import BudgetLimit, StartResult
from fastn_mcp.ledger.documents import current_layout
from fastn_mcp.ledger.known_documents import KnownDocuments
from fastn_mcp.ledger.ledger import MAX_WAITING, Ledger, TooManyWaiting
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.ledger.store import Commit, Document, LedgerLost, Write

DANA = Vote("dana", True, NOW)
LIMIT = BudgetLimit("destroy", "monday", 2)
FIRST = replace(change(), list_id="b1", call_id="call 1", number=1)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def ledger(store: MemoryStore) -> Ledger:
    return Ledger(store)


@pytest.fixture
def other(store: MemoryStore) -> Ledger:
    """The same ledger, as another process has it."""
    return Ledger(store)


async def test_what_a_process_knew_before_never_decides(ledger: Ledger, other: Ledger) -> None:
    """Neither that something may be done, nor that it may not."""
    await ledger.open(grant())
    assert await other.find("g1") is not None
    assert not await used(other, "g1", "call 1", NOW)
    await ledger.decide(grant(), DANA, "terminal")
    assert await other.withdraw("g1", Vote("kim", False, NOW), "terminal") is not None
    assert not await used(ledger, "g1", "call 1", NOW)
    assert not_none(await ledger.find("g1")).state is RequestState.WITHDRAWN
    assert await other.spent("destroy", "monday") == 0
    assert [await counted(ledger, LIMIT) for _ in range(2)] == [True, True]
    assert not await counted(other, LIMIT)
    assert await other.unsettled("call", NOW) == {}
    assert await other.change(FIRST.account, "c1") is None
    assert await ledger.begin(FIRST) is StartResult.STARTED
    assert await other.begin(replace(FIRST, id="c2")) is StartResult.STARTED_BEFORE
    assert await claimed(ledger, "c1")
    assert not await claimed(other, "c1")
    await other.release("c1")
    assert await claimed(ledger, "c1")
    stop = Stop("s1", NOW, "Dana")
    assert not await ledger.lift_stop(stop.lift("Dana", NOW))
    await other.add_stop(stop)
    assert await ledger.lift_stop(stop.lift("Dana", NOW))


async def test_open_requests_are_counted_across_processes(ledger: Ledger, other: Ledger) -> None:
    assert await ledger.declines("local") == (0, 0.0)
    for number in range(MAX_WAITING):
        await other.open(grant(f"g{number}"))
    with pytest.raises(TooManyWaiting):
        await ledger.open(grant("more"))
    assert await other.void("g0", RequestState.STALE, NOW) is not None
    assert await ledger.open(grant("more")) == "more"


async def test_step_on_known_documents_takes_one_round_trip(ledger: Ledger, store: MemoryStore) -> None:
    """On a server each read and each commit is one."""
    await ledger.open(grant("first"))  # the layout is known from now on
    await ledger.declines("local")
    await ledger.spent("destroy", "monday")
    await ledger.rate_uses("destroy", 60, NOW)
    await ledger.find("first")
    steps: dict[str, tuple[Callable[[], Awaitable[object]], tuple[int, int]]] = {
        "open": (lambda: ledger.open(grant()), (0, 1)),
        "decide": (lambda: ledger.decide(grant(), DANA, "terminal"), (1, 1)),
        "use": (lambda: used(ledger, "g1", "call 1", NOW), (0, 1)),
        "spend": (lambda: counted(ledger, LIMIT), (0, 1)),
        "rate": (lambda: rated(ledger, "destroy", 5, 60, NOW), (0, 1)),
        "nonce": (lambda: ledger.use_nonce("n1", NOW + 60, NOW), (0, 1)),
        "begin": (lambda: ledger.begin(change()), (0, 1)),
        "settle": (lambda: ledger.settle(replace(change(), outcome="done")), (0, 1)),
        "claim": (lambda: claimed(ledger, "c1"), (0, 1)),
        "claim again": (lambda: claimed(ledger, "c1"), (1, 0)),
    }
    for name, (step, expected) in steps.items():
        store.reads = store.commits = 0
        await step()
        assert (store.reads, store.commits) == expected, name


async def test_step_on_old_documents_takes_two_round_trips(ledger: Ledger, other: Ledger, store: MemoryStore) -> None:
    assert await counted(ledger, LIMIT)
    assert await counted(other, LIMIT)
    store.reads = store.commits = 0
    assert not await counted(ledger, LIMIT)
    assert (store.reads, store.commits) == (0, 1)
    assert await counted(other, replace(LIMIT, limit=3))
    store.reads = store.commits = 0
    assert await counted(ledger, replace(LIMIT, limit=9))
    assert (store.reads, store.commits) == (0, 2)


async def test_unconfirmed_commit_counts_as_made(ledger: Ledger, store: MemoryStore) -> None:
    """An approval is used, a call is begun, a budget is counted, and nothing is sent a second time."""
    await ledger.open(grant())
    await ledger.decide(grant(), DANA, "terminal")
    steps: list[Callable[[], Awaitable[object]]] = [
        lambda: used(ledger, "g1", "call 1", NOW),
        lambda: ledger.begin(FIRST),
        lambda: counted(ledger, replace(LIMIT, limit=1)),
        lambda: rated(ledger, "destroy", 1, 60, NOW),
        lambda: ledger.use_nonce("n1", NOW + 60, NOW),
        lambda: claimed(ledger, "c1"),
    ]
    for step in steps:
        store.lost, store.commits = "after", 0
        with pytest.raises(LedgerLost):
            await step()
        assert store.commits == 1
        store.lost = ""
    assert not await used(ledger, "g1", "call 1", NOW)
    assert await ledger.begin(replace(FIRST, id="c2")) is StartResult.STARTED_BEFORE
    assert not await counted(ledger, replace(LIMIT, limit=1))
    assert not await rated(ledger, "destroy", 1, 60, NOW)
    assert not await ledger.use_nonce("n1", NOW + 60, NOW)
    assert not await claimed(ledger, "c1")


async def test_lost_store_refuses_each_step(ledger: Ledger, store: MemoryStore) -> None:
    await ledger.open(grant())
    await ledger.decide(grant(), DANA, "terminal")
    for lost in ("before", "reads"):
        store.lost = lost
        with pytest.raises(LedgerLost):
            await used(ledger, "g1", "call 1", NOW)
        with pytest.raises(LedgerLost):
            await ledger.begin(FIRST)
        store.lost = ""
        await ledger.find("g1")
    assert not_none(await ledger.find("g1")).used == ()
    assert await ledger.begin(FIRST) is StartResult.STARTED


async def test_nothing_is_known_after_a_failure(ledger: Ledger, store: MemoryStore) -> None:
    """After a failover the store may have lost the newest documents, and count their versions again."""
    await ledger.begin(change())
    store.lost = "before"
    with pytest.raises(LedgerLost):
        await ledger.begin(change("c2"))
    store.lost, store.reads = "", 0
    await ledger.settle(replace(change(), outcome="done"))
    assert store.reads == 1


class Crowded(MemoryStore):
    """Other processes change each document again and again."""

    async def commit(self, expected: Mapping[str, int], writes: Sequence[Write], *, is_news: bool = False) -> Commit:
        del expected, writes, is_news
        return Commit()


async def test_step_that_never_gets_its_turn_is_refused() -> None:
    with pytest.raises(LedgerLost, match="other processes keep changing the same records"):
        await Ledger(Crowded()).mark("key", NOW, NOW)


class Interleaving(MemoryStore):
    """Lets other tasks go on before and after each commit and read."""

    async def read(self, keys: Collection[str]) -> dict[str, Document]:
        await anyio.lowlevel.checkpoint()
        found = await super().read(keys)
        await anyio.lowlevel.checkpoint()
        return found

    async def commit(self, expected: Mapping[str, int], writes: Sequence[Write], *, is_news: bool = False) -> Commit:
        await anyio.lowlevel.checkpoint()
        made = await super().commit(expected, writes, is_news=is_news)
        await anyio.lowlevel.checkpoint()
        return made


async def test_steps_of_tasks_and_processes_happen_once() -> None:
    store = Interleaving()
    ledgers = [Ledger(store) for _ in range(3)]
    await ledgers[0].open(grant())
    await ledgers[0].decide(grant(), DANA, "terminal")
    made = Counter[str]()

    async def attempt(ledger: Ledger, number: int) -> None:
        is_used = await used(ledger, "g1", "call 1")
        is_begun = await ledger.begin(replace(FIRST, id=f"c{number}")) is StartResult.STARTED
        is_spent = await counted(ledger, LIMIT)
        await ledger.open(grant(f"q{number}"))
        made.update({"use": int(is_used), "begin": int(is_begun), "spend": int(is_spent)})

    async with anyio.create_task_group() as tasks:
        for number in range(15):
            tasks.start_soon(attempt, ledgers[number % 3], number)
    assert made == {"use": 1, "begin": 1, "spend": 2}
    assert len(await ledgers[0].waiting(NOW)) == 15


async def test_changes_of_a_caller_that_begin_at_once_do_not_repeat_each_other() -> None:
    """All of them count in one document. On a server, a step that is taken again is a further round trip."""
    store = Interleaving()
    ledger = Ledger(store)
    await ledger.begin(change())
    store.commits = 0
    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(ledger.begin, change(f"of {number}"))
    assert store.commits == 10
    assert len(await ledger.changes(change().account, 20, NOW + 1)) == 11


async def test_late_outcome_of_an_earlier_attempt_leaves_its_list_alone(ledger: Ledger, other: Ledger) -> None:
    assert await ledger.begin(FIRST) is StartResult.STARTED
    await ledger.settle(replace(FIRST, outcome="conflict"))
    assert await other.begin(replace(FIRST, id="c2")) is StartResult.STARTED
    await ledger.settle(replace(FIRST, outcome="conflict"))
    assert await ledger.begin(replace(FIRST, id="c3")) is StartResult.STARTED_BEFORE
    assert [each.id for each in await ledger.changes_of("b1")] == ["c2"]


async def test_layout_is_written_with_the_first_change(tmp_path: Path) -> None:
    """Reading writes nothing, so that a look at a file of an earlier version does not keep that from it."""
    ledger = Ledger(SqliteStore(str(tmp_path / "ledger.sqlite")))
    assert await ledger.waiting(NOW) == []
    assert await ledger.store.read(["layout"]) == {}
    await ledger.mark("key", NOW, NOW)
    assert (await ledger.store.read(["layout"]))["layout"].value == f'{{"layout": {current_layout()}}}'
    await ledger.aclose()


def test_few_short_documents_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_documents, "_MAX_DOCUMENTS", 2)
    monkeypatch.setattr(known_documents, "_MAX_LENGTH", 3)
    known, documents = KnownDocuments(), {key: Document(key, "abc", 1) for key in "abcd"}
    known.note("ab", documents)
    assert known.recall("ab") == {"a": documents["a"], "b": documents["b"]}
    known.note("ac", documents)
    assert known.recall("b") is None
    assert known.recall("ac") == {"a": documents["a"], "c": documents["c"]}
    known.note("a", {})
    assert known.recall("a") == {}
    known.note("a", {"a": Document("a", "abcd", 2)})
    assert known.recall("a") is None
    assert known.recall("an", new="n") is None
    assert known.recall("cn", new="n") == {"c": documents["c"]}
    known.clear()
    assert known.recall("c") is None
