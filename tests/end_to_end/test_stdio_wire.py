"""Bytes on the pipes of a real server: every request is answered, every line is JSON-RPC, and the process exits."""

import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from support.forkserver import forked
from support.raw_client import (
    HELLO,
    META,
    PATIENCE,
    PING,
    READY,
    Server,
    call,
    checked,
    ended,
    in_era,
    message,
    search,
    serving,
    started,
)
from support.server_process import Upstream, each_era, environment

SOON = 4.0
"""Seconds; less than the five that a call in flight is given once the input ends."""

PROGRAM = (sys.executable, "-m", "fastn_mcp")
CANARY = "C4N4RY"


@pytest.fixture(scope="module")
def servers(isolated: dict[str, str]) -> Generator[dict[str, Server]]:
    """Run one server per protocol version, which all hostile messages go to and which must survive them."""
    with serving(isolated, "--sandbox") as old, started("--sandbox", env=isolated, command=forked()) as process:
        new = Server(process)
        new.listen()
        assert "result" in new.asked(message(0, "server/discover", _meta=META))
        yield {"2025-11-25": old, "2026-07-28": new}


def alive(server: Server, era: str) -> None:
    """Check that the next response answers the next request: nothing else was written, and the server goes on."""
    question = PING if era == "2025-11-25" else message("ping", "server/discover", _meta=META)
    answer = server.asked(question)
    assert answer["id"] == "ping"
    assert "result" in answer


def _call(tool: str, arguments: str) -> str:
    return f'{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{META"name":{tool},"arguments":{arguments}}}}}'


# Line, id and code of the error.
REFUSED: dict[str, tuple[str | bytes, object, int]] = {
    "half a character": (search(f'"{CANARY}\\ud800"'), 7, -32700),
    "half a character as a name": (search(f'"{CANARY}"', name='"\\ud800"'), 7, -32700),
    "half a character as an id": (search(f'"{CANARY}"', id_='"\\ud800"'), None, -32700),
    "5,000 levels": (search("[" * 5000 + "]" * 5000), 7, -32700),
    "an integer of 5,000 digits": (search("9" * 5000), 7, -32700),
    "an id of 5,000 digits": (search(f'"{CANARY}"', id_="9" * 5000), None, -32700),
    "an id that is null": (search(f'"{CANARY}"', id_="null"), None, -32600),
    "an id that is a fraction": (search(f'"{CANARY}"', id_="1.5"), None, -32600),
    "an id that is an object": (search(f'"{CANARY}"', id_='{"a":1}'), None, -32600),
    "an id that is true": (search(f'"{CANARY}"', id_="true"), None, -32600),
    "half a message": (f'{{"jsonrpc":"2.0","id":7,"method":"ping","params":{{"a":"{CANARY}"', 7, -32700),
    "no JSON": (CANARY, None, -32700),
    "an array": (f'["{CANARY}"]', None, -32600),
    "a batch, which no version has any more": (f"[{PING.decode()}]", "ping", -32600),
    "a string": (f'"{CANARY}"', None, -32600),
    "a number": ("12", None, -32600),
    "null": ("null", None, -32600),
    "another JSON-RPC": (f'{{"jsonrpc":"1.0","id":7,"method":"ping","params":{{"a":"{CANARY}"}}}}', 7, -32600),
    "bytes that are no UTF-8": (search(f'"{CANARY}X"').encode().replace(b"X", b"\xff\xfe"), 7, -32700),
    "params that are a string": (f'{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":"{CANARY}"}}', 7, -32600),
    "arguments that are an array": (_call('"list_customers"', f'["{CANARY}"]'), 7, -32602),
    "arguments that are a string": (_call('"list_customers"', f'"{CANARY}"'), 7, -32602),
    "a name that is an object": (_call(f'{{"{CANARY}":1}}', "{}"), 7, -32602),
    "no name": (_call("null", f'{{"search":"{CANARY}"}}').replace('"name":null,', ""), 7, -32602),
    "an unknown tool": (_call('"list_customer"', f'{{"search":"{CANARY}"}}'), 7, -32602),
    "an unknown method": (_call('"x"', f'{{"search":"{CANARY}"}}').replace("tools/call", "tools/cal"), 7, -32601),
    "5 MB": (search('"' + CANARY * 875_000 + '"'), 7, -32700),
}


@each_era
@pytest.mark.parametrize("what", REFUSED)
def test_invalid_message_is_answered_with_an_error(what: str, era: str, servers: dict[str, Server]) -> None:
    """JSON-RPC 2.0, MCP: the error codes. Every request gets an error, which repeats none of its values."""
    sent, id_, code = REFUSED[what]
    answer = servers[era].asked(in_era(sent, era))
    assert (answer["id"], answer["error"]["code"]) == (id_, code)
    assert CANARY not in json.dumps(answer)
    assert len(json.dumps(answer)) < 1000
    alive(servers[era], era)


