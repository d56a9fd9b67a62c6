"""The state folder and the ledger: whether what is approved and changed can be kept."""

import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastn_mcp.doctor.verdict import Check, Group, Verdict
from fastn_mcp.errors import FastnError

_ROOM = 16 * 1024**2
"""Bytes that ought to be free on the disk of the state folder."""


def folder(state: Path) -> Check:
    """Whether the state folder can be written, and only by its owner."""
    here = f"The folder is {state}."
    there = next(path for path in (state, *state.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        seen = "The state folder cannot be written: nothing that changes something will be sent."
        return _folder(Verdict.FAILED, seen, "Make it writable for this user, or set FASTN_STATE_DIR.", here)
    if shutil.disk_usage(there).free < _ROOM:
        seen = "The disk of the state folder is full: nothing that changes something will be sent."
        return _folder(Verdict.FAILED, seen, "Free space on it, or set FASTN_STATE_DIR.", here)
    if os.name != "nt" and there == state and state.stat().st_mode & 0o077:
        seen = "Other users of this machine can open the state folder."
        return _folder(Verdict.DIFFERS, seen, "Run chmod 700 on it.", here)
    return _folder(
        Verdict.OK, "It can be written." if there == state else "It is made with the first change.", "", here
    )


def _folder(verdict: Verdict, seen: str, then: str, here: str) -> Check:
    return Check(Group.SETTINGS, "state folder", verdict, seen, then, here)


async def ledger(check: Callable[[], Awaitable[object]] | None, weakness: str | None, where: str) -> Check:
    """Whether the ledger can be used. `check` reads it, `weakness` is what is wrong with how it is reached."""
    here = f"It is {where}."
    if check is None:
        return Check(Group.SETTINGS, "ledger", Verdict.OK, "It is made with the first change.", here=here)
    try:
        await check()
    except FastnError as error:
        seen = error.what.replace(f" {where}", "")
        return Check(Group.SETTINGS, "ledger", Verdict.FAILED, seen, error.next_step, here)
    if weakness is not None:
        seen, _, then = weakness.partition(". ")
        return Check(Group.SETTINGS, "ledger", Verdict.DIFFERS, f"{seen[0].upper()}{seen[1:]}.", then, here)
    return Check(Group.SETTINGS, "ledger", Verdict.OK, "It can be read.", here=here)
