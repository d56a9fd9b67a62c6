"""The sandbox: a Fastn account in this process. A request in, a response out."""

import random
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json, to_json

from fastn_mcp.client.http import Answer, ResponseLost
from fastn_mcp.sandbox.auth import RateLimiter, caller, digest, key_in, known, permit
from fastn_mcp.sandbox.behaviour import Behaviour, Envelope, Filtering, error_body, wrapped
from fastn_mcp.sandbox.dataset import Dataset, dataset
from fastn_mcp.sandbox.faults import Faults
from fastn_mcp.sandbox.file import StateFile
from fastn_mcp.sandbox.paging import page
from fastn_mcp.sandbox.reply import (
    BrokenReply,
    Many,
    Nothing,
    One,
    Outcome,
    SandboxRefusal,
    SandboxReply,
    invalid,
    list_body,
    not_allowed,
    not_found,
)
from fastn_mcp.sandbox.request_context import LONGEST_LOG, HeardRequest, RouteContext, without_key
from fastn_mcp.sandbox.routes import ENDPOINTS
from fastn_mcp.sandbox.run_history import History, RunSeries
from fastn_mcp.sandbox.runs import pass_time
from fastn_mcp.sandbox.state import Row, SandboxState, record
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.operation import Operation, Request, Route
from fastn_mcp.tools.paging import List


class Routes:
    """All operations by route. `other` are routes by tool name, where the account's differ."""

    def __init__(self, other: Mapping[str, Route]) -> None:
        self._routes = {operation: other.get(operation.tool_name(), operation.route) for operation in CATALOG}
        # Few have the same beginning, so that few patterns are tried.
        self._candidates: dict[tuple[str, str], list[AnyOperation]] = {}
        for operation, route in self._routes.items():
            self._candidates.setdefault((route.method, _beginning(route.path)), []).append(operation)

    def of(self, operation: AnyOperation) -> Route:
        return self._routes[operation]

    def find(self, method: str, path: str) -> AnyOperation:
        """Raises `SandboxRefusal` where there is no such path, or not by this method."""
        near = self._candidates.get((method, _beginning(path)), [])
        for operation in near + self._candidates.get((method, ""), []):
            if self._routes[operation].match(path) is not None:
                return operation
        if allowed := [route.method for route in self._routes.values() if route.match(path) is not None]:
            raise not_allowed(method, allowed)
        raise not_found()


def _beginning(path: str) -> str:
    """`/api/v1/workflows/wf_1/run` begins as `/api/v1/workflows`; what has a parameter there, as nothing."""
    beginning = "/".join(path.split("/", 4)[:4])
    return "" if "{" in beginning else beginning


LARGEST_BODY = 1024 * 1024
"""Bytes of a request."""

_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A request as it came: the log's entry, and what the log does not keep."""

    heard: HeardRequest
    headers: Mapping[str, str]
    operation: AnyOperation | None
    problem: SandboxRefusal | None


