"""A crowd of clients for a fleet: each reads, changes and has calls approved, and records every response.

A call whose response a client did not receive is recorded as that. `crowd_audit.py` judges the records.
"""

import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
import httpx2

from fastn_mcp.audit.log import AuditFile
from fastn_mcp.build.stores import ledger_at
from fastn_mcp.guard.approval.votes import TerminalApprovals
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.runtime import System
from support.fleet import Fleet
from support.server_process import READING
from support.team_world import NO_FORMS, Caller, modern, reply_of, request

BROKEN = "broken"
"""The connection ended before the answer, or the balancer said that it did."""
LEDGER_LOST = "ledger lost"
"""Refused because the shared ledger could not be used. An approval that was just being used counts as used."""
NOTHING_SENT = frozenset({LEDGER_LOST, "not_sent", "refused", "approval_required", "declined", "target_changed"})
"""Outcomes that say that nothing was sent."""
ANSWERS = 3
"""Times that an approved call is repeated at once."""
APPROVALS = 8
"""Rounds in which a client has calls approved: what it repeats too often is asked anew and stays open, and 32 may."""

_IDS = itertools.count(1)
_GONE = {502, 504}


@dataclass
class Book:
    """Responses that the clients received, and approvals that were given."""

    outcomes: "defaultdict[tuple[str, str], list[str]]" = field(default_factory=lambda: defaultdict(list))
    """By tenant and by what names a change: what became of each call that could have made it."""
    approved: dict[str, str] = field(default_factory=dict[str, str])
    """The grants that a person approved, by what names the change."""
    formed: set[str] = field(default_factory=set[str])
    """Changes that were approved in a form."""
    wrong: list[str] = field(default_factory=list[str])
    """Answers that should not be."""
    calls: Counter[str] = field(default_factory=Counter[str])
    _waited_for: dict[str, anyio.Event] = field(default_factory=dict[str, anyio.Event])

    def approval(self, name: str) -> anyio.Event:
        """Wait until a person has approved a change."""
        return self._waited_for.setdefault(name, anyio.Event())


