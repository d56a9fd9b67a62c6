"""The public keys of an OpenID provider: found by its discovery document, kept, and read again where one is new.

The only module that speaks HTTP to the provider: no redirects, no proxy, no cookies, a bounded body, little patience.
"""

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import anyio
import httpx2
import jwt
from pydantic_core import from_json

from fastn_mcp.system import System

log = logging.getLogger(__name__)

WELL_KNOWN = "/.well-known/openid-configuration"

FRESH = 3600.0
"""Seconds after which keys are read again although all are known: a key that was withdrawn is then forgotten."""

AGAIN = 30.0
"""Seconds between two attempts, however many tokens name keys that nobody knows."""

EAGER = 2.0
"""The same while no keys are known at all."""

STALE = 86_400.0
"""Seconds for which keys are believed while the provider cannot be reached."""

_PATIENCE = 5.0
_LARGEST = 512 * 1024
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class UnknownKey(Exception):
    """The provider publishes no such key."""


class NoKeys(Exception):
    """The provider cannot be reached, and no keys of it are known."""


class IssuerKeys:
    """The signing keys of one issuer."""

    def __init__(self, issuer: str, system: System, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.issuer = issuer
        self._system = system
        self._given = transport
        self._keys: list[Mapping[str, Any]] = []
        self._read = float("-inf")
        self._tried = float("-inf")
        self._turn = anyio.Lock()

    @cached_property
    def _transport(self) -> httpx2.AsyncBaseTransport:
        if self._given is not None:
            return self._given
        plain = self.issuer.startswith("http://")  # this machine only, which the team file sees to
        return httpx2.AsyncHTTPTransport(
            verify=False if plain else httpx2.create_ssl_context(),
            limits=httpx2.Limits(max_connections=2, max_keepalive_connections=0),
        )

    @property
    def known(self) -> bool:
        """Whether there are keys that are still believed."""
        return bool(self._keys) and self._system.monotonic() - self._read < STALE

    async def reached(self) -> bool:
        """Whether tokens can be verified; where they never could, that is tried."""
        if not self.known:
            await self.refresh()
        return self.known

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK:
        """The key of this id, or without an id the only one, for this algorithm. Raises `UnknownKey`, `NoKeys`."""
        # Where somebody is reading them already, those that are known serve meanwhile.
        if self._system.monotonic() - self._read >= FRESH and not (self.known and self._turn.locked()):
            await self.refresh()
        if (key := self._fitting(kid, algorithm)) is None:
            await self.refresh()
            key = self._fitting(kid, algorithm)
        if key is not None:
            return key
        if not self.known:
            raise NoKeys
        raise UnknownKey

    async def refresh(self) -> None:
        """Read the keys, unless that was tried just now. Those that are known stay where it fails."""
        began = self._system.monotonic()
        async with self._turn:  # calls at once read them once
            if began - self._tried < (AGAIN if self.known else EAGER):
                return
            self._tried = self._system.monotonic()
            try:
                with anyio.fail_after(_PATIENCE):
                    self._keys = await self._fetched()
            except (OSError, ValueError, TypeError, KeyError, httpx2.TransportError) as error:
                log.warning("the keys of the issuer could not be read: %s: %s", type(error).__name__, error)
            else:
                self._read = self._system.monotonic()

    async def _fetched(self) -> list[Mapping[str, Any]]:
        """The keys that can sign. Raises what `refresh` catches."""
        metadata = await self._json(self.issuer.rstrip("/") + WELL_KNOWN)
        if metadata.get("issuer") != self.issuer:
            raise ValueError("its discovery document is another issuer's")
        address = httpx2.URL(str(metadata["jwks_uri"]))
        if address.scheme != "https" and not self.issuer.startswith("http://"):
            raise ValueError("its jwks_uri is no https address")
        found = (await self._json(str(address))).get("keys")
        if not isinstance(found, list):
            raise TypeError("its key set holds no keys")
        keys = [cast("Mapping[str, Any]", key) for key in cast("list[object]", found) if isinstance(key, dict)]
        return [key for key in keys if key.get("use", "sig") == "sig"]

    async def _json(self, address: str) -> dict[str, Any]:
        wait = {"connect": _PATIENCE, "read": _PATIENCE, "write": _PATIENCE, "pool": _PATIENCE}
        asked = httpx2.Request(
            "GET",
            address,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "fastn-mcp"},
            extensions={"timeout": wait},
        )
        response = await self._transport.handle_async_request(asked)
        try:
            if response.status_code != 200:
                raise ValueError(f"{asked.url.host} answered {response.status_code}")
            body = bytearray()
            async for chunk in cast(httpx2.AsyncByteStream, response.stream):
                body += chunk
                if len(body) > _LARGEST:
                    raise ValueError(f"{asked.url.host} answered more than {_LARGEST} bytes")
        finally:
            await response.aclose()
        found: object = from_json(bytes(body))
        if not isinstance(found, dict):
            raise TypeError(f"{asked.url.host} answered no JSON object")
        return cast("dict[str, Any]", found)

    def _fitting(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        if not self.known:
            return None
        fitting = [key for key in self._keys if (kid is None or key.get("kid") == kid) and _fits(key, algorithm)]
        if len(fitting) != 1:
            return None
        try:
            return jwt.PyJWK(dict(fitting[0]), algorithm)
        except jwt.PyJWTError:
            return None

    async def aclose(self) -> None:
        """Close the connections."""
        if "_transport" in self.__dict__:
            await self._transport.aclose()


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key is for an algorithm. A shared secret never is: what is published signs nothing."""
    if key.get("alg", algorithm) != algorithm:
        return False
    match algorithm[:2]:
        case "RS" | "PS":
            return key.get("kty") == "RSA"
        case "ES":
            return key.get("kty") == "EC" and key.get("crv") == _CURVES[algorithm]
        case _:
            return key.get("kty") == "OKP" and key.get("crv") == "Ed25519"
