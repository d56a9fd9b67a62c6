"""A sign-in bounds what its caller may do, call by call, whatever the policy allows."""

import pytest
from support.audit_entries import entries
from support.world import World

from fastn_mcp.guard.caller import ADMIN, DESTROY, READ, WRITE, Caller, InsufficientScope
from fastn_mcp.policy.asker import Asker
from fastn_mcp.tools.customers import CreateCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.tool import Effect

NEEDED = {
    Effect.READ: READ,
    Effect.WRITE: WRITE,
    Effect.EXTERNAL: WRITE,
    Effect.SPEND: WRITE,
    Effect.ACCESS: ADMIN,
    Effect.TRASH: DESTROY,
    Effect.DESTROY: DESTROY,
}


@pytest.mark.parametrize("effect", Effect)
def test_every_effect_needs_one_scope_and_no_other_will_do(effect: Effect) -> None:
    others = frozenset({READ, WRITE, DESTROY, ADMIN}) - {NEEDED[effect]}
    with pytest.raises(InsufficientScope) as caught:
        Caller(Asker(), None, others).check("a_tool", effect)
    assert caught.value.scope == NEEDED[effect]
    Caller(Asker(), None, frozenset({NEEDED[effect]})).check("a_tool", effect)


async def test_allowed_call_is_not_sent_without_its_scope(world: World) -> None:
    caller = Caller(Asker("iss|anna"), None, frozenset({READ}))
    with pytest.raises(InsufficientScope) as refused:
        await world.dispatch(CreateCustomer(name="Initech"), caller)
    assert refused.value.data()["scope"] == refused.value.scope == WRITE
    assert str(refused.value) == (
        "create_customer needs the scope fastn:write, which this sign-in does not hold. Nothing was sent. "
        "Sign in again with this scope. If it is not offered, ask the operator for it."
    )
    assert world.changes == []
    (line,) = entries(world.audit_path)
    assert (line["event"], line["principal"]) == ("refused", "iss|anna")
    await world.dispatch(CreateCustomer(name="Initech"), Caller(Asker("iss|anna"), None, frozenset({WRITE})))
    assert [heard.method for heard in world.changes] == ["POST"]


async def test_call_without_the_scope_of_its_effect_requests_no_approval(world: World) -> None:
    """Reads need their scope as well."""
    writer = Caller(Asker("iss|anna"), form := world.form(), frozenset({WRITE}))
    deletion = world.deletion()
    raised = UpdateCustomer(customer_id=deletion.customer_id, extra={"admins": ["eve@evil.example"]})
    for call, scope in ((deletion, DESTROY), (raised, ADMIN), (ListCustomers(), READ)):
        with pytest.raises(InsufficientScope, match=f"{call.tool_name()} needs the scope {scope}"):
            await world.dispatch(call, writer)
    assert (form.asked, world.changes) == ([], [])


async def test_call_that_also_changes_access_needs_both_scopes(world: World) -> None:
    """An administrator beside the new name does not excuse the name."""
    customer = world.id_of("customers", "Acme Corp")
    call = UpdateCustomer(customer_id=customer, name="Initech", admin_email="kim@example.com")
    for held, missing in ((ADMIN, WRITE), (WRITE, ADMIN)):
        caller = Caller(Asker("iss|anna"), form := world.form(), frozenset({READ, held}))
        with pytest.raises(InsufficientScope, match=f"needs the scope {missing}"):
            await world.dispatch(call, caller)
        assert (form.asked, world.changes) == ([], [])
    await world.dispatch(call, Caller(Asker("iss|anna"), world.form(), frozenset({READ, WRITE, ADMIN})))
    assert [heard.method for heard in world.changes] == ["PUT"]
