"""Bounds of what a statement reads: a period, customers and workflows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastn_mcp.errors import InvalidArgument
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.lookup import is_id, resolve
from fastn_mcp.procedures.query.tables import QueryTable
from fastn_mcp.records.formats import counted, stamp
from fastn_mcp.records.rows import parse_timestamp
from fastn_mcp.tools.paging import MAX_LIMIT, NOT_A_TIME, List

MAX_NAMED = 20
"""Maximum number of customers, and of workflows, that an answer is bounded by."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A period, and the ids of customers and workflows; None and empty where nothing bounds the reading."""

    since: datetime | None = None
    until: datetime | None = None
    customers: Sequence[str] = ()
    workflows: Sequence[str] = ()

    def filters(self, table: QueryTable) -> Iterator[dict[str, Any]]:
        """Yield the arguments of each list that the table is read from: one for each customer and workflow."""
        period = {"since": self.since, "until": self.until}
        filters = {name: stamp(at) for name, at in period.items() if at is not None and name in table.bounds}
        for customer in self.customers if "customer_id" in table.bounds and self.customers else (None,):
            for workflow in self.workflows if "workflow_id" in table.bounds and self.workflows else (None,):
                ids = {"customer_id": customer, "workflow_id": workflow}
                yield filters | {name: id_ for name, id_ in ids.items() if id_ is not None}

    def lists(self, table: QueryTable) -> list[List[Any]]:
        return [table.lister.model_validate({"limit": MAX_LIMIT, **filters}) for filters in self.filters(table)]

    def in_words(self, table: QueryTable) -> str:
        """Return what bounds the rows of a table: `of 2 customers, since …`; empty if nothing does."""
        words: list[str] = []
        if self.customers and "customer_id" in table.bounds:
            words.append(f"of {counted(len(self.customers), 'customer')}")
        if self.workflows and "workflow_id" in table.bounds:
            words.append(f"of {counted(len(self.workflows), 'workflow')}")
        if self.since is not None and "since" in table.bounds:
            words.append(f"since {stamp(self.since)}")
        if self.until is not None and "until" in table.bounds:
            words.append(f"before {stamp(self.until)}")
        return ", ".join(words)


async def read_bounds(
    since_text: str | None,
    until_text: str | None,
    named: Mapping[str, Sequence[str] | None],
    context: ProcedureContext,
) -> Bounds:
    """Return a period and what is `named` of each kind, by ids or names. Raises a `FastnError`."""
    since = _time("since", since_text)
    until = _time("until", until_text)
    if since is not None and until is not None and since >= until:
        raise InvalidArgument("since is not before until, so nothing can match.", "Correct the arguments.")
    customers = await _ids("customer", named["customer"], context)
    workflows = await _ids("workflow", named["workflow"], context)
    return Bounds(since, until, customers, workflows)


def _time(name: str, given: str | None) -> datetime | None:
    if not given:
        return None
    at = parse_timestamp(given)
    if at is None:
        raise InvalidArgument(f"{name} {NOT_A_TIME}.", "Correct it.")
    return at


async def _ids(kind: str, given: Sequence[str] | None, context: ProcedureContext) -> list[str]:
    """Return the ids of what is named by ids or names."""
    named = list(dict.fromkeys(filter(None, (part.strip() for part in given or ()))))
    if given is not None and not named:
        raise InvalidArgument(
            f"{kind} is empty, and would bound nothing.", f"For rows of no {kind}, use WHERE {kind}_id IS NULL."
        )
    if len(named) > MAX_NAMED:
        raise InvalidArgument(f"{kind}: {len(named)} are more than {MAX_NAMED}.", "Use WHERE in the statement.")
    ids = [typed if is_id(typed) else (await resolve(kind, typed, context)).id for typed in named]
    return list(dict.fromkeys(ids))
