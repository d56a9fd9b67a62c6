"""Faults on demand: a queue, and what each kind does to a response.

A fault says which requests it waits for, by method and path, and how often it strikes. In a path `*` stands for
anything and `{name}` for one segment, so that an operation's own route will do: `Status(path=RunWorkflow.route.path)`.

One that strikes before the change keeps it from being made; one that strikes after it spoils the answer alone.
"""

import gzip
import io
import re
from dataclasses import replace
from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import to_json

from fastn_mcp.sandbox.behaviour import ErrorShape, error_body
from fastn_mcp.sandbox.reply import BrokenReply, Dropwise, Late, NoReply, SandboxReply, Short

_JSON = {"content-type": "application/json"}
_MIB = 1024 * 1024

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


class FaultMoment(Enum):
    """When a fault strikes."""

    BEFORE = "before"
    AFTER = "after"


class _Fault(BaseModel):
    """What all faults have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    method: str = "*"
    path: str = "*"
    times: Annotated[int | None, Field(ge=1)] = 1
    """How often; None is for ever."""

    def awaits(self, method: str, path: str) -> bool:
        """Whether this request is one that it waits for."""
        return self.method in ("*", method) and _pattern(self.path).fullmatch(path) is not None

    def instead(self, key: str | None) -> SandboxReply | None:  # noqa: ARG002
        """The answer in place of doing anything; None where what was asked is done first."""
        return None

    def spoiled(self, reply: SandboxReply, key: str | None) -> SandboxReply:  # noqa: ARG002
        """What becomes of the answer."""
        return reply


class _Struck(_Fault):
    """A fault that is an answer of its own, before or after the change."""

    moment: FaultMoment = FaultMoment.BEFORE

    def answer(self, key: str | None) -> SandboxReply:
        raise NotImplementedError

    def instead(self, key: str | None) -> SandboxReply | None:
        return self.answer(key) if self.moment is FaultMoment.BEFORE else None

    def spoiled(self, reply: SandboxReply, key: str | None) -> SandboxReply:  # noqa: ARG002
        return self.answer(key)


class Status(_Struck):
    """An error status. `retry_after` is seconds, or the header's text as it is."""

    kind: Literal["status"] = "status"
    status: Annotated[int, Field(ge=200, le=599)]
    code: str | None = None
    message: str = "Something went wrong"
    shape: ErrorShape = ErrorShape.CODED
    retry_after: int | str | None = None

    def answer(self, key: str | None) -> SandboxReply:  # noqa: ARG002
        seconds = self.retry_after if isinstance(self.retry_after, int) else None
        code = self.code or _CODES.get(self.status, f"HTTP_{self.status}")
        body = error_body(self.shape, self.status, code, self.message, retry_after=seconds)
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if isinstance(body, bytes):
            return SandboxReply(self.status, headers | {"content-type": "text/html"}, body)
        return SandboxReply(self.status, headers | _JSON, to_json(body))


class EchoKey(_Struck):
    """An error whose text holds the API key that came."""

    kind: Literal["echo_key"] = "echo_key"
    status: Annotated[int, Field(ge=400, le=599)] = 401

    def answer(self, key: str | None) -> SandboxReply:
        code = _CODES.get(self.status, f"HTTP_{self.status}")
        body = error_body(ErrorShape.CODED, self.status, code, f"The key {key} is not accepted", {"key": key})
        return SandboxReply(self.status, {**_JSON, "x-echo": key or ""}, to_json(body))


class Redirect(_Struck):
    """A redirect to somewhere else."""

    kind: Literal["redirect"] = "redirect"
    status: Literal[301, 302, 303, 307, 308] = 302
    to: str

    def answer(self, key: str | None) -> SandboxReply:  # noqa: ARG002
        return SandboxReply(self.status, {"location": self.to})


class Hang(_Struck):
    """No answer at all; the connection stays open."""

    kind: Literal["hang"] = "hang"

    def answer(self, key: str | None) -> SandboxReply:  # noqa: ARG002
        return SandboxReply(200, delivery=NoReply())


class Reset(_Fault):
    """The connection is reset: before the change, or after it, or once `sent` bytes of the body have gone out."""

    kind: Literal["reset"] = "reset"
    moment: FaultMoment = FaultMoment.BEFORE
    sent: Annotated[int | None, Field(ge=0)] = None

    def instead(self, key: str | None) -> SandboxReply | None:  # noqa: ARG002
        return (
            SandboxReply(200, delivery=BrokenReply())
            if self.moment is FaultMoment.BEFORE and self.sent is None
            else None
        )

    def spoiled(self, reply: SandboxReply, key: str | None) -> SandboxReply:  # noqa: ARG002
        return replace(reply, delivery=BrokenReply(self.sent))


class Delay(_Fault):
    """The right answer, late."""

    kind: Literal["delay"] = "delay"
    seconds: Annotated[float, Field(ge=0)]

    def spoiled(self, reply: SandboxReply, key: str | None) -> SandboxReply:  # noqa: ARG002
        return replace(reply, delivery=Late(self.seconds))


