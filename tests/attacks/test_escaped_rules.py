"""Calls that a policy or an approval would not cover, disguised as calls that it does."""

from pathlib import Path
from typing import Any

import pytest
from support.policy_files import rules_of
from support.world import World

from fastn_mcp.config.model import Mode
from fastn_mcp.errors import Refused
from fastn_mcp.guard.approval.use import ApprovalUse
from fastn_mcp.guard.approval_form import Approve
from fastn_mcp.guard.batch import Done
from fastn_mcp.guard.caller import Caller
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.tools.access import CreateApiKey, CreateRole, CreateSecret, InviteUser, ListRoles
from fastn_mcp.tools.operation import RefusedValue
from fastn_mcp.tools.triggers import CreateTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import UpdateWorkflow

pytestmark = pytest.mark.anyio


def under(folder: Path, text: str, mode: Mode = "guarded") -> World:
    return World(folder, Policy(mode, rules_of(folder, text)))


# --- a role that has the id or the name of another
# ---------------------------------------------------------------------


async def test_role_named_by_the_id_of_a_protected_one_is_unknown(tmp_path: Path) -> None:
    world = under(tmp_path, '[[protect]]\nrole = "Owner"\n')
    owner = str(next(role.id for role in await world.rows(ListRoles()) if role.name == "Owner"))
    invitation = InviteUser(email="eve@example.com", role=owner)
    narrowing = CreateRole(name="Helper", parent=owner, permissions=["workflows:read"])
    assert [await world.decision(call) for call in (invitation, narrowing)] == [Decision.DENY] * 2
    await world.expect(Done, CreateRole(name=owner, parent="Viewer", permissions=["workflows:read"]), world.form())
    assert [await world.decision(call) for call in (invitation, narrowing)] == [Decision.DENY] * 2


async def test_role_whose_name_reads_like_another_is_unknown(tmp_path: Path) -> None:
    world = under(tmp_path, '[[protect]]\nrole = "Owner"\n')
    likeness = CreateRole(name="\uff36iewer", parent="Admin", permissions=["workflows:read"])
    await world.expect(Done, likeness, world.form())
    assert await world.decision(InviteUser(email="eve@example.com", role="Viewer")) is Decision.DENY


async def test_role_that_is_given_by_its_id_is_shown_by_its_name(tmp_path: Path) -> None:
    world = World(tmp_path)
    owner = str(next(role.id for role in await world.rows(ListRoles()) if role.name == "Owner"))
    invitation = InviteUser(email="eve@example.com", role=owner)
    _, shown = await world.judged(invitation)
    assert shown.lines()[0] == 'Invite "eve@example.com" as "Owner".'
    _, shown = await world.judged(CreateRole(name="Helper", parent=owner, permissions=["workflows:read"]))
    assert shown.says.facts == (("Narrows", '"Owner"'),)
    await world.expect(Done, CreateRole(name=owner, parent="Viewer", permissions=["workflows:read"]), world.form())
    for call in (invitation, CreateRole(name="Helper", parent=owner, permissions=["workflows:read"])):
        _, shown = await world.judged(call)
        assert f'Not checked: which role "{owner}" is.' in "\n".join(shown.lines())


async def test_role_that_nobody_imitates_is_recognized(tmp_path: Path) -> None:
    world = under(tmp_path, '[[protect]]\nrole = "Owner"\n')
    assert await world.decision(InviteUser(email="eve@example.com", role="Viewer")) is Decision.CONFIRM


# --- an effect that the agent raises to another budget
# ------------------------------------------------------------------


def renamed(world: World, text: str) -> UpdateWorkflow:
    """A write whose effect is raised, since the workflow is live."""
    return UpdateWorkflow(workflow_id=world.id_of("workflows", "process-new-orders"), description=text)


@pytest.mark.parametrize("mode", ["auto", "guarded"])
async def test_raised_effect_counts_in_the_budget_of_the_lower_one(tmp_path: Path, mode: Mode) -> None:
    world = under(tmp_path, "[budget]\nwrite = 2\n", mode)
    for text in ("one", "two"):
        await world.expect(Done, renamed(world, text), world.form())
    refused = await world.expect(Refused, renamed(world, "three"), world.form())
    assert "The budget is used up: 0 of 2 write calls left" in refused.what
    assert len(world.changes) == 2


@pytest.mark.parametrize(
    "asker", [Asker(), Asker("https://ci.example|main", machine="nightly")], ids=["person", "machine"]
)
async def test_list_of_raised_effects_is_refused_before_its_first_call(tmp_path: Path, asker: Asker) -> None:
    world = under(
        tmp_path, '[budget]\nwrite = 1\n[[rule]]\ntool = "*"\nwho = { machine = "nightly" }\nthen = "allow"\n', "auto"
    )
    changes: list[dict[str, Any]] = [
        {"tool": "update_workflow", "arguments": {"workflow_id": row["id"], "description": "new"}}
        for row in world.sandbox.state.all("workflows")[:2]
    ]
    with pytest.raises(
        Refused, match=r"Call 2, update_workflow: .*The list needs more than the 1 of 1 write calls left"
    ):
        await world.dispatch(ApplyChanges(changes=changes), Caller(asker, None))
    assert world.changes == []


