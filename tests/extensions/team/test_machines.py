"""Machines of a team: a workload token and client credentials, each under its signed plan. See docs/machines.md."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.audit_entries import entries
from support.clock import Clock
from support.forged_tokens import REFUSED
from support.identity_provider import ISSUER
from support.machine_world import GITHUB, MACHINES, MachineWorld
from support.policy_files import ALLOWS, CONFIRMS
from support.team_world import ALL, HEAD, TENANTS, Caller, TeamWorld
from support.world import World

from fastn_mcp.config.model import Settings
from fastn_mcp.errors import SettingsError
from fastn_mcp.extensions.team.claim_match import MachineIdentity
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.policy.asker import Asker
from fastn_mcp.runtime import System
from fastn_mcp.tools.customers import DeleteCustomer

CREATED = {"name": "Initech"}
LATER = 4_000_000_000
"""The end of a token for tests that move the server's clock: the SDK compares with the machine's."""
REFUSALS = ("refused", "not_sent")
OPEN_TO_ALL = TENANTS.replace('subjects = ["anna", "amir"]', 'claims = { sub = "*" }', 1)
"""A tenant that serves everybody who signs in."""


async def refused(caller: Caller, token: str) -> str:
    """Return why a call with this token is refused before it is made."""
    answer = await caller.call(token, "create_customer", **CREATED)
    assert answer.status_code in (401, 403), answer.text
    return str(answer.json()["error"]["message"])


@pytest.mark.parametrize(("name", "token"), [("nightly-report", "workload"), ("billing", "client")])
async def test_machine_runs_its_plan_and_is_audited_by_its_name(name: str, token: str, tmp_path: Path) -> None:
    """Its calls are counted by the plan's entry, and none asks anybody, also where the client can show a form."""
    world = MachineWorld(tmp_path)
    signed: str = getattr(world, token)()
    async with world.world.served() as caller:
        assert (await caller.result(signed, "list_customers"))["data"]
        assert (await caller.result(signed, "create_customer", **CREATED))["done"] == "create_customer"
        beyond = await caller.result(signed, "create_customer", name="Umbrella")
    assert beyond["outcome"] == "refused"
    assert "no plan covers this call" in beyond["message"]
    assert 'arguments = { "name": "Umbrella" }' in beyond["would_allow"] or "Umbrella" in beyond["would_allow"]
    intent, outcome, denied = (entry for entry in world.audit() if entry["tool"] == "create_customer")
    assert (intent["event"], outcome["event"], denied["event"]) == ("intent", "outcome", "refused")
    for entry in (intent, denied):
        assert (entry["machine"], entry["principal_name"]) == (name, name)
    assert "plan nightly.toml line" in intent["rule"]
    assert "machine" not in outcome or outcome["machine"] == name


async def test_person_and_machine_of_one_tenant_are_judged_by_their_own_mode(tmp_path: Path) -> None:
    """The plan allows nothing to people, and the tenant's approvals are no way for the machine."""
    world = MachineWorld(tmp_path, mode="guarded", rules=CONFIRMS)
    async with world.world.served() as caller:
        asked = (await caller.call(world.person(), "create_customer", **CREATED)).json()["result"]
        assert "inputRequests" in asked
        assert (await caller.result(world.workload(), "create_customer", **CREATED))["done"] == "create_customer"


@pytest.mark.parametrize("name", ["webhook_url", "extensions", "notify"])
def test_no_channel_of_its_tenant_asks_anybody_about_a_machine(name: str) -> None:
    tenant = Settings.model_construct(None, **{name: {"slack": "set"}})
    machine = MachineIdentity.model_validate({"name": "nightly", "tenant": "acme", "client_id": "nightly"})
    assert not getattr(machine.settings(tenant), name)


@dataclass(frozen=True)
class Case:
    """A token, and words of the answer to it."""

    token: Callable[[MachineWorld], str]
    why: str


def _github(why: str, **claims: Any) -> Case:
    return Case(lambda world: world.workload(**claims), why)


