"""An account over HTTP in this process: what was sent to it is recorded, and it begins anew for each job."""

import json
import random
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import uvicorn
from large_account import large_account
from support.faulty_sandbox import FaultySandbox
from support.ports import free_port
from support.served_sandbox import create_faulty_app

from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.sandbox.server import Dataset
from fastn_mcp.extensions.sandbox.state import SandboxState

__all__ = ["KEY", "Account", "serving"]


class Account:
    """The account, as judges see it."""

    def __init__(self, port: int, begin: Dataset) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.sandbox = FaultySandbox(lambda: datetime.now(UTC), begin=begin)
        self._begin = json.dumps(self.sandbox.state.dump())

    def reset(self) -> None:
        """Begin anew, with nothing sent."""
        self.sandbox.state = SandboxState.load(json.loads(self._begin), random.Random)
        self.sandbox.requests.clear()

    def sent(self) -> list[str]:
        """Return the changes that arrived, as "DELETE customers". What Fastn's AI was told shows in what it made."""
        heard = [(heard.method, heard.path.split("/")[3]) for heard in self.sandbox.requests]
        return [f"{method} {resource}" for method, resource in heard if method != "GET" and resource != "ai"]

    def requests(self) -> int:
        """Return the number of requests that arrived."""
        return len(self.sandbox.requests)

    def rows(self, collection: str) -> list[dict[str, Any]]:
        return self.sandbox.state.all(collection)


@contextmanager
def serving(begin: Dataset = large_account) -> Generator[Account]:
    """Serve an account on this machine, by default the large one."""
    port = free_port()
    account = Account(port, begin)
    server = uvicorn.Server(
        uvicorn.Config(create_faulty_app(account.sandbox), port=port, log_level="error", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield account
    finally:
        server.should_exit = True
        thread.join(10)
