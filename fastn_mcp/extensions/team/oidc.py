"""OpenID provider: discovery, and signing keys (JWKS) with caching and refresh.

PyJWT, which the MCP SDK requires, verifies signatures. No library decides when to refresh keys, how long to trust them
while the provider is unreachable, or how to bound the requests that unknown key ids cause. This module does.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast

import anyio
import httpx2
import jwt
from pydantic_core import from_json

from fastn_mcp.redaction import quote
from fastn_mcp.runtime import System

WELL_KNOWN = "/.well-known/openid-configuration"

TIMEOUT = 5.0
"""Timeout of each step of a request, in seconds."""

_MAX_BYTES = 512 * 1024


class Provider:
    """Client of one issuer. An invalid response raises `ValueError`, `TypeError` or `KeyError`."""

    def __init__(self, issuer: str, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.issuer = issuer
        self.date: str | None = None
        """Header `Date` of the last response."""
        self._transport = transport

    async def metadata(self) -> dict[str, Any]:
        document = await self.get(self.issuer.rstrip("/") + WELL_KNOWN)
        if document.get("issuer") != self.issuer:
            raise ValueError(f"its discovery document names another issuer, {quote(str(document.get('issuer')))}")
        return document

    def endpoint(self, metadata: Mapping[str, Any], name: str) -> str:
        """Return an endpoint of the discovery document. Raises `ValueError` if it has to be https and is not."""
        try:
            address = httpx2.URL(str(metadata[name]))
        except httpx2.InvalidURL:
            raise ValueError(f"its {name} is not an address") from None
        if address.scheme != "https" and not self.issuer.startswith("http://"):
            raise ValueError(f"its {name} is not an https address")
        return str(address)

    async def get(self, address: str) -> dict[str, Any]:
        """Fetch the JSON object at an address."""
        status, body = await self._request("GET", address)
        if status != 200:
            kind = ConnectionError if status >= 500 else ValueError  # down, or not what the issuer names
            raise kind(f"{httpx2.URL(address).host} answered {status}")
        return _json_object(body)

    async def post(
        self, address: str, fields: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Post a form. Return the status and JSON object of the response."""
        status, body = await self._request("POST", address, data=dict(fields), headers=dict(headers))
        return status, _json_object(body)

    async def visit(self, address: str) -> tuple[int, str]:
        """Return the status at an address for a browser, and where it redirects."""
        async with self._client.stream("GET", address, headers={"Accept": "text/html"}) as response:
            return response.status_code, response.headers.get("location", "")

    async def _request(self, method: str, address: str, **content: Any) -> tuple[int, bytes]:
        body = bytearray()
        async with self._client.stream(method, address, **content) as response:
            self.date = response.headers.get("date")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise ValueError(f"{response.url.host} answered more than {_MAX_BYTES} bytes")
        return response.status_code, bytes(body)

    @cached_property
    def _client(self) -> httpx2.AsyncClient:
        is_http = self.issuer.startswith("http://")  # the team file allows http on this machine only
        transport = self._transport or httpx2.AsyncHTTPTransport(
            verify=not is_http, limits=httpx2.Limits(max_connections=4, max_keepalive_connections=0)
        )
        return httpx2.AsyncClient(
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "fastn-mcp"},
            timeout=TIMEOUT,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # no cookies are stored
            transport=transport,
        )

    async def aclose(self) -> None:
        if "_client" in self.__dict__:
            await self._client.aclose()


def _json_object(body: bytes) -> dict[str, Any]:
    value: object = from_json(body)
    if not isinstance(value, dict):
        raise TypeError("it did not answer with a JSON object")
    return cast("dict[str, Any]", value)


log = logging.getLogger(__name__)

REFRESH_AFTER = 3600.0
"""Seconds after which keys are refreshed even if no key is missing, to drop withdrawn keys."""

RETRY_AFTER = 30.0
"""Minimum seconds between two refreshes, however many tokens name unknown keys."""