def _client(why: str, **claims: Any) -> Case:
    return Case(lambda world: world.client(**claims), why)


NO_MACHINE = "no [[machine]] of the team file matches it"
PERSON = "This is a person's token, and its client belongs to a machine."
SIGNATURE = "Its signature or form is wrong."
"""A token is verified with the keys of the issuer that it names, or else with the team's."""
REF = 'its ref is "refs/heads/feature"'
MISMATCHED: dict[str, Case] = {
    "another repository": _github('its repository is "acme/other"', repository="acme/other"),
    "a repository of another owner": _github('its repository is "evil/reports"', repository="evil/reports"),
    "a repository that begins alike": _github("its repository is", repository="acme/reports-fork"),
    "a repository in other letters": _github("its repository is", repository="Acme/Reports"),
    "another branch": _github(REF, ref="refs/heads/feature"),
    "a pull request": _github("its ref is", ref="refs/pull/7/merge", event_name="pull_request"),
    "a branch called like the tag": _github("its ref is", ref="refs/heads/refs/tags/v1"),
    "another environment": _github('its environment is "staging"', environment="staging"),
    "no environment": _github('its environment is ""', environment=None),
    "no repository": Case(lambda w: w.github.token(sub="repo:acme/reports:ref:x", azp=None), NO_MACHINE),
    "a repository in a list": Case(
        lambda w: w.workload(repository_=["evil/x", "a"]),
        'its repository is ["evil',
    ),
    "an object for a ref": _github("its ref is", ref={"a": "refs/heads/main"}),
    "GitHub's default audience": _github("It is for another audience.", aud="https://github.com/acme"),
    "another server's audience": _github("It is for another audience.", aud="https://other.example.com/mcp"),
    "no audience": _github("It has no aud.", aud=None),
    "another issuer": _github(SIGNATURE, iss="https://token.actions.evil.example"),
    "an issuer with a slash": _github(SIGNATURE, iss=GITHUB + "/"),
    "the team's issuer, signed by GitHub": _github(SIGNATURE, iss=ISSUER),
    "GitHub's issuer, signed by the provider": Case(
        lambda w: w.world.provider.token(iss=GITHUB, repository="acme/reports"),
        SIGNATURE,
    ),
    "expired workload": _github("It has expired.", exp=1_000_000_000),
    "workload of the future": _github("It is not valid yet.", nbf=4_000_000_000),
    "workload issued in the future": _github("It is not valid yet.", iat=4_000_000_000),
    "workload without an end": _github("It has no exp.", exp=None),
    "workload without a subject": _github("It has no sub.", sub=None),
    "another client": _client('its client_id is "another-agent"', client="another-agent"),
    "a client in other letters": _client("its client_id is", client="Billing-Agent"),
    "a client by azp": _client('its client_id is "x"', sub="x", azp="x", client_id="billing-agent"),
    "Auth0's client": _client('its client_id is "spa"', sub="spa@clients", azp="spa", gty="client-credentials"),
    "Auth0's client in the dialect of RFC 9068": _client(
        'its client_id is "spa"', sub="spa@clients", client_id="spa", header={"typ": "at+jwt"}
    ),
    "Auth0's client by azp": _client('its client_id is "spa"', sub="spa@clients", azp="spa", client_id=None),
    "a person called like a service account": Case(
        lambda w: w.person(azp="billing-agent", preferred_username="service-account-mallory"), PERSON
    ),
    "Entra's application": _client('its client_id is "app"', sub="1", oid="1", azp="app", client_id=None),
    "Entra's application, by idtyp": _client("its client_id is", sub="1", idtyp="app", azp="app", client_id=None),
    "Keycloak's service account": _client(
        "its client_id is", sub="f3a1", azp="ci", client_id=None, preferred_username="service-account-ci"
    ),
    "a person at the machine's client": Case(lambda w: w.person(azp="billing-agent"), PERSON),
    "a person at the machine's client, by client_id": Case(
        lambda w: w.person(azp=None, client_id="billing-agent"), PERSON
    ),
    "the audience of another server, by the client": _client("It is for another audience.", aud="https://b.example"),
    "an expired client": _client("It has expired.", exp=1_000_000_000),
}


