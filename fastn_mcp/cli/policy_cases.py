"""Kept expectations of a policy: calls with facts, and the decisions expected on them, for `fastn-mcp policy test`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AwareDatetime, Field

from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.account.resolved_call import IDENTITY, KINDS, REFERENCE_NAMES, Record, Relation, Surroundings
from fastn_mcp.cli.policy_replay import without_secrets
from fastn_mcp.config.model import Mode
from fastn_mcp.config.strict_toml import ONE_OR_MORE, ConfigError, TomlSource, load, read, validate
from fastn_mcp.errors import NotSent, nearest
from fastn_mcp.policy.asker import asker_of
from fastn_mcp.policy.decision import PolicyDecision, Situation
from fastn_mcp.policy.plan import toml
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.schema import Count, Decided, Effects, PolicyTable, check_facts
from fastn_mcp.procedures.catalog import parse
from fastn_mcp.records.rows import FastnObject, row_of
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import Call, plain

_DEFAULT_TIME = datetime(2026, 1, 5, 12, tzinfo=UTC)
"""A Monday: the time of cases that name none."""


class CaseForm(PolicyTable):
    """`[[case]]`: a call, what is known when it is made, and the decision expected on it."""

    tool: str
    arguments: dict[str, Any] = Field({})
    target: dict[str, Any] = Field({})
    records: list[dict[str, Any]] = Field([])
    dependents: Count | None = None
    environment: str | None = None
    effect: Effects | None = None
    key: Literal["live", "test"] = "live"
    mode: Mode | None = None
    time: AwareDatetime = _DEFAULT_TIME
    who: dict[str, Annotated[list[str], ONE_OR_MORE]] | None = None
    spent: Count = 0
    expect: Decided
    rule: str = ""


class _CasesForm(PolicyTable):
    case: Annotated[list[CaseForm], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """A case of a file, whose place is `FILE line N`."""

    place: str
    call: Call
    form: CaseForm

    def difference(self, policy: Policy) -> str | None:
        """Return how the policy's decision differs from the expected one, on one line; None if it does not."""
        form, call = self.form, self.call
        policy = replace(policy, live=form.key == "live", mode=form.mode or policy.mode)
        target = None if call.target is None else FastnObject.model_validate({"id": call.target} | form.target)
        resolved = by_arguments(call, Surroundings(form.environment), target, form.dependents, trusts_ids=True)
        known = {(each.kind, each.id): each for each in resolved.records}
        for row in form.records:
            key = row["kind"], row["id"]
            known[key] = replace(known.get(key) or Record(*key, Relation.OWNER), row=row)
        resolved = replace(resolved, records=tuple(known.values()))
        effect = form.effect[0] if form.effect else resolved.effect
        spent = {effect: dict.fromkeys(policy.rules.budgets(effect, form.time), form.spent)}
        situation = Situation(resolved, effect, form.time, asker_of(form.who or {}), spent=spent)
        verdict = policy.decide(situation)
        if verdict.decision is form.expect and form.rule in ("", verdict.rule, without_place(verdict.rule)):
            return None
        matches = [f"{each.rule}: {each.label}" for each in policy.matches(situation)]
        also = f" Every rule that matches: {'; '.join(matches)}." if len(matches) > 1 else ""
        expected, got = f"{form.expect.value} by {form.rule or 'any rule'}", f"{verdict.label} by {verdict.rule}"
        where = f"{self.place}, {call.tool_name()} {call.target or ''}".rstrip()
        return f"{where}: expected {expected}, got {got}.{also}"


def without_place(rule: str) -> str:
    """Return the name of a rule without the file and the line, which an edit moves."""
    return re.sub(r"\A\S+ line \d+: ", "", rule)


def load_cases(path: Path) -> list[PolicyCase]:
    """Load a file of cases. Raises `SettingsError` with the file, the line and the nearest known key."""
    return _loaded(path, read(path, "file of cases", "Correct the path.")[0])


def record_case(path: Path, text: str, policy: Policy) -> str | None:
    """Append a case to a file, unless `policy test` would decide it otherwise: then return how it differs."""
    data = (read(path, "file of cases", "Correct the path.")[0] if path.exists() else b"") + text.encode()
    if (difference := _loaded(path, data)[-1].difference(policy)) is None:
        path.touch(0o600)
        path.write_bytes(data)
    return difference


def _loaded(path: Path, data: bytes) -> list[PolicyCase]:
    return load(data, path, "file of cases", _build, "See docs/policy-tests.md.")


def _build(table: Mapping[str, Any], source: TomlSource) -> list[PolicyCase]:
    return [_case(number, form, source) for number, form in enumerate(validate(_CasesForm, table, source).case)]


def _case(number: int, form: CaseForm, source: TomlSource) -> PolicyCase:
    at = ("case", number)
    if form.tool not in OPERATIONS:
        raise ConfigError((*at, "tool"), f"tool: there is no {form.tool!r}{nearest(form.tool, OPERATIONS)}")
    check_facts((*at, "who"), form.who)
    for index, row in enumerate(form.records):
        if row.get("kind") not in KINDS or not isinstance(row.get("id"), str):
            raise ConfigError((*at, "records", index), f"records: each needs a kind ({', '.join(KINDS)}) and an id")
    try:
        call = cast("Call", parse(OPERATIONS, form.tool, form.arguments).call)
    except NotSent as error:
        raise ConfigError((*at, "arguments"), f"arguments: {error.what.rstrip('.')}") from None
    return PolicyCase(f"{source.file} line {source.line(at)}", call, form)


def written_case(
    situation: Situation, policy: Policy, who: Mapping[str, Sequence[str]], verdict: PolicyDecision
) -> str:
    """Return the text of a case for a decision that was explained."""
    resolved, call = situation.resolved, situation.resolved.call
    row = {
        n: v
        for n, v in row_of(resolved.target).items()
        if n in (*IDENTITY, "environment") or plain(n) in REFERENCE_NAMES
    }
    values: dict[str, Any] = {
        "tool": call.tool_name(),
        "arguments": without_secrets(type(call), call.shown()),
        "target": row,
        "records": [{"kind": each.kind} | each.identity() for each in resolved.records],
        "dependents": resolved.dependents,
        "environment": resolved.environment.values[0] if len(resolved.environment.values) == 1 else None,
        "effect": situation.effect.value,
        "key": policy.key,
        "mode": policy.mode,
        "who": {fact: list(names) for fact, names in who.items()},
        "spent": max(situation.spent.get(situation.effect, {}).values(), default=0),
        "expect": verdict.decision.value,
        "rule": without_place(verdict.rule),
    }
    lines = [f"{name} = {toml(value)}" for name, value in values.items() if value not in (None, {}, [], 0)]
    return "\n".join(["", "[[case]]", *lines, f"time = {situation.now.isoformat(timespec='seconds')}", ""])
