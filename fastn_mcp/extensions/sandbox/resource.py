"""Base of the handlers: endpoints, resources with typed fields, and the cascades of a deletion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from fastn_mcp.errors import nearest
from fastn_mcp.extensions.sandbox.auth import ALL, OWNERS_ONLY
from fastn_mcp.extensions.sandbox.replies import Rows, conflict, invalid, not_found, select
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, provenance, record, slug_of, stamp
from fastn_mcp.records.rows import objects
from fastn_mcp.tools.catalog import AnyOperation
from fastn_mcp.tools.workflows import ListExecutions


@dataclass(frozen=True, slots=True)
class RouteContext:
    """Context of one request. `key` is the row of the caller's key; `body` has Fastn's names."""

    state: SandboxState
    now: datetime
    key: Row
    body: Row

    @property
    def actor(self) -> str:
        """Name of the caller in the audit log."""
        return f"apikey:{self.key['id']}"

    @property
    def time(self) -> str:
        return stamp(self.now)

    def existing(self, collection: str, key: str, field: str, kind: str) -> Row:
        """Return the row that a field of the request names. Raises `SandboxRefusal` if there is none."""
        row = self.state.get(collection, key)
        if row is None:
            raise invalid(field, f"there is no such {kind}")
        return row

    def audit(self, action: str, kind: str, key: object, customer: str | None = None, actor: str | None = None) -> None:
        """Append an event to the account's audit log."""
        record(self.state, self.now, actor or self.actor, action=action, resource=(kind, key), customer=customer)

    def run(self, key: str) -> Row | None:
        """Return the run of this id. Tests override this and `runs`, for accounts with more runs than they store."""
        return self.state.get("executions", key)

    def runs(self, call: ListExecutions) -> Rows:
        """Return the runs that match the filters of `call`."""
        return Rows(select(self.state.all("executions"), call), EXECUTIONS.brief)


class One(NamedTuple):
    row: Row
    status: int = 200


Outcome = One | Rows | None
"""One resource, a list not yet cut into pages, or None for 204."""

Handler = Callable[[RouteContext, Any], Outcome]
"""Handler of one operation. Raises `SandboxRefusal`."""

_H = TypeVar("_H", bound=Handler)


class SandboxEndpoint(NamedTuple):
    """Handler and permission of an operation. None if every key may call it: reading customers needs no permission."""

    handler: Handler
    permission: str | None


ENDPOINTS: dict[AnyOperation, SandboxEndpoint] = {}
"""Endpoint of each operation. Filled by `endpoint`."""


def endpoint(operation: AnyOperation, permission: str | None) -> Callable[[_H], _H]:
    """Register the handler of an operation. Raises `ValueError` for a permission that Fastn does not have."""
    if permission is not None and permission not in ALL | {OWNERS_ONLY}:
        raise ValueError(f"{operation.tool_name()}: unknown permission {permission!r}{nearest(permission, ALL)}")

    def register(handler: _H) -> _H:
        ENDPOINTS[operation] = SandboxEndpoint(handler, permission)
        return handler

    return register


class FieldKind(NamedTuple):
    """JSON type of a field: in words, in Python, and of the items of an array. Every field also accepts null."""

    words: str
    python: type[Any]
    items: type[Any] = object

    def fits(self, value: Any) -> bool:
        """Whether `value` has this type. Not by `isinstance`, for which true is a whole number."""
        if value is None or type(value) is not self.python:
            return value is None
        return self.python is not list or all(isinstance(item, self.items) for item in value)


_KINDS = {
    "text": FieldKind("a text", str),
    "number": FieldKind("a whole number", int),
    "flag": FieldKind("true or false", bool),
    "object": FieldKind("an object", dict),
    "objects": FieldKind("an array of objects", list, dict),
    "texts": FieldKind("an array of texts", list, str),
}