def _forged(make: Callable[..., str]) -> Callable[[MachineWorld], str]:
    return lambda world: make(world.github)


OF_OTHER_ISSUERS = "of another issuer", "of an issuer with a slash", "of no issuer"
"""These would be verified with the keys of the team's issuer."""
FORGED = {name: Case(_forged(make), why) for name, (make, why) in REFUSED.items() if name not in OF_OTHER_ISSUERS}


async def test_forged_and_mismatched_tokens_are_refused(tmp_path: Path) -> None:
    """Issue 34: at least 40. Each is told what is missing, and nothing is sent or audited, whomever a tenant serves."""
    assert len({**MISMATCHED, **FORGED}) >= 60
    at = datetime(2090, 1, 1, tzinfo=UTC)  # stopped, and not past for the SDK
    world = MachineWorld(tmp_path, tenants=OPEN_TO_ALL, system=System(now=lambda: at))
    wrong: dict[str, str] = {}
    async with world.world.served() as caller:
        for name, case in (MISMATCHED | FORGED).items():
            message = await refused(caller, case.token(world))
            if case.why not in message:
                wrong[name] = message
        assert (await caller.result(world.workload(), "create_customer", **CREATED))["done"]  # the good one is
        assert (await caller.result(world.client(), "create_customer", **CREATED))["done"]
    assert not wrong, wrong
    assert {entry["machine"] for entry in world.audit() if entry["event"] == "intent"} == {"nightly-report", "billing"}


async def test_refusal_does_not_say_what_would_be_accepted(tmp_path: Path) -> None:
    """Anybody can have a token of GitHub's for any audience, and must not learn of a private repository."""
    world = MachineWorld(tmp_path)
    async with world.world.served() as caller:
        message = await refused(caller, world.workload(repository="evil/x", ref="refs/heads/x", environment="x"))
    assert "acme" not in message
    assert "nightly" not in message


async def test_client_without_a_machine_is_not_a_person(tmp_path: Path) -> None:
    """A tenant for everybody serves no client that has a token for itself."""
    world = MachineWorld(tmp_path, machines="", tenants=OPEN_TO_ALL)
    async with world.world.served() as caller:
        assert "none has its issuer" in await refused(caller, world.client(scope=ALL))
        assert (await caller.result(world.person(sub="lee"), "list_customers"))["data"]


async def test_exact_subject_tells_what_the_claims_do_not(tmp_path: Path) -> None:
    """A service account whose token looks like a person's (Keycloak's lightweight tokens), without a person's
    claims."""
    machine = '[[machine]]\nname = "nightly"\nsubjects = "f3a1"\ntenant = "acme"\n'
    world = MachineWorld(tmp_path, machines=machine)
    claims: dict[str, Any] = {"sub": "f3a1", "azp": "ci", "scope": None}
    async with world.world.served() as caller:
        assert (await caller.result(world.world.provider.token(**claims), "list_customers"))["data"]
        for name, value in (("email", "a@b.example"), ("name", "A")):
            held: dict[str, Any] = {**claims, name: value}
            assert PERSON in await refused(caller, world.world.provider.token(**held))


SELF_CHOSEN = """subject_claim = "nickname"

[[machine]]
name = "nightly"
subjects = "f3a1"
tenant = "acme"

[[tenant]]
name = "acme"
subjects = ["anna", "f3a1"]
api_key_env = "ACME_KEY"
mode = "guarded"
approval_wait_seconds = 0
"""
"""A team whose people choose the claim that names them. Its tokens have no names."""


