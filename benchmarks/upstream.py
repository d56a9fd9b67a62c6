"""A Fastn for measuring: the fewest bytes of work that answer a call. Listens on 127.0.0.1 only, and stops by itself.

It prints its port, then answers every route of the API with a row, or with a page of a hundred. `GET /count` says how
many API requests came, so that a server cannot seem fast by not asking.
"""

import asyncio
import json
import re
from typing import cast

KEY = "bench-key"
ROWS = 100
LIFETIME = 3600.0  # seconds


def row(kind: str, number: int) -> dict[str, object]:
    """A row of about 280 bytes."""
    return {
        "id": f"{kind}_{number:06d}",
        "name": f"{kind.capitalize()} {number:04d} Ltd",
        "slug": f"{kind}-{number:04d}-ltd",
        "email": f"ops@{kind}{number}.example.com",
        "status": "Active",
        "plan": "growth",
        "tags": ["emea", f"tier-{number % 4}"],
        "createdAt": "2026-11-01T09:00:00Z",
        "updatedAt": "2026-11-01T09:00:00Z",
    }


def page(kind: str, limit: int) -> bytes:
    rows = [row(kind, number) for number in range(1, min(limit, ROWS) + 1)]
    return json.dumps({"data": rows, "total": ROWS}, separators=(",", ":")).encode()


class Upstream(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as far as the servers under test need it."""

    requests = 0
    pages: dict[tuple[str, int], bytes] = {}  # noqa: RUF012 - one for all connections

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].decode("latin-1")
            length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < total:
                return
            body, self.buffer = self.buffer[end + 4 : total], self.buffer[total:]
            method, target = head.split(" ", 2)[:2]
            status, answer = self.answer(method, target, head.lower(), body)
            self.transport.write(
                b"HTTP/1.1 %d -\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (status, len(answer), answer)
            )

    def answer(self, method: str, target: str, head: str, body: bytes) -> tuple[int, bytes]:
        if target == "/count":
            return 200, b"%d" % Upstream.requests
        Upstream.requests += 1
        if f"\r\nx-fastn-api-key: {KEY}" not in head:
            return 401, b'{"error":{"code":"unauthorized","message":"Invalid API key"}}'
        path, _, query = target.partition("?")
        parts = path.removeprefix("/api/v1/").split("/")
        kind = parts[0].removesuffix("s")
        if method == "GET" and len(parts) == 1:
            limit = re.search(r"(?:^|&)limit=(\d+)", query)
            asked = (kind, int(limit[1]) if limit else 20)
            if asked not in Upstream.pages:
                Upstream.pages[asked] = page(*asked)
            return 200, Upstream.pages[asked]
        if method == "POST":
            return 201, json.dumps({**row(kind, Upstream.requests), **json.loads(body)}).encode()
        return 200, json.dumps({**row(kind, 1), "id": parts[-1]}).encode()


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(LIFETIME)


if __name__ == "__main__":
    asyncio.run(main())
