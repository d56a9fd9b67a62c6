"""Two clients of one shared ledger at once, in any order: no promise breaks."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.begun import claimed, counted, used
from support.decisions import moved
from support.stores import NOW, add_temporary, change, grant, opened, temporary_approval
from support.valkey_server import ValkeyServer, wait_longer

from fastn_mcp.ledger.approval_request import RequestState, ShownCall, Vote
from fastn_mcp.ledger.change import FINAL_OUTCOMES, Change
from fastn_mcp.ledger.change_start import BudgetLimit
from fastn_mcp.ledger.ledger import MAX_WAITING, Ledger, TooManyWaiting
from fastn_mcp.ledger.sqlite_store import SqliteStore

IDS = st.sampled_from(["g1", "g2", "g3"])
STATES = st.sampled_from(list(RequestState))
WHO = st.sampled_from(["dana", "kim", "lee"])
TIMES = st.integers(0, 700).map(lambda seconds: NOW + seconds / 2)
Step = Callable[[Ledger], Awaitable[Any]]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred commands are sent at once."""
    wait_longer(monkeypatch)


FEW = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


async def _opened(ledger: Ledger, id_: str, *, out_of_band: bool, required: str = "typed") -> str:
    calls = {f"call {number}": ShownCall(f"binding of {id_}", {}) for number in (1, 2)}
    asked = replace(grant(id_), out_of_band=out_of_band, call="call", calls=calls, required=required)
    try:
        await ledger.open(asked)
    except TooManyWaiting:
        return "too many"
    except Exception:
        return "exists"
    return "opened"


async def _looked(ledger: Ledger, now: float) -> Any:
    # Those of one moment have no order among each other.
    waiting = {found.id for found in await ledger.waiting(now)}
    decided = {(found.id, found.state, found.by, found.note) for found in await ledger.decided(100)}
    latest = await ledger.latest("call", now)
    return waiting, decided, latest is None, [await ledger.find(id_) for id_ in ("g1", "g2", "g3")]


async def _voted(ledger: Ledger, id_: str, vote: Vote) -> RequestState | None:
    request = await ledger.find(id_)
    decided = None if request is None else await ledger.decide(request, vote, "verified", "no")
    return None if decided is None else decided.state


async def _begun(ledger: Ledger, begun: Change) -> object:
    try:
        return await ledger.begin(begun)
    except Exception:
        return "exists"


async def _expired(ledger: Ledger, now: float) -> set[str]:
    return {found.id for found in await ledger.expire("default at live.fastn.ai", now)}


