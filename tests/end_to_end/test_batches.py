"""Batches through a real client and server; a batch whose server is killed is continued."""

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client, StdioServerParameters
from support.server_process import ERAS, Person, Upstream, approving, body, each_era, environment


class Server:
    """Server processes, one after another, on one state folder."""

    def __init__(self, upstream: Upstream, folder: Path, era: str) -> None:
        self.upstream = upstream
        self.era = era
        self.person = Person(approving)
        self._environment = environment(upstream)
        self._pid = folder / "pid"

    def started(self) -> Client:
        # The shell writes its id to a file and then becomes the server.
        line = f'echo $$ > "{self._pid}"; exec "{sys.executable}" -m fastn_mcp'
        parameters = StdioServerParameters(command="sh", args=["-c", line], env={**os.environ, **self._environment})
        return Client(parameters, mode=ERAS[self.era], elicitation_callback=self.person)

    async def killed_in(self, batch: dict[str, Any], target: str, moment: str) -> None:
        """Send the batch and kill the server (SIGKILL) while it waits for the deletion of `target`.

        With the `moment` after, Fastn has done the deletion by then; before, it has not.
        """
        self.upstream.fault(kind="hang", method="DELETE", path=f"*/{target}", moment=moment)
        async with self.started() as client, anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "apply_changes", batch)
            await anyio.to_thread.run_sync(arrived, self.upstream, target)
            os.kill(int(await anyio.Path(self._pid).read_text()), signal.SIGKILL)
            group.cancel_scope.cancel()
        self.upstream.control("DELETE", "faults")

    async def made(self, batch: dict[str, Any]) -> dict[str, Any]:
        async with self.started() as client:
            return body(await client.call_tool("apply_changes", batch))


def deleted(upstream: Upstream) -> list[str]:
    return [change.rpartition("/")[2] for change in upstream.changes() if change.startswith("DELETE")]


def arrived(upstream: Upstream, target: str) -> None:
    until = time.monotonic() + 30
    while target not in deleted(upstream):
        assert time.monotonic() < until
        time.sleep(0.02)


def deletions(targets: list[str]) -> dict[str, Any]:
    return {"changes": [{"tool": "delete_trigger", "arguments": {"trigger_id": target}} for target in targets]}


async def triggers(client: Client) -> list[str]:
    return [row["id"] for row in body(await client.call_tool("list_triggers", {"detail": "full"}))["data"]]


@pytest.mark.long
@each_era
async def test_batch_killed_twice_is_finished_by_a_third_process(era: str, upstream: Upstream, tmp_path: Path) -> None:
    server = Server(upstream, tmp_path, era)
    async with server.started() as client:
        targets = (await triggers(client))[:5]
    assert len(targets) == 5
    batch = deletions(targets)
    await server.killed_in(batch, targets[1], "after")
    assert deleted(upstream) == targets[:2]
    await server.killed_in(batch, targets[3], "before")
    assert deleted(upstream) == targets[:4]
    answer = await server.made(batch)

    assert [row["outcome"] for row in answer["calls"]] == [
        "done", "unknown_outcome", "done", "unknown_outcome", "done"
    ]  # fmt: skip
    assert Counter(deleted(upstream)) == Counter(targets)
    assert deleted(upstream) == targets
    assert answer["outcome"] == "unknown_outcome"
    for number in (1, 3):
        assert targets[number] in answer["message"]
        assert answer["calls"][number]["settle"] == {
            "tool": "get_trigger",
            "arguments": {"trigger_id": targets[number]},
        }
    assert [asked.partition(".")[0] for asked in server.person.asked] == ["Make 5 changes"]
    async with server.started() as client:
        left = await triggers(client)
    # The named reads show that the deletion Fastn had done is done, and the other is not.
    assert [target for target in targets if target in left] == [targets[3]]
