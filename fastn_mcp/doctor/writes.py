"""Every operation that changes something, asked for by OPTIONS and never made."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastn_mcp.client.http import Answer, NotSentError, ResponseLost
from fastn_mcp.doctor.check import Check, CheckGroup, CheckResult, Proposal
from fastn_mcp.doctor.hosts import alternatives
from fastn_mcp.doctor.probe import Looking
from fastn_mcp.errors import FastnError
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.operation import RefusedValue, Request, Route
from fastn_mcp.tools.tool import Effect

WRITES = tuple(operation for operation in CATALOG if operation.effect is not Effect.READ)

_NOWHERE = "/api/v1/no-such-path"
_UNTRIED = "not verified: doctor makes no change to find out"
_PREVIEW = "Nothing to do; look at the first one with dry_run, and at its result."


@dataclass(slots=True)
class Writes:
    """Asks once for each path. `moved` are the routes of the reads that are elsewhere, `ids` one of each resource."""

    looking: Looking
    routes: Mapping[str, Route]
    moved: Mapping[str, Route]
    ids: Mapping[str, str]
    proposal: Proposal
    _answers: dict[str, Answer | None] = field(default_factory=dict[str, Answer | None])

    async def check(self, operation: AnyOperation) -> Check:
        """One operation."""
        tool, method = operation.tool_name(), operation.route.method
        route = self.routes.get(tool, operation.route)
        if route.parameters and operation.toolset() not in self.ids:
            return _check(tool, CheckResult.SKIPPED, "No id to ask for by OPTIONS.", "See the line of the list.")
        if not await self._telling():
            return self._sibling(operation) or _check(
                tool, CheckResult.SKIPPED, "OPTIONS says nothing of paths here, and no change is made.", _PREVIEW
            )
        answer = await self._options(operation, route)
        allowed = _allowed(answer)
        if method in allowed:
            return _check(tool, CheckResult.OK, f"OPTIONS allows {method}.", "")
        for other in (operation.route, *alternatives(operation)):
            if other != route and method in _allowed(await self._options(operation, other)):
                self.proposal.routes[tool] = str(other)
                seen = f"OPTIONS allows {method} at {other.path}."
                return _check(tool, CheckResult.DIFFERS, seen, "Set the route as proposed below.")
        if allowed:
            seen = f"OPTIONS allows {', '.join(sorted(allowed))} there, and not {method}."
            return _check(tool, CheckResult.DIFFERS, seen, _elsewhere(tool, method))
        if (sibling := self._sibling(operation)) is not None:
            return sibling
        if answer is not None and answer.status in (404, 410):
            return _check(tool, CheckResult.DIFFERS, f"{answer.status} at {route.path}.", _elsewhere(tool, method))
        seen = "No answer to OPTIONS." if answer is None else f"{answer.status} to OPTIONS, which says nothing."
        return _check(tool, CheckResult.SKIPPED, seen, _PREVIEW)

    async def _telling(self) -> bool:
        """Whether OPTIONS tells a path that is there from one that is not."""
        nowhere = _allowed(await self._ask(_NOWHERE))
        return not nowhere

    async def _options(self, operation: AnyOperation, route: Route) -> Answer | None:
        try:
            path = route.fill(dict.fromkeys(route.parameters, self.ids.get(operation.toolset(), "")))
        except RefusedValue:
            return None
        return await self._ask(path)

    async def _ask(self, path: str) -> Answer | None:
        if path not in self._answers:
            try:
                self._answers[path] = await self.looking(Request("OPTIONS", path))
            except (NotSentError, ResponseLost, FastnError):
                self._answers[path] = None
        return self._answers[path]

    def _sibling(self, operation: AnyOperation) -> Check | None:
        """Where the reads of the resource are elsewhere, its writes are likely to be there too."""
        tool = operation.tool_name()
        beginnings = {route.path.partition("/{")[0] for route in self.moved.values()}
        for other in alternatives(operation):
            if tool not in self.routes and other.path.partition("/{")[0] in beginnings:
                self.proposal.routes[tool] = str(other)
                self.proposal.notes[tool] = _UNTRIED
                seen = "OPTIONS says nothing, and the reads of this resource are elsewhere."
                return _check(
                    tool, CheckResult.DIFFERS, seen, "Set the route as proposed below; it is likely, not verified."
                )
        return None


def _allowed(answer: Answer | None) -> frozenset[str]:
    """The methods that an answer names."""
    if answer is None:
        return frozenset()
    said = answer.headers.get("allow") or answer.headers.get("access-control-allow-methods") or ""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return frozenset(part.strip().upper() for part in said.split(",")) & frozenset(known)


def _elsewhere(tool: str, method: str) -> str:
    return f'If you know the path, set it: [routes] {tool} = "{method} /..."; else do not rely on the tool.'


def _check(tool: str, verdict: CheckResult, seen: str, then: str) -> Check:
    return Check(CheckGroup.WRITES, tool, verdict, seen, then)
