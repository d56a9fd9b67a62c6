"""Enterprise-managed authorization (SEP-990): the enterprise's provider decides, the authorization server issues the
token.

The SDK's client exchanges an ID-JAG at oidc-provider for an access token, with which it calls this server.
"""

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from support.identity_provider import AUDIENCE, Provider
from support.openid_provider import OpenIDProviders, Shape, Storage, connected
from support.team_world import HEAD, TENANTS, Caller, TeamWorld

from fastn_mcp.extensions.team.oidc import IssuerKeys

pytestmark = pytest.mark.usefixtures("provider_elsewhere")

CLIENT = {
    "client_id": "an-assistant",
    "client_secret": "of-the-assistant",
    "grant_types": ["urn:ietf:params:oauth:grant-type:jwt-bearer"],
    "redirect_uris": [],
    "response_types": [],
    "token_endpoint_auth_method": "client_secret_post",
}
_NUMBERS = itertools.count(1)


@dataclass
class Enterprise:
    """The enterprise's identity provider, the server, and the authorization server that both trust."""

    idp: Provider
    issuer: str
    caller: Caller

    def assertion(self, audience: str, resource_: str, **claims: Any) -> str:
        """Return an ID-JAG as the extension's section 4.3 has it."""
        held: dict[str, Any] = {
            "sub": "anna", "aud": audience, "resource": resource_, "client_id": "an-assistant", "azp": None,
            "scope": "fastn:read", "jti": f"jti-{next(_NUMBERS)}",
        }  # fmt: skip
        return self.idp.token(header={"typ": "oauth-id-jag+jwt"}, **(held | claims))

    def auth(self, storage: Storage, **claims: Any) -> IdentityAssertionOAuthProvider:
        async def asserted(audience: str, resource: str) -> str:
            return self.assertion(audience, resource, **claims)

        return IdentityAssertionOAuthProvider(
            AUDIENCE, storage, "an-assistant", "of-the-assistant", self.issuer, asserted
        )


@asynccontextmanager
async def enterprise(folder: Path, providers: OpenIDProviders) -> AsyncGenerator[Enterprise]:
    idp = Provider("https://acme.idp.example")
    jwks = {"keys": [key.as_dict(private=False) for key in idp.keys]}
    shape = Shape(
        "/enterprise", {"anna": {"name": "Anna Example"}}, clients=(CLIENT,),
        enterprise={"issuer": idp.issuer, "jwks": jwks},
    )  # fmt: skip
    issuer = providers.serve(shape)
    world = TeamWorld(folder, HEAD.replace("https://login.example.com/realms/team", issuer) + TENANTS)
    world.keys = IssuerKeys(issuer, world.system)
    async with world.served() as caller:
        yield Enterprise(idp, issuer, caller)


async def test_token_from_an_enterprise_assertion_is_a_person_s(tmp_path: Path, providers: OpenIDProviders) -> None:
    """Sections 5 and 7.4.4: an ordinary access token of the issuer for this resource, with the person and their
    scopes."""
    storage = Storage()
    async with enterprise(tmp_path, providers) as team:
        transport = team.caller.http._transport  # pyright: ignore[reportPrivateUsage]
        async with connected(AUDIENCE, team.auth(storage), transport) as client:
            answer = (await client.call_tool("list_customers", {})).structured_content
        assert answer is not None
        assert answer["data"]
        assert storage.tokens is not None
        answer = await team.caller.call(storage.tokens.access_token, "create_customer", name="Initech")
        assert (answer.status_code, answer.json()["error"]["data"]["scope"]) == (403, "fastn:write")


async def test_assertion_itself_is_no_access_token(tmp_path: Path, providers: OpenIDProviders) -> None:
    """Section 7.4.1: it is for the authorization server, and signed by the enterprise's provider."""
    async with enterprise(tmp_path, providers) as team:
        for audience in (team.issuer, AUDIENCE):
            answer = await team.caller.call(team.assertion(audience, AUDIENCE), "list_customers")
            assert answer.status_code == 401
            assert "It is not an access token." in answer.json()["error"]["message"]
