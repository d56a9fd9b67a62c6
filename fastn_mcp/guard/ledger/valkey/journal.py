"""Change journal on Valkey.

If the reply to `begin` is lost, the call counts as begun: it is not sent, and a list does not begin it again.
"""

import json
from collections.abc import Mapping
from typing import Any

from fastn_mcp.guard.changes import FINAL, Change
from fastn_mcp.guard.ledger.valkey.server import KEPT, LedgerPart

_JSON = ("arguments", "before", "sent")


class ValkeyJournal(LedgerPart):
    """Changes of all accounts of one ledger."""

    def _change(self, id_: str) -> str:
        return self._server.key("change", id_)

    def _all_of(self, account: str) -> str:
        return self._server.key("changes", account)

    def _unsettled(self, call: str) -> str:
        return self._server.key("unsettled", call)

    async def begin(self, change: Change) -> bool:
        values: dict[str, Any] = {name: getattr(change, name) for name in Change.__dataclass_fields__}
        values |= {name: json.dumps(values[name]) for name in _JSON} | {"undone": int(change.undone)}
        fields = [part for name, value in values.items() if value is not None for part in (name, value)]
        batch, unsettled = self._server.key("batch", change.batch), self._unsettled(change.call)
        keys = [self._change(change.id), self._all_of(change.account), self._revision, batch, unsettled]
        begun = await self._server.run(
            "begin",
            keys,
            change.id,
            change.at,
            change.unsettled_until,
            KEPT,
            self._change(""),
            change.number,
            change.call,
            len(FINAL),
            *FINAL,
            *fields,
        )
        if begun == -1:
            raise ValueError("a change of this id exists already")
        return begun == 1

    async def changes_of(self, batch: str) -> list[Change]:
        numbers = await self._server.gather([self._server.key("batch", batch)])
        ids = numbers[0].values() if numbers else ()
        found = [_read(fields) for fields in await self._server.gather([self._change(id_) for id_ in ids])]
        return sorted((change for change in found if change.outcome in FINAL), key=lambda change: change.number)

    async def settle(self, change: Change) -> None:
        said = {
            "outcome": change.outcome,
            "target": change.target,
            "name": change.name,
            "sent": json.dumps(change.sent),
            "unsettled_until": repr(change.unsettled_until),
        }
        await self._set(
            change.id, "id", "", {field: value for field, value in said.items() if value is not None}, change.call
        )

    async def unsettled(self, call: str, now: float) -> dict[str, float]:
        found = ("ZRANGE", self._unsettled(call), f"({now!r}", "+inf", "BYSCORE", "WITHSCORES")
        flat: list[str] = await self._server.read(*found)
        return {id_: float(until) for id_, until in zip(flat[::2], flat[1::2], strict=True)}

    async def change(self, account: str, change: str) -> Change | None:
        found = await self._server.gather([self._change(change)])
        return _read(found[0]) if found and found[0]["account"] == account else None

    async def changes(self, account: str, limit: int, before: float) -> list[Change]:
        newest = ("ZRANGE", self._all_of(account), f"({before!r}", "-inf", "BYSCORE", "REV", "LIMIT", 0, limit)
        ids: list[str] = await self._server.read(*newest)
        return [_read(fields) for fields in await self._server.gather([self._change(id_) for id_ in ids])]

    async def claim(self, change: str) -> bool:
        return await self._set(change, "undone", "0", {"undone": "1"})

    async def release(self, change: str) -> None:
        await self._set(change, "undone", "1", {"undone": "0"})

    async def _set(self, change: str, field: str, expected: str, values: Mapping[str, str], call: str = "") -> bool:
        keys = [self._change(change), self._revision, *([self._unsettled(call)] if call else [])]
        flat = [part for pair in values.items() for part in pair]
        return await self._server.run("settle", keys, change, field, expected, *flat) == 1


def _read(fields: Mapping[str, str]) -> Change:
    values: dict[str, Any] = {"target": None, "name": None} | dict(fields)
    values |= {name: json.loads(values[name]) for name in _JSON}
    values |= {"at": float(values["at"]), "undone": values["undone"] == "1"}
    values |= {"unsettled_until": float(values.get("unsettled_until", 0)), "number": int(values.get("number", 0))}
    return Change(**values)
