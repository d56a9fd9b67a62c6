"""Other users and programs of the machine can see the port of the approval page, but neither enter nor block it."""

import json
import os
import socket
import stat
import time
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from support.forkserver import forked
from support.local_page import globex
from support.other_user import as_other_user, needs_two_users
from support.page_visitor import posted_by
from support.server_process import ERAS, TLS, body

WATCH = """
import re

folder, = sys.argv[1:]
said = {"commands": [], "read": []}
for at in os.listdir("/proc"):
    if at.isdecimal():
        try:
            command = open(f"/proc/{at}/cmdline", "rb").read().replace(b"\\0", b" ")
            said["commands"].append(command.decode(errors="replace"))
        except OSError:
            pass
for at, _, names in os.walk(folder):
    for name in names:
        try:
            said["read"].append(open(os.path.join(at, name)).read())
        except OSError:
            pass
url, = {m[0] for c in said["commands"] for m in re.finditer("file://[^ ]+", c) if folder in m[0]}
try:
    said["page"] = open(url.removeprefix("file://")).read()
except OSError as error:
    said["page"] = type(error).__name__
print(json.dumps(said))
"""


def started(home: Path) -> StdioServerParameters:
    """Start the server with a browser that stays on the process list, as browsers do while they start."""
    browser = home / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {home}/opened.new && mv {home}/opened.new {home}/opened\nsleep 20\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    env = {"BROWSER": f"{browser} %s &", "FASTN_CONFIG": os.devnull, "FASTN_APPROVAL_WAIT_SECONDS": "0"}
    env |= {"FASTN_CONFIG_DIR": str(home / "config"), "FASTN_STATE_DIR": str(home / "state")}
    command, *arguments = forked("--sandbox")
    return StdioServerParameters(command=command, args=arguments, env=env)


async def asked(client: Client) -> None:
    """Make a call that waits for an approval on the page."""
    result = body(await client.call_tool("delete_customer", {"customer_id": (await globex(client))["id"]}))
    assert result["status"] == "approval_required"


def opened(home: Path) -> str:
    """Return the arguments that the browser was started with."""
    until = time.monotonic() + 30
    while not (home / "opened").exists():
        assert time.monotonic() < until, "no browser was started"
        time.sleep(0.05)
    return (home / "opened").read_text().strip()


@pytest.mark.long
@needs_two_users
@pytest.mark.parametrize("era", ERAS)
async def test_another_user_sees_no_key_while_the_browser_starts(era: str, home: Path) -> None:
    """docs/security.md: the key is in no command line, and in no file that others can read."""
    async with Client(started(home), mode=ERAS[era]) as client:
        await asked(client)
        file = await anyio.to_thread.run_sync(opened, home)
        observed = json.loads(await anyio.to_thread.run_sync(as_other_user, WATCH, str(home / "state")))
        _, keys = posted_by(file)
    assert any(file in command for command in observed["commands"])
    assert keys["key"] not in json.dumps(observed)
    assert (observed["page"], observed["read"]) == ("PermissionError", [])


async def test_wrong_keys_and_idle_connections_do_not_block_the_person(home: Path) -> None:
    async with Client(started(home), mode="2026-07-28") as client:
        await asked(client)
        action, keys = posted_by(await anyio.to_thread.run_sync(opened, home))
        port = int(httpx2.URL(action).port or 0)
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        half = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        try:
            for one in half:
                one.sendall(
                    b"POST /enter HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: null\r\nContent-Length: 9\r\n"
                    b"Content-Type: application/x-www-form-urlencoded\r\n\r\nkey=" % port
                )
            async with httpx2.AsyncClient(verify=TLS, headers={"origin": "null"}) as http:
                for number in range(20):
                    wrong = await http.post(action, data={"key": f"guess {number}"})
                    assert (wrong.status_code, wrong.headers["connection"]) == (403, "close")
                assert (await http.post(action, data=keys)).status_code == 200
        finally:
            for one in idle + half:
                one.close()