@dataclass
class Visitor:
    """One client of a tenant, with a principal of its own."""

    fleet: Fleet
    caller: Caller
    book: Book
    tenant: str
    number: int
    workflow: str
    going: Callable[[], bool]

    def __post_init__(self) -> None:
        self.token = self.fleet.token(self.tenant, str(self.number))
        self.names = (f"made-by-{self.tenant}-{self.number}-{n}" for n in itertools.count())

    async def visit(self) -> None:
        """Make the client's calls until the time is over, and finish those in progress."""
        # clients start at different points
        acts = [self.read, self.create, self.read, self.form, self.read, self.elsewhere]
        for turn in itertools.count(self.number):
            if not self.going():
                return
            await acts[turn % (6 if turn < self.number + 6 * APPROVALS else 3)]()

    async def read(self) -> None:
        """Search the customers of all clients, and find those of this tenant and no other."""
        result = await self._called("list_customers", {"search": "made-by-", "limit": 5})
        names = [row["name"] for row in result.get("data", ())]
        self.book.calls["rows"] += len(names)
        if not all(name.startswith(f"made-by-{self.tenant}-") for name in names):
            self.book.wrong.append(f"{self.tenant} read {names}")

    async def create(self) -> None:
        name = next(self.names)
        self._tell(name, await self._called("create_customer", {"name": name}))

    async def form(self) -> None:
        """Have a run approved in the form of one replica, answered at whichever replica gets the answer."""
        name = next(self.names)
        asked = await self._run(name)
        if "inputRequests" not in asked:
            self._tell(name, asked)
            return
        self.book.formed.add(name)
        await anyio.sleep(READING)
        more = {
            "inputResponses": {"approval": {"action": "accept", "content": {"decision": "approve"}}},
            "requestState": asked["requestState"],
        }
        await self._until_heard(name, lambda: self._run(name, **more))

    async def elsewhere(self) -> None:
        """Have a run approved at a terminal, then repeat the call several times concurrently."""
        name = next(self.names)
        asked = await self._until_heard(name, lambda: self._run(name, _meta=NO_FORMS))
        if asked.get("outcome") != "approval_required":
            return
        with anyio.fail_after(60):
            await self.book.approval(name).wait()

        async def again() -> None:
            await self._until_heard(name, lambda: self._run(name, _meta=NO_FORMS))

        async with anyio.create_task_group() as tasks:
            for _ in range(ANSWERS):
                tasks.start_soon(again)

    async def _until_heard(self, name: str, call: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Repeat a call that was cut off, was not sent or failed on the ledger, until it is answered otherwise."""
        result: dict[str, Any] = {}
        for _ in range(40):
            result = await call()
            self._tell(name, result)
            if _is_ledger_lost(result) or result.get("outcome") == "not_sent":
                await anyio.sleep(0.5)
            elif result.get("outcome") != BROKEN:
                return result
        return result

    def _tell(self, name: str, result: dict[str, Any]) -> None:
        outcome = "done" if "done" in result else "approval_required" if "inputRequests" in result else ""
        outcome = LEDGER_LOST if _is_ledger_lost(result) else outcome
        self.book.outcomes[self.tenant, name].append(outcome or str(result.get("outcome", result)))

    async def _run(self, name: str, **more: Any) -> dict[str, Any]:
        return await self._called("run_workflow", {"workflow_id": self.workflow, "input": {"of": name}}, **more)

    async def _called(self, tool: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Return the result or form of a call, or that it was cut off."""
        body = request(tool, arguments, **more) | {"id": next(_IDS)}
        try:
            answer = await self.caller.ask(self.token, body, **modern(tool))
            reply = {} if answer.status_code in _GONE else _reply(answer)
        except (httpx2.TransportError, IndexError):  # also a stream that ends before the response
            reply = {}
        if not reply:
            self.book.calls[BROKEN] += 1
            return {"outcome": BROKEN}
        if reply.get("id") != body["id"] or "result" not in reply:
            self.book.wrong.append(f"{tool}: {json.dumps(reply)[:300]}")
            return {"outcome": "wrong"}
        result: dict[str, Any] = reply["result"]
        content: dict[str, Any] = result if "inputRequests" in result else result["structuredContent"]
        profile = content.get("account", {}).get("profile", self.tenant)
        if profile != self.tenant:
            self.book.wrong.append(f"{self.tenant} was answered of {profile}")
        self.book.calls["error" if result.get("isError") else "answer"] += 1
        return content


def _is_ledger_lost(result: Mapping[str, Any]) -> bool:
    return result.get("outcome") == "refused" and "shared ledger" in result.get("message", "")


def _reply(answer: httpx2.Response) -> dict[str, Any]:
    try:
        return reply_of(answer)
    except json.JSONDecodeError:
        return {"status": answer.status_code, "text": answer.text}


async def visited(
    fleet: Fleet,
    desk: TerminalApprovals,
    book: Book,
    workflow: str,
    size: int,
    seconds: float,
    killing: Callable[[float], Coroutine[Any, Any, None]],
) -> None:
    """Let a crowd call for `seconds`, and until `killing` ends, while a person approves."""
    until, killed = time.monotonic() + seconds, anyio.Event()

    async def kill() -> None:
        await killing(until)
        killed.set()

    def going() -> bool:
        return time.monotonic() < until or not killed.is_set()

    async with fleet.caller(size) as caller, anyio.create_task_group() as others:
        others.start_soon(_deciding, desk, book)
        others.start_soon(kill)
        async with anyio.create_task_group() as clients:
            for visitor in _crowd(fleet, caller, book, workflow, size, going):
                clients.start_soon(visitor.visit)
        others.cancel_scope.cancel()
    for replica in fleet.replicas:
        await anyio.to_thread.run_sync(replica.wait)


async def _deciding(desk: TerminalApprovals, book: Book) -> None:
    """Approve each request once at a terminal, wherever it was made."""
    begun: dict[str, str] = {}
    while True:
        with suppress(LedgerLost):  # too busy to answer: a person looks again, also at their last decision
            await _decide(desk, book, begun)
        await anyio.sleep(0.2)


async def _decide(desk: TerminalApprovals, book: Book, begun: dict[str, str]) -> None:
    for name, id_ in list(begun.items()):
        request = await desk.ledger.find(id_)
        if request is not None and request.state is not RequestState.OPEN:
            _approved(book, name, begun.pop(name))
    for grant in await desk.ledger.waiting(desk.system.timestamp()):
        name = _asked_for(grant.question.arguments)
        if name is not None and name not in book.approved:
            begun[name] = grant.id
            if "Approved" in await desk.approve(grant):
                _approved(book, name, grant.id)
            del begun[name]


def _approved(book: Book, name: str, grant: str) -> None:
    book.approved[name] = grant
    book.approval(name).set()


def _asked_for(arguments: Mapping[str, Any]) -> str | None:
    given: dict[str, str] = arguments.get("input") or {}
    return given.get("of")


def _crowd(
    fleet: Fleet, caller: Caller, book: Book, workflow: str, size: int, going: Callable[[], bool]
) -> Iterator[Visitor]:
    """Return the same number of clients for each tenant."""
    for number, tenant in enumerate(itertools.islice(itertools.cycle(fleet.fastns), size)):
        yield Visitor(fleet, caller, book, tenant, number, workflow, going)


async def workflow(fleet: Fleet) -> str:
    """Return the id of a workflow that runs, which is the same in each account."""
    async with fleet.caller() as caller:
        workflows = await caller.result(fleet.token("acme"), "list_workflows", search="process-new-orders")
    return workflows["data"][0]["id"]


def desk(fleet: Fleet, folder: Path) -> TerminalApprovals:
    """Return the approvals of a terminal on the same ledger, where a person decides."""
    ledger = ledger_at(fleet.ledger, folder, System())
    return TerminalApprovals(ledger, AuditFile(folder / "audit.jsonl", System()), System())


class Mortal(Protocol):
    """What can be killed and started again."""

    def kill(self) -> None: ...

    def start(self) -> object: ...


async def killed_in_turn(mortals: Iterator[Mortal], least: int, pause: float, down: float, until: float) -> None:
    """Kill one after another, at least so many, each after a pause, and start it again after it was down."""
    for number, mortal in enumerate(mortals):
        await anyio.sleep(pause)
        if number >= least and time.monotonic() >= until - down:
            return
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(mortal.kill)
            await anyio.sleep(down)
            await anyio.to_thread.run_sync(mortal.start)
