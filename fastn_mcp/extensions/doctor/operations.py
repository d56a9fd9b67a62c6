"""Checks of the operations: reads by GET, compared with what they declare in envelope and fields; writes by OPTIONS.

No write is made. Of an answer only the names and types of fields are recorded.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from fastn_mcp.build.check import Check, CheckGroup
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import Answer, NotSentError, ResponseLost
from fastn_mcp.errors import FastnError, RateLimited
from fastn_mcp.extensions.doctor.probe import Probe, alternatives
from fastn_mcp.extensions.doctor.proposal import Proposal
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.operation import RefusedValue, Request, Route, unwrap
from fastn_mcp.tools.paging import List, rows_of
from fastn_mcp.tools.tool import Effect

_SINGULAR = {"api_keys": "key", "users": "user", "audit": "entry"}
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "id": ("uuid", "uid"),
    "name": ("title", "displayName", "label"),
    "status": ("state",),
}
_NEEDED = {
    "connectors": ("slug",),
    **dict.fromkeys(("connections", "executions", "triggers", "workflows"), ("status",)),
}
"""Fields that this server reads in rows of a resource, besides the id and the name."""
# Third parties read these from /orgs. In rows of other resources they name the customer of the row.
_IDS_OF_CUSTOMERS = ("orgId", "endOrgId", "externalRef")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Declared and observed fields: `missing` are used by the server and in no row, `renamed` have another name.

    `unseen` are optional columns of lists, whose absence proves nothing.
    """

    missing: tuple[str, ...]
    renamed: Mapping[str, str]
    unseen: tuple[str, ...]


def record_of(operation: AnyOperation) -> type[FastnObject]:
    if issubclass(operation, List):
        return operation.row_type()
    return operation.returns


def _declared(operation: AnyOperation) -> tuple[str, ...]:
    """Return the fields that rows are known to have; none where Fastn's answer is passed on as it is."""
    columns = record_of(operation).columns
    return tuple(dict.fromkeys(("id", *columns))) if columns else ()


def compare(operation: AnyOperation, fields: Collection[str]) -> Comparison:
    needed = {"id", "name", *_NEEDED.get(operation.toolset(), ())}
    absent = [name for name in _declared(operation) if name not in fields]
    renamed: dict[str, str] = {}
    for name in absent:
        other = _other_name(operation, name, fields)
        if other is not None:
            renamed[name] = other
    absent = [name for name in absent if name not in renamed]
    missing = tuple(name for name in absent if name in needed)
    unseen = tuple(name for name in absent if name not in (*missing, *record_of(operation).added_columns))
    return Comparison(missing, renamed, unseen)


def _other_name(operation: AnyOperation, name: str, fields: Collection[str]) -> str | None:
    """Return the observed field that has the meaning of `name`, or None. Other declared fields do not count."""
    singular = _SINGULAR.get(operation.toolset(), operation.toolset().removesuffix("s"))
    synonyms = [f"{singular}{name}", *_SYNONYMS[name]] if name in _SYNONYMS else []
    if operation.toolset() == "customers" and name == "id":
        synonyms += _IDS_OF_CUSTOMERS
    plain = {_normalized(field): field for field in fields if field not in _declared(operation)}
    return next((plain[other] for other in map(_normalized, (name, *synonyms)) if other in plain), None)


def _normalized(name: str) -> str:
    return name.replace("_", "").casefold()


DECLARED_ENVELOPE = "data"

_WRAPPERS = ("data", "items", "results", "result", "item")
_MAX_WRAPPERS = 3


def envelope_of(body: JsonValue) -> str:
    """Return the wrappers around a row or the rows, such as `data.data`; `bare` if there are none."""
    path: list[str] = []
    while isinstance(body, dict) and "id" not in body and len(path) < _MAX_WRAPPERS:
        name = next((n for n in _WRAPPERS if isinstance(body.get(n), (dict, list))), None)
        if name is None:
            break
        path.append(name)
        body = body[name]
    return ".".join(path) or "bare"


def fields_of(rows: Iterable[Mapping[str, JsonValue]]) -> dict[str, tuple[str, ...]]:
    """Return each field name with its types, in order of appearance."""
    fields: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, value in row.items():
            fields.setdefault(name, {})[_TYPES.get(type(value), "null")] = None
    return {name: tuple(types) for name, types in fields.items()}


_TYPES: Mapping[object, str] = {
    bool: "boolean",
    str: "string",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
}


