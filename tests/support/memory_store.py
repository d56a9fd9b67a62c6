"""A store in the memory of this process, the shortest that keeps the contract. Faults can be planted in it."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from math import inf

from fastn_mcp.ledger.store import Commit, Document, LedgerLost, Store, Write

_STORES: "dict[str, MemoryStore]" = {}


def memory_store(name: str) -> "MemoryStore":
    """Return the store of this name, the same one each time."""
    return _STORES.setdefault(name, MemoryStore())


def forget_memory_store(name: str) -> None:
    """Let the store of this name go, if there is one: whoever opens it next finds it empty."""
    _STORES.pop(name, None)


class MemoryStore(Store):
    def __init__(self) -> None:
        self._documents: dict[str, tuple[Document, Write]] = {}
        self._revision = 0
        self.commits = 0
        self.reads = 0
        """Reads and scans."""
        self.lost: str = ""
        """`before` or `after` the next commit, its reply is lost, or `reads`: nothing can be read."""

    def _check(self, when: str) -> None:
        if self.lost == when:
            raise LedgerLost("it is lost")

    async def read(self, keys: Collection[str]) -> dict[str, Document]:
        self._check("reads")
        self.reads += 1
        return {key: self._documents[key][0] for key in keys if key in self._documents}

    async def scan(
        self,
        indexes: Collection[str],
        low: float = -inf,
        high: float = inf,
        *,
        newest: bool = False,
        limit: int | None = None,
    ) -> list[Document]:
        self._check("reads")
        self.reads += 1
        found = list[Document]()
        for name in indexes:
            scored = [(write.indexes[name], each) for each, write in self._documents.values() if name in write.indexes]
            within = [(score, each.key, each) for score, each in scored if low < score <= high]
            found += [each for _, _, each in sorted(within, reverse=newest)[:limit]]
        return found

    async def commit(self, expected: Mapping[str, int], writes: Sequence[Write], *, is_news: bool = False) -> Commit:  # noqa: ARG002
        self._check("before")
        self.commits += 1
        assert {each.key for each in writes} <= expected.keys()
        found = {key: self._documents[key][0] for key in expected if key in self._documents}
        if any(version != (found[key].version if key in found else 0) for key, version in expected.items()):
            return Commit(found=found)
        self._revision += 1
        for each in writes:
            if each.value is None:
                self._documents.pop(each.key, None)
            else:
                self._documents[each.key] = Document(each.key, each.value, self._revision), each
        self._check("after")
        return Commit(self._revision)

    async def forget(self, now: float) -> None:
        over = [key for key, (_, write) in self._documents.items() if write.until is not None and write.until <= now]
        for key in over:
            del self._documents[key]

    async def revision(self) -> int:
        return self._revision

    async def wait(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        while str(self._revision) == seen and seconds > 0:
            await sleep(min(0.05, seconds))
            seconds -= 0.05
        return str(self._revision)

    async def aclose(self) -> None:
        """Nothing is open."""
