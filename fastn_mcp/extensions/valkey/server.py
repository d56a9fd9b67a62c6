"""Connection to Valkey: address, scripts, reads and failures.

The only module that connects to it. Commands are never retried: if a reply is lost, the command may have been executed,
so the use of a budget or an approval counts as made.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio
from valkey.asyncio import BlockingConnectionPool, Connection, SSLConnection, Valkey
from valkey.asyncio.cluster import ValkeyCluster
from valkey.asyncio.retry import Retry
from valkey.backoff import NoBackoff
from valkey.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    ValkeyClusterException,
    ValkeyError,
)

from fastn_mcp.config.addresses import is_loopback
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.runtime import System

SCHEMES = ("valkey", "valkeys", "redis", "rediss")
"""URL schemes. `valkeys` and `rediss` use TLS."""

_TLS = ("valkeys", "rediss")
_OPTIONS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "ca": (r".+", "a file of certificates", Path),
    "cluster": (r"yes|no", "yes or no", "yes".__eq__),
    "copies": (r"\d", "a number from 0 to 9", int),
    "name": (r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "at most 64 letters, digits and _ . -", str),
}
"""Options of the URL: pattern of a value, what it is, and how it is read."""


@dataclass(frozen=True, slots=True)
class Address:
    """Address of the server, and the ledger's name on it."""

    host: str
    port: int = 6379
    tls: bool = False
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    name: str = "fastn"
    """Name of the ledger: the prefix of every key, in braces, so that all its keys share a slot of a cluster."""
    ca: Path | None = None
    """File of CA certificates to trust instead of the system's."""
    cluster: bool = False
    copies: int = 0
    """Number of replicas that must acknowledge a change before it counts."""

    @property
    def shown(self) -> str:
        """Host and port, without credentials."""
        return f"{self.host}:{self.port}"

    @property
    def weakness(self) -> str | None:
        """Warning about a connection without TLS or password; None if it has both or is on a loopback address."""
        lacks = [name for name, has in (("TLS", self.tls), ("a password", self.password)) if not has]
        if is_loopback(self.host) or not lacks:
            return None
        return (
            f"it is used without {' and without '.join(lacks)}."
            " Anybody who reaches or reads that network can approve calls."
            " Use valkeys://USER:PASSWORD@HOST (docs/shared-ledger.md)."
        )


def parse(url: str) -> Address:
    """Parse the URL of a ledger. Raises `ValueError`, whose text never contains the URL."""
    if not all("!" <= letter <= "~" for letter in url):
        raise ValueError("holds a space, a line break or another character that no URL has")
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"must begin with one of: {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("has an invalid port") from None
    if not parts.hostname or parts.fragment or not re.fullmatch(r"/?\d{0,4}", parts.path):
        raise ValueError("must be SCHEME://[USER:PASSWORD@]HOST[:PORT][/NUMBER OF THE DATABASE][?OPTIONS]")
    address = Address(
        host=parts.hostname,
        port=port or 6379,
        tls=parts.scheme in _TLS,
        database=int(parts.path.strip("/") or "0"),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        **_options(parts.query),
    )
    if address.cluster and (address.database or address.copies):
        raise ValueError("is a cluster, which has neither databases nor the option copies")
    if address.ca is not None and not address.tls:
        raise ValueError("has the option ca, and speaks no TLS: begin with valkeys://")
    return address


def _options(query: str) -> dict[str, Any]:
    options = dict[str, Any]()
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ValueError(f"has an unknown option; use one of {', '.join(_OPTIONS)}")
        pattern, meaning, read = _OPTIONS[name]
        if not re.fullmatch(pattern, value):
            raise ValueError(f"has the option {name}, which is {meaning}")
        options[name] = read(value)
    return options


log = logging.getLogger(__name__)

_TIMEOUT = 1.0
"""Timeout for a connection and for a reply."""

MAX_READ = 0.75 * _TIMEOUT
"""Seconds for which a read may block on the server."""

_COMMAND_DEADLINE = 3.0
"""Deadline in seconds for one command, with waiting for a connection, opening it and finding the cluster."""

_MAX_CONNECTIONS = 32
_FIRST_REST = 0.1
"""First backoff in seconds after a failure, so that callers do not queue behind a dead server."""

_MAX_REST = 5.0
"""Longest backoff in seconds."""