def test_malformed_response_is_ignored(servers: dict[str, Server]) -> None:
    """JSON-RPC: a response gets no response."""
    old = servers["2025-11-25"]
    old.send(b'{"jsonrpc":"2.0","id":7}', b'{"jsonrpc":"2.0","id":7,"result":1}', b"", b"   \r")
    alive(old, "2025-11-25")


def test_messages_may_be_split_and_joined(servers: dict[str, Server]) -> None:
    """MCP: only a line break ends a message."""
    old = servers["2025-11-25"]
    assert old.process.stdin is not None
    for piece in (PING[:9], PING[9:30], PING[30:] + b"\r\n" + PING + b"\n" + PING[:5], PING[5:] + b"\n"):
        old.process.stdin.write(piece)
        old.process.stdin.flush()
    assert [old.heard()["id"] for _ in range(3)] == ["ping"] * 3


def test_files_work_like_pipes(isolated: dict[str, str], tmp_path: Path) -> None:
    """A server can be tried with < requests > answers. No input at all is the end of the input."""
    requests, answers = tmp_path / "requests", tmp_path / "answers"
    requests.write_bytes(b"\n".join((HELLO, READY, *(call(n) for n in range(20)))))
    with (
        requests.open("rb") as reading,
        answers.open("wb") as writing,
        started("--sandbox", env=isolated, command=forked(), stdin=reading, stdout=writing) as process,
    ):
        assert ended(process) == 0
    ids = [checked(line)["id"] for line in answers.read_bytes().splitlines()]
    assert ids[0] == "hello"
    assert sorted(ids[1:]) == list(range(20))
    with started("--sandbox", env=isolated, command=forked(), stdin=subprocess.DEVNULL) as process:
        assert ended(process) == 0


def held_up(upstream: Upstream, **fault: Any) -> None:
    upstream.fault(path="/api/v1/customers", **fault)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_in_flight(upstream: Upstream) -> None:
    wait_until(lambda: any(r["path"] == "/api/v1/customers" for r in upstream.requests()))


def test_calls_in_flight_are_answered_when_the_input_ends(upstream: Upstream) -> None:
    held_up(upstream, kind="delay", seconds=0.6, times=3)
    with serving(environment(upstream)) as server:
        server.send(call(1), call(2), call(3), PING)
        server.close()
        answers = {answer["id"]: answer for answer in server.rest()}
        assert ended(server.process) == 0
    assert answers.keys() == {1, 2, 3, "ping"}
    assert all(answers[n]["result"]["structuredContent"]["data"] for n in (1, 2, 3))


@pytest.mark.long
def test_hanging_calls_and_readers_do_not_keep_the_process(upstream: Upstream, isolated: dict[str, str]) -> None:
    held_up(upstream, kind="hang")
    with serving(environment(upstream)) as server, started("--sandbox", env=isolated) as unread:
        lines = (HELLO, READY, *(call(n, "list_executions", limit=100) for n in range(30)))
        assert unread.stdin is not None
        unread.stdin.write(b"".join(line + b"\n" for line in lines))
        unread.stdin.close()
        server.send(message(1, "tools/call", name="list_customers", arguments={}, _meta={"progressToken": 1}))
        wait_until_in_flight(upstream)
        server.close()
        (answer,) = (line for line in server.rest() if "id" in line)
        assert (answer["id"], "error" in answer) == (1, True)
        assert ended(server.process) == 0
        assert ended(unread) == 0


def test_cancelled_call_does_not_delay_the_exit(upstream: Upstream) -> None:
    """MCP: a cancelled request gets no response."""
    held_up(upstream, kind="hang")
    with serving(environment(upstream)) as server:
        server.send(call(1))
        wait_until_in_flight(upstream)
        server.send(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}')
        server.close()
        assert ended(server.process, SOON) == 0
        assert server.rest() == []


@pytest.mark.parametrize(
    ("number", "busy"),
    [(signal.SIGTERM, False), (signal.SIGINT, True)],
    ids=["SIGTERM when idle", "SIGINT with a call in flight"],
)
def test_signal_exits_with_0(number: signal.Signals, busy: bool, upstream: Upstream) -> None:
    held_up(upstream, kind="hang")
    with serving(environment(upstream), command=PROGRAM, stderr=subprocess.PIPE) as server:
        if busy:
            server.send(call(1))
            wait_until_in_flight(upstream)
        server.process.send_signal(number)
        assert ended(server.process) == 0
        assert server.process.stderr is not None
        assert server.process.stderr.read() == b""


