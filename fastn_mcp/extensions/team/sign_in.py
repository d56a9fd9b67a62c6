"""Sign-in with a browser: OpenID Connect authorization code flow with PKCE.

The ID token has to be signed by the issuer, for this client and this sign-in. No token is stored, only the person's
claims are used.
"""

import base64
import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.parse import quote as percent_encode

import anyio
import httpx2
from pydantic import ConfigDict

from fastn_mcp.extensions.team.claim_match import MachineIdentity, signs_in_machine
from fastn_mcp.extensions.team.oidc import IssuerKeys, NoKeys
from fastn_mcp.extensions.team.team_config import ApprovalsSection
from fastn_mcp.extensions.team.tokens import TokenRefused, Tokens, Trust, name_subject
from fastn_mcp.policy.decision import StepUp
from fastn_mcp.redaction import quote
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

SIGN_IN_HOLDS = 600.0
"""Seconds to complete a sign-in at the provider."""

_CACHE_SECONDS = 300.0
"""Seconds for which the discovery document is cached, however many sign-ins begin."""

_CONCURRENT = 3
"""Concurrent sign-in requests to the provider. Fewer than its connections, so that a key refresh always has one."""


_ENTRA_CONTEXT = re.compile(r"c[1-9]\d?")
"""Authentication contexts of Microsoft Entra, which has another parameter for them than `acr_values`."""

_UNREACHABLE = "The identity provider cannot be reached."


class NotSignedIn(Exception):
    """The sign-in failed. The message is a sentence for the person."""

    heading = "The sign-in failed"


class NotAnApprover(NotSignedIn):
    """The person signed in, but no approver rule of the team file matches."""

    heading = "You are not an approver"


