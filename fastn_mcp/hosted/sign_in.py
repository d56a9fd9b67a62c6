"""Sign in with a browser: OpenID Connect authorization code flow with PKCE.

What comes back is believed once its ID token is signed by the issuer, for this client, and for this very sign-in. No
token is kept: all that is needed of it is who they are.
"""

import base64
import hashlib
import hmac
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import anyio
import httpx2

from fastn_mcp.hosted.oidc import IssuerKeys, NoKeys
from fastn_mcp.hosted.tokens import TokenRefused, Tokens, Trust
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

SIGN_IN_HOLDS = 600.0
"""Seconds to sign in at the provider."""

_FRESH = 300.0
"""Seconds for which its discovery document serves: whoever begins sign-ins makes us ask it no more often."""

_AT_ONCE = 3
"""Requests to it of all who sign in: fewer than it has connections, so that keys are read whoever comes."""


_AWAY = "The identity provider cannot be reached."


class NotSignedIn(Exception):
    """Why nobody is signed in, in a sentence for the person."""

    heading = "The sign-in failed"


class NotAnApprover(NotSignedIn):
    """The provider knows the person, and no approver rule of the team file does."""

    heading = "There is nothing here for you to decide"


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """A sign-in that was begun: what its browser keeps until it comes back."""

    state: str
    nonce: str
    verifier: str


class SignIn:
    """Sign-ins of one client, which come back to `redirect`."""

    def __init__(
        self, trust: Trust, keys: IssuerKeys, client: str, secret: str, scopes: list[str], redirect: str,
        system: System,
    ) -> None:  # fmt: skip
        self._trust = trust
        self._provider = keys.provider
        self._tokens = Tokens(trust, keys, system)
        self._client = client
        self._secret = secret
        self._scopes = scopes
        self._redirect = redirect
        self._system = system
        self._known: dict[str, Any] = {}
        self._read = self._failed = float("-inf")
        self._turn = anyio.Lock()
        self._places = anyio.Semaphore(_AT_ONCE)

    async def begin(self) -> tuple[str, PendingSignIn]:
        """Where the browser goes, and what it keeps. Raises `NotSignedIn`."""
        metadata = await self._metadata()
        pending = PendingSignIn(*(secrets.token_urlsafe(32) for _ in range(3)))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(pending.verifier.encode()).digest()).rstrip(b"=")
        asked = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": self._redirect,
            "scope": " ".join(self._scopes),
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
        }
        at = self._provider.endpoint(metadata, "authorization_endpoint")
        return f"{at}{'&' if '?' in at else '?'}{urlencode(asked)}", pending

    def code(self, pending: PendingSignIn, sent: Mapping[str, str]) -> str:
        """What the provider sent back with the browser that began this. Raises `NotSignedIn`."""
        if not hmac.compare_digest(sent.get("state", "").encode(), pending.state.encode()):
            raise NotSignedIn("This is not the sign-in that this browser began.")
        if sent.get("iss", self._trust.issuer) != self._trust.issuer:  # RFC 9207
            raise NotSignedIn("A different provider answered.")
        if "error" in sent or not sent.get("code"):
            raise NotSignedIn("The identity provider did not sign you in.")
        return sent["code"]

    async def finish(self, pending: PendingSignIn, code: str) -> dict[str, Any]:
        """The claims of who signed in. A code is good once. Raises `NotSignedIn`."""
        token = await self._exchanged(await self._metadata(), code, pending.verifier)
        try:
            return await self._tokens.id_claims(token, self._client, pending.nonce)
        except TokenRefused as refused:
            log.warning("an ID token was refused: %s", refused)
            raise NotSignedIn("The identity provider's statement about you could not be verified.") from None
        except NoKeys:
            raise NotSignedIn(_AWAY) from None

    async def _metadata(self) -> dict[str, Any]:
        began = self._system.monotonic()
        async with self._turn:  # those who come at once ask once, and fail once
            if self._system.monotonic() - self._read >= _FRESH:
                if self._failed > began:
                    raise NotSignedIn(_AWAY)
                self._known = await self._asked()
                self._read = self._system.monotonic()
        return self._known

    async def _asked(self) -> dict[str, Any]:
        try:
            with anyio.fail_after(10):
                async with self._places:
                    metadata = await self._provider.metadata()
        except (OSError, ValueError, TypeError, httpx2.TransportError) as error:
            log.warning("a sign-in failed: %s: %s", type(error).__name__, error)
            self._failed = self._system.monotonic()
            raise NotSignedIn(_AWAY) from None
        kinds: Any = metadata.get("subject_types_supported", ["public"])
        if "public" not in kinds and self._client != self._trust.audience:
            # A requester would have another name here than as an approver, and could be both.
            log.error("the issuer names people by another subject for each client: client_id has to be the audience")
            raise NotSignedIn("The operator has to set this up: approvers could not be matched with callers.")
        return metadata

    async def _exchanged(self, metadata: Mapping[str, Any], code: str, verifier: str) -> str:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": verifier,
        }
        headers: dict[str, str] = {}
        methods: Any = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" in methods:
            pair = f"{quote(self._client, safe='')}:{quote(self._secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            fields |= {"client_id": self._client, "client_secret": self._secret}
        try:
            at = self._provider.endpoint(metadata, "token_endpoint")
            with anyio.fail_after(10):
                async with self._places:
                    status, found = await self._provider.post(at, fields, headers)
        except (OSError, ValueError, TypeError, KeyError, httpx2.TransportError) as error:
            log.warning("a code could not be exchanged: %s", type(error).__name__)
            raise NotSignedIn("The identity provider's response was invalid.") from None
        token = found.get("id_token")
        if status != 200 or not isinstance(token, str):
            log.warning("a code was not exchanged: the provider answered %s", status)
            raise NotSignedIn("The identity provider did not take this sign-in: it may have been used before.")
        return token
