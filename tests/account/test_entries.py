"""Tests of the resources of an account: read once within bounds, and their names."""

from typing import Any

import pytest
from support.clock import Clock
from support.many_names import large, listing
from support.row_source import RowSource
from support.world import World

from fastn_mcp.account.answer_reads import AnswerReads, SharedReads
from fastn_mcp.account.entries import (
    LISTS,
    MAX_NAMED,
    MAX_PAGES,
    entry,
    read_contents,
    read_labels,
    read_many_labels,
)
from fastn_mcp.account.snapshot import AccountSnapshot
from fastn_mcp.client.reads import MAX_LOOKUPS
from fastn_mcp.errors import Forbidden
from fastn_mcp.procedures.reads import AccountReads
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.customers import ListCustomers


class Answers:
    """The answers about an account whose lists come from a sender."""

    def __init__(self, world: World, sender: Any) -> None:
        self.clock, self.sender = world.clock, sender
        self.snapshot = AccountSnapshot(Clock.system(self.clock), 90)
        self._shared = SharedReads(world.client, self.snapshot, world.system, 1000)

    def look(self) -> AnswerReads:
        return AnswerReads(self._shared, self.sender, lambda _: None)


def customers(number: int) -> list[dict[str, Any]]:
    return [{"id": f"c{n}", "name": f"Customer {n}"} for n in range(number)]


async def test_kind_is_read_completely_once_in_a_while(world: World) -> None:
    answers = Answers(world, listing(large()))
    contents = await read_contents("customer", answers.look())
    assert (len(contents.entries), contents.complete, len(answers.sender.calls)) == (2_000, True, 20)
    world.clock.pass_(89)
    assert await read_contents("customer", answers.look()) is contents
    world.clock.pass_(1)
    await read_contents("customer", answers.look())
    assert len(answers.sender.calls) == 40


@pytest.mark.parametrize("number", [3_000, 3_001])
async def test_kind_beyond_the_bound_is_incomplete(world: World, number: int) -> None:
    answers = Answers(world, listing(large(connections=number)))
    contents = await read_contents("connection", answers.look())
    assert (len(contents.entries), len(answers.sender.calls)) == (100 * MAX_PAGES, MAX_PAGES)
    assert contents.complete == (number == 3_000)


async def test_failure_is_not_kept(world: World) -> None:
    answers = Answers(world, listing(large(), {"user": Forbidden("no")}))
    with pytest.raises(Forbidden):
        await read_contents("user", answers.look())
    answers.sender.failing.clear()
    assert (await read_contents("user", answers.look())).complete


async def test_kind_of_which_rows_went_while_it_was_read_is_incomplete(world: World) -> None:
    """Of 250 customers one is deleted after the first page: that at place 100 is on no page."""
    source = RowSource({ListCustomers: customers(250)})

    def remove() -> None:
        if len(source.calls) == 2:
            source.rows[ListCustomers] = customers(250)[1:]

    source.meanwhile = remove
    answers = Answers(world, source)
    assert not (await read_contents("customer", answers.look())).complete
    reads = AccountReads(answers.look())
    answers.snapshot.forget("customers")
    source.calls.clear()
    source.rows[ListCustomers] = customers(250)
    await reads.read({"customers": ListCustomers(limit=100)}, pages=9)
    (gap,) = reads.all_gaps()
    assert gap.why == "rows were removed while the pages were read, so others may be missing"


async def test_names_are_those_of_the_list_that_was_read(world: World) -> None:
    answers = Answers(world, listing(large()))
    known = (await read_contents("customer", answers.look())).entries[:50]
    answers.sender.calls.clear()
    names = await read_labels("customer", [found.id for found in known], answers.look())
    assert names == {found.id: found.name for found in known}
    assert answers.sender.calls == []


async def test_few_missing_names_are_looked_up_and_kept(world: World) -> None:
    source = RowSource({})
    answers = Answers(world, source)
    assert await read_labels("customer", ["a", "b", "a"], answers.look()) == {"a": "A", "b": "B"}
    await read_labels("customer", ["a"], answers.look())
    assert source.counts() == {"get_customer": 2}
    many = [f"id{number}" for number in range(20)]
    assert len(await read_labels("customer", ["a", *many], answers.look())) == MAX_LOOKUPS


async def test_kind_without_a_get_has_only_listed_names(world: World) -> None:
    """Nothing is read or raised, also for ids that are invalid in a path."""
    answers = Answers(world, RowSource({}))
    assert await read_labels("user", ["x"], answers.look()) == {}
    assert await read_labels("customer", ["", "a\x00b"], answers.look()) == {}
    assert answers.sender.calls == []


@pytest.mark.parametrize(("number", "pages"), [(80, 1), (250, 3), (900, 1)])
async def test_customers_are_listed_for_their_names_if_that_takes_no_more_requests(
    world: World, number: int, pages: int
) -> None:
    source = RowSource({ListCustomers: customers(number)})
    ids = [f"c{n}" for n in range(70, number, number // 12)]
    await read_many_labels("customer", ids, Answers(world, source).look())
    assert source.counts().get("list_customers") == pages
    assert source.counts().get("get_customer", 0) <= MAX_NAMED


def test_entry_tolerates_missing_fields() -> None:
    found = entry("customer", {"id": 7, "name": {"en": "x"}, "slug": "s", "status": True})
    assert (found.id, found.name, found.also) == ("7", "s", ("s",))
    found = entry("connection", {"connector": {"slug": "hubspot"}, "customerId": "c", "id": "u"})
    assert (found.name, found.customer) == ("u", "c")
    assert entry("role", {}).name == ""
    assert entry("user", {"userEmail": "a@b.c"}).emails == ["a@b.c"]
    assert entry("api_key", {"id": 8, "last4": "9f3a"}).also == ("key 8", "apikey 8", "9f3a")
    assert "code" not in entry("workflow", {"id": "w", "code": "x"}).row
    assert LISTS["connection"] is ListConnections