class NotSteppedUp(NotSignedIn):
    """The person signed in again, but not recently or strongly enough, or as another person."""

    heading = "Nothing was approved"


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """Sign-in in progress, as stored in the browser until it returns."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    state: str
    nonce: str
    verifier: str
    session: str = ""
    """Session of the person who signs in again; empty for a first sign-in."""
    request: str = ""
    """Approval request to which they come back."""


def _afresh(step_up: StepUp) -> dict[str, str]:
    """Return the parameters that ask for a recent and strong sign-in. Only the ID token says whether it is one."""
    values = step_up.acr_values
    query = {"max_age": f"{step_up.max_age:.0f}", "prompt": "login"}  # some providers heed only one of them
    if values:
        query["acr_values"] = " ".join(values)
    context = next(filter(_ENTRA_CONTEXT.fullmatch, values), None)
    if context:
        query["claims"] = json.dumps({"id_token": {"acrs": {"essential": True, "value": context}}})
    return query


class SignIn:
    """Sign-in at the OpenID Connect client of `approvals`, whose redirect URI is `redirect`. It signs in people, not
    `machines`."""

    def __init__(
        self,
        trust: Trust,
        keys: IssuerKeys,
        approvals: ApprovalsSection,
        secret: str,
        redirect: str,
        system: System,
        machines: Sequence[MachineIdentity] = (),
    ) -> None:
        self._trust = trust
        self._provider = keys.provider
        self._tokens = Tokens(trust, keys, system)
        self._client = approvals.client_id or ""  # a section without one has no page
        self._secret = secret
        self._scopes = approvals.scopes
        self._redirect = redirect
        self._system = system
        self._machines = machines
        self._cached: dict[str, Any] = {}
        self._fetched_at = self._failed_at = float("-inf")
        self._fetching = anyio.Lock()
        self._slots = anyio.Semaphore(_CONCURRENT)

    async def begin(self, step_up: StepUp | None = None) -> tuple[str, PendingSignIn]:
        """Return the authorization address and the pending sign-in. Raises `NotSignedIn` if the provider fails."""
        metadata = await self._metadata()
        pending = PendingSignIn(*(secrets.token_urlsafe(32) for _ in range(3)))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(pending.verifier.encode()).digest()).rstrip(b"=")
        query = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": self._redirect,
            "scope": " ".join(self._scopes),
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
            **({} if step_up is None else _afresh(step_up)),
        }
        at = metadata["authorization_endpoint"]
        return f"{at}{'&' if '?' in at else '?'}{urlencode(query)}", pending

    def code(self, pending: PendingSignIn, sent: Mapping[str, str]) -> str:
        """Return the authorization code of the callback. Raises `NotSignedIn` if it is not of this sign-in."""
        if not hmac.compare_digest(sent.get("state", "").encode(), pending.state.encode()):
            raise NotSignedIn("This sign-in was not started in this browser.")
        if sent.get("iss", self._trust.issuer) != self._trust.issuer:  # RFC 9207
            raise NotSignedIn("A different provider answered.")
        if "error" in sent or not sent.get("code"):
            why = f" ({quote(sent['error'], 60)})" if "error" in sent else ""
            raise NotSignedIn(f"The identity provider did not sign you in{why}.")
        return sent["code"]

    async def finish(self, pending: PendingSignIn, code: str) -> dict[str, Any]:
        """Exchange a code, which works once, for the claims of the ID token. Raises `NotSignedIn` if that fails."""
        token = await self._exchange(await self._metadata(), code, pending.verifier)
        try:
            claims = await self._tokens.id_claims(token, self._client, pending.nonce)
            is_machine = signs_in_machine(self._machines, claims, self._client)
            name_subject(claims, self._trust.subject_claim)
        except TokenRefused as refused:
            log.warning("an ID token was refused: %s", refused)
            raise NotSignedIn("The identity provider's ID token could not be verified.") from None
        except NoKeys:
            raise NotSignedIn(_UNREACHABLE) from None
        if is_machine:
            raise NotSignedIn("The sign-in of a machine was refused: only people approve. Nothing was approved.")
        return claims

    async def _metadata(self) -> dict[str, Any]:
        began = self._system.monotonic()
        async with self._fetching:  # concurrent sign-ins share one fetch and its failure
            if self._system.monotonic() - self._fetched_at >= _CACHE_SECONDS:
                if self._failed_at > began:
                    raise NotSignedIn(_UNREACHABLE)
                self._cached = await self._fetch()
                self._fetched_at = self._system.monotonic()
        return self._cached

    async def _fetch(self) -> dict[str, Any]:
        try:
            with anyio.fail_after(10):
                async with self._slots:
                    metadata = await self._provider.metadata()
            for name in ("authorization_endpoint", "token_endpoint"):
                metadata[name] = self._provider.endpoint(metadata, name)
        except (OSError, ValueError, TypeError, KeyError, httpx2.TransportError) as error:
            log.warning("a sign-in failed: %s: %s", type(error).__name__, error)
            self._failed_at = self._system.monotonic()
            raise NotSignedIn(_UNREACHABLE) from None
        kinds: Any = metadata.get("subject_types_supported", ["public"])
        is_pairwise = "public" not in kinds and self._trust.subject_claim == "sub"
        if is_pairwise and self._client != self._trust.audience:
            # A requester would have another subject as an approver, and could approve their own call.
            log.error("the issuer names people by another subject for each client: client_id has to be the audience")
            raise NotSignedIn("The operator has to set this up: approvers could not be matched with callers.")
        return metadata

    async def rejection(self) -> str | None:
        """Say why the provider rejects this client, as far as it says so without a person. Raises `NotSignedIn`.

        A browser's request is made and not followed, and a code that was never issued is exchanged.
        """
        address, pending = await self.begin()
        try:
            status, location = await self._provider.visit(address)
            if status >= 400:
                return f"The provider answers the sign-in of client_id with {status}: the client or {self._redirect}."
            sent = dict(parse_qsl(urlsplit(location).query)) if location.startswith(self._redirect) else {}
            error = sent.get("error")
            if error:
                return f"The provider refuses the sign-in: {quote(error)}. {quote(sent.get('error_description', ''))}"
            status, answer = await self._token_response(await self._metadata(), "never-issued", pending.verifier)
        except (OSError, ValueError, TypeError, KeyError, httpx2.TransportError) as error:
            raise NotSignedIn(f"{_UNREACHABLE} {type(error).__name__}.") from None
        if status == 401 or answer.get("error") in ("invalid_client", "unauthorized_client"):
            return f"The token endpoint does not accept the client and its secret: {quote(str(answer.get('error')))}."
        return None

    async def _exchange(self, metadata: Mapping[str, Any], code: str, verifier: str) -> str:
        try:
            status, answer = await self._token_response(metadata, code, verifier)
        except (OSError, ValueError, TypeError, KeyError, httpx2.TransportError) as error:
            log.warning("a code could not be exchanged: %s", type(error).__name__)
            raise NotSignedIn("The identity provider's response was invalid.") from None
        token = answer.get("id_token")
        if status != 200 or not isinstance(token, str):
            log.warning("a code was not exchanged: the provider answered %s", status)
            raise NotSignedIn("The identity provider did not accept this sign-in: it may have been used before.")
        return token

    async def _token_response(
        self, metadata: Mapping[str, Any], code: str, verifier: str
    ) -> tuple[int, dict[str, Any]]:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": verifier,
        }
        headers: dict[str, str] = {}
        methods: Any = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" in methods:
            pair = f"{percent_encode(self._client, safe='')}:{percent_encode(self._secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            fields |= {"client_id": self._client, "client_secret": self._secret}
        with anyio.fail_after(10):
            async with self._slots:
                return await self._provider.post(metadata["token_endpoint"], fields, headers)
