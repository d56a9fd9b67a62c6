"""Make the calls of a file at a team's server, from a GitHub Actions job that stores no secret (docs/machines.md).

FASTN_MCP_URL=https://fastn-mcp.example.com/mcp python team_machine.py calls.jsonl
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["mcp>=2.3,<3"]
# ///

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

SERVER = os.environ["FASTN_MCP_URL"]
AUDIENCE = os.environ.get("FASTN_MCP_AUDIENCE", SERVER)  # `audience` of the team file, if it has one


class JobToken(httpx2.Auth):
    """Get a token of the job for each request, since GitHub's are valid for a few minutes."""

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        at = httpx2.URL(os.environ["ACTIONS_ID_TOKEN_REQUEST_URL"]).copy_merge_params({"audience": AUDIENCE})
        secret = os.environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
        response = yield httpx2.Request("GET", at, headers={"Authorization": f"Bearer {secret}"})
        await response.aread()
        response.raise_for_status()
        request.headers["Authorization"] = f"Bearer {response.json()['value']}"
        yield request


async def main(calls: list[dict[str, Any]]) -> int:
    """Return 1 if a call was not done. Nobody is asked: what the plan does not cover is refused."""
    failed = 0
    async with (
        httpx2.AsyncClient(auth=JobToken(), timeout=330) as http,
        Client(streamable_http_client(SERVER, http_client=http)) as client,
    ):
        for call in calls:
            result = await client.call_tool(call["tool"], call.get("arguments", {}))
            answer: dict[str, Any] = result.structured_content or {}
            is_done = not result.is_error and "outcome" not in answer and "status" not in answer
            failed |= not is_done
            print(call["tool"], "done" if is_done else answer.get("message", "failed"), flush=True)
    return failed


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    sys.exit(asyncio.run(main([json.loads(line) for line in lines if line.strip()])))
