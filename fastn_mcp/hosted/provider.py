"""The OpenID provider over HTTP. The only module that speaks to it: no redirects, no proxy, no cookies, a bounded body,
little patience."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast
from urllib.parse import urlencode

import httpx2
from pydantic_core import from_json

WELL_KNOWN = "/.well-known/openid-configuration"

PATIENCE = 5.0
"""Seconds for each step of a request."""

_LARGEST = 512 * 1024


class Provider:
    """One issuer. Whatever it answers that cannot be used raises `ValueError`, `TypeError` or `KeyError`."""

    def __init__(self, issuer: str, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.issuer = issuer
        self._given = transport

    async def metadata(self) -> dict[str, Any]:
        """Its discovery document."""
        found = await self.get(self.issuer.rstrip("/") + WELL_KNOWN)
        if found.get("issuer") != self.issuer:
            raise ValueError("its discovery document is another issuer's")
        return found

    def endpoint(self, metadata: Mapping[str, Any], name: str) -> str:
        """An address that the discovery document names."""
        address = httpx2.URL(str(metadata[name]))
        if address.scheme != "https" and not self.issuer.startswith("http://"):
            raise ValueError(f"its {name} is no https address")
        return str(address)

    async def get(self, address: str) -> dict[str, Any]:
        """What lies at an address, a JSON object."""
        status, found = await self._asked("GET", address, {}, b"")
        if status != 200:
            raise ValueError(f"{httpx2.URL(address).host} answered {status}")
        return found()

    async def post(
        self, address: str, fields: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """The status of an answer to a form, and its JSON object."""
        form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        status, found = await self._asked("POST", address, form, urlencode(fields).encode())
        return status, found()

    async def _asked(self, method: str, address: str, headers: Mapping[str, str], content: bytes) -> Any:
        wait = {"connect": PATIENCE, "read": PATIENCE, "write": PATIENCE, "pool": PATIENCE}
        ours = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "fastn-mcp"}
        asked = httpx2.Request(
            method, address, headers={**ours, **headers}, content=content, extensions={"timeout": wait}
        )
        response = await self._transport.handle_async_request(asked)
        host = asked.url.host
        try:
            body = bytearray()
            async for chunk in cast(httpx2.AsyncByteStream, response.stream):
                body += chunk
                if len(body) > _LARGEST:
                    raise ValueError(f"{host} answered more than {_LARGEST} bytes")
        finally:
            await response.aclose()

        def found() -> dict[str, Any]:
            said: object = from_json(bytes(body))
            if not isinstance(said, dict):
                raise TypeError(f"{host} answered no JSON object")
            return cast("dict[str, Any]", said)

        return response.status_code, found

    @cached_property
    def _transport(self) -> httpx2.AsyncBaseTransport:
        if self._given is not None:
            return self._given
        plain = self.issuer.startswith("http://")  # this machine only, which the team file sees to
        return httpx2.AsyncHTTPTransport(
            verify=False if plain else httpx2.create_ssl_context(),
            limits=httpx2.Limits(max_connections=4, max_keepalive_connections=0),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        if "_transport" in self.__dict__:
            await self._transport.aclose()