_CHECK_INTERVAL = 5.0
"""Seconds between checks of the server's eviction policy, which can be changed while it runs."""

_MIN_VERSION = 7
_SCRIPTS = Path(__file__).parent / "scripts"

_FAILURES = (ValkeyError, ValkeyClusterException, OSError, TimeoutError)
"""Errors of the library for a failed command. They have no common base class."""

Client = Any
"""Untyped: the library types its commands for its blocking client as well."""


@cache
def _script(name: str) -> tuple[str, str]:
    text = (_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8")
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Durability:
    """How the server keeps its data. None where it does not say so to this user."""

    appendonly: bool | None
    appendfsync: str | None
    maxmemory_policy: str | None
    replicas: int | None
    copies: int
    """Number of replicas for which each change waits, by the ledger's address."""
    time: float | None
    """Its clock, as a Unix timestamp."""


class Server:
    """Connections to the server, opened on first use and again after they were lost."""

    def __init__(self, address: Address, system: System) -> None:
        self._address = address
        self._system = system
        self._client: Client = None
        self._checked: float | None = None
        """Monotonic time of the last check."""
        self._evicted: int | None = None
        """Number of keys that the server had evicted at the first check."""
        self._rest = 0.0
        self._resting_until = 0.0

    def key(self, *parts: str) -> str:
        """Return the name of a key. Free-form parts come last so that keys cannot collide."""
        return ":".join((f"{{{self._address.name}}}", *parts))

    async def run(self, script: str, keys: Sequence[str], *arguments: str | float) -> Any:
        """Run a script that writes, atomically."""
        rest = (len(keys), *keys, *arguments)
        return await self._asked(lambda client: _evaluated(script, rest, partial(self._counted, client)))

    async def read(self, *command: str | float) -> Any:
        """Return the reply to a read-only command."""
        return await self._asked(lambda client: client.execute_command(*command))

    async def look(self, script: str, keys: Sequence[str], *arguments: str | float) -> list[Any]:
        """Return what a script that only reads says, atomically, in one round trip."""
        rest = (len(keys), *keys, *arguments)
        return await self._asked(lambda client: _evaluated(script, rest, client.execute_command))

    async def durability(self) -> Durability:
        """Ask how the server keeps its data, and the time."""
        return await self._asked(partial(_durability, copies=self._address.copies))

    async def aclose(self) -> None:
        client = self._client
        self._client = None
        self._checked = None
        if client is not None:
            await client.aclose()

    async def _counted(self, client: Client, *command: str | float) -> Any:
        """Return the reply to a command once `copies` replicas have acknowledged it. Raises `_Unfit` otherwise."""
        if not self._address.copies:
            return await client.execute_command(*command)
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command(*command)
        pipeline.execute_command("WAIT", self._address.copies, int(_TIMEOUT * 500))
        answer, copies = await pipeline.execute(raise_on_error=False)
        for reply in (answer, copies):
            if isinstance(reply, Exception):
                raise reply
        if copies < self._address.copies:
            raise _Unfit(f"only {copies} of {self._address.copies} replicas have it")
        return answer

    async def _asked(self, command: Callable[[Client], Awaitable[Any]]) -> Any:
        if self._system.monotonic() < self._resting_until:
            raise LedgerLost("it did not answer just now")
        try:
            async with asyncio.timeout(_COMMAND_DEADLINE):  # not anyio's: the library may forget who cancelled it
                answer = await command(await self._ready())
        except (*_FAILURES, _Unfit) as error:
            why = _why(error)
            log.error("the shared ledger at %s failed: %s", self._address.shown, why)
            await self._failed(error)
            raise LedgerLost(why) from error
        self._rest = 0.0
        return answer

    async def _failed(self, error: Exception) -> None:
        """Back off if the server is away or has become a replica, and drop connections so that new ones are opened."""
        if isinstance(error, (ResponseError, _Unfit)) and not isinstance(error, ReadOnlyError):
            return
        now = self._system.monotonic()
        if now >= self._resting_until:  # concurrent failures count as one
            self._rest = min(max(_FIRST_REST, self._rest * 2), _MAX_REST)
            self._resting_until = now + self._rest * (0.5 + self._system.share() / 2)
        client = self._client
        self._checked = None
        if client is None:
            return
        with anyio.CancelScope(shield=True), suppress(*_FAILURES):
            async with asyncio.timeout(_TIMEOUT):
                if self._address.cluster:
                    self._client = None
                    await client.aclose()
                else:  # replies on connections in use may still arrive
                    await client.connection_pool.disconnect(inuse_connections=False)

    async def _ready(self) -> Client:
        if self._client is None:
            self._client = _client(self._address)
        now = self._system.monotonic()
        if self._checked is None or now - self._checked >= _CHECK_INTERVAL:
            evicted = await _check(self._client, is_first=self._evicted is None)
            self._evicted = evicted if self._evicted is None else self._evicted
            if evicted > self._evicted:
                gone = evicted - self._evicted
                raise _Unfit(f"it has evicted {gone} keys, perhaps approvals: set noeviction and restart fastn-mcp")
            self._evicted = evicted
            self._checked = now
        return self._client


async def _evaluated(script: str, rest: Sequence[str | float], send: Callable[..., Awaitable[Any]]) -> Any:
    text, digest = _script(script)
    try:
        return await send("EVALSHA", digest, *rest)
    except NoScriptError:  # a new server does not have the script: nothing was run
        return await send("EVAL", text, *rest)


class _Unfit(Exception):
    """The server responds, but cannot be relied on to keep a ledger."""


async def _check(client: Client, *, is_first: bool) -> int:
    """Return the number of keys evicted since the server started. Without permission for INFO, assume a fit server.

    Raises `_Unfit` if the server may evict keys or is too old.
    """
    try:
        facts = cast("dict[str, Any]", await client.info())
    except NoPermissionError:
        if is_first:
            log.warning("the shared ledger may not be asked how it keeps its data (INFO): see docs/shared-ledger.md")
        return 0
    if int(str(facts.get("redis_version", "0")).partition(".")[0]) < _MIN_VERSION:
        raise _Unfit(f"it is older than version {_MIN_VERSION}")
    if facts.get("maxmemory") and facts.get("maxmemory_policy") != "noeviction":
        raise _Unfit("it may forget approvals: set maxmemory-policy noeviction")
    if is_first and not facts.get("aof_enabled"):
        log.warning("the shared ledger loses everything at a restart: set appendonly yes (docs/shared-ledger.md)")
    return int(facts.get("evicted_keys") or 0)


async def _durability(client: Client, copies: int) -> Durability:
    async def permitted(*command: str) -> Any:
        try:
            return await client.execute_command(*command)
        except (NoPermissionError, ResponseError):
            return None

    facts: dict[str, Any] = await permitted("INFO") or {}
    sync: dict[str, str] = await permitted("CONFIG GET", "appendfsync") or {}
    time: tuple[int, int] | None = await permitted("TIME")
    return Durability(
        appendonly=bool(facts["aof_enabled"]) if "aof_enabled" in facts else None,
        appendfsync=sync.get("appendfsync"),
        maxmemory_policy=facts.get("maxmemory_policy"),
        replicas=facts.get("connected_slaves"),
        copies=copies,
        time=None if time is None else time[0] + time[1] / 1e6,
    )


def _client(address: Address) -> Client:
    options: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "username": address.username,
        "password": address.password,
        "decode_responses": True,
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
        "socket_keepalive": True,
    }
    if address.tls:
        options |= {"ssl_check_hostname": True, "ssl_ca_certs": str(address.ca) if address.ca else None}
    if address.cluster:
        options |= {"cluster_error_retry_attempts": 0, "connection_error_retry_attempts": 0, "ssl": address.tls}
        return ValkeyCluster(**options)
    options |= {"db": address.database, "retry": Retry(NoBackoff(), 0), "timeout": _COMMAND_DEADLINE}
    kind = SSLConnection if address.tls else Connection
    return Valkey.from_pool(BlockingConnectionPool(max_connections=_MAX_CONNECTIONS, connection_class=kind, **options))


def _why(error: Exception) -> str:
    """Describe an error without addresses or data."""
    match error:
        case _Unfit():
            return str(error)
        case AuthenticationError() | NoPermissionError():
            return "it does not accept the user or the password of the setting ledger"
        case ReadOnlyError():
            return "it has become a replica"
        case ResponseError():
            return f"it refused: {type(error).__name__}"
        case _:
            return type(error).__name__
