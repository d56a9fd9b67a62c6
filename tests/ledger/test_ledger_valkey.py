"""What the ledger on a server promises beyond the contract: servers stall, die and forget, answers get lost."""

import asyncio
import re
import ssl
from collections.abc import Callable, Generator, Mapping
from contextlib import aclosing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
import trustme
from support.begun import claimed, counted, rated, used
from support.decisions import moved
from support.stores import NOW, add_temporary, change, grant, put, temporary_approval
from support.tcp_proxy import proxied
from support.valkey_server import ValkeyServer
from support.values import not_none

from fastn_mcp.errors import NOTHING_SENT
from fastn_mcp.extensions.valkey import server as valkey_module
from fastn_mcp.extensions.valkey.server import Address, parse
from fastn_mcp.extensions.valkey.store import ValkeyStore
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, SealedSecret, Vote
from fastn_mcp.ledger.change_start import BudgetLimit, StartResult
from fastn_mcp.ledger.documents import deletion, write
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.decision import PLANNED
from fastn_mcp.runtime import System

ASKABLE = (RequestState.OPEN, RequestState.APPROVED)


USED = b'\\"state\\":\\"used\\"'
"""In the command that uses an approval up."""
BEGUN = b'\\"outcome\\":\\"begun\\"'


class Clock:
    """The clock by which a ledger rests."""

    def __init__(self) -> None:
        self.passed = 0.0

    def system(self) -> System:
        return System(monotonic=lambda: self.passed, share=lambda: 1.0)


def ledger_on(url: str, system: System | None = None) -> "aclosing[Ledger]":
    return aclosing(Ledger(ValkeyStore(parse(url), system or System())))


Start = Callable[..., ValkeyServer]


