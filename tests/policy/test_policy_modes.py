"""What the modes alone say, and what nothing loosens."""

from datetime import UTC, datetime
from typing import Any

import pytest
from support.policy_files import ALLOWING
from support.situations import situation as make_situation

from fastn_mcp.config.model import Mode
from fastn_mcp.policy.decision import MODES, Decision, PolicyDecision, least
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.rules import NO_RULES, FileRules
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.connectors import DeleteConnector
from fastn_mcp.tools.customers import CreateCustomer, ListCustomers
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.workflows import DeleteWorkflow, RunWorkflow

NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)

CALLS: dict[Effect, Operation[Any]] = {
    Effect.READ: ListCustomers(),
    Effect.WRITE: CreateCustomer(name="Acme"),
    Effect.EXTERNAL: RunWorkflow(workflow_id="wf"),
    Effect.SPEND: AiChat(message="hello"),
    Effect.ACCESS: CreateSecret(name="TOKEN", value="v"),
    Effect.TRASH: DeleteWorkflow(workflow_id="wf"),
    Effect.DESTROY: DeleteConnector(connector_id="hubspot"),
}

DECISIONS = {
    "read": "allow",
    "write": "allow",
    "external": "confirm",
    "spend": "confirm",
    "access": "confirm",
    "trash": "confirm",
    "destroy": "typed",
}
"""Decision of the mode guarded for each effect. Spending is confirmed where nobody has set a budget."""

UNSET: dict[str, Any] = {"status": None, "extra": None}
"""Arguments that decide an effect, for calls that are made without validation."""


@pytest.mark.parametrize("effect", Effect)
def test_decision_of_each_effect(effect: Effect) -> None:
    decision = Policy().decide(make_situation(CALLS[effect], effect, NOW)).decision
    assert decision.value == DECISIONS[effect.value]


@pytest.mark.parametrize("mode", MODES)
def test_live_key_never_requires_less_than_a_test_key(mode: Mode) -> None:
    for effect in Effect:
        live, test = (least(mode, effect, live=live) for live in (True, False))
        assert test is MODES[mode][effect]
        assert live is (Decision.TYPED if effect is Effect.TRASH and test is Decision.CONFIRM else test)


@pytest.mark.parametrize("rules", [NO_RULES, ALLOWING])
@pytest.mark.parametrize("given", [{"session_id": "s"}, {"approval_mode": "auto"}])
@pytest.mark.parametrize("effect", [Effect.SPEND, Effect.WRITE])
def test_ai_answers_need_an_approval_under_every_policy(
    rules: FileRules, given: dict[str, str], effect: Effect
) -> None:
    call = AiChat.model_validate({"message": "yes", **given})
    verdict = Policy(rules=rules).decide(make_situation(call, effect, NOW))
    assert call.needs_person
    assert verdict.decision is Decision.CONFIRM
    allowing = FileRules(defaults={("", each): PolicyDecision(Decision.ALLOW, "default") for each in Effect})
    verdict = Policy(rules=allowing).decide(make_situation(call, effect, NOW))
    assert verdict == PolicyDecision(Decision.CONFIRM, "a person in every mode", call.needs_person)
    assert Policy(rules=rules).needs_facts(call)


def test_digest_differs_by_mode_and_by_kind_of_key() -> None:
    assert len({Policy(mode, live=live).digest for mode in MODES for live in (True, False)}) == 2 * len(MODES)


def test_facts_are_read_only_if_they_can_decide() -> None:
    for operation in CATALOG:
        if operation.effect is Effect.READ:
            continue
        live = operation.tool_name() in {
            "create_customer", "update_customer", "create_connector", "update_connector",
            "create_workflow", "update_workflow", "update_trigger",
        }  # fmt: skip
        call = operation.model_construct(None, **(UNSET | dict.fromkeys(operation.route.parameters, "x")))
        wanted = live or MODES["guarded"][call.effective] is not Decision.ALLOW
        assert Policy("guarded").needs_facts(call) is wanted, operation.tool_name()
        assert not Policy("read-only").needs_facts(call)


def test_live_key_requires_the_typed_name_to_delete_a_workflow() -> None:
    for mode in MODES:
        verdict = Policy(mode, live=True).decide(make_situation(CALLS[Effect.TRASH], Effect.TRASH, NOW))
        if mode == "guarded":
            assert (verdict.decision, verdict.rule) == (Decision.TYPED, f"mode {mode}: trash, live key")
        else:
            assert verdict.decision is Decision.DENY