def fields(**names: str) -> dict[str, FieldKind]:
    """Return kinds by field name: `fields(text="name slug")` are two texts."""
    return {name: _KINDS[kind] for kind, listed in names.items() for name in listed.split()}


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection and its fields, by their names on the wire.

    `settable` fields can be updated; `fixed` ones are set only on creation. Lists omit `long` fields.
    """

    collection: str
    kind: str
    settable: Mapping[str, FieldKind]
    fixed: Mapping[str, FieldKind] = field(default_factory=dict[str, FieldKind])
    unique: tuple[str, ...] = ("name",)
    long: frozenset[str] = frozenset()

    def list(self, context: RouteContext, call: Any) -> Rows:
        """Return the matching rows without long fields."""
        return Rows(select(context.state.all(self.collection), call), self.brief)

    def get(self, context: RouteContext, call: Any) -> One:
        return One(self.target(context, call))

    def delete(self, context: RouteContext, call: Any) -> None:
        self.remove(context, self.target(context, call))

    def target(self, context: RouteContext, call: Any) -> Row:
        """Return the row with the id in `call`; slugs are not accepted. Raises `SandboxRefusal` if there is none."""
        row = context.state.get(self.collection, getattr(call, f"{self.kind}_id"))
        if row is None:
            raise not_found()
        return row

    def brief(self, row: Row) -> Row:
        return {name: value for name, value in row.items() if name not in self.long} if self.long else row

    def check(self, body: Row) -> None:
        """Raise `SandboxRefusal` for an unknown field or a value of the wrong type."""
        for name, value in body.items():
            kind = self.settable.get(name) or self.fixed.get(name)
            if kind is None:
                raise invalid(name, "unknown field")
            if not kind.fits(value):
                raise invalid(name, f"not {kind.words}")

    def create(self, context: RouteContext, row: Row, by: str | None = None) -> Row:
        """Store a new row. Raises `SandboxRefusal` if a unique field is taken."""
        self._refuse_taken(context, row)
        row |= provenance(context.time, by or context.actor)
        context.audit(f"{self.kind}.create", self.kind, row["id"], row.get("endOrgId"), actor=by)
        return context.state.put(self.collection, row)

    def replaced(self, context: RouteContext, row: Row, shown: Row) -> Row:
        """Return `row` with the settable fields of the body. A PUT replaces: omitted fields become null.

        `shown` is the row as a GET returns it. Fields that Fastn sets may be sent only with their current value.
        Raises `SandboxRefusal`.
        """
        body = context.body
        if "version" in body and body["version"] != row["version"]:
            raise conflict("version mismatch", {"currentVersion": row["version"], "yourVersion": body["version"]})
        for name, value in body.items():
            if name in self.settable:
                self.check({name: value})
            elif name in shown and shown[name] == value:
                continue
            elif name in shown or name in self.fixed:
                raise invalid(name, "cannot be changed")
            else:
                raise invalid(name, "unknown field")
        unchanged = {name: value for name, value in row.items() if name not in self.settable}
        return unchanged | {name: body.get(name) for name in sorted(self.settable)}

    def update(self, context: RouteContext, row: Row) -> Row:
        """Store a changed row as its next version. Raises `SandboxRefusal` if a unique field is taken."""
        self._refuse_taken(context, row)
        version = row["version"]
        row |= {
            "version": version + 1 if isinstance(version, int) else 1,
            "updatedAt": context.time,
            "updatedBy": context.actor,
        }
        context.audit(f"{self.kind}.update", self.kind, row["id"], row.get("endOrgId"))
        return context.state.put(self.collection, row)

    def remove(self, context: RouteContext, row: Row, action: str = "delete", actor: str | None = None) -> One:
        """Delete a row. Returns the confirmation."""
        context.state.drop(self.collection, row["id"])
        context.audit(f"{self.kind}.{action}", self.kind, row["id"], row.get("endOrgId"), actor=actor)
        return One({"id": row["id"], "deleted": True})

    def _refuse_taken(self, context: RouteContext, row: Row) -> None:
        for name in self.unique:
            other = context.state.first(self.collection, name, row[name]) if row.get(name) is not None else None
            if other is not None and other["id"] != row["id"]:
                raise conflict(f"{name} is taken", {"field": name, "by": other["id"]})


EXECUTIONS = Resource("executions", "execution", settable={}, unique=(), long=frozenset({"input", "output", "summary"}))


def slug_for(slug: str | None, name: str) -> str:
    """Return the given slug, or the one that follows from the name. Refuses the request if there is none."""
    base = slug or slug_of(name)
    if not base:
        raise invalid("slug", "cannot be made from the name; give one")
    return base


def disconnect(context: RouteContext, connections: list[Row]) -> None:
    """Delete connections and their credentials. Subscriptions of triggers that use them become FAILED."""
    for connection in connections:
        context.state.drop("connections", connection["id"])
        context.audit("connection.delete", "connection", connection["id"], connection["endOrgId"])
        for trigger in context.state.all("triggers"):
            if trigger.get("connectionId") == connection["id"]:
                trigger["subscriptionStatus"] = "FAILED"
                _touch(context, "triggers", trigger)


def stop_triggers_of(context: RouteContext, workflow: Row) -> None:
    """Disable the triggers of a workflow that start no other existing workflow."""
    for trigger in context.state.all("triggers"):
        targets = [route.get("routeId") for route in objects(trigger, "routes")]
        others = [key for key in targets if key != workflow["id"] and context.state.get("workflows", key) is not None]
        if workflow["id"] in targets and not others:
            disable(context, trigger, f"its workflow {workflow['slug']} is gone or off")


def disable(context: RouteContext, trigger: Row, reason: str) -> None:
    if trigger["status"] != "Disabled":
        set_status(trigger, "Disabled", context.time, "platform", reason=reason)
        trigger["nextRun"] = None
        _touch(context, "triggers", trigger)


def set_status(trigger: Row, status: str, when: str, by: str, **more: str) -> None:
    """Set a trigger's status, and append it to the status history."""
    entry = {"status": status, "at": when, "by": by, **more}
    trigger |= {"status": status, "statusHistory": [*objects(trigger, "statusHistory")[-19:], entry]}


def deactivate(context: RouteContext, workflow: Row) -> None:
    """Deactivate a workflow, and the triggers that start only this one."""
    workflow["status"] = "inactive"
    _touch(context, "workflows", workflow)
    stop_triggers_of(context, workflow)


def _touch(context: RouteContext, collection: str, row: Row) -> None:
    row["updatedAt"] = context.time
    row["version"] += 1
    context.state.put(collection, row)
