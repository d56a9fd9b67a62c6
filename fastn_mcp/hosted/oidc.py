"""An OpenID provider: discovery, and its signing keys (JWKS), cached and refreshed.

PyJWT comes with the MCP SDK and verifies signatures. When keys are read again, how long they are believed while the
provider cannot be reached, and that unknown ids cannot make us ask it at will, is in no library: that is what is here.
"""

import logging
from collections.abc import Mapping
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast

import anyio
import httpx2
import jwt
from pydantic_core import from_json

from fastn_mcp.runtime import System

WELL_KNOWN = "/.well-known/openid-configuration"

PATIENCE = 5.0
"""Seconds for each step of a request."""

_LARGEST = 512 * 1024


class Provider:
    """One issuer. An answer of it that cannot be used raises `ValueError`, `TypeError` or `KeyError`."""

    def __init__(self, issuer: str, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.issuer = issuer
        self._transport = transport

    async def metadata(self) -> dict[str, Any]:
        """Its discovery document."""
        found = await self.get(self.issuer.rstrip("/") + WELL_KNOWN)
        if found.get("issuer") != self.issuer:
            raise ValueError("its discovery document names another issuer")
        return found

    def endpoint(self, metadata: Mapping[str, Any], name: str) -> str:
        """An address that the discovery document names."""
        address = httpx2.URL(str(metadata[name]))
        if address.scheme != "https" and not self.issuer.startswith("http://"):
            raise ValueError(f"its {name} is not an https address")
        return str(address)

    async def get(self, address: str) -> dict[str, Any]:
        """The JSON object at an address."""
        status, body = await self._request("GET", address)
        if status != 200:
            raise ValueError(f"{httpx2.URL(address).host} answered {status}")
        return _json_object(body)

    async def post(
        self, address: str, fields: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """The status of an answer to a form, and its JSON object."""
        status, body = await self._request("POST", address, data=dict(fields), headers=dict(headers))
        return status, _json_object(body)

    async def _request(self, method: str, address: str, **content: Any) -> tuple[int, bytes]:
        body = bytearray()
        async with self._client.stream(method, address, **content) as response:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _LARGEST:
                    raise ValueError(f"{response.url.host} answered more than {_LARGEST} bytes")
        return response.status_code, bytes(body)

    @cached_property
    def _client(self) -> httpx2.AsyncClient:
        plain = self.issuer.startswith("http://")  # this machine only, which the team file sees to
        return httpx2.AsyncClient(
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "fastn-mcp"},
            timeout=PATIENCE,
            verify=False if plain else httpx2.create_ssl_context(),
            limits=httpx2.Limits(max_connections=4, max_keepalive_connections=0),
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # none is kept
            transport=self._transport,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        if "_client" in self.__dict__:
            await self._client.aclose()


def _json_object(body: bytes) -> dict[str, Any]:
    found: object = from_json(body)
    if not isinstance(found, dict):
        raise TypeError("it did not answer with a JSON object")
    return cast("dict[str, Any]", found)


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
        self._refreshing = anyio.Lock()

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
        if self._system.monotonic() - self._read >= FRESH and not (self.known and self._refreshing.locked()):
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
        """Refresh the JWKS at most once per interval. Keep the cached keys on failure."""
        began = self._system.monotonic()
        async with self._refreshing:  # calls at once read them once
            if began - self._tried < (AGAIN if self.known else EAGER):
                return
            self._tried = self._system.monotonic()
            try:
                with anyio.fail_after(PATIENCE):
                    metadata = await self.provider.metadata()
                    found = (await self.provider.get(self.provider.endpoint(metadata, "jwks_uri"))).get("keys")
                if not isinstance(found, list):
                    raise TypeError("its key set holds no keys")
            except (OSError, ValueError, TypeError, KeyError, httpx2.TransportError) as error:
                log.warning("the keys of the issuer could not be read: %s: %s", type(error).__name__, error)
                return
            keys = [cast("Mapping[str, Any]", key) for key in cast("list[object]", found) if isinstance(key, dict)]
            self._keys = [key for key in keys if key.get("use", "sig") == "sig"]
            self._read = self._system.monotonic()

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
