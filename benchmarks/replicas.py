"""What replicas hold, as a team has them: tokens, a shared ledger, nginx. Reads of one tenant by raw HTTP. Linux only.

Two replicas against one, in turn, as a ratio within each round. First where each call takes Fastn a tenth of a second:
then the places of a tenant at each replica are the bound, and another replica brings more. Then where Fastn takes no
time and the machine is the bound, on which everything else runs too: clients, balancer, ledger, Fastn.

And what a client costs that is connected and does nothing.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from support.fleet import KEYS, Fastn, Fleet, a_fleet
from support.team_world import modern, request
from support.valkey_server import ValkeyServer, valkey_for

PLACES = "calls = 8\nqueue = 1000\nconnections = 4000"
IN_FLIGHT = 48
SLOW = 0.1
"""Seconds that an answer takes a Fastn that is far away."""
IDLE = (1, 10, 100, 1000)
ID = "cus_000001"


@contextmanager
def upstream(seconds: float) -> Generator[Fastn]:
    """A Fastn that answers every request alike, after a while, in a thread of this process."""
    body = json.dumps({"data": {"id": ID, "name": "Acme", "status": "Active"}}).encode()
    answer = b"HTTP/1.1 200 -\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    started, loop, ports = Event(), asyncio.new_event_loop(), list[int]()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if seconds:
                    await asyncio.sleep(seconds)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def listen() -> None:
        server = await asyncio.start_server(served, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()

    def run() -> None:
        loop.create_task(listen())
        loop.run_forever()

    thread = Thread(target=run, daemon=True)
    thread.start()
    started.wait()
    yield Fastn(f"http://127.0.0.1:{ports[0]}")
    loop.call_soon_threadsafe(loop.stop)


def message(fleet: Fleet, person: str) -> bytes:
    """A read, as bytes."""
    body = json.dumps(request("get_customer", {"customer_id": ID})).encode()
    headers = {
        "host": fleet.at.removeprefix("http://"),
        "authorization": f"Bearer {fleet.token('acme', person)}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "content-length": str(len(body)),
        **modern("get_customer"),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body


class Client:
    """One connection, which is kept."""

    def __init__(self, port: int, sends: bytes) -> None:
        self.port, self.sends = port, sends

    async def call(self) -> None:
        """One call. Raises `AssertionError` for anything but its answer."""
        if not hasattr(self, "writer"):
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(self.sends)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await self.reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200") or ID.encode() not in body:
            raise AssertionError(head, body[:300])


async def throughput(fleet: Fleet, seconds: float) -> float:
    """Calls in a second, over the balancer."""
    port, sends, made = int(fleet.at.rpartition(":")[2]), message(fleet, "a"), 0
    clients = [Client(port, sends) for _ in range(IN_FLIGHT)]
    for _ in range(2):  # every replica has opened the account
        await asyncio.gather(*(client.call() for client in clients))
    began = time.monotonic()

    async def work(client: Client) -> None:
        nonlocal made
        while time.monotonic() < began + seconds:
            await client.call()
            made += 1

    await asyncio.gather(*map(work, clients))
    return made / (time.monotonic() - began)


def memory(process: int) -> float:
    """Resident megabytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def idle(fleet: Fleet) -> dict[int, float]:
    """Megabytes of a replica with so many clients, each of whom made a call and stays connected."""
    (replica,) = fleet.replicas
    assert replica.process is not None
    clients: list[Client] = []
    memory_by_clients: dict[int, float] = {}
    warm = Client(replica.port, message(fleet, "warm"))
    for _ in range(2000):  # what it takes once, for whomever
        await warm.call()
    for count in IDLE:
        while len(clients) < count:
            clients.append(Client(replica.port, message(fleet, str(len(clients)))))
            await clients[-1].call()
        memory_by_clients[count] = memory(replica.process.pid)
    return memory_by_clients


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as data,
        valkey_for(Path(data)) as valkey,
    ):
        scaled = compare(Path(folder), valkey, options.rounds, options.seconds)
        flat = remember(Path(folder), valkey)
    return 0 if scaled and flat else 1


@contextmanager
def running(work: Path, valkey: ValkeyServer, count: int, seconds: float) -> Generator[Fleet]:
    folder = Path(tempfile.mkdtemp(dir=work))
    with upstream(seconds) as fastn, a_fleet(folder, valkey.url(), count, PLACES, dict.fromkeys(KEYS, fastn)) as fleet:
        yield fleet


def compare(work: Path, valkey: ValkeyServer, rounds: int, seconds: float) -> bool:
    ratios: dict[float, float] = {}
    for takes in (SLOW, 0.0):
        rates: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(rounds):
            for count in (1, 2) if turn % 2 == 0 else (2, 1):
                with running(work, valkey, count, takes) as fleet:
                    rates[count].append(asyncio.run(throughput(fleet, seconds)))
        ratios[takes] = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
        one, two = (statistics.median(rates[count]) for count in (1, 2))
        print(
            f"Fastn takes {takes * 1000:3.0f} ms: {one:6.1f} and {two:6.1f} calls/s, ratio {ratios[takes]:.2f}",
            flush=True,
        )
    return ratios[SLOW] > 1.5


def remember(work: Path, valkey: ValkeyServer) -> bool:
    with running(work, valkey, 1, 0.0) as fleet:
        megabytes = asyncio.run(idle(fleet))
    print("clients and MB: " + ", ".join(f"{count}: {size:.1f}" for count, size in megabytes.items()))
    each = [(megabytes[1000] - megabytes[100]) / 900 * 1024, (megabytes[100] - megabytes[10]) / 90 * 1024]
    print(f"KB for each idle client: {each[1]:.0f} from 10 to 100, {each[0]:.0f} from 100 to 1,000")
    return megabytes[1000] < megabytes[1] * 1.5


if __name__ == "__main__":
    sys.exit(main())
