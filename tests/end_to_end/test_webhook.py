"""A real server and the receiver of `examples/` as a process, with real HTTP both ways."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from support.command_line import run_command
from support.ports import free_port
from support.server_process import Upstream, body, environment, over_http, running, stdio
from support.webhook_world import approvers_file

from fastn_mcp.channels.webhook.webhook import signature_headers

EXAMPLE = Path(__file__).parents[2] / "examples" / "webhook_receiver.py"
SECRET = "a secret that both sides know: 0123456789"


def example() -> Any:
    """Import the example as a module, so that a test can change one thing of its process."""
    spec = importlib.util.spec_from_file_location("webhook_receiver", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def received(url: str, module: Any) -> Generator[Any]:
    """Run the example's receiver at this address. Its queue has the requests that came."""
    port = int(url.rstrip("/").rpartition(":")[2])
    with module.Receiver(("127.0.0.1", port), SECRET) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, daemon=True)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


@dataclass
class Folder:
    """The keys of dana, kim and mallory, who is not listed as an approver, and the server's environment."""

    path: Path
    env: dict[str, str]

    @property
    def url(self) -> str:
        return self.env["FASTN_WEBHOOK_URL"]

    def key(self, name: str) -> str:
        return f"{name}={self.path / name}.pem"

    def server(self) -> StdioServerParameters:
        return stdio(self.env)

    def audited(self, event: str) -> list[dict[str, Any]]:
        lines = (Path(self.env["FASTN_STATE_DIR"]) / "audit.jsonl").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]


@pytest.fixture
def folder(tmp_path: Path, upstream: Upstream) -> Folder:
    port = free_port()
    listed = ""
    for name in ("dana", "kim", "mallory"):
        made = run_command(["approvals", "keygen", name, "--output", f"{tmp_path}/{name}.pem"], os.environ)
        assert (tmp_path / f"{name}.pem").stat().st_mode & 0o777 == 0o600
        listed += made.stdout if name != "mallory" else ""
    env = environment(upstream) | {
        "FASTN_WEBHOOK_URL": f"http://127.0.0.1:{port}/",
        "FASTN_WEBHOOK_SECRET": SECRET,
        "FASTN_APPROVERS": str(approvers_file(tmp_path, listed)),
    }
    return Folder(tmp_path, env)


