"""Answers that decide nothing, in the audit: some of them whole, the rest counted, so that no flood fills the disk."""

import logging
from dataclasses import dataclass, replace

from fastn_mcp.errors import FastnError
from fastn_mcp.guard.audit import Audit, Entry
from fastn_mcp.system import System

log = logging.getLogger(__name__)

MOST = 20
"""Entries of one kind in a span."""

SPAN = 3600.0
"""Seconds."""


@dataclass(slots=True)
class _Kind:
    began: float = float("-inf")
    recorded: int = 0
    left_out: int = 0


class Refusals:
    """Those of strangers and those of approvers are counted apart: no stranger can hide what an approver's key did."""

    def __init__(self, audit: Audit, system: System) -> None:
        self._audit = audit
        self._system = system
        self._kinds = {True: _Kind(), False: _Kind()}

    def record(self, entry: Entry) -> None:
        """Record it, or count it. What cannot be written is logged: the answer decides nothing in any case."""
        kind = self._kinds[entry.approver is not None]
        now = self._system.monotonic()
        if now - kind.began >= SPAN:
            kind.began, kind.recorded = now, 0
        if kind.recorded >= MOST:
            kind.left_out += 1
            return
        kind.recorded += 1
        if kind.left_out:
            entry = replace(entry, message=f"{entry.message} Before it {kind.left_out} more were not recorded.")
            kind.left_out = 0
        try:
            self._audit.record(entry)
        except FastnError:
            log.exception("an answer that decides nothing could not be audited")
