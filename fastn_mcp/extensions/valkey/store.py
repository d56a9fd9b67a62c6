"""Store on Valkey (or Redis 7 and newer), shared by replicas.

A commit is one Lua script on the server (`scripts/commit.lua`). The braces around the ledger's name put all its keys
into one slot of a cluster, so that documents and their indexes change together. The load, a few commands for each
change, is far below the capacity of one server.

Nothing is sent twice: if the reply to a commit is lost, `LedgerLost` is raised, and what it wrote stays.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from math import inf, isinf

from fastn_mcp.extensions.valkey.server import MAX_READ, Address, Durability, Server, parse
from fastn_mcp.ledger.store import Commit, Document, Store, Write
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)


def _document(key: str, version: str, value: str) -> Document:
    return Document(key, value, int(version))


def _score(score: float) -> str:
    if isinf(score):
        return "+inf" if score > 0 else "-inf"
    return repr(score)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else str(max(1, round(seconds * 1000)))


class ValkeyStore(Store):
    """Store at this address."""

    def __init__(self, address: Address, system: System) -> None:
        self._server = server = Server(address, system)
        self._documents = server.key("document", "")
        self._indexes = server.key("index", "")
        self._revision = server.key("revision")
        self._news = server.key("news")

    async def read(self, keys: Collection[str]) -> dict[str, Document]:
        rows = await self._server.look("read", [self._documents + key for key in keys])
        return {key: _document(key, *row) for key, row in zip(keys, rows, strict=True) if row}

    async def scan(
        self,
        indexes: Collection[str],
        low: float = -inf,
        high: float = inf,
        *,
        newest: bool = False,
        limit: int | None = None,
    ) -> list[Document]:
        lowest = f"({_score(low)}"
        highest = _score(high)
        first, last, order = (highest, lowest, "REV") if newest else (lowest, highest, "")
        most = "" if limit is None else limit
        keys = [self._indexes + name for name in indexes]
        rows = await self._server.look("scan", keys, self._documents, first, last, order, most)
        return [_document(*row) for row in rows]

    async def commit(self, expected: Mapping[str, int], writes: Sequence[Write], *, is_news: bool = False) -> Commit:
        step = {
            "expected": [(key, str(version)) for key, version in expected.items()],
            "writes": [
                {
                    "key": each.key,
                    "value": each.value,
                    "lifetime": _milliseconds(each.lifetime),
                    "indexes": [(name, _score(score)) for name, score in each.indexes.items()],
                }
                for each in writes
            ],
        }
        arguments = (self._documents, self._indexes, int(is_news), json.dumps(step, ensure_ascii=False))
        reply = await self._server.run("commit", [self._revision, self._news], *arguments)
        if isinstance(reply, int):
            return Commit(reply)
        return Commit(found={row[0]: _document(*row) for row in reply})

    async def forget(self, now: float) -> None:
        """Do nothing: the server forgets by its own clock."""

    async def revision(self) -> int:
        return int(await self._server.read("GET", self._revision) or 0)

    async def wait(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:  # noqa: ARG002 - the server waits
        if not seen:
            newest = await self._server.read("XREVRANGE", self._news, "+", "-", "COUNT", 1)
            return newest[0][0] if newest else "0-0"
        longest = max(1, round(min(seconds, MAX_READ) * 1000))
        streams = await self._server.read("XREAD", "BLOCK", longest, "STREAMS", self._news, seen)
        return streams[0][1][-1][0] if streams else seen

    async def durability(self) -> Durability:
        """Ask how the server keeps its data, and the time (used by `doctor`)."""
        return await self._server.durability()

    async def aclose(self) -> None:
        await self._server.aclose()


def open_store(url: str, system: System) -> ValkeyStore:
    """Return the store at an address, not yet connected. Raises `ValueError` if the address is invalid."""
    address = parse(url)
    weakness = address.weakness
    if weakness is not None:
        log.warning("The shared ledger at %s: %s", address.shown, weakness)
    return ValkeyStore(address, system)