_LIKE_A_NAME = re.compile(r"_?[a-z][a-z_]*([A-Z][a-z_]*)*[0-9]?")
_MAX_NAME = 40


_ENVELOPE_NAMES = {*_WRAPPERS, "total", "limit", "offset", "nextCursor"}
DECLARED_NAMES = frozenset(_ENVELOPE_NAMES).union(
    *({operation.wire(name) for name in operation.model_fields} for operation in CATALOG),
    *(_declared(operation) for operation in CATALOG),
)
"""Names that this project uses itself."""


class FieldNames:
    """Field names that may be reported: none that is also a value of the account."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def learn(self, value: JsonValue) -> None:
        """Record every string in an answer as a value of the account."""
        stack: list[JsonValue] = [value]
        while stack:
            value = stack.pop()
            if isinstance(value, str):
                self._values.add(value.casefold())
            elif isinstance(value, list):
                stack += value
            elif isinstance(value, dict):
                stack += value.values()

    def is_reportable(self, name: str) -> bool:
        """Whether this project uses the name itself, or it can only name a field."""
        if name in DECLARED_NAMES:
            return True
        is_name = _LIKE_A_NAME.fullmatch(name) is not None and len(name) <= _MAX_NAME
        return is_name and name.casefold() not in self._values


READS = tuple(operation for operation in CATALOG if operation.effect is Effect.READ)

# Nothing else in Fastn's messages is reported: text other than a permission may name a person.
_PERMISSION = re.compile(
    r"\b(connectors|connections|workflows|users|settings|events|secrets|executions|widgets|unified)[:.]([a-z_]{3,20})\b",
    re.IGNORECASE,
)
_ROUTE_MISSING = (404, 405, 410)
_REPORT = "Write a report (--report FILE.md) and open an issue with it."
_RETRY_LATER = "Run doctor again later."
_REFUSALS = {
    401: ("401, although the key is accepted elsewhere.", "Check the key's permissions."),
    402: ("402: a limit or a quota is used up.", _RETRY_LATER),
    429: ("429: a limit or a quota is used up.", _RETRY_LATER),
}
_SET_ROUTE = "Set the route as proposed below."


@dataclass(frozen=True, slots=True)
class Observed:
    """Answer of one operation, without any value: its envelope, and its top-level fields with their types."""

    route: Route
    status: int
    envelope: str = ""
    """Empty if the answer was not read."""
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


@dataclass(slots=True)
class OperationChecks:
    """Checks of the operations. Each one uses the `routes`, `fields` and `ids` that earlier ones found."""

    client: FastnClient
    probe: Probe
    routes: dict[str, Route]
    fields: dict[str, dict[str, str]]
    configured: Mapping[str, Mapping[str, str]]
    """Field names that are set already."""
    proposal: Proposal
    names: FieldNames = field(default_factory=FieldNames)
    ids: dict[str, str] = field(default_factory=dict[str, str])
    """One id of each resource, by toolset."""
    observed: dict[str, Observed] = field(default_factory=dict[str, Observed])
    moved: dict[str, Route] = field(default_factory=dict[str, Route])
    options: dict[str, Answer | None] = field(default_factory=dict[str, Answer | None])
    """Answers to OPTIONS, by path."""

    async def check_read(self, operation: AnyOperation) -> Check:
        """Check one operation, at its other routes too if there is nothing at its own."""
        tool = operation.tool_name()
        call = self._call(operation)
        if call is None:
            hint = "Create one in the dashboard, or see the check of the list."
            return CheckGroup.READS.skipped(
                tool, f"No id to read: the list of {operation.toolset()} returned none.", hint
            )
        declared = self.routes.get(tool, operation.route)
        error = await self._send(call)
        answer = self.probe.last
        if answer is not None and answer.status in _ROUTE_MISSING:
            for route in (operation.route, *alternatives(operation)):
                if route == declared:
                    continue
                self.routes[tool] = route
                other = await self._send(call)
                if self.probe.last is not None and self.probe.last.status < 300:
                    self.moved[tool] = route
                    self.proposal.routes[tool] = str(route)
                    return self._check_answer(operation, self.probe.last, other, route)
            self.routes[tool] = declared
        if answer is None and isinstance(error, RateLimited):
            return CheckGroup.READS.skipped(tool, "The rate limit is used up.", "Run doctor again in some minutes.")
        if answer is None:
            return CheckGroup.READS.failed(tool, "No answer.", "Run doctor again, with a larger FASTN_DEADLINE.")
        return self._check_answer(operation, answer, error, declared)

    def _call(self, operation: AnyOperation) -> Any:
        if not operation.route.parameters:
            return operation()
        (parameter,) = operation.route.parameters
        id_ = self.ids.get(operation.toolset())
        try:
            return None if id_ is None else operation.model_validate({parameter: id_})
        except ValidationError:
            return None

    async def _send(self, call: Any) -> FastnError | None:
        try:
            await self.client.send(call)
        except FastnError as error:
            return error
        return None

    def _check_answer(self, operation: AnyOperation, answer: Answer, error: FastnError | None, route: Route) -> Check:
        tool = operation.tool_name()
        self.observed[tool] = Observed(route, answer.status)
        if answer.status >= 300:
            return self._refused(operation, answer)
        try:
            body = cast(JsonValue, from_json(answer.body, allow_inf_nan=False)) if answer.body.strip() else None
        except ValueError:
            return CheckGroup.READS.failed(tool, f"{answer.status}, and the answer is not JSON.", _REPORT)
        self.names.learn(body)
        rows = _rows(operation, unwrap(body))
        observed = self.observed[tool] = Observed(route, answer.status, envelope_of(body), fields_of(rows))
        if error is not None:
            return CheckGroup.READS.failed(tool, f"{answer.status}, and the answer cannot be read.", _REPORT)
        is_moved = tool in self.moved
        place = f" It is at {route.path}." if is_moved else ""
        envelope = observed.envelope if observed.envelope == "bare" else f"wrapped in {observed.envelope}"
        if observed.envelope != DECLARED_ENVELOPE:
            envelope += f" instead of {{{DECLARED_ENVELOPE}}}; that is supported"
        finding = f"{answer.status} {envelope}.{place}"
        if not rows:
            finding = f"{finding} There were no rows to compare."
            return _check_of(tool, finding, Comparison((), {}, ()), is_moved=is_moved)
        known = self.configured.get(operation.toolset(), {})
        fields = {*observed.fields, *(our for our, their in known.items() if their in observed.fields)}
        comparison = compare(operation, fields)
        self._remember(operation, rows, comparison)
        return _check_of(tool, finding, comparison, is_moved=is_moved)

    def _remember(self, operation: AnyOperation, rows: list[dict[str, JsonValue]], comparison: Comparison) -> None:
        resource = operation.toolset()
        if comparison.renamed:
            self.fields.setdefault(resource, {}).update(comparison.renamed)
            self.proposal.fields.setdefault(resource, {}).update(comparison.renamed)
        if issubclass(operation, List):
            their = self.fields.get(resource, {}).get("id", "id")
            id_ = next((row[name] for row in rows for name in ("id", their) if row.get(name) is not None), None)
            if isinstance(id_, (str, int)):
                self.ids[resource] = str(id_)

    def _refused(self, operation: AnyOperation, answer: Answer) -> Check:
        tool = operation.tool_name()
        status = answer.status
        if status == 403:
            scope = _PERMISSION.search(answer.body.decode("utf-8", "replace"))
            missing = f"Missing scope: {scope[0].lower().replace('.', ':')}" if scope else "Missing scope"
            hint = (
                "Give the key the permission (dashboard: Settings > API keys), or leave the tools out: exclude_tools."
            )
            return CheckGroup.READS.differs(tool, f"403. {missing}.", hint)
        if status in _ROUTE_MISSING:
            others = ", ".join(route.path for route in alternatives(operation))
            path = self.routes.get(tool, operation.route).path
            finding = f"{status} at {path}{f', and at {others}' if others else ''}."
            hint = (
                f'If you know the path, set it: [routes] {tool} = "GET /..."; else leave the tool out: exclude_tools.'
            )
        elif status in _REFUSALS:
            finding, hint = _REFUSALS[status]
        elif status < 400:
            finding = f"A redirect ({status}), which is never followed."
            hint = "Check base_url."
        elif status >= 500:
            finding = f"{status}: an error at Fastn."
            hint = _RETRY_LATER
        else:
            finding = f"{status}: it does not accept the request."
            hint = _REPORT
        return CheckGroup.READS.failed(tool, finding, hint)

    async def check_write(self, operation: AnyOperation) -> Check:
        """Check a write, at its other routes too. One request is sent to each path."""
        tool = operation.tool_name()
        method = operation.route.method
        route = self.routes.get(tool, operation.route)
        group = CheckGroup.WRITES
        if route.parameters and operation.toolset() not in self.ids:
            return group.skipped(tool, "No id is known for an OPTIONS request.", "See the check of the list.")
        if _allowed(await self._send_options(_UNKNOWN_PATH)):  # OPTIONS allows methods at any path
            finding = "OPTIONS says nothing about paths here, and doctor makes no change to find out."
            return self._propose_beside_reads(operation) or group.skipped(tool, finding, _PREVIEW)
        answer = await self._options(operation, route)
        allowed = _allowed(answer)
        if method in allowed:
            return group.ok(tool, f"OPTIONS allows {method}.")
        for other in (operation.route, *alternatives(operation)):
            if other != route and method in _allowed(await self._options(operation, other)):
                self.proposal.routes[tool] = str(other)
                return group.differs(tool, f"OPTIONS allows {method} at {other.path}.", _SET_ROUTE)
        unknown = f'If you know the path, set it: [routes] {tool} = "{method} /..."; else do not rely on the tool.'
        if allowed:
            finding = f"OPTIONS allows {', '.join(sorted(allowed))} there, and not {method}."
            return group.differs(tool, finding, unknown)
        likely = self._propose_beside_reads(operation)
        if likely is not None:
            return likely
        if answer is not None and answer.status in (404, 410):
            return group.differs(tool, f"{answer.status} at {route.path}.", unknown)
        finding = "OPTIONS got no answer." if answer is None else f"{answer.status} to OPTIONS, which says nothing."
        return group.skipped(tool, finding, _PREVIEW)

    async def _options(self, operation: AnyOperation, route: Route) -> Answer | None:
        try:
            path = route.fill(dict.fromkeys(route.parameters, self.ids.get(operation.toolset(), "")))
        except RefusedValue:
            return None
        return await self._send_options(path)

    async def _send_options(self, path: str) -> Answer | None:
        if path not in self.options:
            try:
                self.options[path] = await self.probe(Request("OPTIONS", path))
            except (NotSentError, ResponseLost, FastnError):
                self.options[path] = None
        return self.options[path]

    def _propose_beside_reads(self, operation: AnyOperation) -> Check | None:
        """Propose the likely route of a write if the reads of its resource have moved; None otherwise."""
        tool = operation.tool_name()
        beginnings = {route.path.partition("/{")[0] for route in self.moved.values()}
        for other in alternatives(operation):
            if tool not in self.routes and other.path.partition("/{")[0] in beginnings:
                self.proposal.routes[tool] = str(other)
                self.proposal.notes[tool] = _NOT_VERIFIED
                finding = "OPTIONS says nothing, and the reads of this resource are at other paths."
                hint = "Set the route as proposed below; it is likely, not verified."
                return CheckGroup.WRITES.differs(tool, finding, hint)
        return None


def _rows(operation: AnyOperation, body: JsonValue) -> list[dict[str, JsonValue]]:
    if issubclass(operation, List):
        return rows_of(body)[0]
    return [body] if isinstance(body, dict) and body else []


def _check_of(tool: str, finding: str, comparison: Comparison, *, is_moved: bool) -> Check:
    sentences = [finding]
    steps = [_SET_ROUTE] if is_moved else []
    if comparison.missing:
        sentences.append(f"Missing: {', '.join(comparison.missing)}.")
        steps.append(_REPORT)
    if comparison.renamed:
        pairs = ", ".join(f"{our} is {their}" for our, their in comparison.renamed.items())
        sentences.append(f"Other names: {pairs}.")
        steps.append("Set fields as proposed below.")
    if comparison.unseen:
        sentences.append(f"Absent fields: {', '.join(comparison.unseen)}.")
    if steps:
        return CheckGroup.READS.differs(tool, " ".join(sentences), " ".join(steps))
    return CheckGroup.READS.ok(tool, " ".join(sentences))


WRITES = tuple(operation for operation in CATALOG if operation.effect is not Effect.READ)

_UNKNOWN_PATH = "/api/v1/no-such-path"
_NOT_VERIFIED = "not verified: doctor makes no change to find out"
_PREVIEW = "Nothing to do. Check the first change with dry_run, and then its result."


def _allowed(answer: Answer | None) -> frozenset[str]:
    if answer is None:
        return frozenset()
    header = answer.headers.get("allow") or answer.headers.get("access-control-allow-methods") or ""
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return frozenset(part.strip().upper() for part in header.split(",")) & frozenset(methods)
