"""Sign-in by a real MCP client at a real OpenID provider, by the recipes of docs/identity-providers.md.

Each recipe's team file is the one on the page, and its `Shape` is what the product does differently: the client's whole
authorization code flow with PKCE runs against oidc-provider in that shape, over its own sign-in and consent pages.
"""

import re
import tomllib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from mcp import Client, MCPError
from mcp.client.auth import OAuthFlowError
from support.identity_provider import AUDIENCE, Provider
from support.openid_provider import (
    CALLBACK,
    CLIENT_DOCUMENT,
    Browser,
    OpenIDProviders,
    Shape,
    Storage,
    connected,
    preregistered,
    signing_in,
    token_for,
)
from support.page_visitor import Visitor
from support.policy_files import policy_file
from support.team_world import Caller, TeamWorld, challenge

from fastn_mcp.build.check import CheckResult
from fastn_mcp.extensions.team.checks import check_provider, check_token
from fastn_mcp.extensions.team.oidc import IssuerKeys

pytestmark = pytest.mark.usefixtures("provider_elsewhere")

PAGE = Path(__file__).parents[3] / "docs" / "identity-providers.md"
SITE = "https://fastn-mcp.example.com"
SECRET = "of-the-page-and-long-enough"
CLIENT_ID = "an-mcp-client"
FOUR_EYES = '[defaults]\ndestroy = "four_eyes"\n'


