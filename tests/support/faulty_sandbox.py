"""The sandbox as tests use it: it logs what was sent, and goes wrong on demand.

A fault says which requests it waits for, by method and path, and how often it strikes. In a path `*` stands for
anything and `{name}` for one segment, so that an operation's own route will do: `Status(path=RunWorkflow.route.path)`.
"""

import gzip
import pickle
import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import Enum
from functools import lru_cache, partial
from random import Random
from typing import Annotated, Any, Literal

from large_account.run_history import History, PastContext, RunSeries, pass_described, stored
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter
from pydantic_core import from_json, to_json
from typing_extensions import override

from fastn_mcp.client.exchange import Answer, ResponseLost
from fastn_mcp.extensions.sandbox.auth import RateLimiter, key_in
from fastn_mcp.extensions.sandbox.replies import JSON, SandboxRefusal, page
from fastn_mcp.extensions.sandbox.resource import One, Outcome
from fastn_mcp.extensions.sandbox.runs import pass_time
from fastn_mcp.extensions.sandbox.server import Dataset, Sandbox, SandboxRequest, dataset
from fastn_mcp.extensions.sandbox.state import Row, SandboxState
from fastn_mcp.redaction import REDACTED, is_secret_name
from fastn_mcp.tools.catalog import AnyOperation
from fastn_mcp.tools.operation import Operation, Route
from fastn_mcp.tools.paging import List
from support.behaviour import Accepts, Behaviour, Filtering, Paging, wrapped

_MIB = 1024 * 1024

MAX_LOG = 10_000