# --- an environment beside the one that is compared
# ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        {"env": "live"},
        {"ENV": "live"},
        {"scope": {"environment": "live"}},
        {"environments": ["live"]},
        {"env": {"name": "live"}},
    ],
)
@pytest.mark.parametrize("environment", ["test", None])
async def test_rule_applies_to_an_environment_in_undocumented_fields(
    tmp_path: Path, environment: str | None, extra: Any
) -> None:
    rule = '[[rule]]\ntool = "create_secret"\nwhen = { environment = "live" }\nthen = "deny"\n'
    secret = CreateSecret(name="A_B", value="hunter2", environment=environment, extra=extra)
    assert await under(tmp_path, rule).decision(secret) is Decision.DENY


@pytest.mark.parametrize("extra", [None, {"env": "test"}, {"env": "live"}, {"env": {"name": "live"}}])
async def test_rule_allows_no_other_environment_in_undocumented_fields(tmp_path: Path, extra: Any) -> None:
    rule = '[[rule]]\ntool = "create_secret"\nwhen = { environment = "test" }\nthen = "allow"\n'
    secret = CreateSecret(name="A_B", value="hunter2", environment="test", extra=extra)
    allowed = extra in (None, {"env": "test"})
    assert await under(tmp_path, rule).decision(secret) is (Decision.ALLOW if allowed else Decision.CONFIRM)


@pytest.mark.parametrize("name", ["customerId", "endOrg", "customerIds"])
async def test_rule_allows_no_other_customer_in_undocumented_fields(tmp_path: Path, name: str) -> None:
    rule = '[[rule]]\ntool = "create_trigger"\nwhen = { customer_id = "org_a" }\nthen = "allow"\n'
    world = under(tmp_path, rule)

    async def decision(customer: str, of_route: str) -> Decision:
        route: Any = {"workflowId": world.id_of("workflows", "process-new-orders"), "endOrgId": of_route}
        extra: Any = {name: [customer] if name.endswith("s") else {"id": customer} if name == "endOrg" else customer}
        trigger = CreateTrigger(name="x", type="Webhook", routes=[route], customer_id="org_a", extra=extra)
        return await world.decision(trigger)

    assert await decision("org_a", "org_a") is Decision.ALLOW
    assert await decision("org_b", "org_a") is Decision.CONFIRM
    assert await decision("org_a", "org_b") is Decision.CONFIRM


# --- a temporary approval of what has changed meanwhile
# ------------------------------------------------------------------


@pytest.mark.parametrize(
    "meanwhile",
    [{"schedule": "* * * * *"}, {"timezone": "Asia/Tokyo"}, {"routes": [{"payload": {"amount": 10_000}}]}, {}],
)
async def test_temporary_approval_switches_on_only_the_trigger_that_was_shown(
    tmp_path: Path, meanwhile: dict[str, Any]
) -> None:
    """While a trigger is off, it can be changed without an approval."""
    world = World(tmp_path)
    row = next(row for row in world.sandbox.state.all("triggers") if row["name"] == "Nightly contact sync")
    switching_on = UpdateTrigger(trigger_id=row["id"], status="Active")
    await world.expect(Done, switching_on, world.form(Approve(is_temporary=True)))
    await world.expect(Done, UpdateTrigger(trigger_id=row["id"], status="Disabled"))
    if meanwhile:
        routes = [row["routes"][0] | each for each in meanwhile.get("routes", [])]
        change = {"trigger_id": row["id"]} | meanwhile | ({"routes": routes} if routes else {})
        await world.expect(Done, UpdateTrigger.model_validate(change))
    person = world.form()
    await world.expect(Done, switching_on, person)
    assert len(person.asked) == bool(meanwhile)


async def test_temporary_approval_that_is_revoked_before_its_use_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    await world.expect(Done, world.run(), world.form(Approve(is_temporary=True)))
    check = ApprovalUse.check

    async def revoke_first(uses: ApprovalUse, approval: Any, evaluation: Any) -> None:
        (temporary,) = await world.temporary_approvals()
        await world.ledger.revoke_temporary(temporary.id)
        await check(uses, approval, evaluation)

    monkeypatch.setattr(ApprovalUse, "check", revoke_first)
    await world.expect(Refused, world.run())
    assert len(world.changes) == 1


# --- undocumented fields that read like documented ones
# ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Permissions", "PERMISSIONS", "per-missions", "Mode", "rate_limit_per_minute"])
@pytest.mark.parametrize("value", ["Full access", None])
def test_undocumented_field_that_reads_like_an_argument_is_refused(name: str, value: str | None) -> None:
    """A server may ignore the case of a field's name, and a rule compares the argument."""
    call = CreateApiKey(name="BI", permissions="Viewer", extra={name: value})
    with pytest.raises(RefusedValue, match=f"{name} has an argument of its own"):
        call.request()
