"""Faults on demand: a queue of what is to go wrong, each for the requests that it waits for. Pure.

A fault says which requests it waits for, by method and path, and how often it strikes. In a path `*` stands for
anything and `{name}` for one segment, so that an operation's own route will do: `Status(path=RunWorkflow.route.path)`.
"""

from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter

from fastn_mcp.sandbox.fault_kinds import (
    DeepNesting,
    Delay,
    Drip,
    EchoKey,
    Garbage,
    GzipBomb,
    Hang,
    Huge,
    LoneSurrogate,
    Moment,
    NotANumber,
    Redirect,
    Reset,
    Status,
    Truncate,
)

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
    "Faults",
    "Garbage",
    "GzipBomb",
    "Hang",
    "Huge",
    "LoneSurrogate",
    "Moment",
    "NotANumber",
    "Redirect",
    "Reset",
    "Status",
    "Truncate",
]
