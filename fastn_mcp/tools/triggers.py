"""Tools for triggers, which start workflows."""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue
from typing_extensions import override

from fastn_mcp.records.cron import is_subset
from fastn_mcp.records.rows import FastnObject, Row, as_word, number, row_of, started_workflows, word
from fastn_mcp.records.states import MANY_FAILURES, State, switched_off, trigger_state
from fastn_mcp.tools.fields import (
    CustomerFilter,
    Description,
    Extra,
    JsonObjects,
    Name,
    OfCustomer,
    Texts,
    TriggerId,
    WorkflowFilter,
    one_of,
)
from fastn_mcp.tools.operation import DELETE, DOCUMENTED, GET, INFERRED, POST, PUT, Operation, Update
from fastn_mcp.tools.paging import APPLIED_HERE, List, Match
from fastn_mcp.tools.tool import Effect

ROUTES = "{routeId: workflow, environment: test|live, filter, payload}."
_NESTED = {"routes": frozenset({"routeId", "routeType", "environment", "headers", "payload", "filter"})}
Schedule = Annotated[str | None, Field(description="scheduler: 5-field cron.")]
Timezone = Annotated[str | None, Field(description="scheduler: IANA zone.")]
Events = Annotated[Texts | None, Field(description="app_event: for example contact.creation.")]
Authentication = Annotated[str | None, Field(description="webhook: API_KEY (default) or NONE (public).")]
Status = Annotated[str | None, *one_of("Active", "Disabled")]
TYPES = one_of("webhook", "scheduler", "app_event")


class Trigger(FastnObject):
    columns = (
        *("id", "name", "type", "status", "subscriptionStatus", "authentication", "schedule", "consecutiveFailures"),
        *("routes", "endOrgId", "createdAt"),
    )

    id: JsonValue = None
    name: JsonValue = None
    status: JsonValue = None


def _of_type(kind: str, field: str) -> Match:
    """Match a field that only triggers of one type have."""

    def match(row: Row, wanted: str) -> bool | None:
        type_ = word(row, field)
        if not wanted:
            return not type_
        if type_:
            return type_ == as_word(wanted)
        return False if word(row, "type") not in ("", kind) else None

    return match


def _starts(row: Row, wanted: str) -> bool | None:
    if "routes" not in row:
        return None
    started = started_workflows(row)
    return wanted in started if wanted else not started


PROBLEMS: Mapping[str, Callable[[Row], bool]] = {
    "failing": lambda row: not _is_off(row) and (number(row, "consecutiveFailures") or 0) >= MANY_FAILURES,
    "broken": lambda row: trigger_state(row) is State.BROKEN,
    "stopped": lambda row: _is_off(row) and switched_off(row).is_platform,
    "never_ran": lambda row: "lastRun" in row and word(row, "lastRun") in ("", "never"),
}
"""What the status of a trigger does not say: `stopped` is disabled by Fastn, and only schedules tell `never_ran`."""


def _has_problem(row: Row, wanted: str) -> bool:
    """Match a problem by its name; an empty one matches a trigger without any."""
    if not wanted:
        return not any(applies(row) for applies in PROBLEMS.values())
    applies = PROBLEMS.get(wanted.lower())
    return applies is not None and applies(row)


class ListTriggers(List[Trigger]):
    """List what starts workflows: schedules, webhooks, app events. Active is not firing: see problem."""

    route = GET("/api/v1/triggers")
    evidence = DOCUMENTED("triggers")

    matching: ClassVar[Mapping[str, Match]] = {
        "workflow_id": _starts,
        "subscription_status": _of_type("app event", "subscriptionStatus"),
        "authentication": _of_type("webhook", "authentication"),
        "problem": _has_problem,
    }

    type: Annotated[str | None, *TYPES] = None
    status: Status = None
    problem: Annotated[str | None, *one_of(*PROBLEMS), APPLIED_HERE] = None
    subscription_status: Annotated[str | None, *one_of("ACTIVE", "FAILED")] = None
    authentication: Annotated[str | None, *one_of("API_KEY", "NONE")] = None
    workflow_id: WorkflowFilter | None = None
    customer_id: Annotated[CustomerFilter | None, Field(serialization_alias="endOrgId")] = None