def test_signal_exits_with_output_to_a_file(isolated: dict[str, str], tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    with answers.open("wb") as writing, started("--sandbox", env=isolated, command=forked(), stdout=writing) as process:
        Server(process).send(HELLO)
        wait_until(lambda: answers.stat().st_size > 0)
        process.terminate()
        assert ended(process) == 0


def test_control_c_exits_at_a_terminal(isolated: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    take = "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
    command = (sys.executable, "-S", "-c", take, *PROGRAM)
    streams: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": subprocess.PIPE}
    with started("--sandbox", env=isolated, command=command, own_terminal=True, **streams) as process:
        os.close(theirs)
        try:
            assert process.stderr is not None
            assert b"this is for an MCP client" in process.stderr.readline()
            os.write(ours, HELLO + b"\n")
            shown = b""
            while b'"serverInfo"' not in shown:
                shown += os.read(ours, 65536)
            os.write(ours, b"\x03")
            assert ended(process) == 0
            assert process.stderr.read() == b""
        finally:
            os.close(ours)


def test_closed_output_ends_the_process(isolated: dict[str, str]) -> None:
    with started("--sandbox", env=isolated, command=forked(), stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        server = Server(process)
        server.send(HELLO, READY)
        assert checked(process.stdout.readline())["id"] == "hello"
        process.stdout.close()
        server.send(PING)
        assert ended(process) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_vanished_socket_client_ends_the_input(isolated: dict[str, str]) -> None:
    """Node clients use sockets as pipes. One that dies with unread responses counts as the end of the input."""
    ours, theirs = socket.socketpair()
    streams: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": subprocess.PIPE}
    with started("--sandbox", env=isolated, command=forked(), **streams) as process:
        theirs.close()
        ours.settimeout(PATIENCE)
        ours.sendall(b"\n".join((HELLO, READY, b"")))
        with ours.makefile("rb") as lines:
            assert checked(lines.readline())["id"] == "hello"
            ours.sendall(PING + b"\n")
            ours.recv(1, socket.MSG_PEEK)
        ours.close()
        assert ended(process) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_slow_reader_loses_nothing(isolated: dict[str, str]) -> None:
    count = 40
    with started("--sandbox", env=isolated, command=forked()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = (HELLO, READY, *(call(n, "list_executions", limit=100) for n in range(count)))
        process.stdin.write(b"".join(line + b"\n" for line in lines))
        process.stdin.close()
        wait_until(lambda: _waiting(process) > 8192)
        descriptor = process.stdout.fileno()
        read = b"".join(iter(lambda: os.read(descriptor, 1000), b""))
        assert ended(process) == 0
    answers = [checked(line) for line in read.splitlines()]
    assert sorted(a["id"] for a in answers if a["id"] != "hello") == list(range(count))
    assert len(read) > 5 * 65536


def _waiting(process: "subprocess.Popen[bytes]") -> int:
    """Return the unread bytes in the pipe."""
    assert process.stdout is not None
    (count,) = struct.unpack("i", fcntl.ioctl(process.stdout, termios.FIONREAD, b"\0" * 4))
    return count


_NOISY = '''
"""A server on our transport, whose tool is as noisy as any library may be."""
import os, subprocess, sys
import anyio
from mcp.server import Server
from mcp.types import CallToolResult, ListToolsResult, TextContent
from fastn_mcp.server import stdio

async def call_tool(ctx, params):
    print("a library prints")
    os.write(1, b"and writes to descriptor 1\\n")
    subprocess.run(["echo", "as its children do"], check=True)
    read = sys.stdin.read()
    return CallToolResult(content=[TextContent(type="text", text=repr(read))])

async def list_tools(ctx, params):
    return ListToolsResult(tools=[])

print("nothing", file=sys.stderr)
anyio.run(stdio.serve, lambda _: Server("fastn-mcp", on_call_tool=call_tool, on_list_tools=list_tools))
'''


def test_library_output_does_not_corrupt_the_protocol(isolated: dict[str, str]) -> None:
    with serving(isolated, command=(sys.executable, "-c", _NOISY), stderr=subprocess.PIPE) as server:
        answer = server.asked(call(1))
        assert answer["result"]["content"][0]["text"] == "''"
        server.close()
        assert server.rest() == []
        assert ended(server.process) == 0
        assert server.process.stderr is not None
        content = server.process.stderr.read()
    for noise in (b"a library prints", b"and writes to descriptor 1", b"as its children do"):
        assert noise in content
