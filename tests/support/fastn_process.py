"""A Fastn sandbox in its own process, for load tests: `python fastn_process.py PORT`.

`GET /heard` returns every change it was asked for, with the key that came with it.
"""

import json
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import uvicorn
from typing_extensions import override

from fastn_mcp.sandbox.app import create_app
from fastn_mcp.sandbox.replies import SandboxReply
from fastn_mcp.sandbox.server import Sandbox, SandboxRequest


class Remembering(Sandbox):
    """Sandbox that records every requested change."""

    heard: list[dict[str, Any]]

    @override
    def answer(self, request: SandboxRequest) -> SandboxReply:
        if request.method != "GET":
            content = json.loads(request.body) if request.body else None
            key = request.headers.get("x-fastn-api-key")
            self.heard.append({"key": key, "method": request.method, "path": request.path, "body": content})
        return super().answer(request)


def main(port: int) -> None:
    sandbox = Remembering(lambda: datetime.now(UTC))
    sandbox.heard = []
    inner = create_app(sandbox)

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/heard":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps(sandbox.heard).encode()})
        else:
            await inner(scope, receive, send)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
