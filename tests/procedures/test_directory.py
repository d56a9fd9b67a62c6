"""Tests of the directory of names: read once within bounds, and invalidated by changes."""

from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from support.many_names import Listing, large
from support.world import Clock

from fastn_mcp.account.directory import LISTS, MAX_PAGES, Directory, entry
from fastn_mcp.client.reads import MAX_LOOKUPS
from fastn_mcp.errors import Forbidden, NotFound
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.operation import Operation

pytestmark = pytest.mark.anyio


@dataclass
class Gets:
    """Sender that answers `get_customer` with a name made from the id; those in `gone` do not exist."""

    gone: set[str] = field(default_factory=set[str])
    calls: list[str] = field(default_factory=list[str])

    async def __call__(self, call: Operation[Any]) -> FastnObject:
        assert isinstance(call, GetCustomer)
        self.calls.append(call.customer_id)
        if call.customer_id in self.gone:
            raise NotFound("no")
        return FastnObject.model_validate({"id": call.customer_id, "name": call.customer_id.upper()})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(clock: Clock) -> Directory:
    return Directory(clock.system())


async def test_kind_is_read_completely_once_a_minute(clock: Clock, directory: Directory) -> None:
    listing = Listing(large())
    contents = await directory.contents("customer", listing)
    assert (len(contents.entries), contents.complete, len(listing.calls)) == (2_000, True, 20)
    clock.pass_(59)
    assert await directory.contents("customer", listing) is contents
    clock.pass_(2)
    await directory.contents("customer", listing)
    assert len(listing.calls) == 40


async def test_kind_beyond_the_bound_is_incomplete(directory: Directory) -> None:
    listing = Listing(large(customers=2_000, connections=3_001))
    contents = await directory.contents("connection", listing)
    assert (len(contents.entries), contents.complete, len(listing.calls)) == (100 * MAX_PAGES, False, MAX_PAGES)
    exactly = Listing(large(connections=3_000))
    directory.forget("connections")
    assert (await directory.contents("connection", exactly)).complete


async def test_concurrent_callers_share_one_read(directory: Directory) -> None:
    listing = Listing(large())
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(directory.contents, "customer", listing)
    assert len(listing.calls) == 20


async def test_failure_is_not_cached(directory: Directory) -> None:
    listing = Listing(large(), {"user": Forbidden("no")})
    with pytest.raises(Forbidden):
        await directory.contents("user", listing)
    listing.failing.clear()
    assert (await directory.contents("user", listing)).complete


@pytest.mark.parametrize(
    ("toolset", "kinds"),
    [
        ("customers", {"customer", "connection", "secret", "trigger"}),
        ("connectors", {"connector", "connection", "trigger"}),
        ("workflows", {"workflow", "trigger"}),
        ("api_keys", {"api_key"}),
        ("ai", set(LISTS)),
        ("billing", set[str]()),
    ],
)
async def test_change_invalidates_dependent_kinds(directory: Directory, toolset: str, kinds: set[str]) -> None:
    """Fastn's reference: deletions of customers and connectors cascade. The AI may change anything."""
    listing = Listing(large(10, 10, 10, 10))
    for kind in LISTS:
        await directory.contents(kind, listing)
    listing.calls.clear()
    directory.forget(toolset)
    for kind in LISTS:
        await directory.contents(kind, listing)
    assert set(listing.counts) == {LISTS[kind].tool_name() for kind in kinds}


async def test_read_during_a_change_is_not_cached(directory: Directory) -> None:
    listing = Listing(large(10, 10, 10, 10))

    async def changed_meanwhile(call: Operation[Any]) -> FastnObject:
        page = await listing(call)
        directory.forget("customers")
        return page

    await directory.contents("customer", changed_meanwhile)
    await directory.contents("customer", listing)
    assert len(listing.calls) == 2


async def test_names_are_taken_from_the_cache(directory: Directory) -> None:
    listing = Listing(large())
    known = (await directory.contents("customer", listing)).entries[:50]
    gets = Gets()
    names = await directory.names("customer", [found.id for found in known], gets)
    assert names == {found.id: found.name for found in known}
    assert gets.calls == []


async def test_few_missing_names_are_looked_up_and_cached(clock: Clock, directory: Directory) -> None:
    gets = Gets(gone={"b"})
    assert await directory.names("customer", ["a", "b", "a", "c"], gets) == {"a": "A", "c": "C"}
    assert sorted(gets.calls) == ["a", "b", "c"]
    assert await directory.names("customer", ["a"], gets) == {"a": "A"}
    assert len(gets.calls) == 3
    clock.pass_(61)
    await directory.names("customer", ["a"], gets)
    assert len(gets.calls) == 4
    directory.forget("customers")
    many = [f"id{number}" for number in range(20)]
    assert len(await directory.names("customer", many, gets)) == MAX_LOOKUPS


async def test_kind_without_a_get_has_only_listed_names(directory: Directory) -> None:
    """Nothing is read or raised, also for ids that are invalid in a path."""
    gets = Gets()
    assert await directory.names("user", ["x"], gets) == {}
    assert await directory.names("customer", [""], gets) == {}
    assert gets.calls == []


def test_entry_tolerates_missing_fields() -> None:
    found = entry("customer", {"id": 7, "name": {"en": "x"}, "slug": "s", "status": True})
    assert (found.id, found.name, found.also) == ("7", "s", ("s",))
    found = entry("connection", {"connector": {"slug": "hubspot"}, "customerId": "c", "id": "u"})
    assert (found.name, found.customer) == ("u", "c")
    assert entry("role", {}).name == ""
    assert entry("user", {"userEmail": "a@b.c"}).emails == ["a@b.c"]
    assert entry("api_key", {"id": 8, "last4": "9f3a"}).also == (
        "key 8",
        "apikey 8",
        "9f3a",
    )
    assert "code" not in entry("workflow", {"id": "w", "code": "x"}).row
