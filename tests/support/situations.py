"""Calls resolved by their arguments, and situations made of them, for tests of the policy without an account."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from fastn_mcp.account.dependence import Dependence
from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.account.resolved_call import Record, Relation, ResolvedCall
from fastn_mcp.account.typed_argument import TypedArgument
from fastn_mcp.guard.questions import facts_of, question_of, target_id
from fastn_mcp.ledger.question import Question
from fastn_mcp.policy.decision import Situation
from fastn_mcp.records.labels import Names
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect


def resolved(call: Operation[Any], target: FastnObject | None = None, dependents: int | None = None) -> ResolvedCall:
    """Return a call whose other records are known by their ids."""
    return by_arguments(call, target=target, dependents=dependents, trusts_ids=True)


def situation(
    call: Operation[Any], effect: Effect, now: datetime, target: FastnObject | None = None,
    dependents: int | None = None, **facts: Any,
) -> Situation:  # fmt: skip
    if "spent" in facts:
        facts["spent"] = {effect: facts["spent"]}
    return Situation(resolved(call, target, dependents), effect, now, **facts)


def question_about(
    call: Operation[Any], effect: Effect, account: str, target: FastnObject | None = None,
    dependence: Dependence | None = None, because: str = "", names: Names | None = None, undoes: str = "",
    typed: TypedArgument | None = None,
) -> Question:  # fmt: skip
    """Return the question about a call whose other records are known by these names."""
    known = {(kind, key): {"id": key, "name": name} for kind, of in (names or {}).items() for key, name in of.items()}
    resolution = by_arguments(call, target=target)
    records = [replace(each, row=known.pop((each.kind, each.id), None)) for each in resolution.records]
    records += [Record(kind, key, Relation.OWNER, row) for (kind, key), row in known.items()]
    resolution = replace(resolution, records=tuple(records), dependence=dependence or Dependence(), typed=typed)
    facts = facts_of(resolution, effect, because, undoes)
    return question_of(facts, account, target_id(resolution))
