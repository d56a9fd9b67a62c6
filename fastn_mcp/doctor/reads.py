"""Every operation that reads, made once against the account, and compared with what is declared."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from fastn_mcp.client import Client
from fastn_mcp.client.envelope import unwrap
from fastn_mcp.client.exchange import Answer
from fastn_mcp.doctor.alternatives import alternatives
from fastn_mcp.doctor.contract import Comparison, compared, listing_of
from fastn_mcp.doctor.looking import Looking
from fastn_mcp.doctor.names import Names
from fastn_mcp.doctor.proposal import Proposal
from fastn_mcp.doctor.shape import DECLARED, Shape, envelope_of, fields_of
from fastn_mcp.doctor.verdict import Check, Group, Verdict
from fastn_mcp.errors import FastnError, RateLimited
from fastn_mcp.offer import Effect
from fastn_mcp.operation import Route
from fastn_mcp.tools import CATALOG, AnyOperation
from fastn_mcp.tools.listing import List, rows_of

READS = tuple(operation for operation in CATALOG if operation.effect is Effect.READ)

# In Fastn's texts nothing else is told: what names no permission may name somebody.
_PERMISSION = re.compile(
    r"\b(connectors|connections|workflows|users|settings|events|secrets|executions|widgets|unified)[:.]([a-z_]{3,20})\b",
    re.IGNORECASE,
)
_MOVED = (404, 405, 410)


@dataclass(frozen=True, slots=True)
class Observed:
    """What one operation answered. No value of it."""

    route: Route
    status: int
    shape: Shape | None


@dataclass(slots=True)
class Reads:
    """Makes the reads. What it learns of an account is for the ones after it: `routes`, `fields`, `ids`."""

    client: Client
    looking: Looking
    routes: dict[str, Route]
    fields: dict[str, dict[str, str]]
    configured: Mapping[str, Mapping[str, str]]
    """The names of fields that are set already."""
    proposal: Proposal
    names: Names = field(default_factory=Names)
    ids: dict[str, str] = field(default_factory=dict[str, str])
    """One of each resource, by its toolset."""
    observed: dict[str, Observed] = field(default_factory=dict[str, Observed])
    moved: dict[str, Route] = field(default_factory=dict[str, Route])

    async def check(self, operation: AnyOperation) -> Check:
        """One operation."""
        tool = operation.tool_name()
        call = self._call(operation)
        if call is None:
            listing = cast(AnyOperation, listing_of(operation)).tool_name()
            seen = f"No id to read: {listing} gave none."
            return _check(tool, Verdict.SKIPPED, seen, "Make one in the dashboard, or see the line of the list.")
        declared = self.routes.get(tool, operation.route)
        error = await self._made(call)
        answer = self.looking.last
        if answer is not None and answer.status in _MOVED:
            for route in (operation.route, *alternatives(operation)):
                if route == declared:
                    continue
                self.routes[tool] = route
                other = await self._made(call)
                if self.looking.last is not None and self.looking.last.status < 300:
                    self.moved[tool] = route
                    self.proposal.routes[tool] = str(route)
                    return self._seen(operation, self.looking.last, other, route)
            self.routes[tool] = declared
        if answer is None:
            return _unanswered(tool, error)
        return self._seen(operation, answer, error, declared)

    def _call(self, operation: AnyOperation) -> Any:
        if not operation.route.parameters:
            return operation()
        (parameter,) = operation.route.parameters
        found = self.ids.get(operation.toolset())
        try:
            return None if found is None else operation.model_validate({parameter: found})
        except ValidationError:
            return None

    async def _made(self, call: Any) -> FastnError | None:
        try:
            await self.client.send(call)
        except FastnError as error:
            return error
        return None

    def _seen(self, operation: AnyOperation, answer: Answer, error: FastnError | None, route: Route) -> Check:
        """What an answer says of the operation."""
        tool = operation.tool_name()
        self.observed[tool] = Observed(route, answer.status, None)
        if answer.status >= 300:
            return self._refused(operation, answer)
        try:
            body = cast(JsonValue, from_json(answer.body, allow_inf_nan=False)) if answer.body.strip() else None
        except ValueError:
            return _check(tool, Verdict.FAILED, f"{answer.status}, and the answer is no JSON.", _TELL)
        self.names.learn(body)
        rows = _rows(operation, unwrap(body))
        shape = Shape(envelope_of(body), fields_of(rows))
        self.observed[tool] = Observed(route, answer.status, shape)
        if error is not None:
            return _check(tool, Verdict.FAILED, f"{answer.status}, and the answer cannot be read.", _TELL)
        where = f" It is at {route.path}." if tool in self.moved else ""
        seen = f"{answer.status} {_wrapped(shape.envelope)}.{where}"
        if not rows:
            empty = _check(tool, Verdict.OK, f"{seen} No rows to compare.", "")
            return _moved(empty) if where else empty
        known = self.configured.get(operation.toolset(), {})
        comparison = compared(
            operation, {*shape.fields, *(our for our, their in known.items() if their in shape.fields)}
        )
        self._remember(operation, rows, comparison)
        return _compared(tool, seen, comparison, moved=bool(where))

    def _remember(self, operation: AnyOperation, rows: list[dict[str, JsonValue]], comparison: Comparison) -> None:
        resource = operation.toolset()
        if comparison.renamed:
            self.fields.setdefault(resource, {}).update(comparison.renamed)
            self.proposal.fields.setdefault(resource, {}).update(comparison.renamed)
        if issubclass(operation, List):
            their = self.fields.get(resource, {}).get("id", "id")
            found = next((row[name] for row in rows for name in ("id", their) if row.get(name) is not None), None)
            if isinstance(found, (str, int)):
                self.ids[resource] = str(found)

    def _refused(self, operation: AnyOperation, answer: Answer) -> Check:
        tool, status = operation.tool_name(), answer.status
        if status == 403:
            scope = _PERMISSION.search(answer.body.decode("utf-8", "replace"))
            missing = f"Missing scope: {scope[0].lower().replace('.', ':')}" if scope else "Missing scope"
            then = "Give the key the permission (dashboard: Settings, API keys), or leave the tools out: toolsets."
            return _check(tool, Verdict.DIFFERS, f"403. {missing}.", then)
        if status in _MOVED:
            others = ", ".join(route.path for route in alternatives(operation))
            seen = f"{status} at {self.routes.get(tool, operation.route).path}" + (
                f", and at {others}" if others else ""
            )
            then = f'If you know the path, set it: [routes] {tool} = "GET /..."; else leave the tool out: toolsets.'
            return _check(tool, Verdict.FAILED, f"{seen}.", then)
        if 300 <= status < 400:
            return _check(tool, Verdict.FAILED, f"A redirect ({status}), which is never followed.", "Check base_url.")
        if status == 401:
            return _check(tool, Verdict.FAILED, "401, though the key is taken elsewhere.", "Check what the key may do.")
        if status in (402, 429):
            return _check(tool, Verdict.FAILED, f"{status}: a limit or a quota is used up.", "Run doctor again later.")
        if status >= 500:
            return _check(tool, Verdict.FAILED, f"{status}: an error of Fastn's.", "Run doctor again later.")
        return _check(tool, Verdict.FAILED, f"{status}: it does not accept the request.", _TELL)


_TELL = "Write a report (--report FILE.md) and open an issue with it."


def _check(tool: str, verdict: Verdict, seen: str, then: str) -> Check:
    return Check(Group.READS, tool, verdict, seen, then)


def _unanswered(tool: str, error: FastnError | None) -> Check:
    if isinstance(error, RateLimited):
        return _check(tool, Verdict.SKIPPED, "The rate limit is used up.", "Run doctor again in some minutes.")
    return _check(tool, Verdict.FAILED, "No answer.", "Run doctor again; with FASTN_DEADLINE for more time.")


def _rows(operation: AnyOperation, body: JsonValue) -> list[dict[str, JsonValue]]:
    if issubclass(operation, List):
        return rows_of(body)[0]
    return [body] if isinstance(body, dict) and body else []


def _wrapped(envelope: str) -> str:
    if envelope == DECLARED:
        return f"in {{{DECLARED}}}"
    how = "bare" if envelope == "bare" else f"in {{{envelope}}}"
    return f"{how}, not in {{{DECLARED}}}, which is read as well"


def _compared(tool: str, seen: str, comparison: Comparison, *, moved: bool) -> Check:
    said, then = [seen], ["Set the route as proposed below."] if moved else []
    if comparison.missing:
        said.append(f"Missing: {', '.join(comparison.missing)}.")
        then.append(_TELL)
    if comparison.renamed:
        said.append(f"Other names: {_pairs(comparison.renamed)}.")
        then.append("Set fields as proposed below.")
    if comparison.unseen:
        said.append(f"Not seen: {', '.join(comparison.unseen)}.")
    verdict = Verdict.DIFFERS if moved or comparison.missing or comparison.renamed else Verdict.OK
    return _check(tool, verdict, " ".join(said), " ".join(then))


def _moved(check: Check) -> Check:
    return Check(check.group, check.name, Verdict.DIFFERS, check.seen, "Set the route as proposed below.")


def _pairs(renamed: Mapping[str, str]) -> str:
    return ", ".join(f"{our} is {their}" for our, their in renamed.items())