@pytest.fixture
def start(tmp_path: Path) -> Generator[Start]:
    """Starts servers that this test may treat as it likes."""
    started: list[ValkeyServer] = []

    def start(*options: str) -> ValkeyServer:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(ValkeyServer(folder, options).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def own(start: Start) -> ValkeyServer:
    return start()


async def test_nothing_is_opened_before_the_first_use() -> None:
    """A start does not wait for the ledger, and closing what was never opened does nothing."""
    ledger = Ledger(ValkeyStore(parse("valkey://127.0.0.1:1"), System()))
    await ledger.aclose()
    with pytest.raises(LedgerLost):
        await ledger.waiting(NOW)


async def test_all_keys_share_one_slot_and_expire(valkey: ValkeyServer) -> None:
    """Except stops, the uses of plans, and what there is once. A day longer where the clocks of machines can differ."""
    url, day = valkey.url(), 86_400_000
    async with ledger_on(url) as ledger:
        await ledger.open(grant())
        await ledger.open(grant("g2"))
        await moved(ledger, "g2", ASKABLE, RequestState.DECLINED, NOW)
        await ledger.open(grant("g3"))
        secret = SealedSecret("dana", "sealed", 600)
        await ledger.decide(grant("g3"), Vote("dana", True, NOW), "page", secret=secret)
        await add_temporary(ledger, temporary_approval())
        await counted(ledger, BudgetLimit("destroy", "monday", 5))
        await counted(ledger, BudgetLimit("entry", PLANNED, 5))
        await rated(ledger, "destroy", 5, 30 * 86_400)
        await ledger.mark_audit("audit.jsonl", 1, "head")
        await ledger.mark("key", NOW + 30 * 86_400, NOW)
        await ledger.use_nonce("n1", NOW + 30 * 86_400, NOW)
        await ledger.use_nonce("late", NOW - 1, NOW)
        await ledger.begin(replace(change(), repeat_id="call", approval="g1"))
        await ledger.begin(replace(change("c2"), list_id="b1", call_id="call 1", number=1))
        await ledger.begin(replace(change("c3"), repeat_id="call", unsettled_until=NOW + 60))
        await ledger.settle(replace(change("c2"), list_id="b1", call_id="call 1", number=1, outcome="done"))
        await claimed(ledger, "c3")
        await ledger.add_stop(Stop("s1", NOW, "Dana"))
    name = parse(url).name
    keys = [line for line in valkey.ask("KEYS", f"*{name}*").split("\r\n") if name in line]
    assert {key.partition("}")[0] for key in keys} == {f"{{{name}"}
    lifetimes = {key.partition("}:")[2]: int(valkey.ask("PTTL", key)[1:]) for key in keys}
    assert {key for key, left in lifetimes.items() if left == -1} == {
        *("revision", "news", "document:layout", "document:stops all"),
        'document:budget ["entry", "plan"]',
    }
    kept = {
        "document:approval g1": 30, "document:approval g2": 30, "document:typed g3": 600 / 86_400,
        "document:caller local": 90, 'document:budget ["destroy", "monday"]': 90, "document:rate destroy": 30,
        "document:audit audit.jsonl": 732, "document:mark nonce n1": 31, "document:mark nonce late": 1,
        "document:mark key": 31, "document:change c1": 30, "document:list b1": 30, "index:waiting": 30,
        "index:decided": 30, "index:call call of g1": 30, f"index:open {grant().account}": 30, "index:permits": 30,
        f"index:permits {temporary_approval().holder}": 30, f"index:changes {change().account}": 30,
        "index:approved g1": 30, "index:under way": 30, "index:unsettled call": 30, "index:decided local": 30,
        "index:settled local": 30, "index:typed": 600 / 86_400,
    }  # fmt: skip
    for key, days in kept.items():
        assert days * day - 60_000 < lifetimes.pop(key) <= days * day, key
    assert {key.split(" ")[0] for key, left in lifetimes.items() if left != -1} == {
        *("document:approval", "document:change", "index:call", "index:changes"),
    }


@pytest.mark.parametrize("hang_up", [False, True])
async def test_approval_with_an_unconfirmed_use_is_used(valkey: ValkeyServer, hang_up: bool) -> None:
    async with proxied(valkey.port) as proxy, ledger_on(url := valkey.url(port=proxy.port)) as ledger:
        await ledger.open(grant())
        assert await moved(ledger, "g1", [RequestState.OPEN], RequestState.APPROVED, NOW)
        proxy.lose, proxy.hang_up = USED, hang_up
        with pytest.raises(LedgerLost) as caught:
            await moved(ledger, "g1", ASKABLE, RequestState.USED, NOW)
        assert caught.value.known == NOTHING_SENT
        assert proxy.lost == 1
        async with ledger_on(url.replace(f":{proxy.port}", f":{valkey.port}")) as another:
            assert not_none(await another.find("g1")).state is RequestState.USED
            assert not await used(another, "g1", "call 1", NOW)


@pytest.mark.parametrize("hang_up", [False, True])
async def test_batch_call_with_an_unconfirmed_begin_counts_as_begun(valkey: ValkeyServer, hang_up: bool) -> None:
    async with proxied(valkey.port) as proxy, ledger_on(url := valkey.url(port=proxy.port)) as ledger:
        await ledger.begin(change("c0"))  # The server has the script from now on.
        first = replace(change(), list_id="b1", call_id="call 1", number=1)
        proxy.lose, proxy.hang_up = BEGUN, hang_up
        with pytest.raises(LedgerLost) as caught:
            await ledger.begin(first)
        assert caught.value.known == NOTHING_SENT
        async with ledger_on(url.replace(f":{proxy.port}", f":{valkey.port}")) as another:
            assert await another.changes_of("b1") == [first]
            assert await another.begin(replace(first, id="c2")) is StartResult.STARTED_BEFORE


async def test_cancelled_command_leaves_no_response_to_the_next(valkey: ValkeyServer) -> None:
    async with proxied(valkey.port) as proxy, ledger_on(valkey.url(port=proxy.port)) as ledger:
        for name in ("a", "b"):
            await counted(ledger, BudgetLimit(name, "monday", 9))
        await counted(ledger, BudgetLimit("b", "monday", 9))
        for _ in range(5):
            with anyio.move_on_after(0):
                await asyncio.gather(*(ledger.spent("a", "monday") for _ in range(5)))
            assert await asyncio.gather(*(ledger.spent("b", "monday") for _ in range(5))) == [2] * 5


async def test_slow_close_of_connections_does_not_cancel_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library gathers the closes, and a cancelled gather may hide its canceller."""

    class Pool:
        async def disconnect(self, *, inuse_connections: bool) -> None:  # noqa: ARG002
            await asyncio.gather(self._closing())

        async def _closing(self) -> None:
            with suppress(asyncio.CancelledError):
                await anyio.sleep(60)

    class Gone:
        connection_pool = Pool()

        async def info(self) -> None:
            raise ConnectionRefusedError

    def gone(_: Address) -> Gone:
        return Gone()

    monkeypatch.setattr(valkey_module, "_client", gone)
    monkeypatch.setattr(valkey_module, "_TIMEOUT", 0.01)
    ledger = Ledger(ValkeyStore(parse("valkey://h"), System()))
    with pytest.raises(LedgerLost):
        await ledger.revision()


async def test_frozen_server_times_out_and_is_tried_again(own: ValkeyServer) -> None:
    clock = Clock()
    async with ledger_on(own.url(), clock.system()) as ledger:
        await ledger.open(grant())
        own.freeze()
        with pytest.raises(LedgerLost, match="Timeout"):
            await ledger.find("g1")
        own.thaw()
        for _ in range(100):
            with pytest.raises(LedgerLost, match="did not answer just now"):
                await ledger.find("g1")
        clock.passed += 0.11
        assert await ledger.find("g1") == grant()


async def test_reconnects_back_off_up_to_five_seconds(own: ValkeyServer) -> None:
    clock = Clock()
    async with ledger_on(own.url(), clock.system()) as ledger:
        await ledger.open(grant())
        own.stop()
        rests: list[float] = []
        for _ in range(8):
            began = clock.passed
            with pytest.raises(LedgerLost, match="ConnectionError"):
                await ledger.find("g1")
            while True:
                clock.passed = round(clock.passed + 0.1, 1)
                with pytest.raises(LedgerLost) as caught:
                    await ledger.find("g1")
                if "just now" not in str(caught.value):
                    break
            rests.append(round(clock.passed - began, 1))
            clock.passed += 10
        # Twice as long after each failure, and two in each round.
        assert rests == [0.1, 0.4, 1.6, *[5.0] * 5]
        own.start()
        assert await ledger.find("g1") is None


async def test_forgotten_approval_cannot_be_used(own: ValkeyServer) -> None:
    async with ledger_on(own.url()) as ledger:
        await ledger.open(grant())
        assert await moved(ledger, "g1", ASKABLE, RequestState.APPROVED, NOW)
        own.stop()
        own.start()
        found: object = "not asked"
        for _ in range(50):
            try:
                found = await ledger.find("g1")
                break
            except LedgerLost:
                await anyio.sleep(0.02)
        assert found is None
        assert not await used(ledger, "g1", "call 1", NOW)
        assert await ledger.latest("call of g1", NOW) is None
        await ledger.open(grant("g2"))
        assert await moved(ledger, "g2", ASKABLE, RequestState.USED, NOW)


async def test_server_that_may_evict_keys_is_refused(start: Start) -> None:
    server = start("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    async with ledger_on(server.url()) as ledger:
        with pytest.raises(LedgerLost, match=r"\(it may forget approvals: set maxmemory-policy noeviction\)"):
            await ledger.open(grant())
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await ledger.open(grant())


async def test_eviction_that_is_enabled_later_is_noticed(own: ValkeyServer) -> None:
    clock = Clock()
    async with ledger_on(own.url(), clock.system()) as ledger:
        await ledger.open(grant())
        own.ask("CONFIG", "SET", "maxmemory", "50mb")
        own.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        clock.passed += 4.9
        assert await ledger.find("g1") == grant()
        clock.passed += 0.1
        for _ in range(2):
            with pytest.raises(LedgerLost, match="set maxmemory-policy noeviction"):
                await ledger.find("g1")
        own.ask("SET", "other", "x" * 5_000)
        own.ask("CONFIG", "SET", "maxmemory", "1")
        own.ask("SET", "another", "x")
        own.ask("CONFIG", "SET", "maxmemory", "0")
        own.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        clock.passed += 6
        for _ in range(2):
            with pytest.raises(LedgerLost) as caught:
                await ledger.find("g1")
            assert re.search(
                r"\(it has evicted [1-9][0-9]* keys, perhaps approvals: set noeviction and restart fastn-mcp\)",
                caught.value.what,
            )


@pytest.mark.parametrize("share", [0.0, 0.5])
async def test_backoff_has_jitter(own: ValkeyServer, share: float, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    async with ledger_on(own.url(), System(monotonic=lambda: now[0], share=lambda: share)) as ledger:
        await ledger.open(grant())
        own.stop()
        caplog.clear()
        for passed, why in ((0.0, "ConnectionError"), (0.049, "it did not answer just now")):
            now[0] = passed
            with pytest.raises(LedgerLost) as caught:
                await ledger.find("g1")
            assert caught.value.what == f"The shared ledger cannot be used ({why})."
        now[0] = 0.05 + share / 20
        with pytest.raises(LedgerLost, match="ConnectionError"):
            await ledger.find("g1")
        assert caplog.messages == [f"the shared ledger at 127.0.0.1:{own.port} failed: ConnectionError"] * 2


class Told:
    """A client of a server that says this of itself."""

    def __init__(self, facts: Mapping[str, object]) -> None:
        self.facts = facts

    async def info(self) -> Mapping[str, object]:
        return self.facts

    async def execute_command(self, *_: object) -> str:
        return "7"

    async def aclose(self) -> None:
        """Nothing is open."""


KEEPS = {"aof_enabled": 1}
FORGETS = "the shared ledger loses everything at a restart: set appendonly yes (docs/shared-ledger.md)"


@pytest.mark.parametrize(
    ("facts", "why", "warned"),
    [
        ({"redis_version": "6.9.9", **KEEPS}, "it is older than version 7", []),
        (KEEPS, "it is older than version 7", []),
        ({"redis_version": "7.0.0", **KEEPS}, None, []),
        ({"redis_version": "10.1", **KEEPS, "evicted_keys": 3}, None, []),
        ({"redis_version": "7.2.4", "aof_enabled": 0}, None, [FORGETS]),
        ({"redis_version": "7.2.4", "maxmemory": 1, "maxmemory_policy": "noeviction", **KEEPS}, None, []),
        ({"redis_version": "7.2.4", "maxmemory": 0, "maxmemory_policy": "allkeys-lru", **KEEPS}, None, []),
    ],
)
async def test_server_is_used_only_if_it_can_keep_a_ledger(
    facts: Mapping[str, object],
    why: str | None,
    warned: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def client(_: Address) -> Told:
        return Told(facts)

    clock = Clock()
    monkeypatch.setattr(valkey_module, "_client", client)
    async with ledger_on("valkey://h", clock.system()) as ledger:
        for _ in range(2):
            clock.passed += 5
            if why is None:
                assert await ledger.revision() == 7
            else:
                with pytest.raises(LedgerLost) as caught:
                    await ledger.revision()
                assert caught.value.what == f"The shared ledger cannot be used ({why})."
    assert [message for message in caplog.messages if "failed" not in message] == warned


@pytest.mark.parametrize(
    ("url", "lacks"),
    [
        ("valkey://ledger.example", "TLS and without a password"),
        ("valkey://user:pw@ledger.example", "TLS"),
        ("valkeys://ledger.example", "a password"),
        ("valkeys://user:pw@ledger.example", None),
        ("valkey://127.0.0.1", None),
        ("valkey://localhost", None),
    ],
)
def test_address_without_tls_or_password_is_a_weakness(url: str, lacks: str | None) -> None:
    said = (
        f"it is used without {lacks}. Anybody who reaches or reads that network can approve calls."
        " Use valkeys://USER:PASSWORD@HOST (docs/shared-ledger.md)."
    )
    assert parse(url).weakness == (None if lacks is None else said)


async def test_full_server_refuses(own: ValkeyServer) -> None:
    async with ledger_on(own.url()) as ledger:
        await ledger.open(grant())
        own.ask("CONFIG", "SET", "maxmemory", "1")
        for refused in (
            counted(ledger, BudgetLimit("destroy", "monday", 5)),
            moved(ledger, "g1", ASKABLE, RequestState.APPROVED, NOW),
            # A deletion needs no memory, and once something is deleted, whatever comes after it in a script passes.
            put(ledger, deletion(ApprovalRequest, "g1"), write(grant("g2"), "g2")),
        ):
            with pytest.raises(LedgerLost, match="it refused: OutOfMemoryError"):
                await refused
        assert await ledger.find("g1") == grant()
        assert await ledger.find("g2") is None
        assert [each.id for each in await ledger.waiting(NOW)] == ["g1"]


async def test_failover_refuses_until_the_successor_serves(own: ValkeyServer) -> None:
    clock = Clock()
    async with ledger_on(own.url(), clock.system()) as ledger:
        await ledger.open(grant())
        own.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(LedgerLost, match="it has become a replica"):
            await moved(ledger, "g1", ASKABLE, RequestState.USED, NOW)
        own.ask("REPLICAOF", "NO", "ONE")
        clock.passed += 1
        assert await moved(ledger, "g1", ASKABLE, RequestState.USED, NOW)


async def test_write_counts_once_enough_replicas_have_it(start: Start) -> None:
    first, second = (start("--repl-diskless-sync-delay", "0") for _ in range(2))
    url = first.url("&copies=1")
    async with ledger_on(url) as ledger:
        with pytest.raises(LedgerLost, match="only 0 of 1 replicas have it"):
            await counted(ledger, BudgetLimit("destroy", "monday", 5))
        second.ask("REPLICAOF", "127.0.0.1", str(first.port))
        first.await_("state=online", "INFO", "replication")
        name = ""
        for attempt in range(20):  # it has to catch up first
            name = f"g{attempt}"
            with suppress(LedgerLost) if attempt < 19 else nullcontext():
                await ledger.open(grant(name))
                assert await moved(ledger, name, ASKABLE, RequestState.USED, NOW)
                break
        assert await ledger.spent("destroy", "monday") == 1
    first.stop()
    stored = second.ask("HGET", f"{{{parse(url).name}}}:document:approval {name}", "value")
    assert '"state":"used"' in stored


@pytest.mark.long
async def test_cluster_is_used_like_one_server(start: Start) -> None:
    servers = [start("--cluster-enabled", "yes", "--cluster-node-timeout", "5000") for _ in range(2)]
    for server, (low, high) in zip(servers, ((0, 8191), (8192, 16383)), strict=True):
        server.ask("CLUSTER", "ADDSLOTSRANGE", str(low), str(high))
    servers[0].ask("CLUSTER", "MEET", "127.0.0.1", str(servers[1].port))
    for server in servers:
        server.await_("cluster_state:ok", "CLUSTER", "INFO")
    for name in ("a", "b", "c", "d"):  # two of them on each node
        async with ledger_on(f"valkey://127.0.0.1:{servers[0].port}/?name={name}&cluster=yes") as ledger:
            await ledger.open(grant())
            await add_temporary(ledger, temporary_approval())
            assert await ledger.temporary_approvals(NOW) == [temporary_approval()]
            assert await moved(ledger, "g1", [RequestState.OPEN], RequestState.APPROVED, NOW)
            # As a group: where one of them fails, none goes on and opens a connection that nobody closes.
            async with asyncio.TaskGroup() as tasks:
                moves = [tasks.create_task(used(ledger, "g1", "call 1")) for _ in range(10)]
            assert sum(move.result() for move in moves) == 1
            assert {request.id for request in await ledger.decided(5)} == {"g1", temporary_approval().id}
            await ledger.begin(change())
            assert await claimed(ledger, "c1")
    assert all("cluster_slots_assigned:16384" in server.ask("CLUSTER", "INFO") for server in servers)
    assert all(int(server.ask("DBSIZE")[1:]) > 0 for server in servers)
    async with ledger_on(f"valkey://127.0.0.1:{servers[0].port}/?name=a&cluster=yes") as ledger:
        assert not await claimed(ledger, "c1")
        for server in servers:
            server.stop()
        with pytest.raises(LedgerLost):
            await ledger.release("c1")


async def test_cluster_without_slots_is_lost_and_its_connections_are_closed(start: Start) -> None:
    server = start("--cluster-enabled", "yes")
    async with ledger_on(f"valkey://127.0.0.1:{server.port}/?cluster=yes") as ledger:
        with pytest.raises(LedgerLost):
            await claimed(ledger, "c1")
    clients = server.ask("CLIENT", "LIST")
    assert clients.count("id=") == 1, clients


async def test_wrong_password_is_reported_without_its_value(start: Start, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("user default on nopass ~* +ping\nuser fastn on >right%2F&1 ~* +@all\n")
    server = start("--aclfile", str(tmp_path / "users"))
    where = f"127.0.0.1:{server.port}"
    async with ledger_on(f"valkey://fastn:right%252F%261@{where}") as ledger:
        await ledger.open(grant())
    for url in (f"valkey://fastn:wrong-canary@{where}", f"valkey://{where}"):
        async with ledger_on(url) as ledger:
            with pytest.raises(LedgerLost) as caught:
                await ledger.open(grant("g2"))
            assert "does not accept the user or the password" in str(caught.value)
            assert "canary" not in str(caught.value)


async def test_server_that_forbids_info_is_used(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "users").write_text("user default on nopass ~* +@all -info\n")
    clock = Clock()
    async with ledger_on(start("--aclfile", str(tmp_path / "users")).url(), clock.system()) as ledger:
        await ledger.open(grant())
        clock.passed += 5
        assert await ledger.find("g1") == grant()
    assert caplog.messages == [
        "the shared ledger may not be asked how it keeps its data (INFO): see docs/shared-ledger.md"
    ]


async def test_tls_verifies_certificate_and_host(valkey: ValkeyServer, tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType] - pyOpenSSL's type is not there
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with proxied(valkey.port, tls=context) as proxy:
        trusted = valkey.url(f"&ca={tmp_path / 'ca.pem'}", "valkeys", proxy.port)
        async with ledger_on(trusted) as ledger:
            await ledger.open(grant())
            assert await ledger.find("g1") == grant()
        for url in (
            valkey.url("", "valkeys", proxy.port),
            trusted.replace("127.0.0.1", "localhost"),
            valkey.url(port=proxy.port),
        ):
            async with ledger_on(url) as ledger:
                with pytest.raises(LedgerLost):
                    await ledger.open(grant())


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("http://h", "must begin with one of: valkey://, valkeys://, redis://, rediss://"),
        *(
            (url, "must be SCHEME://[USER:PASSWORD@]HOST[:PORT][/NUMBER OF THE DATABASE][?OPTIONS]")
            for url in ("valkey://", "valkey://h/canary", "valkey://h/12345", "valkey://h#canary")
        ),
        ("valkey://h:canary", "has an invalid port"),
        ("valkey://h/?canary=1", "has an unknown option; use one of ca, cluster, copies, name"),
        ("valkey://h/?name=canary%7D", "has the option name, which is at most 64 letters, digits and _ . -"),
        (f"valkey://h/?name={'n' * 65}", "has the option name, which is at most 64 letters, digits and _ . -"),
        ("valkey://h/?name=", "has the option name, which is at most 64 letters, digits and _ . -"),
        ("valkey://h/?copies=many", "has the option copies, which is a number from 0 to 9"),
        ("valkey://h/?cluster=canary", "has the option cluster, which is yes or no"),
        ("valkeys://h/?ca=", "has the option ca, which is a file of certificates"),
        ("valkey://h/1?cluster=yes", "is a cluster, which has neither databases nor the option copies"),
        ("valkey://h/?cluster=yes&copies=1", "is a cluster, which has neither databases nor the option copies"),
        ("valkey://h/?ca=canary", "has the option ca, and speaks no TLS: begin with valkeys://"),
        ("valkey://user:canary pass@h", "holds a space, a line break or another character that no URL has"),
        ("valkey://user:canary\x7f@h", "holds a space, a line break or another character that no URL has"),
    ],
)
def test_invalid_url_is_reported_without_its_content(url: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        parse(url)
    assert str(caught.value) == wrong


def test_url_is_parsed() -> None:
    address = parse("rediss://user:p%40ss@[::1]:7000/3?name=team&ca=/etc/ca.pem&copies=2")
    assert (address.host, address.port, address.database, address.tls) == ("::1", 7000, 3, True)
    assert (address.username, address.password, address.name, address.copies) == ("user", "p@ss", "team", 2)
    assert (address.ca, address.cluster) == (Path("/etc/ca.pem"), False)
    assert "p@ss" not in repr(address)
    assert parse("redis://h") == Address("h", port=6379, database=0, name="fastn", copies=0, cluster=False)
    assert parse("valkeys://h/0?cluster=yes&name=" + "n" * 64) == Address("h", tls=True, cluster=True, name="n" * 64)
    assert parse("valkey://!:~@h/9999?cluster=no") == Address("h", username="!", password="~", database=9999)
    assert parse("valkeys://h").tls
    assert not parse("redis://h").tls
    assert address.shown == "::1:7000"