class Sandbox:
    """A Fastn account in this process.

    `requests` is what it was asked, `faults` what is to go wrong, `behaviour` how it answers; all three can be changed
    at any time. `begin` makes the account that it starts with. With a `file` the account outlives the process, and
    several processes share it. Raises `SettingsError` where the file does not hold an account.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        seed: int = 1,
        begin: Dataset = dataset,
        file: Path | None = None,
        envelope: Envelope = Envelope.DATA,
        behaviour: Behaviour | None = None,
        routes: Mapping[str, Route] | None = None,
    ) -> None:
        self._now = now
        self._seed = seed
        self._begin = begin
        self._file = None if file is None else StateFile(file)
        self._routes = Routes(routes or {})
        self._usual = behaviour or Behaviour(envelope=envelope)
        self.behaviour = self._usual
        self.faults = Faults()
        self.requests: list[HeardRequest] = []
        self._limiter = RateLimiter()
        self._answers = 0
        self.state, self.history = SandboxState(self._randomness(0)), History(RunSeries())
        with self._at_work(self._now()):
            if self.state.serial == 0:
                self._begin_again()

    def reset(self) -> None:
        """Begin again: fresh data, an empty log, no faults, and the behaviour of the beginning."""
        self.behaviour = self._usual
        self.faults.clear()
        self.requests.clear()
        self._limiter = RateLimiter()
        with self._at_work(self._now()):
            self._begin_again()

    def answer(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> SandboxReply:
        """What Fastn answers. `path` is encoded, without the query; header names are lower-case."""
        now = self._now()
        arrived = self._arrived(method, path, query, headers, body)
        self._log(arrived.heard)
        key = key_in(headers)
        with self._at_work(now):
            room, limits = self._room(key, now)
            if not room:
                reply = self._refused(_rate_limited(limits))
            elif (fault := self.faults.take(method, path)) is None:
                reply = self._made(arrived, now)
            else:
                reply = fault.instead(key) or fault.spoiled(self._made(arrived, now), key)
        self._answers += 1
        known_headers = limits | {"x-request-id": f"req_{self._answers:012x}"}
        if reply.status != 204:
            known_headers["content-length"] = str(len(reply.body))
        return replace(reply, headers=known_headers | reply.headers)

    @contextmanager
    def _at_work(self, now: datetime) -> Generator[None]:
        """The account up to `now`. With a file: as other processes left it, and none of them changes it meanwhile."""
        if self._file is None:
            self._pass_time(now)
            yield
            return
        with self._file.locked():
            if (changed := self._file.read_changed(self._randomness)) is not None:
                self._take(changed)
            state, serial = self.state, self.state.serial
            self._pass_time(now)
            yield
            if self.state is not state or self.state.serial != serial:
                self._file.write(self.state)

    def _begin_again(self) -> None:
        self._take(self._begin(self._now(), self._randomness(0)))
        self._pass_time(self._now())

    def _take(self, state: SandboxState) -> None:
        self.state = state
        past = RunSeries.of(state) or RunSeries()
        if not self.history.is_of(past):
            self.history = History(past)

    def _pass_time(self, now: datetime) -> None:
        """Do what is due in the account: schedules fire, runs end."""
        self.history.pass_time(now)
        pass_time(self.state, now)

    def _randomness(self, serial: int) -> random.Random:
        return random.Random(f"{self._seed} {serial}")  # noqa: S311 it is to be repeatable

    def _arrived(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> _Arrived:
        operation, problem = None, None
        try:
            operation = self._routes.find(method, path)
        except SandboxRefusal as refusal:
            problem = refusal
        value: JsonValue = None
        try:
            value = _decoded(body)
        except SandboxRefusal as refusal:
            problem = problem or refusal
        tool = None if operation is None else operation.tool_name()
        return _Arrived(
            HeardRequest(method, path, query, without_key(headers), value, tool), headers, operation, problem
        )

    def _log(self, heard: HeardRequest) -> None:
        if len(self.requests) >= LONGEST_LOG:
            del self.requests[: LONGEST_LOG // 2]
        self.requests.append(heard)

    def _room(self, key: str | None, now: datetime) -> tuple[bool, dict[str, str]]:
        """Whether the key's rate limit has room, and the headers that say so."""
        row = None if key is None else known(self.state, key)
        own = None if row is None else row.get("rateLimitPerMinute")
        limit = min(own, self.behaviour.rate_limit) if isinstance(own, int) else self.behaviour.rate_limit
        who = digest(key) if key is not None and row is not None else "unknown"
        return self._limiter.count(who, limit, now, self.behaviour.retry_after)

    def _made(self, arrived: _Arrived, now: datetime) -> SandboxReply:
        """Do what was asked, and answer."""
        try:
            who = caller(self.state, arrived.headers, now, self.behaviour)
            if arrived.problem is not None:
                raise arrived.problem
            operation = cast(AnyOperation, arrived.operation)
            endpoint = ENDPOINTS[operation]
            try:
                permit(who, endpoint.permission)
            except SandboxRefusal:
                verb, _, noun = operation.tool_name().partition("_")
                resource = (operation.toolset(), None)
                record(self.state, now, f"apikey:{who['id']}", f"{noun}.{verb}", resource, "Denied")
                raise
            heard = arrived.heard
            call = self._call(operation, heard)
            body = self._ours(heard.body) if isinstance(heard.body, dict) else {}
            outcome = endpoint.handler(RouteContext(self.state, self.history, now, who, body, arrived.headers), call)
            return self._answered(outcome, call, heard)
        except SandboxRefusal as refusal:
            return self._refused(refusal)

    def _call(self, operation: AnyOperation, heard: HeardRequest) -> Operation[Any]:
        """The call that the client made. Raises `SandboxRefusal`."""
        query: dict[str, JsonValue] = dict(heard.query)
        if _is_list(operation):
            # These two are Fastn's own position in a list; the tool's cursor is ours, and wraps them.
            query = {name: value for name, value in query.items() if name not in ("offset", "cursor")}
            if self.behaviour.filtering is Filtering.IGNORED:
                query = {name: value for name, value in query.items() if name == "limit"}
        elif query:
            raise invalid(next(iter(query)), "unknown parameter")
        if heard.body is not None and not isinstance(heard.body, dict):
            raise SandboxRefusal(400, "VALIDATION_ERROR", "The body is not a JSON object")
        body = None if heard.body is None else self._ours(heard.body)
        request = Request(heard.method, heard.path, query, body, dict(heard.headers))
        try:
            call = operation.received(request, self._routes.of(operation))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            field = ".".join(map(str, first["loc"]))
            wire = operation.wire(field) if field in operation.model_fields else field
            raise invalid(
                wire or "body", "unknown field" if first["type"] == "extra_forbidden" else first["msg"]
            ) from None
        return cast("Operation[Any]", call)

    def _answered(self, outcome: Outcome, call: Operation[Any], heard: HeardRequest) -> SandboxReply:
        match outcome:
            case Nothing():
                return SandboxReply(204)
            case One(row, status):
                return SandboxReply(status, _JSON, to_json(wrapped(self.behaviour.envelope, self._theirs(row), {})))
            case Many(rows):
                limit = cast("List[Any]", call).limit
                cut, around = page(rows, limit, dict(heard.query), self.behaviour.paging)
                return SandboxReply(200, _JSON, list_body(self.behaviour.envelope, map(self._theirs, cut), around))

    def _theirs(self, row: Row) -> Row:
        """The row as this account calls its fields."""
        names = self.behaviour.fields
        return {names.get(name, name): value for name, value in row.items()} if names else row

    def _ours(self, body: Row) -> Row:
        names = {their: our for our, their in self.behaviour.fields.items()}
        return {names.get(name, name): value for name, value in body.items()} if names else body

    def _refused(self, refusal: SandboxRefusal) -> SandboxReply:
        body = error_body(
            self.behaviour.errors,
            refusal.status,
            refusal.code,
            refusal.message,
            refusal.details,
            refusal.retry_after,
        )
        if isinstance(body, bytes):
            return SandboxReply(refusal.status, refusal.headers | {"content-type": "text/html"}, body)
        return SandboxReply(refusal.status, refusal.headers | _JSON, to_json(body))


