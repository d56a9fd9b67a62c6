"""What the handlers of operations share: find, make and replace rows; types of fields; cascades of a deletion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, TypeVar, cast

from fastn_mcp.sandbox.behaviour import conflict, invalid, not_found
from fastn_mcp.sandbox.paging import Rows, select
from fastn_mcp.sandbox.run_history import History
from fastn_mcp.sandbox.state import Row, SandboxState, objects, provenance, record, stamp
from fastn_mcp.tools.catalog import AnyOperation


@dataclass(frozen=True, slots=True)
class RouteContext:
    """What a handler works with. `key` is the caller's row; `body` is what came, by Fastn's names.

    `history` has the runs that the state does not store.
    """

    state: SandboxState
    history: History
    now: datetime
    key: Row
    body: Row

    @property
    def actor(self) -> str:
        """The caller as the audit log names it."""
        return f"apikey:{self.key['id']}"

    @property
    def time(self) -> str:
        return stamp(self.now)

    def audit(self, action: str, kind: str, key: object, customer: str | None = None, actor: str | None = None) -> None:
        """Append to the account's audit log what was just done."""
        record(self.state, self.now, actor or self.actor, action, (kind, key), customer=customer)


class One(NamedTuple):
    """One resource."""

    row: Row
    status: int = 200


Outcome = One | Rows | None
"""One resource, a list from which the page is still to be cut, or nothing to say (204)."""

Handler = Callable[[RouteContext, Any], Outcome]
"""Does what one call asks for. Raises `SandboxRefusal`."""

_H = TypeVar("_H", bound=Handler)


class Endpoint(NamedTuple):
    """`permission` is None for what every key may do: no group guards the reading of customers."""

    handler: Handler
    permission: str | None


ENDPOINTS: dict[AnyOperation, Endpoint] = {}
"""The handler of each operation, and the permission that a key needs. Filled by `endpoint`."""


def endpoint(operation: AnyOperation, permission: str | None) -> Callable[[_H], _H]:
    """Register the handler of an operation."""

    def register(handler: _H) -> _H:
        ENDPOINTS[operation] = Endpoint(handler, permission)
        return handler

    return register


class FieldKind(Enum):
    """Every field also takes null, which clears it."""

    TEXT = "a text"
    NUMBER = "a whole number"
    FLAG = "true or false"
    OBJECT = "an object"
    OBJECTS = "an array of objects"
    TEXTS = "an array of texts"

    def fits(self, value: object) -> bool:
        """Whether a field of this kind takes `value`."""
        items = cast("list[object]", value) if isinstance(value, list) else None
        match self:
            case _ if value is None:
                return True
            case FieldKind.TEXT:
                return isinstance(value, str)
            case FieldKind.NUMBER:
                return isinstance(value, int) and not isinstance(value, bool)
            case FieldKind.FLAG:
                return isinstance(value, bool)
            case FieldKind.OBJECT:
                return isinstance(value, dict)
            case FieldKind.OBJECTS:
                return items is not None and all(isinstance(item, dict) for item in items)
            case FieldKind.TEXTS:
                return items is not None and all(isinstance(item, str) for item in items)


