"""Asks the sandbox without HTTP."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.sandbox.server import SandboxRequest
from fastn_mcp.tools.operation import Operation
from support.faulty_sandbox import FaultyReply, FaultySandbox

MORNING = datetime(2026, 10, 6, 9, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Answer:
    """A reply with its JSON read; `data` is what lies in the usual envelope."""

    reply: FaultyReply
    value: Any

    @property
    def status(self) -> int:
        return self.reply.status

    @property
    def data(self) -> Any:
        return self.value["data"]

    @property
    def error(self) -> Any:
        return self.value["error"]

    @property
    def field(self) -> str:
        """The field that a 422 names."""
        assert self.status == 422, self.value
        return self.error["details"][0]["field"]


class Fastn:
    """A caller with a key, which sends calls, or requests as they are."""

    def __init__(self, sandbox: FaultySandbox, key: str = KEY) -> None:
        self.sandbox = sandbox
        self.headers = {"x-fastn-api-key": key}
        if key.startswith("fsk_test_"):
            self.headers["x-fastn-test-mode"] = "true"

    def __call__(self, call: Operation[Any]) -> Answer:
        request = call.request()
        query = {name: str(value) for name, value in request.query.items()}
        named = {name.lower(): value for name, value in request.headers.items()}
        return self.ask(request.method, request.path, query, request.body, named)

    def ask(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        reply = self.sandbox.reply(SandboxRequest(method, path, query or {}, self.headers | (headers or {}), content))
        try:
            return Answer(reply, json.loads(reply.body))
        except ValueError:
            return Answer(reply, None)

    def id_of(self, collection: str, name: str, by: str = "slug") -> str:
        """The id of what the dataset calls so."""
        return str(self.sandbox.state.named(collection, name, by)["id"])

    def connection(self, customer: str | None, app: str) -> str:
        """The id of a customer's connection to an app; both by slug."""
        owner = None if customer is None else self.id_of("customers", customer)
        rows: list[Any] = self.sandbox.state.all("connections")
        return next(row["id"] for row in rows if row["endOrgId"] == owner and row["connector"]["slug"] == app)
