"""Every protocol version with a handshake is answered in that version, as the MCP specification requires."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_client_of_each_version_lists_and_reads(version: str, tmp_path: Path) -> None:
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    messages = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "list_customers", "arguments": {"limit": 1}}},
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "fastn_mcp", "--sandbox"],
        input="".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages),
        env={**os.environ, "FASTN_STATE_DIR": str(tmp_path), "FASTN_CONFIG_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    answers = {answer.get("id"): answer["result"] for answer in map(json.loads, ended.stdout.splitlines())}
    assert answers[1]["protocolVersion"] == version
    assert "delete_customer" in [tool["name"] for tool in answers[2]["tools"]]
    assert answers[3]["isError"] is False
    assert json.loads(answers[3]["content"][0]["text"])["data"]
