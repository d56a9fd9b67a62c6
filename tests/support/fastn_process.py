"""A Fastn sandbox in its own process: `python fastn_process.py PORT [CANARY]`.

`GET /heard` returns every change it was asked for, with the key that came with it. With a canary, a secret of the
account that only Fastn knows, it echoes requests and adds that secret to its responses.
"""

import json
import sys
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from typing_extensions import override

from fastn_mcp.client.exchange import Answer
from fastn_mcp.extensions.sandbox.app import create_app
from fastn_mcp.extensions.sandbox.server import Sandbox, SandboxRequest


class Remembering(Sandbox):
    """Sandbox that records every requested change."""

    heard: list[dict[str, Any]]

    @override
    def answer(self, request: SandboxRequest) -> Answer:
        if request.method != "GET":
            content = json.loads(request.body) if request.body else None
            key = request.headers.get("x-fastn-api-key")
            self.heard.append({"key": key, "method": request.method, "path": request.path, "body": content})
        return super().answer(request)


def held(canary: str) -> dict[str, Any]:
    """Return a secret in every shape, for objects in responses and in arguments."""
    return {
        "apiKey": canary,
        "password": canary,
        "fields": [{"name": "apiKey", "value": canary}, {"id": "region", "value": "eu"}],
        "database": f"postgres://sync:{canary}@db.example/acme",
        "note": f"sent Bearer {canary}",
        "basic": f"Basic {b64encode(f'user:{canary}'.encode()).decode()}",
        "headers": [["X-Api-Key", canary]],
        "callback": f"https://x.example/?access_token={canary}&page=2",
        "raw": json.dumps({"body": json.dumps({"clientSecret": canary})}),
        "credentials": {"user": canary, "deep": [{"any": canary}]},
        "license": f"fsk_live_{canary}",
    }


class Echoing(Remembering):
    """Echoes bodies in responses and errors. Its first response about quotas is a 503."""

    canary: str
    failed = False

    @override
    def answer(self, request: SandboxRequest) -> Answer:
        body = request.body
        reply = super().answer(request)
        status = reply.status
        if request.path.endswith("/quotas") and not self.failed:
            self.failed, status = True, 503
        if status >= 400:
            echo: dict[str, Any] = {"code": "NO", "message": f"Bearer {self.canary} sent {body.decode()}"}
            said: Any = {"error": echo | {"details": held(self.canary)}}
        else:
            said = self._planted(json.loads(reply.body or b"null"), json.loads(body or b"null"))
        headers = {name: value for name, value in reply.headers.items() if name != "content-length"}
        return Answer(status, headers, json.dumps(said).encode())

    def _planted(self, value: Any, sent: Any) -> Any:
        if isinstance(value, list):
            return [self._planted(item, sent) for item in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        fields = {name: self._planted(item, sent) for name, item in cast("dict[str, Any]", value).items()}
        if "id" not in fields:
            return fields
        if "slug" in fields and sent is None:
            fields["slug"] = f"{fields['slug']}?token={self.canary}"
        more = {"echo": sent, "log": f"got {json.dumps(sent)}"} if sent is not None else {}
        return {**held(self.canary), **fields, **more}


def main(port: int, canary: str = "") -> None:
    sandbox = (Echoing if canary else Remembering)(lambda: datetime.now(UTC))
    sandbox.heard = []
    if isinstance(sandbox, Echoing):
        sandbox.canary = canary

    def heard(_: Request) -> JSONResponse:
        return JSONResponse(sandbox.heard)

    app = Starlette(routes=[Route("/heard", heard), Mount("/", create_app(sandbox))])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
