"""The stores that keep the ledger's promises, by an address; and attempts on one from a process of its own.

A new store joins `KINDS`; its address is in the fixture `where` of the contract tests.
"""

import itertools
import json
import os
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import anyio
from pydantic import JsonValue

from fastn_mcp.build.stores import ledger_at
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, ShownCall, Vote
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.change_start import BudgetLimit, StartResult, UsageRate
from fastn_mcp.ledger.documents import write
from fastn_mcp.ledger.ledger import Ledger, TooManyWaiting
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.ledger.store import Write
from fastn_mcp.policy.permit import Permit
from fastn_mcp.runtime import System

NOW = 1_795_570_835.5
KINDS = ["sqlite", "valkey"]
"""Stores of this project that processes can share."""
SHARED = [*KINDS, "jsonfile"]
"""And that of examples/extension_store, which is somebody else's."""
_NUMBERS = itertools.count()


def opened(where: str, system: System | None = None) -> Ledger:
    """Another way into the store, as another process has it. A store in memory is one of this process."""
    if where.startswith("memory:"):
        from support.memory_store import memory_store  # a process of its own runs this file by its path

        return Ledger(memory_store(where))
    return ledger_at(where, Path(), system or System())


def store_of(ledger: Ledger) -> SqliteStore:
    assert isinstance(ledger.store, SqliteStore)
    return ledger.store


def database_of(ledger: Ledger) -> sqlite3.Connection:
    return store_of(ledger).file.database


def close(ledger: Ledger) -> None:
    """Close the file of a ledger, outside of a coroutine."""
    store_of(ledger).close()


def empty(ledger: Ledger) -> None:
    """Delete all that a ledger in a file holds, behind its back."""
    for table in ("documents", "indexed"):
        database_of(ledger).execute(f"DELETE FROM {table}")  # noqa: S608


async def put(ledger: Ledger, *writes: Write) -> None:
    """Write documents past the ledger, as another version or a defect would."""
    found = await ledger.store.read([each.key for each in writes])
    expected = {each.key: found[each.key].version if each.key in found else 0 for each in writes}
    assert (await ledger.store.commit(expected, writes)).version


def with_question(request: ApprovalRequest, question: JsonValue) -> Write:
    """Return what stores a request with this in place of its question, as a defect would."""
    stored = write(request, request.id)
    document = json.loads(stored.value or "")
    document["record"]["question"] = question
    return replace(stored, value=json.dumps(document))


def grant(
    name: str = "g1", principal: str = "local", created: float = NOW, expires: float = NOW + 600
) -> ApprovalRequest:
    """A question about one call, asked elsewhere."""
    from support.questions import a_question  # a process of its own runs this file by its path

    return ApprovalRequest(
        id=name,
        principal=principal,
        account="default at live.fastn.ai",
        tool="delete_customer",
        target="cus_1",
        call=f"call of {name}",
        calls={"call 1": ShownCall(f"binding of {name}", {"connections": 2, "executions": 300.5, "triggers": None})},
        required="typed",
        expected="Acme",
        out_of_band=True,
        question=a_question(),
        created=created,
        expires=expires,
    )


def temporary_approval(name: str = "s1", until: float = NOW + 900) -> ApprovalRequest:
    """A request with a temporary approval."""
    return with_temporary(replace(grant(name), tool="run_workflow", target="wf_1"), until)


def with_temporary(request: ApprovalRequest, until: float) -> ApprovalRequest:
    """The request once it was used, with a temporary approval that holds until a time."""
    used = replace(request, out_of_band=False, state=RequestState.USED, used=("call 1",), by="terminal")
    return replace(used, decided=request.created, permit=(request.permit or permit(request.tool)).given(until))


def permit(tool: str = "run_workflow", target: str = "wf_1") -> Permit:
    """A temporary approval that people may give."""
    return Permit(
        name="temporary approval", tool=tool, targets=(target,), pattern="input", extent="such runs need no approval."
    )


async def add_temporary(ledger: Ledger, request: ApprovalRequest) -> None:
    """Store a request with its temporary approval."""
    assert request.permit is not None
    await ledger.open(replace(request, permit=request.permit.given(0.0)))
    assert await ledger.change_request(request.id, lambda current: current.with_permit_until(request.permit_until))


def change(name: str = "c1", at: float = NOW) -> Change:
    """A customer whose plan is changed."""
    return Change(
        id=name,
        principal="local",
        account="default at live.fastn.ai",
        tool="update_customer",
        arguments={"customer_id": "cus_1", "plan": "Growth"},
        target="cus_1",
        name="Acme",
        before={"id": "cus_1", "plan": None, "tags": ["a", 1, True]},
        sent={"plan": "Growth"},
        at=at,
    )