def snippets() -> dict[str, str]:
    blocks = re.findall(r"```toml\n(# team.toml for (.+?)\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return {product: text for text, product in blocks}


SNIPPETS = snippets()


def shape(product: str, *, path: str, **more: Any) -> Shape:
    """Return a shape whose people are those of the product's team file, and a guest of no group."""
    team = tomllib.loads(SNIPPETS[product])
    groups = team.get("groups_claim", "groups")
    admins, approvers = team["tenant"][0]["groups"], team["approvals"]["approver"][0]["groups"]
    people: dict[str, dict[str, Any]] = {
        "anna": {"name": "Anna Example", groups: admins + approvers},
        "dana": {"name": "Dana Example", groups: approvers},
        "guest": {"name": "Guest Example", groups: ["others"]},
    }
    if team.get("subject_claim") == "oid":
        people = {name: claims | {"oid": f"oid-of-{name}"} for name, claims in people.items()}
    page = {
        "client_id": team["approvals"]["client_id"],
        "client_secret": SECRET,
        "redirect_uris": [f"{SITE}/approvals/callback"],
    }
    client = {"client_id": CLIENT_ID, "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}
    return Shape(path, people, clients=(page, client), **more)


KEYCLOAK = shape(
    "Keycloak",
    path="/realms/team",
    token_claims={"aud": [AUDIENCE, "account"], "typ": "Bearer"},
    has_registration=True,
    keeps_registered_scope=True,
)
ENTRA = shape(
    "Microsoft Entra ID",
    path="/9a1b/v2.0",
    scope_prefix=f"{AUDIENCE}/",
    scope_claim="scp",
    profile_claims=("roles", "oid"),
    token_claims={"aud": "6d2c0f4e-0000-4000-8000-5b7a3c1e9f02", "ver": "2.0"},
    refuses_other_resources=True,
    hides_pkce=True,
    is_pairwise=True,
)
OKTA = shape(
    "Okta",
    path="/oauth2/aus1fastn",
    scope_claim="scp",
    scope_list=True,
    token_claims={"aud": AUDIENCE, "ver": 1, "sub": "{person}@example.com", "uid": "{person}"},
)
AUTH0 = shape(
    "Auth0",
    path="/auth0/",
    typ="at+jwt",
    profile_claims=(f"{SITE}/roles",),
    token_claims={"permissions": []},
    has_registration=True,
)
COGNITO = shape(
    "Amazon Cognito",
    path="/eu-central-1_TEAM",
    scope_prefix=f"{AUDIENCE}/",
    keeps_prefix=True,
    profile_claims=("cognito:groups",),
    token_claims={"token_use": "access"},
)
RECIPES = {"Keycloak": KEYCLOAK, "Microsoft Entra ID": ENTRA, "Okta": OKTA, "Auth0": AUTH0, "Amazon Cognito": COGNITO}
each_recipe = pytest.mark.parametrize("product", RECIPES)


@dataclass
class Team:
    """The server of a recipe's team file, in this process."""

    world: TeamWorld
    caller: Caller

    @property
    def transport(self) -> httpx2.AsyncBaseTransport:
        return self.caller.http._transport  # pyright: ignore[reportPrivateUsage]

    @asynccontextmanager
    async def client(self, browser: Browser, storage: Storage) -> AsyncGenerator[Client]:
        """Connect the SDK's client, whose person sits at a browser."""
        async with connected(AUDIENCE, signing_in(AUDIENCE, browser, storage), self.transport) as client:
            yield client

    @asynccontextmanager
    async def browser(self, person: str | None) -> AsyncGenerator[Visitor]:
        """Open the approval page, signed in at the provider if a person is named."""

        async def provided(url: str, login: str) -> str:
            return await Browser(login).authorize(url)

        async with httpx2.AsyncClient(transport=self.transport, base_url=SITE) as http:
            visitor = Visitor(http, SITE, provided)
            if person is not None:
                answer = await visitor.sign_in(person)
                assert (answer.status_code, answer.headers.get("location")) == (303, "/approvals/"), answer.text
            yield visitor


@dataclass
class Recipes:
    folder: Path
    providers: OpenIDProviders

    @asynccontextmanager
    async def __call__(
        self, product: str, shape: Shape, *, without: str | None = None, policy: str = ""
    ) -> AsyncGenerator[Team]:
        """Serve the product's team file, whose issuer is the shape, and maybe without one of its lines."""
        issuer = self.providers.serve(shape)
        text = SNIPPETS[product]
        text = text.replace(f'"{tomllib.loads(text)["issuer"]}"', f'"{issuer}"')
        if without is not None:
            text = re.sub(rf"^{without} = .*\n", "", text, flags=re.MULTILINE)
        policy_file(self.folder, policy)
        text += 'approval_wait_seconds = 0\npolicy = "policy.toml"\n'
        environment = {
            "ACME_KEY": "fsk_test_acme",
            "FASTN_APPROVALS_SECRET": SECRET,
            "FASTN_STATE_SECRET": "s" * 32,
        }
        world = TeamWorld(self.folder, text, Provider(), environment)
        world.keys = IssuerKeys(issuer, world.system)
        async with world.served() as caller:
            yield Team(world, caller)


@pytest.fixture
def recipe(tmp_path: Path, providers: OpenIDProviders) -> Recipes:
    return Recipes(tmp_path, providers)


def registered(shape: Shape) -> Storage:
    """Return the storage of a client that knows the id which an administrator gave it, or of one that registers."""
    return Storage(client=None if shape.has_registration else preregistered(CLIENT_ID))


@asynccontextmanager
async def refused(team: Team, browser: Browser, storage: Storage) -> AsyncGenerator[httpx2.Response]:
    """Sign in, and yield the server's answer to a call with the token, which it refuses."""
    with suppress(BaseExceptionGroup, MCPError, httpx2.HTTPStatusError):
        async with team.client(browser, storage) as client:
            await client.call_tool("list_customers", {})
    assert storage.tokens is not None
    answer = await team.caller.call(storage.tokens.access_token, "list_customers")
    assert answer.status_code in (401, 403)
    yield answer


def reason(answer: httpx2.Response) -> str | None:
    """Return why a token was refused, by the challenge; None if it was not."""
    return None if answer.is_success else challenge(answer)["error_description"]


async def create_customer(team: Team, browser: Browser, storage: Storage) -> None:
    async with team.client(browser, storage) as client:
        await client.call_tool("create_customer", {"name": "Umbrella"})


async def delete_customer(team: Team, browser: Browser, storage: Storage) -> None:
    """Have an agent make a call that waits for approval."""
    async with team.client(browser, storage) as client:
        answer = (await client.call_tool("list_customers", {"search": "Globex"})).structured_content
        assert answer is not None
        waits = await client.call_tool("delete_customer", {"customer_id": answer["data"][0]["id"]})
    assert waits.structured_content is not None
    assert waits.structured_content["status"] == "approval_required"


def test_page_has_a_team_file_for_each_recipe() -> None:
    """docs/sign-in.md: every team file on the page is one that was signed in with."""
    assert set(SNIPPETS) == set(RECIPES)


@each_recipe
async def test_recipe_signs_in_and_steps_up(product: str, recipe: Recipes) -> None:
    """docs/sign-in.md: the client requests what it reads with, and more once a call needs it. The sign-in stays.
    A person of no group of the team file is served by no tenant."""
    shape = RECIPES[product]
    browser, storage = Browser("anna"), registered(shape)
    async with recipe(product, shape) as team:
        async with team.client(browser, storage) as client:
            assert not (await client.call_tool("list_customers", {})).is_error
            created = (await client.call_tool("create_customer", {"name": "Umbrella"})).structured_content
            assert created is not None
            assert (created["done"], created["account"]["profile"]) == ("create_customer", "acme")
        async with refused(team, Browser("guest"), registered(shape)) as answer:
            assert answer.status_code == 403
            assert "no account here is assigned to you" in answer.json()["error"]["message"]
        first = set(team.world.team.initial_scopes)
    steps_up = "fastn:write" not in first
    assert browser.requested(shape) == ([first, first | {"fastn:write"}] if steps_up else [first])
    assert browser.pages == ["login", "consent", *["consent"] * steps_up]


async def test_client_with_a_metadata_document_steps_up(recipe: Recipes) -> None:
    """docs/sign-in.md: a client that is known by its document (CIMD) registers nothing, and may request every scope."""
    shape = replace(KEYCLOAK, has_registration=False, has_metadata_documents=True)
    browser, storage = Browser("anna"), Storage()
    async with (
        recipe("Keycloak", shape, without="initial_scopes") as team,
        team.client(browser, storage) as client,
    ):
        assert not (await client.call_tool("list_customers", {})).is_error
        assert not (await client.call_tool("create_customer", {"name": "Umbrella"})).is_error
    assert storage.client is not None
    assert storage.client.client_id == CLIENT_DOCUMENT
    assert browser.pages == ["login", "consent", "consent"]


async def test_registered_client_cannot_step_up_where_its_scope_is_kept(recipe: Recipes) -> None:
    """docs/sign-in.md, Keycloak: the reason for `initial_scopes`. A call that needs more is not made."""
    browser, storage = Browser("anna"), Storage()
    async with recipe("Keycloak", KEYCLOAK, without="initial_scopes") as team:
        with pytest.raises(BaseExceptionGroup) as failed:
            await create_customer(team, browser, storage)
        assert failed.group_contains(OAuthFlowError)
        assert storage.tokens is not None
        answer = await team.caller.result(storage.tokens.access_token, "list_customers", search="Umbrella")
        assert answer["data"] == []


@each_recipe
async def test_recipe_signs_in_at_the_approval_page(product: str, recipe: Recipes) -> None:
    """docs/sign-in.md: approvers sign in with the page's own client. A requester is the same person there."""
    shape = RECIPES[product]
    storage = registered(shape)
    async with recipe(product, shape, policy=FOUR_EYES) as team:
        await delete_customer(team, Browser("anna"), storage)
        async with team.browser("dana") as dana, team.browser("anna") as anna, team.browser(None) as guest:
            assert "Signed in as Dana Example" in (page := await dana.read())
            assert "1 request waiting" in page
            assert "This is your own call, and other people have to approve it." in await anna.read()
            assert (await guest.sign_in("guest")).status_code == 403


async def test_requester_is_recognized_by_their_login_name(recipe: Recipes) -> None:
    """docs/sign-in.md, Okta: a team file without `subject_claim` does not make two people of a requester."""
    people = {name: claims | {"preferred_username": f"{name}@example.com"} for name, claims in OKTA.people.items()}
    shape = replace(OKTA, people=people, profile_claims=("preferred_username",))
    storage = registered(shape)
    async with recipe("Okta", shape, without="subject_claim", policy=FOUR_EYES) as team:
        await delete_customer(team, Browser("anna"), storage)
        async with team.browser("dana") as dana, team.browser("anna") as anna:
            await dana.form("approve")
            assert "This is your own call, and other people have to approve it." in await anna.read()


OPAQUE, OTHER_AUDIENCE = "It is not a signed JWT.", "It is for another audience."
MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "keycloak-without-audience-mapper": ("Keycloak", {"aud": "account"}, OTHER_AUDIENCE),
    "okta-with-the-default-audience": ("Okta", {"aud": "api://default"}, OTHER_AUDIENCE),
    "auth0-without-resource-parameter": ("Auth0", {}, OPAQUE),
    "google": ("Keycloak", {}, OPAQUE),
    "entra-v1-tokens": ("Microsoft Entra ID", {"iss": "https://sts.windows.net/9a1b/"}, "It is from another issuer."),
    "okta-without-uid": ("Okta", {"uid": None}, "It names no subject."),
    "okta-without-the-scope": ("Okta", {"scp": ["openid"]}, "It needs fastn:read."),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_provider_set_up_wrongly_is_refused_with_the_reason(mistake: str, recipe: Recipes) -> None:
    """docs/sign-in.md: what each mistake looks like. The challenge says why, and no tenant serves the caller.
    docs/doctor.md: doctor names the claim and the next step."""
    product, claims, why = MISTAKES[mistake]
    shape = RECIPES[product]
    shape = replace(shape, token_claims=shape.token_claims | claims, is_opaque=why == OPAQUE)
    storage = registered(shape)
    async with recipe(product, shape) as team, refused(team, Browser("anna"), storage) as answer:
        assert reason(answer) == why
        assert storage.tokens is not None
        world, token = team.world, storage.tokens.access_token
        checks = [check async for check in check_token(world.opening, world.keys, token)]
    failed = [check for check in checks if check.verdict is CheckResult.FAILED]
    assert failed
    assert all(check.next for check in failed)


async def test_resource_of_the_request_becomes_the_audience(recipe: Recipes) -> None:
    """RFC 8707: the SDK's client names this server, and a token for another is refused."""
    storage = Storage()
    async with recipe("Auth0", AUTH0) as team, team.client(Browser("anna"), storage) as client:
        assert not (await client.call_tool("list_customers", {})).is_error
        assert storage.tokens is not None
        assert jwt.decode(storage.tokens.access_token, options={"verify_signature": False})["aud"] == AUDIENCE
        other = await token_for(team.world.team.issuer, CLIENT_ID, Browser("anna"), "https://other.example.com/mcp")
        answer = await team.caller.call(other, "list_customers")
        assert reason(answer) == "It is for another audience."


@each_recipe
async def test_doctor_finds_nothing_but_what_the_product_lacks(product: str, recipe: Recipes) -> None:
    """docs/doctor.md: the page's client is accepted, and registration is as the product offers it."""
    shape = RECIPES[product]
    async with recipe(product, shape) as team:
        checks = {check.name: check async for check in check_provider(team.world.opening, team.world.keys)}
    registration = checks["client registration"]
    assert ("(DCR)" in registration.finding) is shape.has_registration
    assert ("(CIMD)" in registration.finding) is shape.has_metadata_documents
    is_known = shape.has_registration or shape.has_metadata_documents
    differs = {"client registration": is_known, "PKCE": not shape.hides_pkce}
    wrong = {name for name, check in checks.items() if check.verdict is not CheckResult.OK}
    assert wrong == {name for name, is_offered in differs.items() if not is_offered}


async def test_doctor_finds_a_wrong_client_of_the_page(recipe: Recipes) -> None:
    """docs/doctor.md: by a sign-in without a person, and by a code that was never issued."""
    page, client = KEYCLOAK.clients
    changes: list[dict[str, Any]] = [
        {"client_secret": "another"},
        {"redirect_uris": [f"{SITE}/elsewhere"]},
        {"client_id": "another"},
    ]
    async with recipe("Keycloak", KEYCLOAK) as team:
        for change in changes:
            recipe.providers.serve(replace(KEYCLOAK, clients=(page | change, client)))
            checks = {check.name: check async for check in check_provider(team.world.opening, team.world.keys)}
            check = checks["approval client"]
            assert check.verdict is CheckResult.FAILED, change
            assert "/approvals/callback" in check.here
            assert SECRET not in str(checks)
