"""Find, make and replace rows; types of fields; cascades of a deletion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.sandbox.paging import matching, newest_first
from fastn_mcp.sandbox.reply import Many, One, Outcome, StoredRows, conflict, invalid, not_found
from fastn_mcp.sandbox.request_context import Handler, RouteContext
from fastn_mcp.sandbox.state import Row


class FieldKind(Enum):
    """Every field also takes null, which clears it."""

    TEXT = "a text"
    NUMBER = "a whole number"
    FLAG = "true or false"
    OBJECT = "an object"
    OBJECTS = "an array of objects"
    TEXTS = "an array of texts"

    def fits(self, value: JsonValue) -> bool:
        """Whether a field of this kind takes `value`."""
        if value is None:
            return True
        match self:
            case FieldKind.TEXT:
                return isinstance(value, str)
            case FieldKind.NUMBER:
                return isinstance(value, int) and not isinstance(value, bool)
            case FieldKind.FLAG:
                return isinstance(value, bool)
            case FieldKind.OBJECT:
                return isinstance(value, dict)
            case FieldKind.OBJECTS:
                return isinstance(value, list) and all(isinstance(item, dict) for item in value)
            case FieldKind.TEXTS:
                return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[object]", value))


TEXT, NUMBER, FLAG = FieldKind.TEXT, FieldKind.NUMBER, FieldKind.FLAG
OBJECT, OBJECTS, TEXTS = FieldKind.OBJECT, FieldKind.OBJECTS, FieldKind.TEXTS


@dataclass(frozen=True, slots=True)
class Resource:
    """`fixed` fields can be given when a row is made and not be changed; a list leaves out what is `long`."""

    collection: str
    kind: str
    settable: Mapping[str, FieldKind]
    fixed: Mapping[str, FieldKind] = field(default_factory=dict[str, FieldKind])
    unique: tuple[str, ...] = ("name",)
    long: frozenset[str] = frozenset()

    def find(self, desk: RouteContext, key: str) -> Row:
        """The row with this id. A slug is no id. Raises `Refusal`."""
        row = desk.state.get(self.collection, key)
        if row is None:
            raise not_found()
        return row

    def check(self, body: Row) -> None:
        """A field that Fastn does not know is an error, and so is a value of another kind. Raises `Refusal`."""
        for name, value in body.items():
            kind = self.settable.get(name) or self.fixed.get(name)
            if kind is None:
                raise invalid(name, "unknown field")
            if not kind.fits(value):
                raise invalid(name, f"not {kind.value}")

    def refuse_taken(self, desk: RouteContext, row: Row) -> None:
        """Raises `Refusal` where another row has the same name or slug."""
        for name in self.unique:
            other = desk.state.first(self.collection, name, row[name]) if row.get(name) is not None else None
            if other is not None and other["id"] != row["id"]:
                raise conflict(f"{name} is taken", {"field": name, "by": other["id"]})

    def make(self, desk: RouteContext, row: Row, by: str | None = None) -> Row:
        """Keep a new row. Raises `Refusal` where its name is taken."""
        self.refuse_taken(desk, row)
        who = by or desk.actor
        made: Row = {
            **row,
            "version": 1,
            "createdAt": desk.time,
            "createdBy": who,
            "updatedAt": desk.time,
            "updatedBy": who,
        }
        desk.audit(f"{self.kind}.create", self.kind, made["id"], row.get("endOrgId"), actor=by)
        return desk.state.put(self.collection, made)

    def replaced(self, desk: RouteContext, row: Row, shown: Row) -> Row:
        """`row` with what the body gives: a PUT replaces, so what it leaves out becomes null. Raises `Refusal`.

        `shown` is the row as a GET shows it. A PUT may carry back what it was shown, and no other value of what
        Fastn keeps itself.
        """
        body = desk.body
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

    def keep(self, desk: RouteContext, row: Row) -> Row:
        """Keep a changed row as its next version. Raises `Refusal` where its name is taken."""
        self.refuse_taken(desk, row)
        version = row["version"]
        row |= {
            "version": version + 1 if isinstance(version, int) else 1,
            "updatedAt": desk.time,
            "updatedBy": desk.actor,
        }
        desk.audit(f"{self.kind}.update", self.kind, row["id"], row.get("endOrgId"))
        return desk.state.put(self.collection, row)

    def remove(self, desk: RouteContext, row: Row, action: str = "delete", actor: str | None = None) -> One:
        """Drop a row and say so."""
        desk.state.drop(self.collection, row["id"])
        desk.audit(f"{self.kind}.{action}", self.kind, row["id"], row.get("endOrgId"), actor=actor)
        return One({"id": row["id"], "deleted": True})

    def listing(self) -> Handler:
        """Answers with the rows that match, newest first and without what is long."""

        def handler(desk: RouteContext, call: Any) -> Outcome:
            return Many(StoredRows(newest_first(matching(desk.state.all(self.collection), call)), self.brief))

        return handler

    def brief(self, row: Row) -> Row:
        return {name: value for name, value in row.items() if name not in self.long} if self.long else row


def disconnect(desk: RouteContext, connections: list[Row]) -> None:
    """Drop connections with their credentials. Triggers that listen by them no longer hear anything."""
    for connection in connections:
        desk.state.drop("connections", connection["id"])
        desk.audit("connection.delete", "connection", connection["id"], connection["endOrgId"])
        for trigger in desk.state.all("triggers"):
            if trigger.get("connectionId") == connection["id"]:
                trigger["subscriptionStatus"] = "FAILED"
                _touch(desk, "triggers", trigger)


def stop_triggers_of(desk: RouteContext, workflow: Row) -> None:
    """A trigger stops once all the workflows that it starts are gone."""
    for trigger in desk.state.all("triggers"):
        targets = targets_of(trigger)
        alive = [target for target in targets if desk.state.get("workflows", target) is not None]
        if workflow["id"] in targets and not [target for target in alive if target != workflow["id"]]:
            disable(desk, trigger, f"its workflow {workflow['slug']} is gone or off")


def disable(desk: RouteContext, trigger: Row, reason: str) -> None:
    if trigger["status"] != "Disabled":
        history = cast("list[JsonValue]", trigger.get("statusHistory") or [])[-19:]
        entry: Row = {"status": "Disabled", "at": desk.time, "by": "platform", "reason": reason}
        trigger |= {"status": "Disabled", "nextRun": None, "statusHistory": [*history, entry]}
        _touch(desk, "triggers", trigger)


def deactivate(desk: RouteContext, workflow: Row) -> None:
    """Switch a workflow off, and with it what starts it."""
    workflow["status"] = "inactive"
    _touch(desk, "workflows", workflow)
    stop_triggers_of(desk, workflow)


def targets_of(trigger: Row) -> list[str]:
    """The ids of the workflows that a trigger starts."""
    routes = trigger.get("routes")
    rows = routes if isinstance(routes, list) else []
    return [str(row.get("routeId")) for row in rows if isinstance(row, dict)]


def _touch(desk: RouteContext, collection: str, row: Row) -> None:
    row["updatedAt"] = desk.time
    row["version"] = cast(int, row["version"]) + 1
    desk.state.put(collection, row)
