"""Checks of write operations, by OPTIONS requests. No write is made."""

from dataclasses import dataclass, field

from fastn_mcp.client.exchange import Answer, NotSentError, ResponseLost
from fastn_mcp.doctor.check import Check, CheckGroup
from fastn_mcp.doctor.probe import alternatives
from fastn_mcp.doctor.reads import Reads
from fastn_mcp.errors import FastnError
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.operation import RefusedValue, Request, Route
from fastn_mcp.tools.tool import Effect

WRITES = tuple(operation for operation in CATALOG if operation.effect is not Effect.READ)

_UNKNOWN_PATH = "/api/v1/no-such-path"
_NOT_VERIFIED = "not verified: doctor makes no change to find out"
_PREVIEW = "Nothing to do; check the first one with dry_run, and its result."


@dataclass(slots=True)
class Writes:
    """Checks of the writes, one request per path, with the routes and ids that the reads found."""

    reads: Reads
    _answers: dict[str, Answer | None] = field(default_factory=dict[str, Answer | None])

    async def check(self, operation: AnyOperation) -> Check:
        tool, method = operation.tool_name(), operation.route.method
        route = self.reads.routes.get(tool, operation.route)
        group = CheckGroup.WRITES
        if route.parameters and operation.toolset() not in self.reads.ids:
            return group.skipped(tool, "No id to ask for by OPTIONS.", "See the line of the list.")
        if _allowed(await self._send(_UNKNOWN_PATH)):  # OPTIONS allows methods at any path
            finding = "OPTIONS says nothing about paths here, and no change is made."
            return self._propose_beside_reads(operation) or group.skipped(tool, finding, _PREVIEW)
        answer = await self._options(operation, route)
        allowed = _allowed(answer)
        if method in allowed:
            return group.ok(tool, f"OPTIONS allows {method}.")
        for other in (operation.route, *alternatives(operation)):
            if other != route and method in _allowed(await self._options(operation, other)):
                self.reads.proposal.routes[tool] = str(other)
                return group.differs(
                    tool, f"OPTIONS allows {method} at {other.path}.", "Set the route as proposed below."
                )
        unknown = f'If you know the path, set it: [routes] {tool} = "{method} /..."; else do not rely on the tool.'
        if allowed:
            finding = f"OPTIONS allows {', '.join(sorted(allowed))} there, and not {method}."
            return group.differs(tool, finding, unknown)
        if (likely := self._propose_beside_reads(operation)) is not None:
            return likely
        if answer is not None and answer.status in (404, 410):
            return group.differs(tool, f"{answer.status} at {route.path}.", unknown)
        finding = "No answer to OPTIONS." if answer is None else f"{answer.status} to OPTIONS, which says nothing."
        return group.skipped(tool, finding, _PREVIEW)

    async def _options(self, operation: AnyOperation, route: Route) -> Answer | None:
        try:
            path = route.fill(dict.fromkeys(route.parameters, self.reads.ids.get(operation.toolset(), "")))
        except RefusedValue:
            return None
        return await self._send(path)

    async def _send(self, path: str) -> Answer | None:
        if path not in self._answers:
            try:
                self._answers[path] = await self.reads.probe(Request("OPTIONS", path))
            except (NotSentError, ResponseLost, FastnError):
                self._answers[path] = None
        return self._answers[path]

    def _propose_beside_reads(self, operation: AnyOperation) -> Check | None:
        """Propose the likely route of a write if the reads of its resource have moved; None otherwise."""
        tool = operation.tool_name()
        beginnings = {route.path.partition("/{")[0] for route in self.reads.moved.values()}
        for other in alternatives(operation):
            if tool not in self.reads.routes and other.path.partition("/{")[0] in beginnings:
                self.reads.proposal.routes[tool] = str(other)
                self.reads.proposal.notes[tool] = _NOT_VERIFIED
                finding = "OPTIONS says nothing, and the reads of this resource are elsewhere."
                hint = "Set the route as proposed below; it is likely, not verified."
                return CheckGroup.WRITES.differs(tool, finding, hint)
        return None


def _allowed(answer: Answer | None) -> frozenset[str]:
    if answer is None:
        return frozenset()
    header = answer.headers.get("allow") or answer.headers.get("access-control-allow-methods") or ""
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return frozenset(part.strip().upper() for part in header.split(",")) & frozenset(methods)
