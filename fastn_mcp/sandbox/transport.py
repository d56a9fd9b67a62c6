"""Requests of the client that the sandbox answers in this process, without HTTP between them."""

from collections.abc import Mapping

from pydantic_core import to_json

from fastn_mcp.client.http import Answer, ResponseLost
from fastn_mcp.sandbox.reply import BrokenReply
from fastn_mcp.sandbox.server import Sandbox
from fastn_mcp.tools.operation import Request


class InProcess:
    """Requests with these headers, answered by a sandbox."""

    def __init__(self, sandbox: Sandbox, headers: Mapping[str, str]) -> None:
        self._sandbox = sandbox
        self._headers = {name.lower(): value for name, value in headers.items()}

    async def __call__(self, request: Request) -> Answer:
        """Raises `ResponseLost` where the sandbox is told to break the connection."""
        own = {name.lower(): value for name, value in request.headers.items()}
        query = {
            name: value if isinstance(value, str) else to_json(value).decode() for name, value in request.query.items()
        }
        body = b"" if request.body is None else to_json(request.body)
        sent = {"content-type": "application/json"} | self._headers | own
        reply = self._sandbox.answer(request.method, request.path, query, sent, body)
        if isinstance(reply.delivery, BrokenReply):
            raise ResponseLost("ReadError")
        return Answer(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.body)

    async def aclose(self) -> None:
        pass
