"""The sandbox: a simulated Fastn account that answers requests."""

import random
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json, to_json

from fastn_mcp.client.exchange import Answer
from fastn_mcp.extensions.sandbox import account, ai, connectors, customers, executions, keys, runs, triggers, workflows
from fastn_mcp.extensions.sandbox.auth import RateLimiter, authenticate, authorize, digest, find_key, key_in
from fastn_mcp.extensions.sandbox.replies import JSON, SandboxRefusal, invalid, not_allowed, not_found, page
from fastn_mcp.extensions.sandbox.resource import ENDPOINTS, One, Outcome, RouteContext
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, StateFile, record
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.connectors import ListConnectors
from fastn_mcp.tools.operation import Operation, Request, Route
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.workflows import ListWorkflows

_BUILT: dict[AnyOperation, str] = {ListWorkflows: "workflow", ListConnectors: "connector"}
"""Lists of what Fastn's AI builds."""

Dataset = Callable[[datetime, random.Random], SandboxState]
"""Creates an account as of a time. The same randomness gives the same account."""


def dataset(now: datetime, randomness: random.Random) -> SandboxState:
    """Create the account of Fastn's documentation, with its examples made consistent.

    All timestamps are relative to midnight UTC of the day of `now`, so that every process of a day has the same
    account. `runs.pass_time` adds the events of the day.
    """
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    state = SandboxState(randomness)
    customers.add_customers(state, midnight)
    connectors.add_connectors(state, midnight)
    connectors.add_connections(state, midnight)
    workflows.add_workflows(state, midnight)
    triggers.add_triggers(state, midnight)
    executions.add_executions(state, midnight)
    customers.add_people(state, midnight)
    keys.add_keys(state, midnight)
    keys.add_secrets(state, midnight)
    account.add_audit_log(state, midnight)
    account.add_billing(state, midnight)
    return state


RATE_LIMIT = 100_000
"""Maximum number of requests per minute and key."""

MAX_BODY = 1024 * 1024
"""Maximum size of a request body in bytes."""


