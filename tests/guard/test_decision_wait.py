"""Calls that wait while people decide, and then go on by themselves."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support.decisions import moved
from support.world import World
from typing_extensions import override

from fastn_mcp.errors import Declined, TargetChanged
from fastn_mcp.guard.approval.wait import DecisionWait
from fastn_mcp.guard.approval_form import Decline, NoAnswer, PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.guard.stops import Stops
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.policy import Policy
from fastn_mcp.runtime import System
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.customers import UpdateCustomer


def waits(folder: Path, seconds: float = 45, **more: Any) -> World:
    return World(folder, Policy(approval_wait=seconds), **more)


async def decide(world: World, state: RequestState, **more: Any) -> None:
    """Decide about the one request that waits, as another process does."""
    request = await world.open_request()
    await moved(world.ledger, request.id, [RequestState.OPEN], state, world.timestamp, by="local_page", **more)


def meanwhile(world: World, polls: int, act: Callable[[], Awaitable[None]]) -> None:
    """Act once the waiting call has looked for changes this many times."""
    looks, sleep = iter(range(polls)), world.clock.sleep

    async def sleeping(seconds: float) -> None:
        await sleep(seconds)
        if next(looks, None) == polls - 1:
            await act()
        await anyio.lowlevel.checkpoint()

    object.__setattr__(world.system, "sleep", sleeping)


async def test_approved_call_continues(tmp_path: Path) -> None:
    world = waits(tmp_path)
    call = world.deletion()
    began, reported = world.timestamp, list[str]()

    async def report(message: str, done: float, total: float | None) -> None:
        reported.append(message)
        assert (done, total) == (0, None)

    meanwhile(world, 40, lambda: decide(world, RequestState.APPROVED))
    done = await world.dispatch(call, Caller(Asker(), None), report)
    assert isinstance(done, Done)
    assert [heard.method for heard in world.changes] == ["DELETE"]
    assert world.timestamp == began + 10
    assert [each.partition(". ")[0] for each in reported] == ["Waiting for a person to decide"]
    assert reported[0].endswith("A person has to approve on the desk.")
    assert done.change is not None
    assert done.change.approved_by == "local_page"
    assert await world.burnt() == 1


@pytest.mark.parametrize(("in_view", "form_was_left", "leads"), [
    (False, False, True), (True, False, False), (False, True, False),
])  # fmt: skip
async def test_client_opens_the_page_unless_a_browser_shows_it_or_a_form_was_left(
    tmp_path: Path, in_view: bool, form_was_left: bool, leads: bool
) -> None:
    world, led = waits(tmp_path), list[PendingApproval]()
    world.desk.url = "https://page.example/"
    world.desk.is_in_view = in_view
    form = world.form(NoAnswer("closed")) if form_was_left else None

    async def link(waiting: PendingApproval, wait: Callable[[], Awaitable[bool]]) -> bool:
        led.append(waiting)
        return await wait()

    meanwhile(world, 4, lambda: decide(world, RequestState.APPROVED))
    assert isinstance(await world.dispatch(world.deletion(), Caller(Asker(), form, link=link)), Done)
    assert [waiting.page for waiting in led] == ["https://page.example/"] * leads


async def test_declined_call_ends_at_once_with_the_note(tmp_path: Path) -> None:
    world = waits(tmp_path)
    meanwhile(world, 4, lambda: decide(world, RequestState.DECLINED, note="not now"))
    began = world.timestamp
    declined = await world.expect(Declined, world.deletion())
    assert declined.facts["note"] == "not now"
    assert world.timestamp == began + 1
    assert world.changes == []


@pytest.mark.parametrize(("seconds", "waited"), [(45, 45), (3, 3), (0, 0)])
async def test_undecided_call_ends_in_time_and_can_be_repeated(tmp_path: Path, seconds: float, waited: float) -> None:
    world = waits(tmp_path, seconds)
    began = world.timestamp
    call = world.deletion()
    waiting = await world.expect(PendingApproval, call)
    assert waiting.where == "This client cannot show an approval form. A person has to approve on the desk."
    assert waiting.request.expires == began + 600
    assert world.timestamp == began + waited
    await decide(world, RequestState.APPROVED)
    await world.expect(Done, call)


async def test_wait_ends_with_its_request(tmp_path: Path) -> None:
    world = waits(tmp_path)
    call = world.deletion()
    await world.expect(PendingApproval, call)
    world.clock.pass_(600 - 45 - 5)
    began = world.timestamp
    waiting = await world.expect(PendingApproval, call)
    assert world.timestamp == began + 5 == waiting.request.expires
    assert world.changes == []


async def test_time_at_the_form_counts_as_waiting(tmp_path: Path) -> None:
    world = waits(tmp_path)
    began = world.timestamp
    await world.expect(PendingApproval, world.deletion(), world.form(NoAnswer("closed"), 30))
    assert world.timestamp == began + 45
    await world.expect(Declined, world.deletion("Katana"), world.form(Decline(), 50))
    assert world.timestamp == began + 95


async def test_form_is_not_asked_again_after_another_channel_decided(tmp_path: Path) -> None:
    world = waits(tmp_path)
    form = world.form(NoAnswer("closed"), 30)
    meanwhile(world, 4, lambda: decide(world, RequestState.APPROVED))
    await world.expect(Done, world.deletion(), form)
    assert len(form.asked) == 1


async def test_target_that_changed_while_the_call_waited_is_not_touched(tmp_path: Path) -> None:
    world = waits(tmp_path)
    call = world.deletion()

    async def rename_and_approve() -> None:
        await world.client.send(UpdateCustomer(customer_id=call.customer_id, name="Globex Imports"))
        await decide(world, RequestState.APPROVED)

    meanwhile(world, 4, rename_and_approve)
    await world.expect(TargetChanged, call)
    assert [heard.method for heard in world.changes] == ["PUT"]


async def test_waiting_call_holds_no_slot(tmp_path: Path) -> None:
    world = waits(tmp_path)
    held = [True]

    @asynccontextmanager
    async def released() -> AsyncGenerator[None]:
        held.append(False)
        yield
        held.append(True)

    async def approve() -> None:
        assert held == [True, False]
        await decide(world, RequestState.APPROVED)

    meanwhile(world, 4, approve)
    assert isinstance(await world.dispatch(world.deletion(), Caller(Asker(), None, waiting=released)), Done)
    assert held == [True, False, True]


async def test_cancelled_call_stops_waiting_and_leaves_its_request_open(tmp_path: Path) -> None:
    world = waits(tmp_path)
    answers: list[object] = []

    async def call() -> None:
        answers.append(await world.call(world.deletion()))

    async with anyio.create_task_group() as tasks:

        async def cancel() -> None:
            tasks.cancel_scope.cancel()

        meanwhile(world, 4, cancel)
        tasks.start_soon(call)
    assert answers == []
    assert len(await world.ledger.waiting(world.timestamp)) == 1
    assert world.changes == []


async def test_shutdown_ends_the_wait(tmp_path: Path) -> None:
    world = waits(tmp_path)
    began = world.timestamp

    async def leave() -> None:
        world.guard.decisions.is_leaving = lambda: True

    meanwhile(world, 4, leave)
    await world.expect(PendingApproval, world.deletion())
    assert world.timestamp <= began + 1.25


async def test_lost_ledger_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = waits(tmp_path)
    still_open, failures = world.ledger.still_open, iter(range(3))

    async def lost(requests: Collection[str]) -> set[str]:
        if next(failures, None) is not None:
            raise LedgerLost("it was restarted")
        return await still_open(requests)

    monkeypatch.setattr(world.ledger, "still_open", lost)
    meanwhile(world, 8, lambda: decide(world, RequestState.APPROVED))
    await world.expect(Done, world.deletion())


async def test_overview_lists_pending_requests_of_its_caller(tmp_path: Path) -> None:
    world = waits(tmp_path, 0)
    world.desk.url = "http://127.0.0.1:1/"
    assert await world.guard.allowance(Asker()) == {"mode": "guarded"}
    for name in ("Globex Exports", "Katana"):
        await world.expect(PendingApproval, world.deletion(name))
        world.clock.pass_(60)
    waiting = [
        {"tool": "delete_customer", "what": f'Delete customer "{name}".', "until": until}
        for name, until in (("Globex Exports", "2026-11-25T09:10:00Z"), ("Katana", "2026-11-25T09:11:00Z"))
    ]
    page = {"page": "http://127.0.0.1:1/"}
    assert await world.guard.allowance(Asker()) == {"mode": "guarded", "waiting": waiting} | page
    assert await world.guard.allowance(Asker("other")) == {"mode": "guarded"}
    for request in await world.ledger.waiting(world.timestamp):
        await world.ledger.void(request.id, RequestState.DECLINED, world.timestamp)
    answer: Any = await world.guard.allowance(Asker())
    assert answer.keys() == {"mode", "decided"}
    assert sorted(answer["decided"], key=lambda row: row["until"]) == [row | {"state": "declined"} for row in waiting]
    assert await world.guard.allowance(Asker("other")) == {"mode": "guarded"}
    for seconds, left in ((480, waiting[1:]), (60, [])):  # to the end of each
        world.clock.pass_(seconds)
        answer = await world.guard.allowance(Asker())
        assert answer.get("decided", []) == [row | {"state": "declined"} for row in left]


async def test_many_waiting_calls_share_one_read(tmp_path: Path) -> None:
    world = waits(tmp_path, 0)
    wait, looks = DecisionWait(world.ledger, world.stops, world.system), [0]
    inner, began = world.ledger.wait_for_change, world.timestamp

    async def counted(seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        looks[0] += 1
        await anyio.lowlevel.checkpoint()
        return await inner(seen, seconds, sleep)

    world.ledger.wait_for_change = counted
    for name in ("Globex Exports", "Katana"):
        await world.expect(PendingApproval, world.deletion(name))
    first, second = [request.id for request in await world.ledger.waiting(began)]
    ended: list[tuple[str, bool]] = []

    async def waiting(request: str) -> None:
        ended.append((request, await wait.decided(request, Asker(), began + 30)))

    async def approve() -> None:
        await moved(world.ledger, second, [RequestState.OPEN], RequestState.APPROVED, began, by="local_page")

    meanwhile(world, 10, approve)
    async with anyio.create_task_group() as tasks:
        for request in [first] * 50 + [second]:
            tasks.start_soon(waiting, request)
    assert ended[0] == (second, True)
    assert ended[1:] == [(first, False)] * 50
    assert looks[0] < 40


class ByHand(Ledger):
    """A ledger whose answers the test gives: to a look at its requests, and to who listens for changes."""

    def __init__(self) -> None:
        super().__init__(SqliteStore(":memory:"))
        self.looks: list[anyio.Event] = []
        """Looks that are held back, the first one first."""
        self.over = set[str]()
        self.listening: list[anyio.Event] = []
        self.answers: dict[str, bool] = {}
        """Whether each request was decided while a call waited for it."""
        self._wait = DecisionWait(self, Stops(self, System()), System())

    @override
    async def still_open(self, approval_ids: Collection[str]) -> set[str]:
        still_open = {*approval_ids} - self.over
        if self.looks:
            await self.looks.pop(0).wait()
        return still_open

    @override
    async def wait_for_change(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        self.listening.append(changed := anyio.Event())
        await changed.wait()
        return f"{seen}."

    async def call(self, request: str, seconds: float = 600) -> None:
        """Wait as a call does."""
        self.answers[request] = await self._wait.decided(request, Asker(), System().timestamp() + seconds)


async def settled() -> None:
    await anyio.wait_all_tasks_blocked()


async def test_change_wakes_calls_that_looked_before_and_after_the_last_one() -> None:
    ledger = ByHand()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for request in ("first", "second"):
                tasks.start_soon(ledger.call, request)
                await settled()
            slow = anyio.Event()
            ledger.looks = [anyio.Event(), slow]
            ledger.looks[0].set()
            ledger.over.add("first")
            ledger.listening[0].set()
            tasks.start_soon(ledger.call, "third")
            await settled()
            ledger.over |= {"second", "third"}
            slow.set()
            await settled()
            ledger.listening[1].set()
    assert ledger.answers == dict.fromkeys(["first", "second", "third"], True)


async def test_another_call_listens_once_the_one_that_did_is_cancelled() -> None:
    ledger, listener = ByHand(), anyio.CancelScope()

    async def listens() -> None:
        with listener:
            await ledger.call("first")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listens)
            await settled()
            tasks.start_soon(ledger.call, "second")
            await settled()
            listener.cancel()
            await settled()
            ledger.over.add("second")
            ledger.listening[1].set()
    assert ledger.answers == {"second": True}


@pytest.mark.parametrize("hangs", ["look", "listening"])
async def test_call_ends_in_time_while_the_ledger_does_not_answer(hangs: str) -> None:
    ledger = ByHand()
    ledger.looks = [anyio.Event()] if hangs == "look" else []
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for request in ("first", "second"):
                tasks.start_soon(ledger.call, request, 0.2)
    assert ledger.answers == {"first": False, "second": False}


async def test_secret_to_be_typed_is_told_before_the_call_waits(tmp_path: Path) -> None:
    """The first answer says who types it and where; the repeated call waits for them and goes on."""
    world = waits(tmp_path)
    call, began, reported = CreateSecret(name="STRIPE_KEY"), world.timestamp, list[str]()

    async def report(message: str, *_: float | None) -> None:
        reported.append(message)

    pending = await world.dispatch(call, Caller(Asker(), None), report)
    assert isinstance(pending, PendingApproval)
    assert (world.timestamp, reported) == (began, [])
    assert "A person types the value outside the client." in pending.where
    assert "rotate it" in pending.where
    meanwhile(world, 40, lambda: decide(world, RequestState.DECLINED))
    with pytest.raises(Declined):
        await world.dispatch(call, Caller(Asker(), None), report)
    assert world.timestamp == began + 10
    waiting = "Waiting for a person to decide. The call is still waiting for a person's decision."
    assert reported == [f"{waiting} A person has to approve on the desk."]


async def test_process_knows_whether_a_call_waits(tmp_path: Path) -> None:
    world = waits(tmp_path)
    presence = world.guard.decisions.presence
    seen: list[tuple[str, float]] = []
    began = world.timestamp

    async def look() -> None:
        seen.append(presence((await world.open_request()).id))

    meanwhile(world, 3, look)
    await world.expect(PendingApproval, world.deletion())
    assert seen == [("The agent is waiting for your decision.", began + 45)]
    request = (await world.open_request()).id
    again = " If you approve, the call runs when the agent makes it again."
    assert presence(request) == (f"The agent is no longer waiting.{again}", float("inf"))
    assert presence("another") == ("", 0.0)

    async def leave() -> None:
        scope.cancel()

    meanwhile(world, 3, leave)
    with anyio.CancelScope() as scope:
        await world.call(world.deletion())
    assert presence(request) == (f"The client has disconnected.{again}", float("inf"))
