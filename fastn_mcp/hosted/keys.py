"""The public keys of an OpenID provider: found by its discovery document, kept, and read again where one is new."""

import logging
from collections.abc import Mapping
from typing import Any, cast

import anyio
import httpx2
import jwt

from fastn_mcp.hosted.provider import PATIENCE, Provider
from fastn_mcp.system import System

log = logging.getLogger(__name__)

FRESH = 3600.0
"""Seconds after which keys are read again although all are known: a key that was withdrawn is then forgotten."""

AGAIN = 30.0
"""Seconds between two attempts, however many tokens name keys that nobody knows."""

EAGER = 2.0
"""The same while no keys are known at all."""

STALE = 86_400.0
"""Seconds for which keys are believed while the provider cannot be reached."""

_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class UnknownKey(Exception):
    """The provider publishes no such key."""


class NoKeys(Exception):
    """The provider cannot be reached, and no keys of it are known."""


class IssuerKeys:
    """The signing keys of one issuer."""

    def __init__(self, issuer: str, system: System, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.provider = Provider(issuer, transport)
        self._system = system
        self._keys: list[Mapping[str, Any]] = []
        self._read = float("-inf")
        self._tried = float("-inf")
        self._turn = anyio.Lock()

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
                with anyio.fail_after(PATIENCE):
                    self._keys = await self._fetched()
            except (OSError, ValueError, TypeError, KeyError, httpx2.TransportError) as error:
                log.warning("the keys of the issuer could not be read: %s: %s", type(error).__name__, error)
            else:
                self._read = self._system.monotonic()

    async def _fetched(self) -> list[Mapping[str, Any]]:
        """The keys that can sign. Raises what `refresh` catches."""
        metadata = await self.provider.metadata()
        found = (await self.provider.get(self.provider.endpoint(metadata, "jwks_uri"))).get("keys")
        if not isinstance(found, list):
            raise TypeError("its key set holds no keys")
        keys = [cast("Mapping[str, Any]", key) for key in cast("list[object]", found) if isinstance(key, dict)]
        return [key for key in keys if key.get("use", "sig") == "sig"]

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
        await self.provider.aclose()


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