class SandboxRequest(NamedTuple):
    """A received request. `path` is encoded, without the query; header names are lower-case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Sandbox:
    """Simulated Fastn account in this process.

    `begin` creates the initial account. With a `file`, the account is persistent and can be shared by several
    processes. Raises `SettingsError` if the file does not contain an account. Tests override what is unknown of Fastn.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        seed: int = 1,
        begin: Dataset = dataset,
        file: Path | None = None,
    ) -> None:
        self._now = now
        self._seed = seed
        self._begin = begin
        self._file = None if file is None else StateFile(file)
        self._limiter = RateLimiter()
        self._answers = 0
        self.state = SandboxState(self._randomness(0))
        with self._transaction(self._now()):
            if self.state.serial == 0:
                self._begin_again()

    def answer(self, request: SandboxRequest) -> Answer:
        now = self._now()
        with self._transaction(now):
            limited, limits = self._rate_limit(key_in(request.headers), now)
            reply = self._refused(limited) if limited else self._respond(request, now)
        self._answers += 1
        common_headers = limits | {"x-request-id": f"req_{self._answers:012x}"}
        if reply.status != 204:
            common_headers["content-length"] = str(len(reply.body))
        return replace(reply, headers={**common_headers, **reply.headers})

    @contextmanager
    def _transaction(self, now: datetime) -> Generator[None]:
        """Bring the account up to `now`. With a file: lock it, load changes of other processes, and save ours."""
        if self._file is None:
            self._pass_time(now)
            yield
            return
        with self._file.locked():
            stored = self._file.read(self._randomness)
            if stored is not None:
                self.state = stored
            state = self.state
            serial = self.state.serial
            self._pass_time(now)
            yield
            if self.state is not state or self.state.serial != serial:
                self._file.write(self.state)

    def _begin_again(self) -> None:
        self.state = self._begin(self._now(), self._randomness(0))
        self._pass_time(self._now())

    def _pass_time(self, now: datetime) -> None:
        """Process what is due by `now`: schedules fire, runs end."""
        runs.pass_time(self.state, now)

    def _randomness(self, serial: int) -> random.Random:
        return random.Random(f"{self._seed} {serial}")  # noqa: S311 it is to be repeatable

    def _rate_limit(self, key: str | None, now: datetime) -> tuple[SandboxRefusal | None, dict[str, str]]:
        """Count a request of this key. Returns the refusal if it exceeds the rate limit, and the response headers."""
        row = None if key is None else find_key(self.state, key)
        own = None if row is None else row.get("rateLimitPerMinute")
        limit = min(own, self._requests_per_minute()) if isinstance(own, int) else self._requests_per_minute()
        who = digest(key) if key is not None and row is not None else "unknown"
        return self._limiter.count(who, limit, now)

    def operation(self, method: str, path: str) -> AnyOperation:
        """Return the operation of a request. Raises `SandboxRefusal` if there is no such path or method."""
        for operation in CATALOG:
            route = self._route(operation)
            if route.method == method and route.match(path) is not None:
                return operation
        routes = map(self._route, CATALOG)
        allowed = [route.method for route in routes if route.match(path) is not None]
        if allowed:
            raise not_allowed(method, allowed)
        raise not_found()

    def _route(self, operation: AnyOperation) -> Route:
        return operation.route

    def _requests_per_minute(self) -> int:
        return RATE_LIMIT

    def _authenticate(self, headers: Mapping[str, str], now: datetime) -> Row:
        """Return the row of the request's API key. Raises `SandboxRefusal`."""
        return authenticate(self.state, headers, now)

    def _body(self, request: SandboxRequest) -> Row | None:
        """Parse the body of a request. Raises `SandboxRefusal`."""
        return _decoded(request.body)

    def _respond(self, request: SandboxRequest, now: datetime) -> Answer:
        """Authenticate, authorize and handle a request."""
        try:
            who = self._authenticate(request.headers, now)
            operation = self.operation(request.method, request.path)
            body = self._body(request)
            permission = ENDPOINTS[operation].permission
            try:
                authorize(who, permission)
            except SandboxRefusal:
                verb, _, noun = operation.tool_name().partition("_")
                resource = (operation.toolset(), None)
                record(
                    self.state, now, f"apikey:{who['id']}", action=f"{noun}.{verb}", resource=resource, outcome="Denied"
                )
                raise
            call = self._call(operation, request, body)
            context = self._context(now, who, body or {})
            kind = _BUILT.get(operation)
            if kind is not None:
                ai.look(context, kind)
            return self._answered(ENDPOINTS[operation].handler(context, call), call, request.query)
        except SandboxRefusal as refusal:
            return self._refused(refusal)

    def _context(self, now: datetime, who: Row, body: Row) -> RouteContext:
        """Return the context of a request. Tests override it, for runs that are not stored."""
        return RouteContext(self.state, now, who, body)

    def _call(self, operation: AnyOperation, request: SandboxRequest, body: Row | None) -> Operation[Any]:
        """Parse a request into the call of its operation. Raises `SandboxRefusal`."""
        query: dict[str, JsonValue] = dict(request.query)
        if _is_list(operation):
            # The position in Fastn's list. The cursor argument of a tool is ours, and wraps it.
            query = {name: value for name, value in query.items() if name not in ("offset", "cursor")}
        elif query:
            raise invalid(next(iter(query)), "unknown parameter")
        received = Request(request.method, request.path, query, body=body, headers=request.headers)
        try:
            call = operation.received(received, self._route(operation))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            field = ".".join(map(str, first["loc"]))
            wire = operation.wire(field) if field in operation.model_fields else field
            raise invalid(
                wire or "body", "unknown field" if first["type"] == "extra_forbidden" else first["msg"]
            ) from None
        return cast("Operation[Any]", call)

    def _answered(self, outcome: Outcome, call: Operation[Any], query: dict[str, str]) -> Answer:
        match outcome:
            case None:
                return Answer(204)
            case One(row, status):
                return Answer(status, JSON, to_json({"data": row}))
            case rows:
                items, pagination = page(rows, cast("List[Any]", call).limit, query)
                return Answer(200, JSON, to_json({"data": items, **pagination}))

    def _refused(self, refusal: SandboxRefusal) -> Answer:
        """Return the reply to a refused request. Tests override it."""
        return refusal.reply()


def _is_list(operation: AnyOperation) -> bool:
    return issubclass(operation, List)


def _decoded(body: bytes) -> Row | None:
    """Parse the body as a JSON object; None if it is empty. Raises `SandboxRefusal`."""
    if len(body) > MAX_BODY:
        raise SandboxRefusal(413, "PAYLOAD_TOO_LARGE", f"The body is larger than {MAX_BODY} bytes")
    if not body.strip():
        return None
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise SandboxRefusal(400, "VALIDATION_ERROR", "The body is not JSON") from None
    if value is not None and not isinstance(value, dict):
        raise SandboxRefusal(400, "VALIDATION_ERROR", "The body is not a JSON object")
    return cast("Row | None", value)


class InProcess:
    """Transport to a sandbox in this process, without HTTP. Adds `headers` to each request."""

    def __init__(self, sandbox: Sandbox, headers: Mapping[str, str]) -> None:
        self._sandbox = sandbox
        self._headers = {name.lower(): value for name, value in headers.items()}

    async def __call__(self, request: Request) -> Answer:
        own = {name.lower(): value for name, value in request.headers.items()}
        query = {
            name: value if isinstance(value, str) else to_json(value).decode() for name, value in request.query.items()
        }
        body = b"" if request.body is None else to_json(request.body)
        sent = SandboxRequest(request.method, request.path, query, headers=JSON | self._headers | own, body=body)
        return self._sandbox.answer(sent)

    async def aclose(self) -> None:
        pass


def exchanges(now: Callable[[], datetime], file: Path | None) -> Callable[[Mapping[str, str]], InProcess]:
    """Return a factory of exchanges with one simulated account, by the headers that each sends."""
    return partial(InProcess, Sandbox(now, file=file))
