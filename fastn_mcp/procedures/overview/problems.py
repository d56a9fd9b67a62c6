"""All findings of an overview, by subject."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.fastn.names import counted, name_of
from fastn_mcp.fastn.rows import Row, key_of, owner_of, word
from fastn_mcp.fastn.states import NOT_WORKING, STATES, State
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.overview import access_checks, run_checks, usage_checks
from fastn_mcp.procedures.overview.finding import FEW, AccountFinding
from fastn_mcp.procedures.overview.snapshot import Gap, Seen, Survey

FAILED = ("failed runs", "timed-out runs")

NO_TOTALS = Gap("success rate", "Fastn gives no totals that surely are of this period.")


def told(findings: Sequence[AccountFinding], room: int, most: int = FEW) -> list[JsonValue]:
    """The findings, with as many examples as there is room for, and one at least."""
    said: list[JsonValue] = []
    while most:
        said = [finding.data(most) for finding in findings]
        if len(to_json(said)) <= room:
            break
        most -= 1
    return said


def findings(found: Survey, names: Mapping[str, str], period: run_checks.Period) -> dict[str, list[AccountFinding]]:
    """Everything that is wrong by subject, in the order in which equals are told. `names` are of customers, by id."""
    failed = [found.all[kind] for kind in FAILED if kind in found.all]
    more = any(seen.more for seen in failed)
    workflows = {key_of(row): name_of(row) for row in found.rows("workflows")}
    waiting = found.chosen("customers")
    return {
        "runs": run_checks.failing(failures(found), workflows, period, more),
        "connections": access_checks.not_working(found.rows("connections"), names, found.chosen("connections").more),
        "triggers": run_checks.wrong_with(found.rows("triggers"), found.rows("workflows")),
        "quotas": [
            *usage_checks.near(found.answers.get("quotas")),
            *usage_checks.credits_left(found.answers.get("billing", {})),
        ],
        "access": [
            *access_checks.pending(
                waiting.rows, waiting.total if "customers" in found.matching else None, waiting.more
            ),
            *access_checks.keys(found.rows("API keys"), period.now),
            *access_checks.invited(found.rows("users"), period.now, found.chosen("users").more),
        ],
    }


def failures(found: Survey) -> list[Row]:
    """The runs that failed, as far as they were read."""
    return [row for kind in FAILED if kind in found.all for row in found.all[kind].rows]


async def customers(found: Survey, means: ProcedureContext) -> dict[str, str]:
    """Names by id: those on the page that was read, and those of the first connections that do not work."""
    read = found.all.get("customers", Seen())
    names = {key_of(row): name_of(row) for row in (*read.rows, *found.rows("customers"))}
    wanted: list[str] = []
    for status in NOT_WORKING:
        owners = [owner_of(row) for row in found.rows("connections") if word(row, "status") == status.lower()]
        wanted += [owner for owner in owners[: access_checks.NAMED] if owner and owner not in names]
    return names | await means.directory.names("customer", wanted, means.send)


def totals(found: Survey) -> run_checks.Totals:
    def total(kind: str) -> int | None:
        seen = found.all.get(kind)
        return None if seen is None else seen.total

    return run_checks.Totals(
        ever=total("executions"),
        all=total("runs"),
        completed=total("completed runs"),
        failed=total("failed runs"),
        timeout=total("timed-out runs"),
    )


def not_checked(found: Survey) -> dict[str, JsonValue]:
    """What was not looked at or not understood, and why."""
    gaps = [*found.gaps, *_unknown_states(found)]
    return {"not_checked": [{"what": gap.what, "why": gap.why} for gap in _together(gaps)]}


def _unknown_states(found: Survey) -> list[Gap]:
    """Resources of which nothing was said, since nobody documented what their rows say."""
    counts = {kind: sum(state(row) is State.UNKNOWN for row in found.rows(kind)) for kind, state in STATES.items()}
    why = "Their status is missing, or none that is documented."
    return [Gap(counted(count, kind.removesuffix("s")), why) for kind, count in counts.items() if count]


def _together(gaps: list[Gap]) -> list[Gap]:
    """What was not checked for the same reason, said once."""
    by_reason: dict[str, list[str]] = {}
    for gap in gaps:
        by_reason.setdefault(gap.why, []).append(gap.what)
    return [Gap(", ".join(what), why) for why, what in by_reason.items()]
