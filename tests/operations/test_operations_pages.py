"""docs/operations.md and docs/incidents.md: their lines, run as printed, with real processes and a served sandbox."""

import itertools
import re
import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp import Client
from operations.conftest import Shell
from support.identity_provider import Provider, listening
from support.ports import free_port
from support.server_process import KEY, Upstream, body, over_http, running
from support.team_world import ALL, Caller

from fastn_mcp.audit.files import verify

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / name).read_text(encoding="utf-8") for name in ("operations.md", "incidents.md")}
STATE = "state=~/.local/state/fastn-mcp"


def lines_below(page: str, heading: str) -> str:
    """Return the commands below a heading as one script that ends at the first failure."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGES[page], re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return "\n".join(["set -e", STATE, *lines])


@asynccontextmanager
async def server(shell: Shell) -> AsyncGenerator[Client]:
    """A client of a real server of this person."""
    port = free_port()
    token = "a-token-of-this-test-that-nobody-guesses"
    env = {"HOME": str(shell.folder), "FASTN_HTTP_TOKEN": token}
    with running("--http", f"127.0.0.1:{port}", port=port, env=env):
        transport = over_http(f"http://127.0.0.1:{port}/mcp", {"authorization": f"Bearer {token}"})
        async with Client(transport) as client:
            yield client


async def ran(shell: Shell, script: str) -> str:
    return await anyio.to_thread.run_sync(shell.does, script)


def test_pages_use_one_state_folder() -> None:
    assert [name for name, text in PAGES.items() if STATE not in text] == []


@pytest.mark.long
async def test_backup_of_a_running_server_is_restored(shell: Shell) -> None:
    made, shown, is_copied, numbers = list[str](), "", anyio.Event(), itertools.count()
    async with server(shell) as client, anyio.create_task_group() as tasks:

        async def change() -> None:
            answer = body(await client.call_tool("create_customer", {"name": f"Initech {next(numbers)}"}))
            made.append(answer["receipt"]["change_id"])

        async def go_on() -> None:
            while not is_copied.is_set():
                await change()

        await change()
        tasks.start_soon(go_on)
        shown = await ran(shell, lines_below("operations.md", "How do I back up while it runs?"))
        is_copied.set()
        await change()
    assert len(made) >= 3
    assert "Intact: " in shown
    assert "Entry " in shown
    assert {file.stat().st_mode & 0o077 for file in (shell.folder / "backup").iterdir()} == {0}
    ledger = shell.state / "ledger.sqlite"
    ledger.write_bytes(b"damaged" * 1_000)
    for beside in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (shell.state / beside).unlink(missing_ok=True)
    refused = shell.run("fastn-mcp call create-customer --name Hooli")
    assert "is damaged. Nothing was sent." in refused.stdout
    assert "restore a copy (docs/operations.md)" in refused.stdout
    assert shell.run("fastn-mcp doctor").returncode == 2
    shown = shell.does(lines_below("operations.md", "How do I restore?"))
    assert "which is unchanged" in shown
    undo = shell.run(f"fastn-mcp call undo-change --change-id {made[0]}")  # the journal is there again
    assert '"status": "approval_required"' in undo.stdout
    assert '"done": "create_customer"' in shell.does("fastn-mcp call create-customer --name Hooli")
    shell.does("fastn-mcp audit verify")


@pytest.mark.extension("doctor")
def test_ledger_of_another_version_is_put_aside(shell: Shell) -> None:
    shell.does("fastn-mcp call create-customer --name Initech")
    with closing(sqlite3.connect(shell.state / "ledger.sqlite")) as database:
        database.execute("ALTER TABLE documents ADD COLUMN zone TEXT")
    refused = shell.run("fastn-mcp call create-customer --name Hooli")
    assert refused.returncode == 1
    (message,) = re.findall(r"^The ledger … (.*)$", PAGES["operations.md"], re.MULTILINE)
    assert message in refused.stdout
    assert "Initech" in shell.does("fastn-mcp call list-customers")
    output = shell.does(lines_below("operations.md", "What does a new version do to an old ledger?"))
    assert "Everything matches." in output
    assert (shell.state / "earlier" / "ledger.sqlite").exists()
    unknown = shell.run("fastn-mcp call list-changes >/dev/null && fastn-mcp audit verify")
    assert unknown.returncode == 1
    assert "This ledger has never seen this log." in unknown.stderr
    output = shell.does("fastn-mcp call create-customer --name Hooli")
    assert '"done": "create_customer"' in output
    assert "This ledger has never seen this log." in output
    shell.does(lines_below("operations.md", "How do I upgrade?"))


def test_state_is_moved_with_the_knowledge_of_the_logs_end(shell: Shell) -> None:
    for name in ("Initech", "Hooli"):
        shell.does(f"fastn-mcp call create-customer --name {name}")
    output = shell.does(lines_below("operations.md", "How do I move to another machine?"))
    assert "Entry 4 matches the ledger." in output
    new = shell.folder / "new" / ".local" / "state" / "fastn-mcp"
    verifying = f"FASTN_STATE_DIR={new} fastn-mcp audit verify"
    whole = (new / "audit.jsonl").read_text()
    (new / "audit.jsonl").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    cut = shell.run(verifying)
    assert cut.returncode == 1
    assert "entry 4 is missing at the end: the ledger has it, the log does not" in cut.stdout
    (new / "ledger.sqlite").unlink()
    shell.does(f"FASTN_STATE_DIR={new} fastn-mcp call list-changes")
    alone = shell.run(verifying)
    assert alone.returncode == 1
    assert "This ledger has never seen this log. Was it moved" in alone.stderr


def rotated(upstream: Upstream) -> str:
    """Create another key at Fastn, and revoke the old one. Returns the new key."""
    with httpx2.Client(
        base_url=f"{upstream.url}/api/v1", headers={"x-fastn-api-key": KEY, "x-fastn-test-mode": "true"}
    ) as fastn:
        old = next(row for row in fastn.get("/api-keys").json()["data"] if row["name"] == "Sandbox")
        created = fastn.post("/api-keys", json={"name": "New", "permissions": "Full access", "mode": "Test"})
        key: str = created.raise_for_status().json()["data"]["key"]
        fastn.delete(f"/api-keys/{old['id']}").raise_for_status()
    return key


async def test_running_server_says_that_another_key_was_stored(shell: Shell, upstream: Upstream) -> None:
    async with server(shell) as client:
        made = body(await client.call_tool("create_customer", {"name": "Initech"}))
        (shell.folder / "new-key").write_text(rotated(upstream))
        before = body(await client.call_tool("list_users", {}))
        assert (before["outcome"], before["message"]) == (
            "unauthorized", "Fastn does not accept the API key (401). Nothing was changed.",
        )  # fmt: skip
        shown = await ran(shell, lines_below("operations.md", "How do I rotate my Fastn key?"))
        assert "is stored in" in shown
        after = body(await client.call_tool("list_users", {}))
        assert "another one has been stored since" in after["message"]
        assert after["next"] == (
            "A person has to restart this server, which then uses it. Approvals given for the old key are void."
        )
    async with server(shell) as client:
        assert "data" in body(await client.call_tool("list_users", {}))
        # What was done with the old key is bound to it.
        change = {"change_id": made["receipt"]["change_id"]}
        assert body(await client.call_tool("undo_change", change))["outcome"] == "not_found"


async def test_teams_server_takes_up_a_new_key(tmp_path: Path, upstream: Upstream) -> None:
    login, port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    provider = Provider(f"http://127.0.0.1:{login}", url)
    key, file = tmp_path / "fastn-key", tmp_path / "team.toml"
    key.write_text(KEY)
    key.chmod(0o600)
    file.write_text(
        f'url = "{url}"\nissuer = "{provider.issuer}"\n[[tenant]]\nname = "acme"\nsubjects = ["anna"]\n'
        f'api_key_file = "fastn-key"\nbase_url = "{upstream.url}"\nmode = "guarded"\n'
    )
    file.chmod(0o600)
    env = {"FASTN_CONFIG_DIR": str(tmp_path), "FASTN_STATE_DIR": str(tmp_path / "state")}
    with (
        listening(provider.app, login),
        running("--http", f"127.0.0.1:{port}", "--team", str(file), port=port, env=env),
    ):
        token = provider.token(sub="anna", scope=ALL)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            anna = Caller(http)
            assert (await anna.result(token, "create_customer", name="Initech"))["done"] == "create_customer"
            new = rotated(upstream)
            assert "another" not in (await anna.result(token, "list_users"))["message"]
            key.write_text(new)
            assert (await anna.result(token, "list_users"))["next"].startswith(
                "Call again: the new key is used from now on."
            )
            assert (await anna.result(token, "create_customer", name="Hooli"))["done"] == "create_customer"
    assert [change for change in upstream.changes() if "customers" in change] == ["POST /api/v1/customers"] * 2
    report = verify(tmp_path / "state" / "tenants" / "acme" / "audit.jsonl")
    assert (report.broken, report.unfinished) == (None, ())


@pytest.mark.long
def test_full_disk_refuses_changes_until_there_is_space(shell: Shell, upstream: Upstream) -> None:
    disk = shell.folder / "disk"
    disk.mkdir()
    script = f"""
        mount -t tmpfs -o size=1m none {disk} || exit 77
        PATH={Path(sys.executable).parent}:$PATH # not forks, which do not see the mount
        export FASTN_STATE_DIR={disk}/state
        fastn-mcp call create-customer --name Initech || exit 1
        dd if=/dev/zero of={disk}/filler bs=1k count=2000 2>/dev/null
        fastn-mcp call create-customer --name Hooli
        echo
        fastn-mcp call list-users >/dev/null && echo reads go on
        fastn-mcp doctor | grep 'state folder'
        rm {disk}/filler
        fastn-mcp call create-customer --name Globex && fastn-mcp audit verify
    """
    done = shell.run(f"unshare -rm true || exit 77; unshare -rm sh -c '{script.replace(chr(39), chr(34))}'")
    if done.returncode == 77:
        pytest.skip("no file system can be mounted here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"(the disk is full|cannot be written \(No space left on device\))\. Nothing was sent\.", done.stdout
    )
    assert "reads go on" in done.stdout
    assert "no change will be sent" in done.stdout
    assert "Intact: " in done.stdout
    assert [change for change in upstream.changes() if "OPTIONS" not in change] == ["POST /api/v1/customers"] * 2


@pytest.mark.long
def test_damaged_ledger_without_a_backup_is_put_aside(shell: Shell) -> None:
    shell.does("fastn-mcp call create-customer --name Initech")
    shell.does(lines_below("incidents.md", "What should I watch?"))
    (shell.state / "ledger.sqlite").write_bytes(b"damaged" * 1_000)
    assert shell.run(lines_below("incidents.md", "What should I watch?")).returncode == 1
    assert "Everything matches." in shell.does(lines_below("incidents.md", "The ledger is damaged"))
    assert '"done": "create_customer"' in shell.does("fastn-mcp call create-customer --name Hooli")
