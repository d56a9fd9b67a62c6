"""OpenID provider for trying a team's server: two people, and a page on which to choose who signs in.

It redirects to this machine only, and `team/team_config.py` refuses it for a server that others reach.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from fastn_mcp.config.addresses import is_loopback

PEOPLE: Mapping[str, Mapping[str, Any]] = {
    "anna": {"name": "Anna Example", "groups": ["fastn-admins"]},
    "dana": {"name": "Dana Example", "groups": ["fastn-admins", "fastn-approvers"]},
}
"""Claims by subject. The groups are named in the team file that `init-team` makes."""

CLIENT = "fastn-approvals"
"""Client of the approval page. Every other client is public."""

CLIENT_SECRET = "sandbox-approvals"  # noqa: S105 - of the sandbox

_CODE_SECONDS = 60
_TOKEN_SECONDS = 8 * 3600
_HEADERS = {"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
_PAGE = """<!doctype html><html lang="en"><meta name="color-scheme" content="light dark"><title>{title}</title>
<h1>{title}</h1><form method="post">{body}</form></html>"""
_CHOICE = '<p><button name="person" value="{}">{}</button> {}</p>'
_WARNING = "<p>This provider is for trying things out: anyone who can reach it can sign in as any of these people.</p>"


class TrialIssuer:
    """Issuer at the address `url`. Its key and pending codes are in memory: a restart ends every sign-in."""

    def __init__(self, url: str, now: Callable[[], float]) -> None:
        self._url = url
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._kid = secrets.token_hex(8)
        self._codes: dict[str, tuple[float, str, Mapping[str, str]]] = {}
        """When each code expires, who signed in, and the parameters of the authorization request."""

    def beside(self, app: ASGIApp) -> Starlette:
        """Return an application with this issuer, which passes other requests on. Other hosts are refused."""
        routes = [
            Route("/.well-known/openid-configuration", self._metadata),
            Route("/.well-known/oauth-authorization-server", self._metadata),
            Route("/keys", self._keys),
            Route("/register", self._register, methods=["POST"]),
            Route("/authorize", self._authorize, methods=["GET", "POST"]),
            Route("/token", self._token, methods=["POST"]),
            Mount("/", app),
        ]
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])  # DNS rebinding
        return Starlette(routes=routes, middleware=[hosts])

    async def _metadata(self, _request: Request) -> Response:
        endpoints = {"authorization": "authorize", "token": "token", "registration": "register"}
        return JSONResponse(
            {
                "issuer": self._url,
                "jwks_uri": f"{self._url}/keys",
                **{f"{name}_endpoint": f"{self._url}/{path}" for name, path in endpoints.items()},
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "token_endpoint_auth_methods_supported": ["client_secret_post", "none"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def _keys(self, _request: Request) -> Response:
        key = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return JSONResponse({"keys": [key | {"kid": self._kid, "use": "sig", "alg": "ES256"}]})

    async def _register(self, request: Request) -> Response:
        """Give a client an id (RFC 7591). Nothing is stored: every client may redirect to this machine."""
        with suppress(ValueError):
            client: Any = await request.json()
            if isinstance(client, dict) and "redirect_uris" in client:
                own = {"client_id": secrets.token_urlsafe(16), "token_endpoint_auth_method": "none"}
                return JSONResponse(client | own, 201)
        return JSONResponse({"error": "invalid_client_metadata"}, 400)

    async def _authorize(self, request: Request) -> Response:
        """Show the people to choose from, or redirect with a code for the chosen one."""
        query = dict(request.query_params)
        redirect = query.get("redirect_uri", "")
        if not _is_local(redirect):
            body = f"<p>The sign-in would return to {escape(redirect)}, which is not an address of this machine.</p>"
            return HTMLResponse(_PAGE.format(title="Sign-in refused", body=body), 400, _HEADERS)
        answer = {"iss": self._url} | {name: query[name] for name in ("state",) if name in query}
        chosen = dict(parse_qsl((await request.body()).decode(errors="replace"))).get("person", "")
        if query.get("response_type") != "code" or query.get("code_challenge_method") != "S256":
            answer["error"] = "invalid_request"
        elif chosen not in PEOPLE or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            rows = (_CHOICE.format(person, each["name"], ", ".join(each["groups"])) for person, each in PEOPLE.items())
            return HTMLResponse(_PAGE.format(title="Sign in as", body="".join(rows) + _WARNING), 200, _HEADERS)
        else:
            answer["code"] = secrets.token_urlsafe(32)
            self._codes[answer["code"]] = (self._now() + _CODE_SECONDS, chosen, query)
        return RedirectResponse(f"{redirect}{'&' if '?' in redirect else '?'}{urlencode(answer)}", 303)

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        client = form.get("client_id")
        if not client or (client == CLIENT and form.get("client_secret") != CLIENT_SECRET):
            return JSONResponse({"error": "invalid_client"}, 401)
        expires_at, person, query = self._codes.pop(form.get("code", ""), (0.0, "", {}))  # used once
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        proof = (client, form.get("redirect_uri"), base64.urlsafe_b64encode(digest).rstrip(b"=").decode())
        received = tuple(map(query.get, ("client_id", "redirect_uri", "code_challenge")))
        if form.get("grant_type") != "authorization_code" or expires_at < self._now() or proof != received:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse(self._tokens(person, query), headers={"Cache-Control": "no-store"})

    def _tokens(self, person: str, query: Mapping[str, str]) -> dict[str, Any]:
        now = int(self._now())
        client = query["client_id"]
        scope = query.get("scope", "")
        claims = {"iss": self._url, "sub": person, "iat": now, "exp": now + _TOKEN_SECONDS, **PEOPLE[person]}
        access = claims | {"aud": query.get("resource", self._url), "scope": scope, "client_id": client}
        identity = claims | {"aud": client} | {name: query[name] for name in ("nonce",) if name in query}
        tokens = {"access_token": self._signed(access, "at+jwt"), "id_token": self._signed(identity, "JWT")}
        return {**tokens, "token_type": "Bearer", "expires_in": _TOKEN_SECONDS, "scope": scope}

    def _signed(self, claims: dict[str, Any], kind: str) -> str:
        return jwt.encode(claims, self._key, "ES256", {"kid": self._kid, "typ": kind})


def _is_local(redirect: str) -> bool:
    with suppress(ValueError):
        parts = urlsplit(redirect)
        return parts.scheme == "http" and is_loopback(parts.hostname or "")
    return False