def _is_list(operation: AnyOperation) -> bool:
    return issubclass(operation, List)


def _decoded(body: bytes) -> JsonValue:
    """Raises `SandboxRefusal`."""
    if len(body) > LARGEST_BODY:
        raise SandboxRefusal(413, "PAYLOAD_TOO_LARGE", f"The body is larger than {LARGEST_BODY} bytes")
    if not body.strip():
        return None
    try:
        return cast(JsonValue, from_json(body, allow_inf_nan=False))
    except ValueError:
        raise SandboxRefusal(400, "VALIDATION_ERROR", "The body is not JSON") from None


def _rate_limited(limits: Mapping[str, str]) -> SandboxRefusal:
    refusal = SandboxRefusal(429, "RATE_LIMITED", f"More than {limits['x-ratelimit-limit']} requests in a minute")
    if (seconds := limits.get("retry-after", "")).isdigit():
        refusal.retry_after = int(seconds)
    return refusal


class InProcess:
    """Sends requests with these headers to a sandbox in this process, without HTTP between them."""

    def __init__(self, sandbox: Sandbox, headers: Mapping[str, str]) -> None:
        self._sandbox = sandbox
        self._headers = {name.lower(): value for name, value in headers.items()}

    async def __call__(self, request: Request) -> Answer:
        """Raises `ResponseLost` where the sandbox is told to break the connection."""
        own = {name.lower(): value for name, value in request.headers.items()}
        query = {
            name: value if isinstance(value, str) else to_json(value).decode() for name, value in request.query.items()
        }
        body = b"" if request.body is None else to_json(request.body)
        sent = {"content-type": "application/json"} | self._headers | own
        reply = self._sandbox.answer(request.method, request.path, query, sent, body)
        if isinstance(reply.delivery, BrokenReply):
            raise ResponseLost("ReadError")
        return Answer(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.body)

    async def aclose(self) -> None:
        pass
