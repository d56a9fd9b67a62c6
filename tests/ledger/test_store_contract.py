"""What every store does, whatever is stored."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import inf, nextafter

import anyio
import pytest
from support.stores import NOW, opened
from support.valkey_server import ValkeyServer

from fastn_mcp.extensions.valkey.server import parse
from fastn_mcp.ledger.store import Store, Write


@pytest.fixture
async def store(where: str) -> AsyncGenerator[Store]:
    async with aclosing(opened(where)) as ledger:
        yield ledger.store


@pytest.fixture
async def second(where: str) -> AsyncGenerator[Store]:
    """The same store, as another process has it."""
    async with aclosing(opened(where)) as ledger:
        yield ledger.store


async def put(store: Store, *writes: Write) -> int:
    found = await store.read([each.key for each in writes])
    expected = {each.key: found[each.key].version if each.key in found else 0 for each in writes}
    version = (await store.commit(expected, writes)).version
    assert version
    return version


async def keys(store: Store, *indexes: str, low: float = -inf, high: float = inf, **more: bool | int) -> list[str]:
    newest, limit = bool(more.get("newest")), more.get("limit")
    return [each.key for each in await store.scan(indexes, low, high, newest=newest, limit=limit)]


async def test_commit_writes_all_or_nothing(store: Store, second: Store) -> None:
    first = await store.commit({"a": 0, "b": 0, "read": 0}, [Write("a", "1"), Write("b", "2")])
    assert first.version
    found = await second.read(["b", "a", "c"])
    assert {key: each.value for key, each in found.items()} == {"a": "1", "b": "2"}
    refused = await second.commit({"a": first.version, "b": 0}, [Write("a", "3"), Write("b", "4")])
    assert not refused.version
    assert refused.found == found
    assert await store.read(["a", "b"]) == found
    assert not (await second.commit({"a": first.version, "c": 1}, [Write("a", "3")])).version
    assert not (await second.commit({"a": first.version, "b": first.version, "c": 1}, [Write("a", None)])).version
    assert (await second.commit({"a": first.version, "b": first.version, "c": 0}, [Write("a", "3")])).version
    assert (await store.read(["a"]))["a"].value == "3"


async def test_version_is_never_used_again(store: Store) -> None:
    """Not by a document that was deleted, or forgotten, and came again: whoever knows the old one must notice."""
    versions = [await put(store, Write("a", "1"))]
    versions.append(await put(store, Write("a", "1")))
    await put(store, Write("a", None))
    versions.append(await put(store, Write("a", "1")))
    await put(store, Write("b", "1"))
    assert len({*versions}) == 3
    assert not (await store.commit({"a": versions[0]}, [Write("a", "2")])).version


async def test_scan_is_in_order_within_exact_bounds(store: Store) -> None:
    scores = {"a": NOW, "b": NOW + 0.5, "c": nextafter(NOW + 1, inf), "d": NOW + 1, "e": -1.0}
    await put(store, *(Write(key, key, {"one": score}) for key, score in scores.items()), Write("f", "f", {"two": NOW}))
    assert await keys(store, "one") == ["e", "a", "b", "d", "c"]
    assert await keys(store, "one", newest=True) == ["c", "d", "b", "a", "e"]
    assert await keys(store, "one", low=NOW, high=NOW + 1) == ["b", "d"]
    assert await keys(store, "one", low=NOW, high=NOW + 1, newest=True, limit=1) == ["d"]
    assert await keys(store, "one", limit=2) == ["e", "a"]
    assert sorted(await keys(store, "one", "two", "none", limit=1)) == ["e", "f"]
    assert await keys(store, "none") == []


async def test_write_replaces_the_indexes_of_a_document(store: Store, second: Store) -> None:
    await put(store, Write("a", "1", {"open": 1.0, "all": 1.0}), Write("b", "1", {"open": 2.0, "all": 2.0}))
    await put(second, Write("a", "2", {"over": 3.0, "all": 4.0}))
    assert await keys(store, "open") == ["b"]
    assert await keys(store, "over") == ["a"]
    assert await keys(store, "all") == ["b", "a"]
    await put(store, Write("b", None))
    assert await keys(store, "open", "all", "over") == ["a", "a"]
    assert await store.read(["b"]) == {}


async def test_long_index_is_read_in_pages(store: Store) -> None:
    await put(store, *(Write(f"k{number:03}", "v", {"i": float(number)}) for number in range(250)))
    expected = [f"k{number:03}" for number in range(250)]
    assert await keys(store, "i") == expected
    assert await keys(store, "i", newest=True, limit=230) == expected[:-231:-1]


@pytest.mark.parametrize(
    "hostile", ["'; DROP TABLE documents; --", "}:x\r\n*1\r\n", "a\x00b\u202e", '"\\{}[]', "é\U0001f4a5"]
)
async def test_text_stays_text(store: Store, hostile: str) -> None:
    await put(store, Write(hostile, hostile, {hostile: 1.0}))
    (found,) = await store.scan([hostile], 0, 2)
    assert (found.key, found.value) == (hostile, hostile)
    assert (await store.read([hostile]))[hostile].value == hostile
    assert await keys(store, "'") == []


async def test_revision_changes_with_each_commit(store: Store, second: Store) -> None:
    seen = [await store.revision()]
    for each in (store, second):
        await put(each, Write("a", "1"))
        seen += [await store.revision()]
        assert await second.revision() == seen[-1]
    assert not (await store.commit({"a": 0}, [Write("a", "2")])).version
    assert await store.revision() == seen[-1]
    assert len({*seen}) == 3


async def test_news_of_another_process_ends_a_wait(store: Store, second: Store) -> None:
    with anyio.fail_after(30):
        seen = await store.wait("", 5, anyio.sleep)
        assert await store.wait(seen, 0.01, anyio.sleep) == seen
        await second.commit({"a": 0}, [Write("a", "1")], is_news=True)
        newer = await store.wait(seen, 20, anyio.sleep)
        assert newer != seen
        assert await second.wait(newer, 0.01, anyio.sleep) == newer


@pytest.mark.parametrize("where", ["sqlite", "memory"], indirect=True)
async def test_store_without_a_clock_forgets_by_that_of_its_caller(store: Store, second: Store) -> None:
    await put(store, Write("a", "1", {"i": 1.0}, until=NOW), Write("b", "1", {"i": 2.0}))
    await second.forget(NOW - 1)
    assert await keys(store, "i") == ["a", "b"]
    await second.forget(NOW)
    assert await keys(store, "i") == ["b"]
    assert await store.read(["a"]) == {}


@pytest.mark.parametrize("where", ["valkey"], indirect=True)
async def test_server_forgets_by_its_own_clock(store: Store, where: str, valkey: ValkeyServer) -> None:
    """Indexes do not grow: with each document that joins, two that were forgotten leave, the lowest scores first."""
    await put(store, *(Write(f"a{n}", "1", {"i": float(n)}, lifetime=0.2) for n in range(3)))
    await put(store, Write("b", "1", {"i": 9.0}, lifetime=60))
    assert await keys(store, "i", limit=3) == ["a0", "a1", "a2"]
    await anyio.sleep(0.3)
    assert await keys(store, "i", limit=3) == ["b"]
    assert sorted(await store.read(["a0", "b"])) == ["b"]
    index = f"{{{parse(where).name}}}:index:i"
    assert valkey.ask("ZCARD", index) == ":4\r\n"
    await put(store, Write("c", "1", {"i": 10.0}, lifetime=60))
    assert valkey.ask("ZRANGE", index, "0", "-1").split()[2::2] == ["a2", "b", "c"]
