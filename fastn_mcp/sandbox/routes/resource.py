"""What the resources have in common: finding, making and replacing rows, and which fields may be written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastn_mcp.sandbox.desk import Desk, Handler
from fastn_mcp.sandbox.paging import matching, newest_first
from fastn_mcp.sandbox.reply import Many, One, Outcome, conflict, invalid, not_found
from fastn_mcp.sandbox.routes.fields import Kind
from fastn_mcp.sandbox.rows import Kept
from fastn_mcp.sandbox.state import Row


@dataclass(frozen=True, slots=True)
class Resource:
    """`fixed` fields can be given when a row is made and not be changed; a list leaves out what is `long`."""

    collection: str
    kind: str
    settable: Mapping[str, Kind]
    fixed: Mapping[str, Kind] = field(default_factory=dict[str, Kind])
    unique: tuple[str, ...] = ("name",)
    long: frozenset[str] = frozenset()

    def find(self, desk: Desk, key: str) -> Row:
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

    def refuse_taken(self, desk: Desk, row: Row) -> None:
        """Raises `Refusal` where another row has the same name or slug."""
        for name in self.unique:
            other = desk.state.first(self.collection, name, row[name]) if row.get(name) is not None else None
            if other is not None and other["id"] != row["id"]:
                raise conflict(f"{name} is taken", {"field": name, "by": other["id"]})

    def make(self, desk: Desk, row: Row, by: str | None = None) -> Row:
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

    def replaced(self, desk: Desk, row: Row, shown: Row) -> Row:
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

    def keep(self, desk: Desk, row: Row) -> Row:
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

    def remove(self, desk: Desk, row: Row, action: str = "delete", actor: str | None = None) -> One:
        """Drop a row and say so."""
        desk.state.drop(self.collection, row["id"])
        desk.audit(f"{self.kind}.{action}", self.kind, row["id"], row.get("endOrgId"), actor=actor)
        return One({"id": row["id"], "deleted": True})

    def listing(self) -> Handler:
        """Answers with the rows that match, newest first and without what is long."""

        def handler(desk: Desk, call: Any) -> Outcome:
            return Many(Kept(newest_first(matching(desk.state.all(self.collection), call)), self.brief))

        return handler

    def brief(self, row: Row) -> Row:
        return {name: value for name, value in row.items() if name not in self.long} if self.long else row