class GetTrigger(Operation[Trigger]):
    """Get a trigger: schedule, callers, how often and for whom it fires."""

    route = GET("/api/v1/triggers/{trigger_id}")
    effect = Effect.READ
    evidence = INFERRED("api-reference, triggers")

    trigger_id: TriggerId


class CreateTrigger(Operation[Trigger]):
    """Run a workflow on a schedule, webhook or app_event (on an active connection): for real at once, unless
    Disabled."""

    route = POST("/api/v1/triggers")
    effect = Effect.WRITE
    evidence = INFERRED("api-reference, triggers")
    raises_to = (Effect.EXTERNAL,)
    nested = _NESTED
    defaults: ClassVar[Mapping[str, str]] = {"status": "Active", "authentication": "API_KEY"}

    name: Name
    type: Annotated[str, *TYPES]
    routes: Annotated[JsonObjects, Field(description=ROUTES)]
    status: Status = None
    customer_id: OfCustomer = None
    schedule: Schedule = None
    timezone: Timezone = None
    connector_id: Annotated[str | None, Field(description="app_event.")] = None
    connection_id: Annotated[str | None, Field(description="app_event.")] = None
    events: Events = None
    authentication: Authentication = None
    description: Description = None
    extra: Extra = None

    @property
    @override
    def effective(self) -> Effect:
        # The field of the customer is not documented.
        stays_off = _is_off({"status": self.status}) and self.customer_id is None
        return super().effective if stays_off else super().effective.raised_to(Effect.EXTERNAL)


class UpdateTrigger(Update[Trigger]):
    """Change the named fields of a trigger. To pause: status Disabled."""

    route = PUT("/api/v1/triggers/{trigger_id}")
    effect = Effect.WRITE
    evidence = INFERRED("api-reference, triggers")
    raises_to = (Effect.EXTERNAL,)
    nested = _NESTED

    trigger_id: TriggerId
    name: Name | None = None
    status: Status = None
    routes: Annotated[JsonObjects | None, Field(description=ROUTES)] = None
    schedule: Schedule = None
    timezone: Timezone = None
    events: Events = None
    authentication: Authentication = None
    description: Description = None
    extra: Extra = None

    @property
    @override
    def effective(self) -> Effect:
        stays_off = self.status is None or _is_off({"status": self.status})
        return super().effective if stays_off else super().effective.raised_to(Effect.EXTERNAL)

    @override
    def effect_on(self, target: FastnObject | None, dependents: int | None) -> Effect:
        renames_in_use = self.name is not None and not _is_off(row_of(target))
        is_safe = not renames_in_use and not self._may_fire_more(target)
        return self.effective if is_safe else self.effective.raised_to(Effect.EXTERNAL)

    def _may_fire_more(self, target: FastnObject | None) -> bool:
        if _is_off({"status": self.status}) or (self.status is None and _is_off(row_of(target))):
            return False
        changed = self.arguments().keys() - {"trigger_id", "name", "description", "extra"}
        if self.schedule is None or changed != {"schedule"}:
            return bool(changed)
        return not is_subset(self.schedule, getattr(target, "schedule", None))


class DeleteTrigger(Operation[FastnObject]):
    """Delete a schedule, webhook or app event subscription: it stops. An undo gives a new id."""

    route = DELETE("/api/v1/triggers/{trigger_id}")
    effect = Effect.DESTROY
    evidence = DOCUMENTED("triggers")

    trigger_id: TriggerId


def _is_off(trigger: Row) -> bool:
    """Return whether a trigger certainly does not fire. An unknown state may fire."""
    return trigger_state(trigger) is State.OFF