FIRST_RETRY_AFTER = 2.0
"""Minimum seconds between two refreshes while no keys are cached."""

TRUST_FOR = 86_400.0
"""Seconds for which cached keys are trusted while the provider is unreachable."""

_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class UnknownKey(Exception):
    """The provider does not publish this key."""


class NoKeys(Exception):
    """The provider is unreachable and no keys are cached."""


class IssuerKeys:
    """Cached signing keys of one issuer."""

    def __init__(self, issuer: str, system: System, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.provider = Provider(issuer, transport)
        self._system = system
        self._keys: list[Mapping[str, Any]] = []
        self._refreshed = float("-inf")
        self._attempted = float("-inf")
        self._refreshing = anyio.Lock()

    @property
    def has_keys(self) -> bool:
        """Whether cached keys exist that are still trusted."""
        return bool(self._keys) and self._system.monotonic() - self._refreshed < TRUST_FOR

    def usable(self, algorithms: Sequence[str]) -> list[str]:
        """Return the algorithms for which a key is cached."""
        return [algorithm for algorithm in algorithms if any(_fits(key, algorithm) for key in self._keys)]

    async def reached(self) -> bool:
        """Whether tokens can be verified. Refresh the keys if none are cached."""
        if not self.has_keys:
            await self.refresh()
        return self.has_keys

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK:
        """Return the key of this id, or the only one if `kid` is None. Raises `UnknownKey` or `NoKeys`."""
        # While another request refreshes the keys, use the cached ones.
        if self._system.monotonic() - self._refreshed >= REFRESH_AFTER and not (
            self.has_keys and self._refreshing.locked()
        ):
            await self.refresh()
        key = self._matching(kid, algorithm)
        if key is None:
            await self.refresh()
            key = self._matching(kid, algorithm)
        if key is not None:
            return key
        if not self.has_keys:
            raise NoKeys
        raise UnknownKey

    async def refresh(self) -> None:
        """Refresh the JWKS at most once per interval. Keep the cached keys on failure."""
        began = self._system.monotonic()
        async with self._refreshing:  # concurrent calls share one refresh
            if began - self._attempted < (RETRY_AFTER if self.has_keys else FIRST_RETRY_AFTER):
                return
            self._attempted = self._system.monotonic()
            try:
                with anyio.fail_after(TIMEOUT):
                    metadata = await self.provider.metadata()
                    key_set = (await self.provider.get(self.provider.endpoint(metadata, "jwks_uri"))).get("keys")
                if not isinstance(key_set, list):
                    raise TypeError("its key set holds no keys")
            except (OSError, ValueError, TypeError, KeyError, httpx2.TransportError) as error:
                log.warning("the keys of the issuer could not be read: %s: %s", type(error).__name__, error)
                return
            keys = [cast("Mapping[str, Any]", key) for key in cast("list[object]", key_set) if isinstance(key, dict)]
            self._keys = [key for key in keys if key.get("use", "sig") == "sig"]
            self._refreshed = self._system.monotonic()

    def _matching(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        if not self.has_keys:
            return None
        matching = [key for key in self._keys if (kid is None or key.get("kid") == kid) and _fits(key, algorithm)]
        if len(matching) != 1:
            return None
        try:
            return jwt.PyJWK(dict(matching[0]), algorithm)
        except jwt.PyJWTError:
            return None

    async def aclose(self) -> None:
        await self.provider.aclose()


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key fits an algorithm. Symmetric keys never do: a published secret proves nothing."""
    if key.get("alg", algorithm) != algorithm:
        return False
    match algorithm[:2]:
        case "RS" | "PS":
            return key.get("kty") == "RSA"
        case "ES":
            return key.get("kty") == "EC" and key.get("crv") == _CURVES[algorithm]
        case _:
            return key.get("kty") == "OKP" and key.get("crv") == "Ed25519"
