"""An OpenID provider: discovery, keys, tokens. Built on joserfc, so that what signs is not what verifies."""

import base64
import hashlib
import socket
import threading
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import uvicorn
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

ISSUER = "https://login.example.com/realms/team"
AUDIENCE = "https://fastn-mcp.example.com/mcp"

Key = RSAKey | ECKey | OKPKey | OctKey

_REGISTRY = JWSRegistry(
    algorithms=["RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256", "none"], strict_check_header=False
)


def rsa(kid: str | None, bits: int = 2048) -> RSAKey:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # one that is too short is what a test wants
        return RSAKey.generate_key(bits, {"kid": kid, "use": "sig"} if kid else {"use": "sig"}, auto_kid=False)


@cache
def _first_key(issuer: str) -> RSAKey:  # noqa: ARG001 each has its own
    """The key with which a provider begins: one takes a quarter of a second to make."""
    return rsa("first")


@dataclass
class Provider:
    """What it publishes and what it signs with are a test's to change."""

    issuer: str = ISSUER
    audience: str = AUDIENCE
    now: Callable[[], float] = time.time
    keys: list[Key] = field(default_factory=list[Key])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    down: bool = False
    asked: list[str] = field(default_factory=list[str])
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "anna", "name": "Anna Example"})
    """Who sits at the browser that comes to sign in."""
    lies: dict[str, Any] = field(default_factory=dict[str, Any])
    """Claims of ID tokens that are not as they should be."""
    codes: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def __post_init__(self) -> None:
        self.keys = self.keys or [_first_key(self.issuer)]

    def token(
        self, key: Key | None = None, alg: str = "RS256", header: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        """A token that is good unless a claim says otherwise; a claim that is None is left out."""
        key = key or self.keys[-1]
        now = int(self.now())
        good = {
            "iss": self.issuer, "aud": self.audience, "sub": "anna", "scope": "fastn:read",
            "iat": now, "nbf": now, "exp": now + 600, "azp": "an-ide",
        }  # fmt: skip
        said = {name: value for name, value in (good | claims).items() if value is not None}
        head = {"alg": alg, "typ": "at+jwt"} | ({"kid": key.kid} if key.kid else {}) | (header or {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # EdDSA has another name by now, which few use
            return jwt.encode({n: v for n, v in head.items() if v is not None}, said, key, registry=_REGISTRY)

    @property
    def app(self) -> Starlette:
        where = self.issuer.split("/", 3)[3] if self.issuer.count("/") > 2 else ""
        at = f"/{where}" if where else ""
        return Starlette(
            routes=[
                Route(f"{at}/.well-known/openid-configuration", self._discovery),
                Route(f"/.well-known/oauth-authorization-server{at}", self._discovery),
                Route(f"{at}/keys", self._keys),
                Route(f"{at}/authorize", self._authorize),
                Route(f"{at}/token", self._token, methods=["POST"]),
            ]
        )

    async def _discovery(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        said: dict[str, Any] = {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/keys",
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "response_types_supported": ["code"],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }
        return Response(status_code=503) if self.down else JSONResponse(said | self.metadata)

    async def _keys(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        published = [key.as_dict(private=False) for key in self.keys]
        return Response(status_code=503) if self.down else JSONResponse({"keys": published})

    async def _authorize(self, request: Request) -> Response:
        """Signs in whoever `person` is, without asking, and sends the browser back with a code."""
        asked = dict(request.query_params)
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked | {"person": self.person}
        back = {"code": code, "state": asked["state"], "iss": self.issuer}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(back)}", 303)

    def id_token(self, asked: dict[str, Any], **claims: Any) -> str:
        """What it says to a client of who signed in."""
        said: dict[str, Any] = {
            "aud": asked["client_id"],
            "nonce": asked["nonce"],
            "scope": None,
            "azp": None,
            **asked["person"],
        }
        return self.token(header={"typ": "JWT"}, **(said | claims))

    async def _exchange(self, client: str, form: dict[str, str]) -> Response:
        asked = self.codes.pop(form.get("code", ""), None)  # once
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or (asked["client_id"], asked["redirect_uri"]) != (client, form["redirect_uri"])
            or (asked["code_challenge"], asked["code_challenge_method"]) != (challenge, "S256")
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        said = {"access_token": "of-no-use-here", "token_type": "Bearer", "id_token": self.id_token(asked, **self.lies)}
        return JSONResponse(said)

    async def _token(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        basic = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
        client, _, secret = (unquote(part) for part in basic.partition(":"))
        asked = dict(parse_qsl((await request.body()).decode()))
        if secret != client[::-1] or asked["grant_type"] != "authorization_code":
            return JSONResponse({"error": "invalid_client"}, 401)
        return await self._exchange(client, asked)


@contextmanager
def listening(app: Any, port: int = 0, **options: Any) -> Generator[str]:
    """An application on the loopback address, in a thread of this process. `options` are uvicorn's."""
    # Listening before anybody runs, so that who comes early only waits.
    with socket.create_server(("127.0.0.1", port)) as taken:
        # The event loop does this only for its own sockets. Saves 40 ms per answer.
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none", **options))
        thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
