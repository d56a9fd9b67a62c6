"""Every protocol version with a handshake is answered in that version, as the MCP specification requires."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.forkserver import forked
from support.raw_client import META


def answers_to(messages: list[dict[str, Any]], state: Path) -> dict[Any, dict[str, Any]]:
    ended = subprocess.run(
        forked("--sandbox"),
        input="".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages),
        env={**os.environ, "FASTN_STATE_DIR": str(state), "FASTN_CONFIG_DIR": str(state)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return {answer.get("id"): answer for answer in map(json.loads, ended.stdout.splitlines())}


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_client_of_each_version_lists_and_reads(version: str, tmp_path: Path) -> None:
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    messages = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "list_customers", "arguments": {"limit": 1}}},
    ]
    answers = {id_: answer["result"] for id_, answer in answers_to(messages, tmp_path).items()}
    assert answers[1]["protocolVersion"] == version
    assert "delete_customer" in [tool["name"] for tool in answers[2]["tools"]]
    assert answers[3]["isError"] is False
    assert json.loads(answers[3]["content"][0]["text"])["data"]


@pytest.mark.parametrize("opens_by_handshake", [True, False])
def test_request_of_the_other_era_is_refused(opens_by_handshake: bool, tmp_path: Path) -> None:
    """MCP: the first request decides the era of a session."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    handshake = {"id": 1, "method": "initialize", "params": hello}
    enveloped = {"id": 2, "method": "tools/call", "params": {"name": "get_quotas", "_meta": META}}
    first, other = (handshake, enveloped) if opens_by_handshake else (enveloped, handshake)
    answers = answers_to([first, other], tmp_path)
    assert "result" in answers[first["id"]]
    assert "error" in answers[other["id"]]
