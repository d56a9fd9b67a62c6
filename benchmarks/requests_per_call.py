"""Requests to Fastn for each of some calls, on the small account of the sandbox and on the large one of the tests.

Each row is measured with a server of its own, in this process, after the calls that the row names. With `--write`, the
table goes into docs/contributing/measured.md, where a test holds it: run this after each change of what a call reads.
"""

import argparse
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
from large_account import large_account
from support.behaviour import Behaviour
from support.world import World

from fastn_mcp.extensions.sandbox.server import Dataset, dataset
from fastn_mcp.extensions.sandbox.state import SandboxState
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.catalog import TOOLS, parse

MARKER = "requests per call"
RATE_LIMIT = 100
"""Requests a minute that the sandbox allows: a cold answer may send half of them."""

_CUSTOMER = "Katana"
_ID = "ID of the customer"
_WORKFLOW = "ID of a workflow"
_MAX_PAGES = 4


@dataclass(frozen=True, slots=True)
class Call:
    tool: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"`{self.tool}`"


@dataclass(frozen=True, slots=True)
class Row:
    """A measured call, what it is about, and the calls before it."""

    call: Call
    about: str = ""
    before: Sequence[Call] = ()
    counts_pages: bool = False
    """Whether the pages after the first one are measured, and not the first."""

    @property
    def key(self) -> str:
        """Tells which calls it measures."""
        return _key([*self.before, self.call]) + "pages" * self.counts_pages

    @property
    def label(self) -> str:
        when = "cold"
        if self.before:
            when = "again" if self.before[-1] == self.call else f"after {self.before[-1]}"
        return f"{self.call}{self.about}, {'each next page' if self.counts_pages else when}"


def _key(calls: Sequence[Call]) -> str:
    return repr(tuple(calls))


_FIND = Call("find", {"query": _CUSTOMER})
_OVERVIEW = Call("get_overview", {})
_WORKFLOWS = Call("get_overview", {"about": "workflows"})
_DIAGNOSE_CUSTOMER = Call("diagnose", {"customer_id": _ID})
_DIAGNOSE = Call("diagnose", {})
_DEPENDENTS = Call("find_dependents", {"customer_id": _ID})
_USES = Call("find_dependents", {"workflow_id": _WORKFLOW})
_PREVIEW = Call("preview_change", {"tool": "delete_customer", "arguments": {"customer_id": _ID}})

ROWS = (
    Row(_FIND, " a customer"),
    Row(_FIND, " a customer", [_OVERVIEW]),
    Row(_OVERVIEW),
    Row(_OVERVIEW, before=[_FIND]),
    Row(_OVERVIEW, before=[_OVERVIEW]),
    Row(_WORKFLOWS, " about workflows"),
    Row(_WORKFLOWS, " about workflows", [_OVERVIEW]),
    Row(_WORKFLOWS, " about workflows", counts_pages=True),
    Row(_DIAGNOSE_CUSTOMER, " of a customer"),
    Row(_DIAGNOSE_CUSTOMER, " of a customer", [_OVERVIEW]),
    Row(_DIAGNOSE_CUSTOMER, " of a customer", [_DIAGNOSE_CUSTOMER]),
    Row(_DIAGNOSE, " of everything"),
    Row(_DIAGNOSE, " of everything", [_DIAGNOSE]),
    Row(_DEPENDENTS, " of a customer"),
    Row(_DEPENDENTS, " of a customer", [_OVERVIEW]),
    Row(_USES, " of a workflow"),
    Row(_USES, " of a workflow", [_OVERVIEW]),
    Row(_PREVIEW, " of a customer's deletion"),
)


class _Server:
    def __init__(self, begin: Dataset, folder: Path) -> None:
        self._world = World(folder, begin=begin, snapshot_seconds=90, requests_per_answer=None)
        self._world.sandbox.behaviour = Behaviour(rate_limit=RATE_LIMIT)
        workflow = next(iter(self._world.sandbox.state.all("workflows")))
        self._ids = {_ID: self._world.id_of("customers", _CUSTOMER), _WORKFLOW: str(workflow["id"])}

    async def requests(self, call: Call, **more: Any) -> tuple[int, dict[str, Any]]:
        """Return the requests of a call, and its answer."""
        arguments = self._filled(call.arguments) | more
        self._world.sandbox.requests.clear()
        parsed, dispatch = parse(TOOLS, call.tool, arguments), self._world.dispatch
        answer = await (dispatch.preview if parsed.dry_run else dispatch)(parsed.call, Caller(Asker(), None))
        data = answer.result.model_dump(mode="json") if isinstance(answer, Done) else {}
        return len(self._world.sandbox.requests), data

    def _filled(self, arguments: dict[str, Any]) -> dict[str, Any]:
        filled = {name: self._ids.get(str(value), value) for name, value in arguments.items()}
        inner: dict[str, dict[str, Any]] = {name: value for name, value in filled.items() if isinstance(value, dict)}
        return filled | {name: self._filled(value) for name, value in inner.items()}

    def close(self) -> None:
        self._world.close()


async def _measure(begin: Dataset) -> dict[str, list[int]]:
    """Return the requests of each row, by its key. Earlier calls of a row are themselves the measurement of another."""
    counts: dict[str, list[int]] = {}
    for row in sorted(ROWS, key=lambda row: -len(row.before) - row.counts_pages):
        if row.key in counts:
            continue
        with tempfile.TemporaryDirectory() as folder:
            server, answer = _Server(begin, Path(folder)), dict[str, Any]()
            calls = [*row.before, row.call]
            for number, call in enumerate(calls, 1):
                requests, answer = await server.requests(call)
                counts[_key(calls[:number])] = [requests]
            pages: list[int] = []
            while row.counts_pages and (cursor := answer.get("next_cursor")) and len(pages) < _MAX_PAGES:
                requests, answer = await server.requests(row.call, cursor=cursor)
                pages.append(requests)
            if row.counts_pages:
                counts[row.key] = pages
            server.close()
    return counts


def _made_once(begin: Dataset) -> Dataset:
    """Return a dataset that is made once, for calls that change nothing."""
    states: list[SandboxState] = []

    def state(now: datetime, randomness: random.Random) -> SandboxState:
        if not states:
            states.append(begin(now, randomness))
        return states[0]

    return state


def _cell(requests: Sequence[int]) -> str:
    if not requests:
        return "-"
    return str(max(requests)) if len({*requests}) == 1 else f"{min(requests)}–{max(requests)}"  # noqa: RUF001


def table() -> str:
    """Measure each row on both accounts."""
    small, large = (anyio.run(_measure, _made_once(begin)) for begin in (dataset, large_account))
    rows = [f"| {row.label} | {_cell(small[row.key])} | {_cell(large[row.key])} |" for row in ROWS]
    return "\n".join(["| call | small | large |", "|---|--:|--:|", *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into docs/contributing/measured.md")
    measured = table()
    print(measured)
    if parser.parse_args().write:
        from report import put

        put(MARKER, measured)