def _step(kind: str, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Step:
    id_, now, who, yes = draw(IDS), draw(TIMES), draw(WHO), draw(st.booleans())
    before, after, limit = draw(st.lists(STATES, max_size=3)), draw(STATES), draw(st.integers(0, 3))
    outcome = draw(st.sampled_from([*FINAL_OUTCOMES, "conflict", "declined"]))
    steps: dict[str, Step] = {
        "open": lambda ledger: _opened(ledger, id_, out_of_band=yes),
        "four eyes": lambda ledger: _opened(ledger, id_, out_of_band=yes, required="four_eyes"),
        "offer": lambda ledger: ledger.offer(id_, now + 600),
        "use": lambda ledger: used(ledger, id_, f"call {limit}", now),
        "expire": lambda ledger: _expired(ledger, now),
        "move": lambda ledger: moved(ledger, id_, before, after, now, by=who, note="no" if yes else None),
        "vote": lambda ledger: _voted(ledger, id_, Vote(who, yes, now)),
        "find": lambda ledger: ledger.find(id_),
        "spend": lambda ledger: counted(ledger, BudgetLimit("destroy", "monday", limit)),
        "spent": lambda ledger: ledger.spent("destroy", "monday"),
        "nonce": lambda ledger: ledger.use_nonce(who, now + 10, now),
        "declines": lambda ledger: ledger.declines("local"),
        "revoke": lambda ledger: ledger.revoke_temporary("s1"),
        "scopes": lambda ledger: ledger.temporary_approvals(now),
        "claim": lambda ledger: claimed(ledger, "c1"),
        "release": lambda ledger: ledger.release("c1"),
        "mark": lambda ledger: ledger.mark(who, now + 10, now),
        "marked": lambda ledger: ledger.marked(who),
        "begin": lambda ledger: _begun(
            ledger, replace(change(f"{who}{limit}", at=now), batch="b1", call_id=f"call {limit + 1}", number=limit + 1)
        ),
        "end": lambda ledger: ledger.settle(replace(change(f"{who}{limit}"), outcome=outcome)),
        "batch": lambda ledger: ledger.changes_of("b1"),
        "look": lambda ledger: _looked(ledger, now),
    }
    return steps[kind]


KINDS = (
    *("open", "move", "vote", "find", "spend", "spent", "nonce", "use", "declines", "revoke", "scopes", "claim"),
    *("release", "mark", "marked", "look", "four eyes", "offer", "expire", "begin", "end", "batch"),
)


@FEW
@given(data=st.data())
def test_server_ledger_behaves_like_the_file_for_two_clients(valkey: ValkeyServer, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), max_size=25))
    # A mark that is over may be gone already, by the clock of the server: times only go on.
    steps = [(_step(kind, data.draw), second) for kind, second in kinds]
    url = valkey.url()

    async def compare() -> None:
        model, one, two = Ledger(SqliteStore(":memory:")), opened(url), opened(url)
        try:
            for ledger in (model, one):
                await add_temporary(ledger, temporary_approval())
                await ledger.begin(change())
            for step, second in steps:
                assert await step(two if second else one) == await step(model)
        finally:
            for ledger in (model, one, two):
                await ledger.aclose()

    anyio.run(compare)


async def _attempt(ledger: Ledger, kind: str, id_: str, who: str) -> tuple[str, str] | None:
    match kind:
        case "burn":
            done = await moved(ledger, id_, [RequestState.OPEN, RequestState.APPROVED], RequestState.USED, NOW)
        case "decline":
            done = await moved(ledger, id_, [RequestState.OPEN], RequestState.DECLINED, NOW)
        case "vote":
            done = await _voted(ledger, id_, Vote(who, True, NOW)) is RequestState.APPROVED
        case "spend":
            done = await counted(ledger, BudgetLimit("destroy", "monday", 2))
        case "claim":
            done = await claimed(ledger, "c1")
        case _:
            done = await ledger.use_nonce("n1", NOW + 60, NOW)
    return (kind, id_) if done else None


@FEW
@given(
    attempts=st.lists(st.tuples(st.sampled_from(["burn", "decline", "vote", "spend", "claim", "nonce"]), IDS, WHO)),
    questions=st.integers(0, 20),
)
def test_concurrent_steps_happen_once(
    valkey: ValkeyServer, attempts: list[tuple[str, str, str]], questions: int
) -> None:
    url = valkey.url()

    async def race() -> None:
        one, two = opened(url), opened(url)
        try:
            for id_ in ("g1", "g2", "g3"):
                await one.open(grant(id_))
            await one.begin(change())
            done = Counter(
                won
                for won in await asyncio.gather(
                    *(_attempt(ledger, *tried) for tried in attempts for ledger in (one, two)),
                )
                if won is not None
            )
            for id_ in ("g1", "g2", "g3"):
                assert done["burn", id_] + done["decline", id_] <= 1
                assert done["vote", id_] <= 1
                assert not (done["vote", id_] and done["decline", id_])
            for kind, most in (("spend", 2), ("claim", 1), ("nonce", 1)):
                assert sum(count for (what, _), count in done.items() if what == kind) <= most
            asked = [_opened(ledger, f"q{n}", out_of_band=True) for n in range(questions) for ledger in (one, two)]
            assert Counter(await asyncio.gather(*asked))["opened"] <= MAX_WAITING
            assert len(await two.waiting(NOW)) <= MAX_WAITING
        finally:
            await one.aclose()
            await two.aclose()

    anyio.run(race)