async def test_machine_is_recognised_by_the_subject_that_the_issuer_gave_it(tmp_path: Path) -> None:
    team = TeamWorld(tmp_path, HEAD + SELF_CHOSEN)
    as_machine = team.provider.token(sub="17", nickname="f3a1", scope=ALL)
    machines = [team.provider.token(sub="f3a1", nickname=each, scope=ALL) for each in ("anna", None)]
    async with team.served() as caller:
        assert (await caller.result(as_machine, "create_customer", **CREATED))["done"] == "create_customer"
        for machine in machines:
            refused = await caller.result(machine, "create_customer", **CREATED)
            assert (refused["outcome"], "no plan covers this call" in refused["message"]) == ("refused", True)
    principals = {(line.get("machine"), line["principal"]) for line in entries(tmp_path / "tenants/acme/audit.jsonl")}
    assert principals == {(None, f"{ISSUER}|f3a1"), ("nightly", f"{ISSUER}|f3a1")}


async def test_call_of_a_machine_is_not_that_of_a_person_with_its_subject(tmp_path: Path) -> None:
    """The same list under one subject would be resumed where the other stopped."""
    world = World(tmp_path)
    call = DeleteCustomer(customer_id="c1")
    person = Asker(f"{ISSUER}|f3a1")
    assert world.judge.call_id(call, person) != world.judge.call_id(call, replace(person, machine="nightly"))


async def test_token_without_a_subject_of_a_person_is_refused(tmp_path: Path) -> None:
    team = TeamWorld(tmp_path, HEAD + SELF_CHOSEN)
    async with team.served() as caller:
        answer = await caller.call(team.provider.token(sub="17", scope=ALL), "list_customers")
        assert answer.status_code == 401
        assert "The token was refused. It names no subject." in answer.json()["error"]["message"]


async def test_token_may_be_used_until_it_expires_and_counts_by_the_plan(tmp_path: Path) -> None:
    """A bearer token is no nonce: a stolen one makes no more calls than the plan has left."""
    world = MachineWorld(tmp_path)
    world.sign('[[allow]]\ntool = "create_customer"\narguments = "any"\ncount = 2\n')
    token = world.workload()
    async with world.world.served() as caller:
        calls = [await caller.result(token, "create_customer", name=f"Customer {number}") for number in range(3)]
    assert [call.get("done", call.get("outcome")) for call in calls] == [
        "create_customer",
        "create_customer",
        "refused",
    ]
    assert "have been made (count = 2)" in calls[2]["message"]


async def test_scopes_of_entry_and_token_both_limit(tmp_path: Path) -> None:
    entries = {"any": "", "reads": 'scopes = "fastn:read"\n', "both": 'scopes = ["fastn:read", "fastn:write"]\n'}
    machines = "".join(
        f'[[machine]]\nname = "{name}"\nclient_id = "{name}"\ntenant = "acme"\nplan = "nightly.toml"\n'
        f'plan_keys = "plan-keys.toml"\n{scopes}'
        for name, scopes in entries.items()
    )
    world = MachineWorld(tmp_path, machines=machines)
    limited = {
        ("reads", None): "fastn:write",
        ("any", "fastn:read"): "fastn:write",
        ("any", "fastn:write"): "fastn:read",
    }
    async with world.world.served() as caller:
        for (name, scope), needed in limited.items():
            assert needed in await refused(caller, world.client(name, scope=scope))
        for name, scope in (("any", None), ("both", "email")):
            assert (await caller.result(world.client(name, scope=scope), "create_customer", **CREATED))["done"]


def _edited(world: MachineWorld) -> None:
    plan = world.folder / "nightly.toml"
    plan.write_text(plan.read_text().replace("count = 2", "count = 200"))


def _unsigned(world: MachineWorld) -> None:
    (world.folder / "nightly.toml.sig").unlink()


def _missing(world: MachineWorld) -> None:
    (world.folder / "nightly.toml").unlink()


def _of_another_account(world: MachineWorld) -> None:
    plan = world.folder / "nightly.toml"
    plan.write_text(plan.read_text().replace('account = "acme', 'account = "globex'))


def _signer_is_struck_out(world: MachineWorld) -> None:
    (world.folder / "plan-keys.toml").write_text("")


