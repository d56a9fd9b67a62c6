"""Stops in both stores, and whom they cover."""

from dataclasses import replace

import pytest
from support.stores import NOW, change

from fastn_mcp.ledger.change import KEPT_DAYS
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.policy.asker import Asker

STOP = Stop("s1", NOW, "Dana (login.example.com|dana)", "agent went wrong")
DAY = 86_400.0


async def test_stop_is_read_by_every_process_until_it_is_lifted_once(ledger: Ledger, other: Ledger) -> None:
    assert await other.stops() == []
    before, seen = await other.revision(), await other.wait_for_change("", 0.0, not_called)
    assert await ledger.add_stop(STOP) == replace(STOP, epoch=1)
    assert await other.stops() == [replace(STOP, epoch=1)]
    assert await other.revision() != before
    assert await other.wait_for_change(seen, 5.0, not_called) != seen
    lifted = STOP.lift("Ana", NOW + 60)
    assert await other.lift_stop(lifted)
    assert not await ledger.lift_stop(STOP.lift("Ben", NOW + 61))
    assert await ledger.stops() == [replace(lifted, epoch=1)]


async def test_stop_that_is_not_there_cannot_be_lifted(ledger: Ledger) -> None:
    assert not await ledger.lift_stop(STOP.lift("Ana", NOW))
    assert await ledger.stops() == []


async def test_lifted_stops_are_forgotten_and_holding_ones_never(ledger: Ledger) -> None:
    holding, old, recent = STOP, replace(STOP, id="s2"), replace(STOP, id="s3", person="ana")
    for stop in (holding, old, recent):
        await ledger.add_stop(stop)
    await ledger.lift_stop(old.lift("Ana", NOW + 1))
    await ledger.lift_stop(recent.lift("Ana", NOW + 3 * DAY))
    new = replace(STOP, id="s4", at=NOW + KEPT_DAYS * DAY + 2 * DAY)
    await ledger.add_stop(new)
    assert [(stop.id, stop.epoch) for stop in await ledger.stops()] == [("s1", 1), ("s3", 3), ("s4", 4)]
    assert [stop.id for stop in await ledger.holding()] == ["s1", "s4"]


async def test_epoch_of_a_stop_is_never_used_again(ledger: Ledger, other: Ledger) -> None:
    """It counts the stops that there ever were: also those that were forgotten, and those of another process."""
    for number, each in enumerate((ledger, other, ledger), start=1):
        stop = replace(STOP, id=f"s{number}", at=NOW + number * (KEPT_DAYS + 2) * DAY)
        assert (await each.add_stop(stop)).epoch == number
        assert await each.lift_stop(stop.lift("Ana", stop.at + 1))
    assert [stop.id for stop in await other.stops()] == ["s3"]


async def test_changes_under_way_are_those_without_an_outcome(ledger: Ledger, other: Ledger) -> None:
    for number in (1, 2, 3):
        await ledger.begin(replace(change(), id=f"chg_{number}", at=NOW + number, account=f"account {number}"))
    await ledger.settle(replace(change(), id="chg_2", at=NOW + 2, account="account 2", outcome="done"))
    assert [each.id for each in await other.under_way(NOW)] == ["chg_1", "chg_3"]
    assert [each.id for each in await other.under_way(NOW + 1)] == ["chg_3"]


ANA = Asker(
    "https://login.example.com|0001",
    "Ana Example <ana@example.com>",
    ("ana", "ana@example.com"),
    ("ops",),
    "acme",
    "client-7",
    "Claude Code",
)


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"tenant": "acme"},
        {"person": "https://login.example.com|0001"},
        {"person": "0001"},
        {"person": "ANA@example.com"},
        {"person": "Ana Example"},
        {"person": "ana"},
        {"person": "An\u200ba Example"},
        {"tenant": "ACME", "person": "ana"},
    ],
)
def test_stop_covers_who_is_named_and_nobody_else(named: dict[str, str]) -> None:
    assert replace(STOP, **named).covers(ANA)
    for another in ({"tenant": "globex"}, {"person": "An"}, {"person": "client-7"}, {"person": "acme"}):
        assert not replace(STOP, **named | another).covers(ANA)
    assert replace(STOP, **named).covers(Asker(is_by_hand=True)) is (not named)
    assert replace(STOP, **named).covers(Asker(client_name="Cursor")) is (not named)


def test_stop_covers_who_signed_in_without_saying_enough() -> None:
    """They may be the person who is named; a caller without a sign-in is nobody else."""
    half = replace(ANA, login_names=("ana",))
    assert replace(STOP, person="somebody@example.com").covers(half)
    assert not replace(STOP, person="somebody@example.com").names(half)
    assert not replace(STOP, person="somebody@example.com").covers(Asker(client_name="Claude Code"))
    assert not replace(STOP, person="ana").covers(Asker())


async def not_called(seconds: float) -> None:
    raise AssertionError(seconds)
