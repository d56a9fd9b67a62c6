"""The sandbox in this process, as the client knows an exchange: no HTTP between them."""

from collections.abc import Mapping

from pydantic_core import to_json

from fastn_mcp.client.exchange import Answer, Lost
from fastn_mcp.operation import Request
from fastn_mcp.sandbox import Sandbox
from fastn_mcp.sandbox.reply import Broken


class InProcess:
    """Requests with these headers, answered by a sandbox."""

    def __init__(self, sandbox: Sandbox, headers: Mapping[str, str]) -> None:
        self._sandbox = sandbox
        self._headers = {name.lower(): value for name, value in headers.items()}

    async def __call__(self, request: Request) -> Answer:
        """Raises `Lost` where the sandbox is told to break the connection."""
        own = {name.lower(): value for name, value in request.headers.items()}
        query = {
            name: value if isinstance(value, str) else to_json(value).decode() for name, value in request.query.items()
        }
        body = b"" if request.body is None else to_json(request.body)
        sent = {"content-type": "application/json"} | self._headers | own
        reply = self._sandbox.answer(request.method, request.path, query, sent, body)
        if isinstance(reply.delivery, Broken):
            raise Lost("ReadError")
        return Answer(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.body)

    async def aclose(self) -> None:
        pass