_CODES = {
    400: "VALIDATION_ERROR",
    401: "AUTH_INVALID",
    402: "PAYMENT_REQUIRED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    409: "CONFLICT",
    413: "PAYLOAD_TOO_LARGE",
    422: "VALIDATION_ERROR",
    429: "RATE_LIMITED",
    500: "INTERNAL_ERROR",
    502: "UPSTREAM_ERROR",
    503: "SERVICE_UNAVAILABLE",
    504: "TIMEOUT",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a reply goes out: after `delay` seconds, with a `pause` before each byte, and only `sent` bytes of the body.

    After `sent` bytes the connection is closed, or reset; a reset before the head has `sent` None. One that hangs
    sends nothing and stays open until the client gives up.
    """

    delay: float = 0
    pause: float | None = None
    sent: int | None = None
    end: Literal["complete", "closed", "reset", "hangs"] = "complete"


@dataclass(frozen=True, slots=True)
class FaultyReply(Answer):
    """A reply, and how it is delivered."""

    delivery: Delivery = Delivery()


class ErrorShape(Enum):
    """What an error looks like. The first is the documented one; the others were seen."""

    CODED = "coded"
    TEXT = "text"
    MESSAGE = "message"
    CLASSIC = "classic"
    HTML = "html"
    EMPTY = "empty"


def error_reply(shape: ErrorShape, refusal: SandboxRefusal) -> Answer:
    """An error in one of the shapes that were seen."""
    reply = refusal.reply()
    html = {**reply.headers, "content-type": "text/html"}
    value: JsonValue
    match shape:
        case ErrorShape.CODED:
            return reply
        case ErrorShape.TEXT:
            value = {"error": refusal.message}
        case ErrorShape.MESSAGE:
            value = {"message": refusal.message}
        case ErrorShape.CLASSIC:
            inner: JsonValue = {"message": refusal.message, "details": refusal.details}
            value = {
                "code": "DATASOURCE_CONNECTION_ERROR" if refusal.status >= 500 else refusal.code,
                "statusCode": refusal.status,
                "isCustomAuthError": False,
                "step": "request",
                "datasourceDebug": {"name": refusal.code, "jsonObject": inner},
            }
        case ErrorShape.HTML:
            status = refusal.status
            page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
            return Answer(status, html, page.encode())
        case ErrorShape.EMPTY:
            return Answer(refusal.status, html)
    return replace(reply, body=to_json(value))


class FaultMoment(Enum):
    """Whether a fault keeps the change from being made, or spoils its response alone."""

    BEFORE = "before"
    AFTER = "after"


class _Fault(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "*"
    path: str = "*"
    times: Annotated[int | None, Field(ge=1)] = 1
    """How often; None is for ever."""

    def awaits(self, method: str, path: str) -> bool:
        parts = re.split(r"(\*|{\w+})", self.path)
        pattern = "".join(".*" if p == "*" else "[^/]+" if p[:1] == "{" else re.escape(p) for p in parts)
        return self.method in ("*", method) and re.fullmatch(pattern, path, re.DOTALL) is not None

    def strike(self, perform: Callable[[], Answer], key: str | None) -> Answer:
        """The reply to a request with this key; `perform` does what was asked."""
        raise NotImplementedError


class _Answered(_Fault):
    """A reply of its own, before or after the change."""

    moment: FaultMoment = FaultMoment.BEFORE

    def reply(self, key: str | None) -> Answer:
        raise NotImplementedError

    @override
    def strike(self, perform: Callable[[], Answer], key: str | None) -> Answer:
        if self.moment is FaultMoment.AFTER:
            perform()
        return self.reply(key)


class Status(_Answered):
    """An error status. `retry_after` is seconds, or the header's text as it is."""

    kind: Literal["status"] = "status"
    status: Annotated[int, Field(ge=200, le=599)]
    code: str | None = None
    message: str = "Something went wrong"
    shape: ErrorShape = ErrorShape.CODED
    retry_after: int | str | None = None

    @override
    def reply(self, key: str | None) -> Answer:
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        code = self.code or _CODES.get(self.status, f"HTTP_{self.status}")
        return error_reply(self.shape, SandboxRefusal(self.status, code, self.message, headers=headers))


class EchoKey(_Answered):
    """An error whose text holds the API key that came."""

    kind: Literal["echo_key"] = "echo_key"
    status: Annotated[int, Field(ge=400, le=599)] = 401

    @override
    def reply(self, key: str | None) -> Answer:
        code = _CODES.get(self.status, f"HTTP_{self.status}")
        refusal = SandboxRefusal(self.status, code, f"The key {key} is not accepted", {"key": key})
        refusal.headers["x-echo"] = key or ""
        return refusal.reply()


class Redirect(_Answered):
    """A redirect to somewhere else."""

    kind: Literal["redirect"] = "redirect"
    status: Literal[301, 302, 303, 307, 308] = 302
    to: str

    @override
    def reply(self, key: str | None) -> Answer:
        return Answer(self.status, {"location": self.to})


class Hang(_Answered):
    """No answer at all; the connection stays open."""

    kind: Literal["hang"] = "hang"

    @override
    def reply(self, key: str | None) -> Answer:
        return FaultyReply(200, delivery=Delivery(end="hangs"))


class Reset(_Fault):
    """The connection is reset: before the change, or after it, or once `sent` bytes of the body have gone out."""

    kind: Literal["reset"] = "reset"
    moment: FaultMoment = FaultMoment.BEFORE
    sent: Annotated[int | None, Field(ge=0)] = None

    @override
    def strike(self, perform: Callable[[], Answer], key: str | None) -> Answer:
        before = self.moment is FaultMoment.BEFORE and self.sent is None
        return _delivered(Answer(200) if before else perform(), Delivery(sent=self.sent, end="reset"))


class Delay(_Fault):
    """The right answer, late."""

    kind: Literal["delay"] = "delay"
    seconds: Annotated[float, Field(ge=0)]

    @override
    def strike(self, perform: Callable[[], Answer], key: str | None) -> Answer:
        return _delivered(perform(), Delivery(delay=self.seconds))


class Drip(_Fault):
    """The right answer, a byte at a time."""

    kind: Literal["drip"] = "drip"
    seconds: Annotated[float, Field(ge=0)] = 0.05

    @override
    def strike(self, perform: Callable[[], Answer], key: str | None) -> Answer:
        return _delivered(perform(), Delivery(pause=self.seconds))


class Truncate(_Fault):
    """The first bytes of the right answer. Served, the connection ends before what its head promised."""

    kind: Literal["truncate"] = "truncate"
    kept: Annotated[int, Field(ge=0)] = 20

    @override
    def strike(self, perform: Callable[[], Answer], key: str | None) -> Answer:
        reply = perform()
        return _delivered(reply, Delivery(sent=min(self.kept, max(len(reply.body) - 1, 0)), end="closed"))


def _with_member(right: bytes, member: bytes) -> bytes:
    if right.endswith(b"}") and right != b"{}":
        return right[:-1] + b"," + member + b"}"
    return b'{"data":{' + member + b"}}"


def _of_size(size: int) -> bytes:
    return b'{"data":"' + b"0" * (size - 11) + b'"}'


_SPOILED: dict[str, Callable[[bytes, int], bytes]] = {
    "garbage": lambda _, __: b"\x00\xff{not json",
    "nan": lambda right, _: _with_member(right, b'"ratio":NaN'),  # which Python writes and JSON does not know
    "lone_surrogate": lambda right, _: _with_member(right, rb'"note":"\ud800"'),
    "deep_nesting": lambda _, __: b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "huge": lambda _, size: _of_size(size),  # more than a client should take in
    "gzip_bomb": lambda _, size: gzip.compress(_of_size(size), mtime=0),
}


class Spoiled(_Fault):
    """The right status with another body."""

    kind: Literal["garbage", "nan", "lone_surrogate", "deep_nesting", "huge", "gzip_bomb"]
    size: Annotated[int, Field(ge=16, le=256 * _MIB)] = 11 * _MIB
    """Bytes of what is huge, or unpacks to that."""

    @override
    def strike(self, perform: Callable[[], Answer], key: str | None) -> Answer:
        reply = perform()
        status = 200 if reply.status == 204 else reply.status
        packed = {"content-encoding": "gzip"} if self.kind == "gzip_bomb" else {}
        return Answer(status, {**reply.headers, **JSON, **packed}, _SPOILED[self.kind](reply.body, self.size))


Garbage = partial(Spoiled, kind="garbage")
NotANumber = partial(Spoiled, kind="nan")


def _delivered(reply: Answer, delivery: Delivery) -> FaultyReply:
    return FaultyReply(reply.status, reply.headers, reply.body, delivery=delivery)


Fault = Status | EchoKey | Redirect | Hang | Reset | Delay | Drip | Truncate | Spoiled

FAULT: TypeAdapter[Fault] = TypeAdapter(Annotated[Fault, Field(discriminator="kind")])


class Faults:
    """A queue. Of those that wait for a request, the one that came first strikes."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int | None]] = []

    def add(self, *faults: Fault) -> None:
        self._waiting += [(fault, fault.times) for fault in faults]

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that strikes this request, counted down."""
        for number, (fault, left) in enumerate(self._waiting):
            if fault.awaits(method, path):
                if left == 1:
                    del self._waiting[number]
                elif left is not None:
                    self._waiting[number] = (fault, left - 1)
                return fault
        return None


@dataclass(frozen=True, slots=True)
class HeardRequest:
    """A request. `tool` is the operation that it was, None where it was none; `path` is as it came, encoded.

    `body` is all that was sent, a secret's value and credentials too: tests show by it that they arrived.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: JsonValue
    tool: str | None

    def shown(self) -> dict[str, JsonValue]:
        return asdict(self)


@lru_cache(maxsize=8)
def _begun(begin: Dataset, now: datetime, randomness: tuple[Any, ...]) -> bytes:
    """The account of `begin` as of `now`, pickled: it takes a test five times as long to make."""
    seeded = Random()  # noqa: S311
    seeded.setstate(randomness)
    state = begin(now, seeded)
    pass_described(state, now)
    pass_time(state, now)
    return pickle.dumps(state)


@lru_cache(maxsize=2)
def _history(past: bytes) -> History:
    """The runs of a stored description, which take a second to make. Each sandbox shows its own copy of them."""
    return History(RunSeries.model_validate_json(past))


def _is_list(operation: AnyOperation) -> bool:
    return issubclass(operation, List)


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    return {names.get(name, name): value for name, value in row.items()} if names else row


class FaultySandbox(Sandbox):
    """A sandbox with a log of `requests`, with `faults` to come, and with the `history` of a large account."""

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        begin: Dataset = dataset,
        behaviour: Behaviour | None = None,
        routes: Mapping[str, Route] | None = None,
        **options: Any,
    ) -> None:
        self._routes = routes or {}
        self.behaviour = self._usual = behaviour or Behaviour()
        self.faults = Faults()
        self.requests: list[HeardRequest] = []
        self.error_shape = ErrorShape.CODED
        self.history = History(RunSeries())
        self._past: Row = {}

        def begun(at: datetime, randomness: Random) -> SandboxState:
            return pickle.loads(_begun(begin, at, randomness.getstate()))  # noqa: S301

        super().__init__(now, begin=begun, **options)

    def reset(self) -> None:
        """Begin again: fresh data, an empty log, no faults, and the behaviour of the beginning."""
        self.behaviour = self._usual
        self.faults.clear()
        self.requests.clear()
        self._limiter = RateLimiter()
        with self._transaction(self._now()):
            self._begin_again()

    def reply(self, request: SandboxRequest) -> FaultyReply:
        """The answer, and how it is to be delivered."""
        if len(self.requests) >= MAX_LOG:
            del self.requests[: MAX_LOG // 2]
        self.requests.append(self._heard(request))
        reply = super().answer(request)
        return reply if isinstance(reply, FaultyReply) else _delivered(reply, Delivery())

    @override
    def answer(self, request: SandboxRequest) -> Answer:
        """Raises `ResponseLost` where the connection is to break: there is none in process."""
        reply = self.reply(request)
        if reply.delivery.end == "reset":
            raise ResponseLost("ReadError")
        return reply

    @override
    def _respond(self, request: SandboxRequest, now: datetime) -> Answer:
        def perform() -> Answer:
            return super(FaultySandbox, self)._respond(request, now)

        fault = self.faults.take(request.method, request.path)
        return perform() if fault is None else fault.strike(perform, key_in(request.headers))

    @override
    def _route(self, operation: AnyOperation) -> Route:
        return self._routes.get(operation.tool_name(), operation.route)

    @override
    def _requests_per_minute(self) -> int:
        return self.behaviour.rate_limit

    @override
    def _authenticate(self, headers: Mapping[str, str], now: datetime) -> Row:
        sent, behaviour = dict(headers), self.behaviour
        if behaviour.accepts is not Accepts.EITHER:
            sent.pop("x-fastn-api-key" if behaviour.accepts is Accepts.BEARER else "authorization", None)
        if behaviour.refuses_test_mode and (key_in(sent) or "").startswith("fsk_test_"):
            if sent.get("x-fastn-test-mode", "").lower() == "true":
                raise SandboxRefusal(401, "AUTH_INVALID", "X-fastn-Test-Mode is not known here")
            sent["x-fastn-test-mode"] = "true"
        return super()._authenticate(sent, now)

    @override
    def _body(self, request: SandboxRequest) -> Row | None:
        body = super()._body(request)
        return body and _renamed(body, {renamed: name for name, renamed in self.behaviour.fields.items()})

    @override
    def _call(self, operation: AnyOperation, request: SandboxRequest, body: Row | None) -> Operation[Any]:
        if self.behaviour.filtering is Filtering.IGNORED and _is_list(operation):
            request = request._replace(query={name: value for name, value in request.query.items() if name == "limit"})
        return super()._call(operation, request, body)

    @override
    def _answered(self, outcome: Outcome, call: Operation[Any], query: dict[str, str]) -> Answer:
        envelope, paging, names = self.behaviour.envelope, self.behaviour.paging, self.behaviour.fields
        if outcome is None:
            return super()._answered(outcome, call, query)
        if isinstance(outcome, One):
            return Answer(outcome.status, JSON, to_json(wrapped(envelope, _renamed(outcome.row, names), {})))
        assert isinstance(call, List)
        rows = outcome.slice(0, len(outcome))
        pagination: Row = {}
        if paging is not Paging.IGNORED:
            rows, pagination = page(outcome, call.limit, query)
        pagination = {name: value for name, value in pagination.items() if name in paging.fields}
        shown = (_renamed(row, names) for row in rows)
        return Answer(200, JSON, to_json(wrapped(envelope, shown, pagination)))

    @override
    def _refused(self, refusal: SandboxRefusal) -> Answer:
        return error_reply(self.error_shape, refusal)

    @override
    def _pass_time(self, now: datetime) -> None:
        if (past := stored(self.state)) != self._past:
            self.history = copy(_history(to_json(past)))
        self._past = past
        self.history.pass_time(now)
        pass_described(self.state, now)
        super()._pass_time(now)

    @override
    def _context(self, now: datetime, who: Row, body: Row) -> PastContext:
        return PastContext(self.state, now, who, body, self.history)

    def _heard(self, request: SandboxRequest) -> HeardRequest:
        try:
            tool = self.operation(request.method, request.path).tool_name()
        except SandboxRefusal:
            tool = None
        try:
            body = from_json(request.body, allow_inf_nan=False) if request.body.strip() else None
        except ValueError:
            body = None
        headers = {name: REDACTED if is_secret_name(name) else value for name, value in request.headers.items()}
        return HeardRequest(request.method, request.path, request.query, headers, body, tool)