async def _used(ledger: Ledger) -> bool:
    """Use the approval of the request g1."""
    used = replace(change(f"{os.getpid()} {next(_NUMBERS)}"), call_id="call 1")
    return await ledger.begin(used, approval_id="g1") is StartResult.STARTED


async def _burn(ledger: Ledger, _: str) -> bool:
    return await _used(ledger)


async def _open(ledger: Ledger, name: str) -> bool:
    try:
        await ledger.open(grant(name))
    except TooManyWaiting:
        return False
    return True


async def _ask(ledger: Ledger, name: str) -> bool:
    return await ledger.open(replace(grant(name), call="call", calls={})) == name


async def _decline(ledger: Ledger, _: str) -> bool:
    request = replace(grant(f"{os.getpid()} {next(_NUMBERS)}"), out_of_band=False)
    await ledger.open(request)
    return await ledger.decide(request, Vote("client_form", approves=False, at=NOW), "client_form") is not None


async def _vote(ledger: Ledger, name: str) -> bool:
    decided = await ledger.decide(replace(grant(), required="four_eyes"), Vote(name, True, NOW), "four_eyes")
    return decided is not None and decided.state is RequestState.APPROVED


async def _withdraw_or_use(ledger: Ledger, name: str) -> bool:
    if name.startswith("one"):
        return await _used(ledger)
    return await ledger.withdraw("g1", Vote(name, False, NOW), "terminal") is not None


async def _step(ledger: Ledger, _: str) -> bool:
    listed = replace(change(f"{os.getpid()} {next(_NUMBERS)}"), list_id="b1", call_id="call 1", number=1)
    return await ledger.begin(listed) is StartResult.STARTED


async def _spend(ledger: Ledger, _: str) -> bool:
    limit = BudgetLimit("destroy", "2026-11-25", 7)
    return await ledger.begin(change(f"{os.getpid()} {next(_NUMBERS)}"), limits=[limit]) is StartResult.STARTED


async def _claim(ledger: Ledger, _: str) -> bool:
    return await ledger.begin(change(f"{os.getpid()} {next(_NUMBERS)}"), undoes="c1") is StartResult.STARTED


async def _rate(ledger: Ledger, _: str) -> bool:
    rate = UsageRate("destroy", 7, 300)
    return await ledger.begin(change(f"{os.getpid()} {next(_NUMBERS)}"), rate=rate) is StartResult.STARTED


async def _begin_all(ledger: Ledger, _: str, list_id: str = "") -> bool:
    """Begin a change with an approval, a budget, a rate and an undo at once."""
    begun = await ledger.begin(
        replace(change(f"{os.getpid()} {next(_NUMBERS)}"), list_id=list_id, call_id="call 1"),
        undoes="c0",
        limits=[BudgetLimit("destroy", "2026-11-25", 7)],
        rate=UsageRate("destroy", 7, 300),
        approval_id="g1",
    )
    return begun is StartResult.STARTED


ATTEMPTS: dict[str, Callable[[Ledger, str], Awaitable[bool]]] = {
    "burn": _burn,
    "spend": _spend,
    "open": _open,
    "ask": _ask,
    "decline": _decline,
    "claim": _claim,
    "vote": _vote,
    "nonce": lambda ledger, _: ledger.use_nonce("n1", NOW + 60, NOW),
    "step": _step,
    "rate": _rate,
    "begin all": _begin_all,
    "begin listed": lambda ledger, name: _begin_all(ledger, name, "b1"),
    "withdraw or use": _withdraw_or_use,
}


def race(where: str, what: str, count: int = 25) -> list[int]:
    """Return how many of `count` attempts succeed in each of two processes that try at the same time."""
    from support.started_together import let_begin, started  # a process of its own runs this file by its path

    one, two = (started(__file__, where, what, str(count), name) for name in ("one", "two"))
    with one, two:
        let_begin(one, two)
        return [int(process.communicate(timeout=60)[0]) for process in (one, two)]


def main(where: str, what: str, count: int, name: str) -> None:
    """Try it `count` times at once, when told to, and print how many succeeded."""
    together = threading.Barrier(count + 1)
    won: list[bool] = []

    async def attempted(number: int) -> bool:
        async with aclosing(opened(where)) as ledger:
            await ledger.revision()  # connected
            together.wait()
            return await ATTEMPTS[what](ledger, f"{name}{number}")

    def attempt(number: int) -> None:
        try:
            won.append(anyio.run(attempted, number))
        except BaseException:
            together.abort()  # the others would wait for this one
            raise

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    together.wait()
    for thread in threads:
        thread.join()
    assert len(won) == count
    sys.stdout.write(f"{sum(won)}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
