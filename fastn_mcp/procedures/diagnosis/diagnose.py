"""The tool `diagnose`: why runs fail or do not come, since when and for whom, and what would help."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import Field, JsonValue
from pydantic_core import to_json

from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.account_parts import PartState, broken_since, connections_to, repairs
from fastn_mcp.procedures.diagnosis.evidence import CAUSES, Changed, Evidence, Subject
from fastn_mcp.procedures.diagnosis.failures import EndedRun, FailureGroup, Period, Scope
from fastn_mcp.procedures.diagnosis.remedies import FailureEvidence, Remedy, remedy
from fastn_mcp.procedures.diagnosis.run_counts import RunRecord
from fastn_mcp.procedures.diagnosis.summary import verdict
from fastn_mcp.procedures.lookup import resolve
from fastn_mcp.records.formats import aged, counted, stamp
from fastn_mcp.records.labels import ACCOUNT, name_of
from fastn_mcp.records.quotas import quotas_of
from fastn_mcp.records.rows import owner_of, text
from fastn_mcp.records.states import State, is_pending
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.fields import CustomerId, TriggerId, WorkflowId
from fastn_mcp.tools.tool import Effect, FastnObject, suggested
from fastn_mcp.tools.triggers import GetTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow

_AFFECTED, _ALSO = 3, 12
"""Maximum number of affected workflows and customers of a cause with their numbers, and of further ones by name."""

_OTHERS = 8
"""Maximum number of less frequent causes by name."""

LONGEST = 6_000
"""Maximum size of the answer as JSON in characters."""

_SHORT = 120
"""Maximum length of a text in characters."""

_CUTS = (
    *((name, 5, 0) for name in ("connections", "triggers", "changes", "not_checked")),
    ("without_failures", 8, 0),
    ("changes", 2, LONGEST),
    ("without_failures", 1, LONGEST),
    ("connections", 2, LONGEST),
    ("triggers", 1, LONGEST),
    ("not_checked", 3, LONGEST),
    ("causes", 1, LONGEST),
)
"""Cuts in order: a list, its minimum number of entries, and the size in characters above which it is shortened."""


class Diagnosis(FastnObject):
    """Diagnosis of runs, with remedies."""

    shape = (("verdict", "string"), ("causes", "array"))


class Diagnose(Procedure[Diagnosis]):
    """Why runs fail or do not come, since when, and what helps: of a customer, workflow or trigger, or of all."""

    effect = Effect.READ

    customer_id: Annotated[CustomerId | None, Field(description="Id or name.")] = None
    workflow_id: Annotated[WorkflowId | None, Field(description="Id or name.")] = None
    trigger_id: Annotated[TriggerId | None, Field(description="Id or name.")] = None
    hours: Annotated[int, Field(ge=1, le=720, description="1-720, default 72.")] = 72

    @property
    def target(self) -> str | None:
        return self.workflow_id or self.trigger_id or self.customer_id

    async def run(self, context: ProcedureContext) -> Diagnosis:
        typed = {"customer": self.customer_id, "workflow": self.workflow_id, "trigger": self.trigger_id}
        given = {kind: await resolve(kind, name, context) for kind, name in typed.items() if name is not None}
        evidence = Evidence(Subject(given), Period(self.hours, context.system.now()), context)
        await evidence.take()
        return Diagnosis.model_validate(_Answer(evidence).data())


class _Answer:
    """The answer on the evidence of one diagnosis."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._subject = evidence.subject
        self._now = evidence.period.now
        self._failures = evidence.failures
        newest = zip(evidence.causes, evidence.newest, strict=False)  # of the first causes only
        self._causes = [(cause, run, self._remedy(cause, run)) for cause, run in newest]

    def data(self) -> dict[str, JsonValue]:
        evidence = self._evidence
        whys = [(len(cause.runs), found.short) for cause, _, found in self._causes[:2]]
        summary = verdict(evidence, self._blocked(), whys)
        answer: dict[str, JsonValue] = {
            "verdict": self._prefix() + summary,
            **{
                kind: {"id": found.id, "name": _cut(name_of(found.row) or found.id)}
                for kind, found in self._subject.given.items()
            },
            "now": stamp(self._now),
            "runs": self._runs(),
            "causes": [self._cause(*each) for each in self._causes],
            "other_causes": self._other_causes(),
            "without_failures": [*self._without_failures()],
            "connections": [self._connection(connection) for connection in self._connections()],
            "triggers": None if evidence.triggers is None else [*map(self._trigger, self._triggers(evidence.triggers))],
            "triggers_of_other_customers": evidence.other_triggers or None,
            "changes": [self._change(change) for change in evidence.changes],
            "not_checked": [_cut(f"{gap.what}: {gap.why}".removesuffix(": "), 160) for gap in evidence.all_gaps()],
        }
        kept = ("verdict", "causes", "connections", "triggers")
        return _fitting(
            {name: item for name, item in answer.items() if item not in (None, []) or (name in kept and item == [])}
        )

    def _prefix(self) -> str:
        given = self._subject.given
        if "trigger" in given:
            owner = self._owner(owner_of(given["trigger"].row))
            return f"Trigger {_cut(name_of(given['trigger'].row), 60)} of {owner}: "
        return f"{self._owner(given['customer'].id)}: " if "customer" in given and "workflow" not in given else ""

    def _owner(self, customer: str | None) -> str:
        return ACCOUNT if customer is None else self._evidence.names.get(customer, customer)[:60]

    def _blocked(self) -> list[str]:
        """Return what keeps runs from happening at all."""
        evidence, given = self._evidence, self._subject.given
        found: list[str] = []
        if "customer" in given and is_pending(given["customer"].row):
            found.append(
                f"{self._owner(given['customer'].id)} waits for activation by its admin: nothing runs for it until then"
            )
        workflows = evidence.relevant_workflows if given else []
        for key in workflows:
            if blocked := evidence.setup(key).blocked:
                name = "the workflow" if len(workflows) == 1 else f'"{evidence.names.get(key, key)[:60]}"'
                found.append(f"{name} is {blocked}" if blocked.startswith("inactive") else f"{name} was {blocked}")
        if self._subject.trigger is not None and not workflows:
            found.append("the trigger starts no workflow")
        if not self._failures and self._subject.customer:
            broken = [connection for connection in self._connections() if connection.state in (State.BROKEN, State.OFF)]
            found += [f"the connection {connection.label} is {connection.status}" for connection in broken[:2]]
        found += [f"the quota {quota} is used up" for quota in quotas_of(evidence.quotas) if quota.percent >= 100]
        return found

    def _runs(self) -> dict[str, JsonValue]:
        evidence, count = self._evidence, len(self._failures)
        failed = f"at least {count}" if count and evidence.has_failures_unread else count
        totals = evidence.totals() or {"failed": failed}
        if not evidence.knows_failures:
            totals = {name: count for name, count in totals.items() if name != "failed"}
        last, before = evidence.last_success_at, evidence.last_before
        found = {"hours": evidence.period.hours, **totals}
        found["last_success"] = aged(last, self._now) if last else evidence.last_success_in_words
        if not evidence.runs and before and before.at:
            found["last_run"] = f"{before.id}, {aged(before.at, self._now)}"
        return found

    def _remedy(self, cause: FailureGroup, newest: EndedRun) -> Remedy:
        evidence, connector = self._evidence, self._evidence.connector(newest)
        setup = evidence.setup(newest.workflow)
        candidates = connections_to([connector] if connector else setup.apps, evidence.connections)
        own = [connection for connection in candidates if connection.customer in cause.customers]
        relevant = own or [connection for connection in candidates if connection.customer is None]
        known = evidence.connected
        is_known = not cause.customers or own or known.intersection(cause.customers)
        return remedy(FailureEvidence(newest, setup, bool(cause.customers), connector, relevant if is_known else None))

    def _cause(self, cause: FailureGroup, newest: EndedRun, found: Remedy) -> dict[str, JsonValue]:
        times, now, count = cause.times, self._now, len(cause.runs)
        arguments: Mapping[Any, dict[str, JsonValue]] = {
            GetExecution: {"execution_id": newest.id},
            GetWorkflow: {"workflow_id": newest.workflow},
            ListConnections: {"customer_id": cause.customers[0]} if cause.customers else {},
        }
        return _without_empty(
            {
                "runs": count,
                "share": f"{100 * count / len(self._failures):.0f} % of the failures",
                "first_seen": aged(min(times), now) if times else None,
                "last_seen": aged(max(times), now) if times else None,
                "failing_step": _cut(" ".join(filter(None, (newest.failed_at, newest.step and f"({newest.step})")))),
                "headline": _cut(newest.headline),
                # A connection's error repeats its id; the likely cause names the connection.
                "message": "" if found.see is ListConnections and newest.headline else _cut(newest.message, 160),
                "category": _cut(newest.category, 60),
                "fastn_suggests": _cut(newest.suggestion, 160),
                "example": newest.id,
                **self._affected(cause),
                "likely_cause": found.likely,
                "fix": found.fix,
                "will_not_help": found.will_not_help,
                "next": suggested(found.see, **arguments.get(found.see, {})),
            }
        )

    def _other_causes(self) -> list[JsonValue]:
        """Return the less frequent causes in Fastn's words, with their numbers of runs."""
        rest = self._evidence.causes[CAUSES:]
        shown: list[JsonValue] = [
            f"{cause.newest.reason or 'unknown'}: {counted(len(cause.runs), 'run')}" for cause in rest[:_OTHERS]
        ]
        if more := rest[_OTHERS:]:
            shown.append(f"{len(more)} more causes: {counted(sum(len(cause.runs) for cause in more), 'run')}")
        return shown

    def _affected(self, cause: FailureGroup) -> dict[str, JsonValue]:
        """Return the customers and workflows that fail: the first with counts, further ones by name."""
        scopes = [*cause.scopes.items()]
        shown: list[JsonValue] = [self._scope(scope, count) for scope, count in scopes[:_AFFECTED]]
        rest = scopes[_AFFECTED:]
        more = Counter({self._named(scope): count for scope, count in rest})
        also: list[JsonValue] = [f"{name} ({count})" for name, count in more.most_common(_ALSO)]
        if len(more) > _ALSO:
            also.append(f"{len(more) - _ALSO} more")
        return {"affected": shown, "also": also}

    def _named(self, scope: Scope) -> str:
        """Return the workflow and customer of a scope, as far as the subject does not say them."""
        workflow = None if len(self._subject.workflows) == 1 else self._workflow(scope.workflow)
        customer = None if self._subject.customer else self._owner(scope.customer)
        return " for ".join(filter(None, (workflow, customer))) or self._workflow(scope.workflow)

    def _workflow(self, key: str | None) -> str:
        return self._evidence.names.get(key or "", key or "")[:60]

    def _scope(self, scope: Scope, count: int) -> dict[str, JsonValue]:
        record, is_named = self._evidence.run_records.get(scope, RunRecord(scope)), len(self._subject.workflows) == 1
        of = "" if record.runs is None else f" of {record.runs:,}"
        return _without_empty(
            {
                "workflow": None if is_named else self._workflow(scope.workflow),
                "workflow_id": None if is_named else scope.workflow,
                "customer": None if self._subject.customer and not is_named else self._owner(scope.customer),
                "failed": f"{count:,}{of}",
                **self._history(record),
            }
        )

    def _history(self, record: RunRecord) -> dict[str, JsonValue]:
        """Return since when runs fail, and the last success."""
        success, now = record.last_success, self._now
        found: dict[str, JsonValue] = {}
        if record.is_failing and record.since is not None:
            found["since"] = ("" if record.knows_since else "at least since ") + aged(record.since, now)
        if last := record.last_success_in_words(now):
            found["last_success"] = last
        newest = record.failures[0].version if record.failures else ""
        if success and newest and success.version and newest != success.version:
            found["version"] = f"failing runs {newest}, last success {success.version}"
        return found

    def _without_failures(self) -> list[JsonValue]:
        """Return the other workflows of the customer, with their last success."""
        records = [record for record in self._evidence.run_records.values() if not record.failures]
        return [
            _without_empty(
                {
                    "workflow": self._workflow(record.scope.workflow),
                    "id": record.scope.workflow,
                    "runs": record.runs,
                    **self._history(record),
                }
            )
            for record in records
        ]

    def _connections(self) -> list[PartState]:
        """Return the connections that matter: all of a customer, else those of affected customers and the account."""
        evidence, subject = self._evidence, self._subject
        if subject.is_any_of_customer:
            return [connection for connection in evidence.connections if connection.customer == subject.customer]
        apps = {app for run in evidence.newest if (app := evidence.connector(run))}
        apps |= {app for key in subject.workflows for app in evidence.setup(key).apps}
        affected = {key for cause in evidence.causes for key in cause.customers} | {None, subject.customer}
        if not self._failures and evidence.triggers:
            affected |= {trigger.customer for trigger in evidence.triggers}
        return [
            connection
            for connection in connections_to(apps, evidence.connections)
            if connection.customer in affected
            and (connection.state is not State.LIVE or connection.customer == subject.customer)
        ]

    def _connection(self, connection: PartState) -> dict[str, JsonValue]:
        entry: dict[str, JsonValue] = {"what": _cut(connection.label), "status": connection.status}
        if connection.state in (State.BROKEN, State.OFF):
            entry["since"] = broken_since(connection, self._now)
            if not any(connection in found.repairs for *_, found in self._causes):
                entry["fix"] = repairs([connection])
        return entry

    def _triggers(self, triggers: list[PartState]) -> list[PartState]:
        """Return those to show: if runs fail, no other customer's triggers but those with a problem."""
        affected = {None, *(key for cause in self._evidence.causes for key in cause.customers)}
        if not self._subject.given:
            return [trigger for trigger in triggers if trigger.problem]
        return [t for t in triggers if t.problem or not self._failures or t.customer in affected]

    def _trigger(self, trigger: PartState) -> dict[str, JsonValue]:
        entry: dict[str, JsonValue] = {"id": trigger.id, "name": _cut(trigger.label, 60), "of": trigger.owner}
        entry |= {"type": text(trigger.row, "type"), "status": trigger.status}
        entry |= {"problem": _cut(trigger.problem, 160)} if trigger.problem else {}
        if trigger.state is State.OFF:
            entry["fix"] = "Fix the cause first, then switch it on."
            entry["next"] = suggested(UpdateTrigger, trigger_id=trigger.id, status="Active")
        elif trigger.state is State.BROKEN:
            entry["fix"] = "Repair its connection, then retry the subscription in the dashboard."
            entry["next"] = suggested(GetTrigger, trigger_id=trigger.id)
        return entry

    def _change(self, change: Changed) -> dict[str, JsonValue]:
        evidence, first = self._evidence, self._evidence.failing_since
        labels = {found.id: kind for kind, found in self._subject.given.items()}
        labels |= {connection.id: connection.label for connection in evidence.connections} | evidence.names
        return _without_empty(
            {
                "at": aged(change.at, self._now) if change.at else None,
                "of": _cut(labels.get(change.of, change.of), 60),
                "what": _cut(change.what, 60),
                "by": _cut(change.by, 60),
                "outcome": "" if change.outcome == "Success" else change.outcome,
                "before_failures": True if change.at and first and change.at <= first else None,
            }
        )


def _without_empty(entry: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in entry.items() if value not in (None, "", [])}


def _fitting(found: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Shorten the answer to `LONGEST`: apply the `_CUTS`, those of causes after their suggestions and messages."""
    left_out: Counter[str] = Counter()
    for name, least, longest in _CUTS:
        if name == "causes":
            for cause in cast("list[dict[str, JsonValue]]", found["causes"]):
                for detail in ("fastn_suggests", "message", "also"):
                    if len(to_json(found)) > LONGEST:
                        cause.pop(detail, None)
        entries = cast("list[JsonValue]", found.get(name, []))
        while len(entries) > least and len(to_json(found)) > longest:
            entries.pop()
            left_out[name] += 1
    if left_out:
        found["left_out"] = {**left_out, "see": "get_overview (about) or the lists"}
    return found


def _cut(text_: str, longest: int = _SHORT) -> str:
    return text_ if len(text_) <= longest else f"{text_[:longest]}…"