def _for_another_key(world: MachineWorld) -> None:
    signature = world.folder / "nightly.toml.sig"
    signature.write_text(signature.read_text().replace('"digest": "', '"digest": "0'))


BROKEN_PLANS: dict[str, tuple[Callable[[MachineWorld], None], str]] = {
    "edited": (_edited, "the plan was edited"),
    "unsigned": (_unsigned, "There is no file of signatures nightly.toml.sig."),
    "missing": (_missing, "There is no plan nightly.toml."),
    "of another account": (_of_another_account, "is for globex at localhost, and this is acme at localhost"),
    "signer is struck out": (_signer_is_struck_out, "'dana' may not sign"),
    "expired": (lambda world: world.sign(until=datetime(2026, 11, 26, tzinfo=UTC)), "has expired: it was valid until"),
    "for another key": (_for_another_key, "the signature of 'dana' is invalid"),
}


@pytest.mark.parametrize("keys", ["the machine's", "the tenant's", "the configuration folder's"])
async def test_unusable_plan_refuses_the_machine_alone(
    keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, also for a machine that was served before. People are served, and the server starts."""
    named = 'plan_keys = "plan-keys.toml"\n'
    machines = MACHINES if keys == "the machine's" else MACHINES.replace(named, "")
    mode = 'mode = "guarded"\n'
    tenants = TENANTS.replace(mode, mode + named, 1) if keys == "the tenant's" else TENANTS
    if keys == "the tenant's":

        def elsewhere(_: object) -> Path:
            return tmp_path / "other"

        monkeypatch.setattr("fastn_mcp.build.composition.config_dir", elsewhere)
    world = MachineWorld(tmp_path, machines, tenants)
    async with world.world.served() as caller:
        for spoil, why in BROKEN_PLANS.values():
            assert (await caller.result(world.workload(), "list_customers"))["data"]
            spoil(world)
            message = await refused(caller, world.workload())
            assert "The plan of the machine nightly-report cannot be used, and nothing was sent." in message
            assert why in message
            assert str(tmp_path) not in message
            assert (await caller.result(world.person(), "list_customers"))["data"]
            world.world.opening.check()
            world.sign()
        assert (await caller.result(world.workload(), "create_customer", **CREATED))["done"]


async def test_plan_that_runs_out_while_the_machine_is_served_is_named(tmp_path: Path) -> None:
    clock = Clock()
    world = MachineWorld(tmp_path, system=System(now=clock.now))
    world.sign(begins=clock.at - timedelta(hours=1), until=clock.at + timedelta(hours=1))
    async with world.world.served() as caller:
        assert (await caller.result(world.workload(exp=LATER), "list_customers"))["data"]
        for hours, why in ((-2, 'The plan "night" begins at'), (4, 'The plan "night" expired at')):
            clock.pass_(hours * 3600)
            late = await caller.result(world.workload(exp=LATER), "create_customer", **CREATED)
            assert late["outcome"] == "refused"
            assert why in late["message"]


@pytest.mark.parametrize("tenant", ["", 'plan = "people.toml"\n'])
async def test_machine_without_a_plan_only_reads(tenant: str, tmp_path: Path) -> None:
    """Also where the tenant has a plan for its people."""
    machine = '[[machine]]\nname = "watcher"\nclient_id = "billing-agent"\ntenant = "globex"\n'
    tenants = TENANTS.replace('api_key_env = "GLOBEX_KEY"\n', f'api_key_env = "GLOBEX_KEY"\n{tenant}', 1)
    world = MachineWorld(tmp_path, machines=machine, tenants=tenants)
    async with world.world.served() as caller:
        assert (await caller.result(world.client(), "list_customers"))["data"]
        assert (await caller.result(world.client(), "create_customer", **CREATED))["outcome"] in REFUSALS


async def test_tenant_that_is_read_only_by_name_stays_so_for_machines(tmp_path: Path) -> None:
    world = MachineWorld(tmp_path, mode="read-only")
    async with world.world.served() as caller:
        late = await caller.result(world.workload(), "create_customer", **CREATED)
    assert late["outcome"] in REFUSALS


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [('[defaults]\nwrite = "allow"\n', "refused"), ('[[rule]]\ntool = "create_customer"\nthen = "allow"\n', "refused"),
     ('[[rule]]\nwho = { machine = "nightly-report" }\ntool = "create_customer"\nthen = "allow"\n', None)],
)  # fmt: skip
async def test_only_a_rule_that_names_machines_allows_what_no_plan_covers(
    rules: str, outcome: str | None, tmp_path: Path
) -> None:
    world = MachineWorld(tmp_path, rules=rules)
    async with world.world.served() as caller:
        beyond = await caller.result(world.workload(), "create_customer", name="Umbrella")
    assert beyond.get("outcome") == outcome


NAMED: dict[str, Any] = {"name": "Anna", "preferred_username": "anna", "email": "anna@acme.example", "groups": []}
"""Claims that leave nothing of a person unknown."""


RULES: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "create_customer": ({"name": "A"}, 'machine = "nightly-*"', {"nightly-report"}),
    "create_workflow": ({"name": "A"}, 'machine = "*"', {"nightly-report", "billing"}),
    "create_connector": ({"name": "A", "slug": "a"}, 'person = "nightly-report"', {"nightly-report"}),
    "create_secret": ({"name": "A"}, f'person = "{GITHUB}|*"', {"nightly-report"}),
    "create_api_key": ({"name": "A"}, 'client = "billing-agent"', {"billing"}),
    "invite_user": ({"email": "a@x.example", "role": "Viewer"}, 'group = "staff"', set()),
}
"""Tools with their arguments, whom a rule denies them, and who of the callers that is."""


async def test_rules_match_a_machine_as_a_caller(tmp_path: Path) -> None:
    """docs/policy.md: `machine`, besides `client` and `person`. Nothing of a machine counts as unknown."""
    rules = [f'[[rule]]\ntool = "{tool}"\nwho = {{ {who} }}\nthen = "deny"\n' for tool, (_, who, _) in RULES.items()]
    world = MachineWorld(tmp_path, mode="guarded", rules=ALLOWS + "".join(rules))
    tokens = {"nightly-report": world.workload(), "billing": world.client(), "": world.person(**NAMED)}
    async with world.world.served() as caller:
        for tool, (arguments, _, denied) in RULES.items():
            answers = {name: (await caller.call(token, tool, **arguments)).text for name, token in tokens.items()}
            assert {name for name, answer in answers.items() if "Refused by policy.toml" in answer} == denied


async def test_groups_of_another_issuer_are_not_those_of_people(tmp_path: Path) -> None:
    world = MachineWorld(tmp_path, rules='[[rule]]\nwho = { group = "admins" }\nthen = "deny"\n')
    async with world.world.served() as caller:
        workload = await caller.result(world.workload(groups=["admins"]), "create_customer", **CREATED)
        client = await caller.result(world.client(groups=["admins"]), "create_customer", **CREATED)
    assert workload["done"]
    assert client["outcome"] == "refused"


async def test_budget_counts_a_machine_by_its_name(tmp_path: Path) -> None:
    """The subject of a workload varies by branch and tag."""
    world = MachineWorld(tmp_path, rules="[budget]\nwrite = 1\n")
    world.sign('[[allow]]\ntool = "create_customer"\narguments = "any"\ncount = 9\n')
    async with world.world.served() as caller:
        first, second = [
            await caller.result(
                world.workload(sub=f"repo:acme/reports:ref:refs/tags/{tag}"), "create_customer", name=tag
            )
            for tag in ("v1", "v2")
        ]
        other = await caller.result(world.client(), "create_customer", name="v3")
    assert (first["done"], second["outcome"], other["done"]) == ("create_customer", "refused", "create_customer")
    principals = [entry["principal"] for entry in world.audit() if entry["event"] == "intent"]
    assert principals[0] == f"{GITHUB}|repo:acme/reports:ref:refs/tags/v1"  # the log keeps the subject


async def test_stop_names_a_machine(tmp_path: Path) -> None:
    world = MachineWorld(tmp_path)
    world.sign('[[allow]]\ntool = "create_customer"\narguments = "any"\ncount = 9\n')

    async def outcome(token: str) -> str | None:
        name = f"Customer {next(numbers)}"
        return (await caller.result(token, "create_customer", name=name)).get("outcome")

    numbers = itertools.count()

    async with world.world.served() as caller:
        assert (await outcome(world.workload()), await outcome(world.client())) == (None, None)
        stop = Stop("s1", world.system.timestamp(), "the terminal")
        await world.world.opening.ledger.add_stop(replace(stop, person="nightly-report"))
        assert (await outcome(world.workload()), await outcome(world.client())) == ("stopped", None)
        await world.world.opening.ledger.add_stop(replace(stop, id="s2", tenant="acme"))
        assert (await outcome(world.workload()), await outcome(world.client())) == ("stopped", "stopped")


def _machine(lines: str, name: str = "nightly", tenant: str = "acme") -> str:
    return f'[[machine]]\nname = "{name}"\ntenant = "{tenant}"\n{lines}\n'


OF_GITHUB = f'issuer = "{GITHUB}"\n'
WRONG_FILES: dict[str, tuple[str, str]] = {
    "no such tenant": (
        _machine('client_id = "a"', tenant="acmee"),
        "there is no tenant 'acmee' with a key (did you mean",
    ),
    "a tenant whose callers bring keys": (_machine('client_id = "a"', tenant="own"), "no tenant 'own' with a key"),
    "a client of nobody": (_machine('claims = { sub = "a*" }'), "needs client_id or subjects: which client it is"),
    "all of GitHub": (
        _machine(OF_GITHUB + 'claims = { ref = "refs/heads/main" }'),
        "needs subjects, or an exact repository",
    ),
    "a pattern of repositories": (
        _machine(OF_GITHUB + 'claims = { repository = "acme/*" }'),
        "needs subjects, or an exact",
    ),
    "one exact of two": (
        _machine(OF_GITHUB + 'claims = { repository = ["acme/a", "*"] }'),
        "needs subjects, or an exact",
    ),
    "a pattern of subjects": (_machine(OF_GITHUB + 'subjects = "repo:*"'), "subjects: they are exact"),
    "an unknown scope": (_machine('client_id = "a"\nscopes = "fastn:reed"'), "unknown scope 'fastn:reed'"),
    "scopes without reading": (_machine('client_id = "a"\nscopes = "fastn:write"'), "must include fastn:read"),
    "a name of two lines": (_machine('client_id = "a"', name="a\\nb"), "name: 'a\\nb' must be at most 64 letters"),
    "two of one name": (
        _machine('client_id = "a"') + _machine('client_id = "b"'),
        "there are two machines named nightly",
    ),
    "plain http": (_machine('issuer = "http://ci.example"\nsubjects = "a"'), "issuer: must be https"),
    "an issuer for trying": (_machine('issuer = "http://127.0.0.1:9"\nsubjects = "a"'), "is on this machine"),
    "a machine of a tenant": ("machine = true\n", "there is no key 'machine' in [[tenant]]"),
    "a misspelt key": (_machine('client = "a"'), "there is no key 'client' in [[machine]]"),
}


@pytest.mark.parametrize("what", WRONG_FILES)
def test_wrong_machine_stops_the_start(what: str, tmp_path: Path) -> None:

    text, why = WRONG_FILES[what]
    with pytest.raises(SettingsError) as raised:
        MachineWorld(tmp_path, machines=text)
    assert why in str(raised.value)


async def test_keys_of_a_workload_issuer_are_not_those_of_the_team(tmp_path: Path) -> None:
    """One issuer that cannot be reached does not keep the other's callers out."""
    world = MachineWorld(tmp_path)
    world.github.down = True
    async with world.world.served() as caller:
        assert (await caller.call(world.workload(), "list_customers")).status_code == 503
        assert (await caller.result(world.client(), "list_customers"))["data"]
