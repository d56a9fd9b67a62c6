"""A second user of the machine: a program that loads everything, and then drops its privileges."""

import os
import pwd
import sys
import textwrap
from pathlib import Path

import pytest

from support.command_line import run_process

needs_two_users = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)

# The interpreter may be readable by root only, so everything needed is imported, and used once, before.
_BECOME = """
import asyncio, encodings.idna, json, os, socket, sys
import anyio, anyio.to_thread, httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

async def loaded():
    for mode in ("legacy", "2026-07-28"):
        try:
            async with Client("http://127.0.0.1:1/mcp", mode=mode) as client:
                await client.list_tools()
        except BaseException:
            pass

anyio.run(loaded)
os.setgroups([])
os.setgid({gid})
os.setuid({uid})
assert os.getuid() == os.geteuid() == {uid} != 0
"""


def as_other_user(program: str, *arguments: str) -> str:
    """Return the output of a program of another user. It has `Client`, `httpx2`, `anyio`, `json`, `os` and `sys`."""
    nobody = pwd.getpwnam("nobody")
    become = _BECOME.format(uid=nobody.pw_uid, gid=nobody.pw_gid)
    done = run_process([sys.executable, "-c", become + textwrap.dedent(program), *arguments], cwd=Path("/"))
    assert done.returncode == 0, done.stderr
    return done.stdout