def fields(**names: str) -> dict[str, FieldKind]:
    """Kinds of fields by name. `fields(text="name slug")` are two texts."""
    return {name: FieldKind[kind.upper()] for kind, listed in names.items() for name in listed.split()}


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection and its fields, by their name on the wire.

    `settable` fields can be changed, `fixed` ones given only when a row is made. A list leaves out what is `long`.
    """

    collection: str
    kind: str
    settable: Mapping[str, FieldKind]
    fixed: Mapping[str, FieldKind] = field(default_factory=dict[str, FieldKind])
    unique: tuple[str, ...] = ("name",)
    long: frozenset[str] = frozenset()

    def list(self, context: RouteContext, call: Any) -> Rows:
        """The rows that match, without what is long."""
        return Rows(select(context.state.all(self.collection), call), self.brief)

    def get(self, context: RouteContext, call: Any) -> One:
        return One(self.target(context, call))

    def delete(self, context: RouteContext, call: Any) -> None:
        self.remove(context, self.target(context, call))

    def target(self, context: RouteContext, call: Any) -> Row:
        """The row that `call` names by its id. A slug is no id. Raises `SandboxRefusal`."""
        row = context.state.get(self.collection, getattr(call, f"{self.kind}_id"))
        if row is None:
            raise not_found()
        return row

    def brief(self, row: Row) -> Row:
        return {name: value for name, value in row.items() if name not in self.long} if self.long else row

    def check(self, body: Row) -> None:
        """Raises `SandboxRefusal` for a field that Fastn does not know, and for a value of another kind."""
        for name, value in body.items():
            kind = self.settable.get(name) or self.fixed.get(name)
            if kind is None:
                raise invalid(name, "unknown field")
            if not kind.fits(value):
                raise invalid(name, f"not {kind.value}")

    def make(self, context: RouteContext, row: Row, by: str | None = None) -> Row:
        """Store a new row. Raises `SandboxRefusal` where its name is taken."""
        self._refuse_taken(context, row)
        row |= provenance(context.time, by or context.actor)
        context.audit(f"{self.kind}.create", self.kind, row["id"], row.get("endOrgId"), actor=by)
        return context.state.put(self.collection, row)

    def replaced(self, context: RouteContext, row: Row, shown: Row) -> Row:
        """`row` with what the body gives: a PUT replaces, so what it leaves out becomes null.

        `shown` is the row as a GET shows it. A PUT may carry back what it was shown, and no other value of what
        Fastn sets itself. Raises `SandboxRefusal`.
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
        kept = {name: value for name, value in row.items() if name not in self.settable}
        return kept | {name: body.get(name) for name in sorted(self.settable)}

    def keep(self, context: RouteContext, row: Row) -> Row:
        """Store a changed row as its next version. Raises `SandboxRefusal` where its name is taken."""
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
        """Drop a row and say so."""
        context.state.drop(self.collection, row["id"])
        context.audit(f"{self.kind}.{action}", self.kind, row["id"], row.get("endOrgId"), actor=actor)
        return One({"id": row["id"], "deleted": True})

    def _refuse_taken(self, context: RouteContext, row: Row) -> None:
        for name in self.unique:
            other = context.state.first(self.collection, name, row[name]) if row.get(name) is not None else None
            if other is not None and other["id"] != row["id"]:
                raise conflict(f"{name} is taken", {"field": name, "by": other["id"]})


def disconnect(context: RouteContext, connections: list[Row]) -> None:
    """Drop connections with their credentials. Triggers that listen by them no longer hear anything."""
    for connection in connections:
        context.state.drop("connections", connection["id"])
        context.audit("connection.delete", "connection", connection["id"], connection["endOrgId"])
        for trigger in context.state.all("triggers"):
            if trigger.get("connectionId") == connection["id"]:
                trigger["subscriptionStatus"] = "FAILED"
                _touch(context, "triggers", trigger)


def stop_triggers_of(context: RouteContext, workflow: Row) -> None:
    """A trigger stops once all the workflows that it starts are gone."""
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
    """Set a trigger's status, and note it in the trigger's history."""
    entry = {"status": status, "at": when, "by": by, **more}
    trigger |= {"status": status, "statusHistory": [*objects(trigger, "statusHistory")[-19:], entry]}


def deactivate(context: RouteContext, workflow: Row) -> None:
    """Switch a workflow off, and with it what starts it."""
    workflow["status"] = "inactive"
    _touch(context, "workflows", workflow)
    stop_triggers_of(context, workflow)


def _touch(context: RouteContext, collection: str, row: Row) -> None:
    row["updatedAt"] = context.time
    row["version"] += 1
    context.state.put(collection, row)