class Drip(_Fault):
    """The right answer, a byte at a time."""

    kind: Literal["drip"] = "drip"
    seconds: Annotated[float, Field(ge=0)] = 0.05

    def spoiled(self, reply: SandboxReply, key: str | None) -> SandboxReply:  # noqa: ARG002
        return replace(reply, delivery=Dropwise(self.seconds))


class Truncate(_Fault):
    """The first bytes of the right answer. Served, the connection ends before what its head promised."""

    kind: Literal["truncate"] = "truncate"
    kept: Annotated[int, Field(ge=0)] = 20

    def spoiled(self, reply: SandboxReply, key: str | None) -> SandboxReply:  # noqa: ARG002
        return replace(reply, delivery=Short(min(self.kept, max(len(reply.body) - 1, 0))))


class _Spoiled(_Fault):
    """The right status with another body."""

    def body(self, right: bytes) -> bytes:
        raise NotImplementedError

    def spoiled(self, reply: SandboxReply, key: str | None) -> SandboxReply:  # noqa: ARG002
        return SandboxReply(_with_body(reply.status), reply.headers | _JSON, self.body(reply.body))


class Garbage(_Spoiled):
    """A body that is no JSON."""

    kind: Literal["garbage"] = "garbage"

    def body(self, right: bytes) -> bytes:  # noqa: ARG002
        return b"\x00\xff{not json"


class NotANumber(_Spoiled):
    """The right answer with a NaN in it, which Python writes and JSON does not know."""

    kind: Literal["nan"] = "nan"

    def body(self, right: bytes) -> bytes:
        return _with_member(right, b'"ratio":NaN')


class LoneSurrogate(_Spoiled):
    """The right answer with half a character in it."""

    kind: Literal["lone_surrogate"] = "lone_surrogate"

    def body(self, right: bytes) -> bytes:
        return _with_member(right, rb'"note":"\ud800"')


class DeepNesting(_Spoiled):
    """Arrays in arrays."""

    kind: Literal["deep_nesting"] = "deep_nesting"
    levels: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000

    def body(self, right: bytes) -> bytes:  # noqa: ARG002
        return b'{"data":' + b"[" * self.levels + b"]" * self.levels + b"}"


class Huge(_Spoiled):
    """More than a client should take in."""

    kind: Literal["huge"] = "huge"
    size: Annotated[int, Field(ge=16, le=256 * _MIB)] = 11 * _MIB
    """Bytes."""

    def body(self, right: bytes) -> bytes:  # noqa: ARG002
        return b'{"data":"' + b"0" * (self.size - 11) + b'"}'


class GzipBomb(_Fault):
    """A small body that unpacks to a large one."""

    kind: Literal["gzip_bomb"] = "gzip_bomb"
    unpacked: Annotated[int, Field(ge=_MIB, le=1024 * _MIB)] = 64 * _MIB

    def spoiled(self, reply: SandboxReply, key: str | None) -> SandboxReply:  # noqa: ARG002
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
            file.write(b'{"data":"')
            for _ in range(self.unpacked // _MIB):
                file.write(b"0" * _MIB)
            file.write(b'"}')
        headers = reply.headers | _JSON | {"content-encoding": "gzip"}
        return SandboxReply(_with_body(reply.status), headers, packed.getvalue())


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\*|{\w+})", path)
    return re.compile(
        "".join(".*" if p == "*" else "[^/]+" if p[:1] == "{" else re.escape(p) for p in parts), re.DOTALL
    )


def _with_body(status: int) -> int:
    return 200 if status == 204 else status


def _with_member(right: bytes, member: bytes) -> bytes:
    if right.endswith(b"}") and right != b"{}":
        return right[:-1] + b"," + member + b"}"
    return b'{"data":{' + member + b"}}"


Fault = (
    Status
    | EchoKey
    | Redirect
    | Hang
    | Reset
    | Delay
    | Drip
    | Truncate
    | Garbage
    | NotANumber
    | LoneSurrogate
    | DeepNesting
    | Huge
    | GzipBomb
)

FAULT: TypeAdapter[Fault] = TypeAdapter(
    Annotated[Fault, Field(discriminator="kind")], config=ConfigDict(defer_build=True)
)


class Faults:
    """A queue. Of those that wait for a request, the one that came first strikes."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int | None]] = []

    @property
    def waiting(self) -> list[Fault]:
        return [fault for fault, _ in self._waiting]

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


__all__ = [
    "FAULT",
    "DeepNesting",
    "Delay",
    "Drip",
    "EchoKey",
    "Fault",
    "FaultMoment",
    "Faults",
    "Garbage",
    "GzipBomb",
    "Hang",
    "Huge",
    "LoneSurrogate",
    "NotANumber",
    "Redirect",
    "Reset",
    "Status",
    "Truncate",
]
