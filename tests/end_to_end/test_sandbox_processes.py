"""Several processes with a sandbox: approvals are shared, and a file keeps the changes of all."""

import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from support.command_line import run_process
from support.forkserver import forked
from support.server_process import body
from support.terminal import sitting


def environment(folder: Path) -> dict[str, str]:
    """Return variables with separate folders and a browser that shows nothing."""
    folders = {name: str(folder / name) for name in ("FASTN_CONFIG_DIR", "FASTN_STATE_DIR")}
    own = {"FASTN_CONFIG": os.devnull, "BROWSER": "false %s", "FASTN_APPROVAL_WAIT_SECONDS": "0"}
    return folders | own | {"PATH": os.environ["PATH"]}


async def test_approval_in_one_sandbox_process_counts_in_another(tmp_path: Path) -> None:
    env = environment(tmp_path)
    server = StdioServerParameters(command=sys.executable, args=["-m", "fastn_mcp", "--sandbox"], env=env)
    async with Client(server, mode="legacy") as client:
        workflow = body(await client.call_tool("list_workflows", {"search": "process-new-orders"}))["data"][0]
        deletion = {"workflow_id": workflow["id"]}
        asked = body(await client.call_tool("delete_workflow", deletion))
        assert asked["status"] == "approval_required", asked

        (printed,) = re.findall(r"`(.+) --open`", asked["message"])
        pasted = ["-c", "import os, sys; os.execvp('sh', ['sh', '-c', sys.argv[1]])", printed]
        with sitting(pasted) as person:
            assert "process-new-orders" in person.answers("Enter = leave it waiting > ", "y")
            person.sees("Approved.")

        answer = body(await client.call_tool("delete_workflow", deletion))
        assert answer.get("done") == "delete_workflow", answer


def test_shared_file_keeps_the_changes_of_all_processes(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.json"

    def create(number: int) -> dict[str, Any]:
        call = ("call", "create-customer", "--name", f"Initech {number}")
        command = forked("--sandbox-file", str(file), *call)
        ran = run_process(command, os.environ | environment(tmp_path))
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    with ThreadPoolExecutor(4) as at_once:
        made = list(at_once.map(create, range(4)))

    rows = json.loads(file.read_text())["rows"]["customers"].values()
    assert {f"Initech {number}" for number in range(4)} <= {row["name"] for row in rows}
    assert len({json.dumps(answer) for answer in made}) == 4