@dataclass
class Receiver:
    """The example's process, and the person at its terminal."""

    process: "subprocess.Popen[str]"

    def question(self) -> str:
        """Read what it shows until it asks."""
        assert self.process.stdout is not None
        text = ""
        while not text.endswith(" > "):
            character = self.process.stdout.read(1)
            assert character, text
            text += character
        return text

    def types(self, line: str) -> str:
        """Type a line and return what the receiver prints next."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


@contextmanager
def receiving(folder: Folder, *names: str) -> Generator[Receiver]:
    address = folder.url.removeprefix("http://").rstrip("/")
    keys = [part for name in names for part in ("--key", folder.key(name))]
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE), "--listen", address, *keys],
        env={**os.environ, "FASTN_WEBHOOK_SECRET": SECRET},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert "Waiting for questions" in process.stdout.readline()
            yield Receiver(process)
        finally:
            process.kill()


async def deletion(client: Client, name: str = "Globex Exports") -> dict[str, Any]:
    customers = body(await client.call_tool("list_customers", {"search": name}))["data"]
    return {"customer_id": customers[0]["id"]}


async def delete(client: Client, target: dict[str, Any]) -> dict[str, Any]:
    return body(await client.call_tool("delete_customer", target))


async def test_call_approved_at_the_receiver_is_sent_once(folder: Folder, upstream: Upstream) -> None:
    with receiving(folder, "dana") as receiver:
        async with Client(folder.server(), mode="2026-07-28") as client:
            target = await deletion(client)
            waiting = await delete(client, target)
            assert waiting["status"] == "approval_required"
            assert "A person has to approve by the webhook at 127.0.0.1" in waiting["message"]
            prompt = receiver.question()
            assert 'Delete customer "Globex Exports"' in prompt
            assert "To approve, type: approve Globex Exports" in prompt
            assert receiver.types("approve Globex Imports").startswith("422")
            assert (await delete(client, target))["status"] == "approval_required"
            assert upstream.changes() == []
    # A restarted server sends it again to a restarted receiver.
    with receiving(folder, "dana") as receiver:
        async with Client(folder.server(), mode="legacy") as client:
            assert (await delete(client, target))["status"] == "approval_required"
            receiver.question()
            assert receiver.types("approve Globex Exports").startswith("200")
            answers = [await delete(client, target) for _ in range(2)]
            assert (answers[0]["done"], answers[1]["outcome"]) == ("delete_customer", "not_found")
    assert upstream.changes() == [f"DELETE /api/v1/customers/{target['customer_id']}"]
    assert [entry["approver"] for entry in folder.audited("approved")] == ["dana"]
    assert folder.audited("answer_refused")[0]["approver"] == "dana"


async def test_http_server_receives_answers_itself(folder: Folder, upstream: Upstream) -> None:
    module, port = example(), free_port()
    with received(folder.url, module) as receiver, running("--http", f"127.0.0.1:{port}", port=port, env=folder.env):
        async with Client(over_http(f"http://127.0.0.1:{port}/mcp"), mode="2026-07-28") as client:
            target = await deletion(client)
            assert (await delete(client, target))["status"] == "approval_required"
            question = receiver.questions.get(timeout=10)
            assert question["callback"] == f"http://127.0.0.1:{port}/approvals/{question['grant']}"
            dana = module.private_key(f"{folder.path}/dana.pem")
            approval = module.answer(question, "dana", dana, "approve", "Globex Exports")
            elsewhere = module.signed(question["callback"] + "x", question["path"], json.loads(approval.data), dana)

            def status(answer: Any) -> int:
                response = httpx2.post(answer.full_url, content=answer.data, headers=dict(answer.header_items()))
                assert response.json()["decided"] is (response.status_code == 200)
                return response.status_code

            assert status(elsewhere) == 401
            assert (await delete(client, target))["status"] == "approval_required"
            assert upstream.changes() == []
            assert [status(approval), status(approval)] == [200, 409]
            assert (await delete(client, target))["done"] == "delete_customer"
    assert len(upstream.changes()) == 1
    assert len(folder.audited("answer_refused")) == 2


def test_example_accepts_only_signed_requests(folder: Folder) -> None:
    module = example()
    with received(folder.url, module) as receiver:
        content = json.dumps({"grant": "g", "lines": []}).encode()
        now = datetime.now(UTC)

        def status(signed: dict[str, str], data: bytes = content) -> int:
            return httpx2.post(folder.url, content=data, headers=signed).status_code

        good = signature_headers(SECRET, now, "nonce-1", content)
        assert status(signature_headers("another secret", now, "nonce-2", content)) == 401
        assert status(good, content + b" ") == 401
        assert status(signature_headers(SECRET, now - timedelta(seconds=400), "nonce-3", content)) == 401
        assert status({}) == 401
        assert [status(good), status(good)] == [204, 204]
        assert receiver.questions.qsize() == 1


def test_key_file_is_never_overwritten(tmp_path: Path) -> None:
    command = ["approvals", "keygen", "dana", "--output", str(tmp_path / "k.pem")]
    first = run_command(command, os.environ)
    assert re.search(r'^\["dana"\]\npublic_key = "[A-Za-z0-9+/]{43}="$', first.stdout, re.MULTILINE)
    before = (tmp_path / "k.pem").read_bytes()
    again = run_command(command, os.environ)
    assert again.returncode == 1
    assert "cannot be created" in again.stderr
    assert "Move the file first" in again.stderr
    assert (tmp_path / "k.pem").read_bytes() == before
