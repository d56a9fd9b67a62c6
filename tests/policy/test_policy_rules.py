"""What a policy file makes of calls: rules, protected resources, windows, budgets."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.policy_files import ALLOWS, rules_of
from support.situations import resolved
from support.situations import situation as make_situation

from fastn_mcp.config.model import Mode
from fastn_mcp.policy.conditions import Glob, UserCount
from fastn_mcp.policy.decision import MODES, Decision, PolicyDecision, Situation
from fastn_mcp.policy.matching import PolicyRule, Protected
from fastn_mcp.policy.permit import Permit
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.rules import FileRules, TimeWindow, hours
from fastn_mcp.policy.schema import CHANGING_TOOLS, possible_effects
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.access import CreateApiKey, CreateSecret, DeleteSecret, RevokeApiKey
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.catalog import AnyOperation
from fastn_mcp.tools.connectors import CreateConnection, DeleteConnection, DeleteConnector
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger
from fastn_mcp.tools.workflows import CreateWorkflow, DeleteWorkflow, RunWorkflow

NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)  # a Wednesday
TODAY = "2026-11-25"
Call = Operation[Any]
Judge = Callable[..., PolicyDecision]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """The verdict of a file on a call, whose target is known by its id unless it is given."""

    def judge(text: str, call: Call, mode: Mode = "guarded", **facts: Any) -> PolicyDecision:
        if "target" not in facts and call.target is not None:
            facts["target"] = record(id=call.target)
        effect = facts.pop("effect", call.effective)
        return Policy(mode, rules_of(tmp_path, text)).decide(
            make_situation(call, effect, facts.pop("now", NOW), **facts)
        )

    return judge


def record(**fields: object) -> FastnObject:
    return FastnObject.model_validate(fields)


@pytest.mark.parametrize("decision", Decision)
def test_default_of_the_file_replaces_that_of_the_mode(judge: Judge, decision: Decision) -> None:
    verdict = judge(f'[defaults]\ndestroy = "{decision.value}"', DeleteCustomer(customer_id="c"), dependents=0)
    assert verdict.decision is decision
    assert verdict.rule == "policy.toml line 2: default destroy"


def test_only_an_allow_rule_loosens(judge: Judge) -> None:
    text = '[[rule]]\ntool = "delete_*"\nthen = "confirm"'
    assert judge(text, DeleteTrigger(trigger_id="t")).decision is Decision.TYPED
    text = '[[rule]]\ntool = "delete_*"\nthen = "allow"'
    verdict = judge(text, DeleteTrigger(trigger_id="t"))
    assert (verdict.decision, verdict.rule) == (Decision.ALLOW, "policy.toml line 1: rule delete_*")


def test_allow_rule_lifts_a_default_of_the_file(judge: Judge) -> None:
    text = '[defaults]\ndestroy = "deny"\n[[rule]]\ntool = "delete_trigger"\nthen = "allow"'
    assert judge(text, DeleteTrigger(trigger_id="t")).decision is Decision.ALLOW
    assert judge(text, DeleteSecret(secret_id="s")).decision is Decision.DENY


def test_stricter_rule_wins_over_an_allow_rule(judge: Judge) -> None:
    text = '[[rule]]\ntool = "delete_t*"\nthen = "allow"\n[[rule]]\ntool = ["delete_*"]\nwhen = {dependents={min=0}}\n'
    assert judge(text + 'then = "confirm"', DeleteTrigger(trigger_id="t")).decision is Decision.TYPED


def test_rule_compares_the_real_effect(judge: Judge) -> None:
    text = '[[rule]]\neffects = ["EXTERNAL"]\nthen = "deny"'
    call = CreateTrigger(name="n", type="webhook", routes=[], status="Disabled")
    assert judge(text, call).decision is Decision.ALLOW
    assert judge(text, call, effect=Effect.EXTERNAL).decision is Decision.DENY


@pytest.mark.parametrize(
    ("target", "matches"),
    [
        (record(id="wf_1", name="Nightly Sync"), True),
        (record(id="wf_1", slug="NIGHTLY-sync"), True),
        (record(id="nightly9"), True),
        (record(id="wf_1", name="Daily"), False),
        (None, True),
    ],
)
def test_deny_rule_matches_id_slug_and_name_in_any_case(
    judge: Judge, target: FastnObject | None, matches: bool
) -> None:
    verdict = judge('[[rule]]\ntarget = "nightly*"\nthen = "deny"', DeleteWorkflow(workflow_id="wf_1"), target=target)
    assert (verdict.decision is Decision.DENY) is matches


@pytest.mark.parametrize(
    ("target", "matches"),
    [
        (record(id="test_1"), True),
        (record(id="TEST_1"), False),
        (record(id="wf_1", name="test_1"), False),
        (record(id="wf_1", slug="test_1"), False),
        (record(name="test_1"), False),
        (None, False),
    ],
)
def test_allow_rule_matches_only_the_id_that_was_read(judge: Judge, target: FastnObject | None, matches: bool) -> None:
    """An agent could rename a target to give itself the approval."""
    for call in (DeleteWorkflow(workflow_id="wf_1"), DeleteWorkflow(workflow_id="test_1")):
        verdict = judge('[[rule]]\ntarget = "test_*"\nthen = "allow"', call, target=target)
        assert (verdict.decision is Decision.ALLOW) is matches


@pytest.mark.parametrize(
    ("pattern", "value", "exact", "as_it_reads"),
    [
        ("acme-*", "acme-1", True, True),
        ("acme-*", "ACME-1", False, True),
        ("ACME-*", "acme-1", False, True),
        ("acme-*", "\uff41\uff43me-1", False, True),
        ("acme-*", "ac\u200bme-1", False, True),
        ("acme-?", " acme-1\n", False, True),
        ("acme-?1", "acme-\u200b1", True, True),
        ("acme-*", "globex-1", False, False),
        ("Acme [EU]", "ACME [EU]", False, True),
        ("Acme [EU]", "acme e", False, True),
        ("12", 12, True, True),
        ("*", True, False, False),
        ("*", 1.5, False, False),
        ("*", None, False, False),
        ("*", ["acme-1"], False, False),
    ],
)
def test_pattern_is_compared_exactly_or_by_appearance(
    pattern: str, value: object, exact: bool, as_it_reads: bool
) -> None:
    """Allow rules compare exactly, all others by appearance."""
    assert (Glob(pattern)(value, exact=True), Glob(pattern)(value, exact=False)) == (exact, as_it_reads)


@pytest.mark.parametrize("given", [{"name": "Nightly"}, {"name": "n", "extra": {"slug": "nightly"}}])
def test_deny_rule_matches_the_name_of_a_new_resource(judge: Judge, given: dict[str, Any]) -> None:
    call = CreateWorkflow.model_validate(given)
    assert judge('[[rule]]\ntarget = "nightly"\nthen = "deny"', call).decision is Decision.DENY


def test_allow_rule_does_not_match_the_name_of_a_new_resource(judge: Judge) -> None:
    text = '[[rule]]\ntarget = "test_*"\nthen = "allow"'
    assert judge(text, CreateSecret(name="test_1", value="v")).decision is Decision.CONFIRM


@pytest.mark.parametrize(
    ("bounds", "then", "dependents", "matches"),
    [
        ("min = 2", "deny", 1, False),
        ("min = 2", "deny", 2, True),
        ("min = 2", "deny", None, True),
        ("max = 2", "allow", 2, True),
        ("max = 2", "allow", 3, False),
        ("max = 2", "allow", None, False),
        ("min = 0", "allow", None, False),
        ("min = 1, max = 2", "deny", 3, False),
        ("min = 1, max = 2", "deny", None, True),
        ("max = 2", "deny", None, True),
    ],
)
def test_unknown_dependents_never_loosen(
    judge: Judge, bounds: str, then: str, dependents: int | None, matches: bool
) -> None:
    text = f'[[rule]]\ntool = "delete_connector"\nwhen = {{ dependents = {{ {bounds} }} }}\nthen = "{then}"'
    verdict = judge(text, DeleteConnector(connector_id="c"), dependents=dependents)
    assert (verdict.decision.value == then) is matches


@pytest.mark.parametrize(
    ("when", "call", "matches"),
    [
        ('environment = "live"', RunWorkflow(workflow_id="w", environment="LIVE"), True),
        ('environment = "live"', RunWorkflow(workflow_id="w", environment="test"), False),
        ('environment = "live"', RunWorkflow(workflow_id="w"), True),  # Fastn chooses it
        ('environment = ["live", ""]', RunWorkflow(workflow_id="w"), True),
        ('environment = "*"', RunWorkflow(workflow_id="w"), True),
        ('environment = ["prod-*", "live"]', RunWorkflow(workflow_id="w", environment="prod-eu"), True),
        ('environment = "live", customer_id = "a"', RunWorkflow(workflow_id="w", environment="live"), False),
        ("timeout_ms = 5", CreateWorkflow(name="n", timeout_ms=5), True),
        ("timeout_ms = [4, 5]", CreateWorkflow(name="n", timeout_ms=6), False),
        ('customers = "acme"', CreateApiKey(name="n", customers=["globex", "acme"]), True),
        ('customers = "acme"', CreateApiKey(name="n", customers=["globex"]), False),
    ],
)
def test_rule_compares_arguments(judge: Judge, when: str, call: Call, matches: bool) -> None:
    """A missing argument is an empty text, and nothing else."""
    verdict = judge(f'[[rule]]\nwhen = {{ {when} }}\nthen = "deny"', call)
    assert (verdict.decision is Decision.DENY) is matches


@pytest.mark.parametrize("customer", ["acme", ""])
@pytest.mark.parametrize("then", ["allow", "deny"])
@pytest.mark.parametrize("given", [{"customer_ref": "crm-1"}, {"installation_id": "inst_1"}])
def test_customer_named_by_reference_never_loosens(
    judge: Judge, customer: str, then: str, given: dict[str, str]
) -> None:
    """Which customer a reference or an installation means is unknown."""
    text = f'[[rule]]\ntool = "run_workflow"\nwhen = {{ customer_id = "{customer}" }}\nthen = "{then}"'
    verdict = judge(text, RunWorkflow.model_validate({"workflow_id": "w", **given}))
    assert verdict.decision is (Decision.CONFIRM if then == "allow" else Decision.DENY)


@pytest.mark.parametrize(
    ("customers", "allowed"), [(["acme"], True), (["acme", "globex"], False), (["ACME"], False), ([], False)]
)
def test_allow_rule_needs_every_item_of_a_list(judge: Judge, customers: list[str], allowed: bool) -> None:
    text = '[[rule]]\nwhen = { customers = "acme" }\nthen = "allow"'
    verdict = judge(text, CreateApiKey(name="n", customers=customers))
    assert (verdict.decision is Decision.ALLOW) is allowed


@pytest.mark.parametrize(("environment", "allowed"), [("test", True), ("TEST", False)])
def test_allow_rule_compares_arguments_exactly(judge: Judge, environment: str, allowed: bool) -> None:
    text = '[[rule]]\nwhen = { environment = "test" }\nthen = "allow"'
    verdict = judge(text, RunWorkflow(workflow_id="w", environment=environment))
    assert (verdict.decision is Decision.ALLOW) is allowed


ACME = '[[protect]]\ncustomer = "acme-*"\nreason = "our largest customer"\n'


@pytest.mark.parametrize(
    ("protected", "call", "target", "holds"),
    [
        ('customer = "acme-*"', DeleteCustomer(customer_id="acme-1"), record(id="acme-1"), True),
        ('customer = "acme-*"', DeleteCustomer(customer_id="c1"), record(id="c1", slug="ACME-corp"), True),
        ('customer = "acme-*"', UpdateCustomer(customer_id="c1", plan="Free"), record(id="c1", name="Acme-X"), True),
        ('customer = "acme-*"', DeleteCustomer(customer_id="c1"), record(id="c1", name="Globex"), False),
        ('customer = "7"', DeleteCustomer(customer_id="x"), record(id=7), True),
        # What belongs to it, where the record or an argument says so by id.
        ('customer = "acme-*"', DeleteConnection(connection_id="x"), record(id="x", endOrgId="acme-1"), True),
        ('customer = "acme-*"', DeleteConnection(connection_id="x"), record(id="x", endOrgId="globex"), False),
        ('customer = "acme-*"', DeleteConnection(connection_id="x"), record(id="x", endOrgId=None), False),
        ('customer = "acme-*"', DeleteConnection(connection_id="x"), record(id="x", name="acme-1"), False),
        ('customer = "acme-*"', DeleteSecret(secret_id="x"), record(id="x", customerId="acme-1"), True),
        ('customer = "acme-*"', DeleteSecret(secret_id="x"), record(id="x", customer={"id": "acme-1"}), True),
        ('customer = "acme-*"', DeleteTrigger(trigger_id="x"), record(id="x", endOrgId="acme-1"), True),
        ('customer = "acme-*"', CreateConnection(connector_id="h", customer_id="acme-1"), None, True),
        ('customer = "acme-*"', RunWorkflow(workflow_id="w", customer_id="acme-1"), record(id="w"), True),
        # Whose installation, or which customer's reference, no rule can know.
        ('customer = "acme-*"', RunWorkflow(workflow_id="w", customer_ref="crm-1"), record(id="w"), True),
        ('customer = "acme-*"', RunWorkflow(workflow_id="w", installation_id="inst_1"), record(id="w"), True),
        ('connector = "hub"', RunWorkflow(workflow_id="w", installation_id="inst_1"), record(id="w"), False),
        (
            'customer = "acme-*"',
            RunWorkflow(workflow_id="w", customer_id="globex", installation_id="inst_1"),
            record(id="w"),
            False,
        ),
        ('customer = "acme-*"', CreateApiKey(name="k", customers=["globex", "acme-1"]), None, True),
        ('customer = "acme-*"', AiChat(message="m", context={"customerId": "acme-1"}), None, True),
        ('customer = "acme-*"', CreateConnection(connector_id="h", extra={"endOrgId": "acme-1"}), None, True),
        ('customer = "acme-*"', CreateConnection(connector_id="h", extra={"end-org-id": "acme-1"}), None, True),
        ('customer = "acme-*"', CreateConnection(connector_id="h", extra={"END_ORG": {"slug": "acme-1"}}), None, True),
        ('connector = "hubspot"', DeleteConnector(connector_id="hubspot"), record(id="hubspot"), True),
        ('connector = "hub"', DeleteConnection(connection_id="x"), record(id="x", connectorId="hub"), True),
        ('connection = "con"', CreateTrigger(name="n", type="t", routes=[], connection_id="con"), None, True),
        ('workflow = "w1"', CreateTrigger(name="n", type="t", routes=[{"routeId": "w1"}]), None, True),
        ('workflow = "w1"', DeleteTrigger(trigger_id="t"), record(id="t", routes=[{"routeId": "w1"}]), True),
        ('workflow = "w1"', DeleteWorkflow(workflow_id="w2"), record(id="w2"), False),
        # What may be overwritten under the same name.
        ('secret = "STRIPE_*"', CreateSecret(name="STRIPE_KEY", value="v"), None, True),
        ('secret = "STRIPE_*"', CreateSecret(name="OTHER", value="v"), None, False),
        ('workflow = "nightly"', CreateWorkflow(name="n", slug="nightly"), None, True),
        ('trigger = ["a", "b"]', DeleteTrigger(trigger_id="b"), record(id="b"), True),
        ('trigger = "a"\nsecret = "b"', DeleteSecret(secret_id="b"), record(id="b"), True),
        ('trigger = "a"\nsecret = "b"', DeleteSecret(secret_id="a"), record(id="a"), False),
        # A target that is not known may be any.
        ('customer = "acme-*"', DeleteCustomer(customer_id="c1"), None, True),
        ('customer = "acme-*"', DeleteConnection(connection_id="x"), None, True),
    ],
)
def test_protected_resource_and_what_belongs_to_it_are_denied(
    judge: Judge, protected: str, call: Call, target: FastnObject | None, holds: bool
) -> None:
    verdict = judge(f"[[protect]]\n{protected}", call, target=target)
    assert (verdict.decision is Decision.DENY) is holds
    assert verdict.rule.startswith("policy.toml line 1: protected ") is holds


def test_protection_names_its_resource_and_reason(judge: Judge) -> None:
    verdict = judge(ACME, DeleteCustomer(customer_id="acme-1"))
    assert verdict.why == 'Customer "acme-1" is protected (acme-*). Reason: our largest customer.'
    text = '[[protect]]\napi_key = ["a", "k*"]\n'
    verdict = judge(text, RevokeApiKey(api_key_id="k1"))
    assert verdict.why == 'API key "key k1" is protected: its id "k1" matches k*.'
    verdict = judge(text + 'reason = "shared by X.."', RevokeApiKey(api_key_id="x"), target=None)
    assert verdict.why == (
        "API keys matching a or k* are protected, and the target of this call could not be read. Reason: shared by X."
    )


def test_protection_never_loosens_the_default(judge: Judge) -> None:
    text = '[[protect]]\ntrigger = "*"\nthen = "confirm"\n'
    assert judge(text, DeleteTrigger(trigger_id="t")).decision is Decision.TYPED
    text += '[[rule]]\ntool = "delete_trigger"\nthen = "allow"'
    assert judge(text, DeleteTrigger(trigger_id="t")).decision is Decision.CONFIRM


HOURS = """
[[window]]
effects = ["DESTROY", "trash"]
open = "Mon-Thu 08:00-17:00 Europe/Berlin"
reason = "somebody is there"
[[window]]
effects = "trash"
tools = "delete_workflow"
open = ["Sat 10:00-12:00 UTC", "Sun 22:00-02:00 UTC"]
[[window]]
effects = "destroy"
tools = "delete_secret"
open = "Sat 10:00-12:00 UTC"
"""


@pytest.mark.parametrize(
    ("moment", "call", "is_open"),
    [
        ("2026-11-25T09:00", DeleteTrigger(trigger_id="t"), True),
        ("2026-11-28T11:00", DeleteTrigger(trigger_id="t"), False),
        ("2026-11-28T11:00", DeleteWorkflow(workflow_id="w"), True),
        ("2026-11-28T11:00", DeleteSecret(secret_id="s"), True),
        ("2026-11-30T01:00", DeleteWorkflow(workflow_id="w"), True),
        ("2026-11-28T13:00", DeleteWorkflow(workflow_id="w"), False),
        ("2026-11-28T13:00", CreateCustomer(name="A"), True),
    ],
)
def test_effect_is_allowed_only_while_its_window_is_open(judge: Judge, moment: str, call: Call, is_open: bool) -> None:
    verdict = judge(HOURS, call, now=datetime.fromisoformat(moment).replace(tzinfo=UTC))
    assert (verdict.decision is not Decision.DENY) is is_open


@pytest.mark.parametrize(
    ("call", "hour", "rule", "reason"),
    [
        (
            DeleteTrigger(trigger_id="t"), 11, "line 2: window destroy, trash",
            "The window for destroy is closed until Mon 2026-11-30 08:00 Europe/Berlin. Reason: somebody is there.",
        ),
        (
            DeleteWorkflow(workflow_id="w"), 13, "line 6: window delete_workflow",
            "The window for trash is closed until Sun 2026-11-29 22:00 UTC.",
        ),
    ],
    ids=["one", "the one that opens first"],
)  # fmt: skip
def test_closed_window_says_when_it_opens(judge: Judge, call: Call, hour: int, rule: str, reason: str) -> None:
    verdict = judge(HOURS, call, now=datetime(2026, 11, 28, hour, tzinfo=UTC))
    assert verdict == PolicyDecision(Decision.DENY, f"policy.toml {rule}", reason)


@pytest.mark.parametrize("defaults", ["", ALLOWS])
@pytest.mark.parametrize(("spent", "decision"), [(9, "allow"), (10, "confirm"), (11, "confirm")])
def test_spending_needs_an_approval_beyond_its_budget(judge: Judge, defaults: str, spent: int, decision: str) -> None:
    verdict = judge(f"[budget]\nspend = 10\n{defaults}", AiChat(message="m"), spent={TODAY: spent})
    assert verdict.decision.value == decision


def test_default_for_spending_holds_inside_the_budget(judge: Judge) -> None:
    text = '[budget]\nspend = 10\n[defaults]\nspend = "confirm"'
    assert judge(text, AiChat(message="m")).decision is Decision.CONFIRM


def test_breaker_of_the_file_replaces_the_default(judge: Judge) -> None:
    text = '[breaker]\ndeclined = 2\nrest = "1h"'
    assert judge(text, CreateCustomer(name="A"), declines=1).decision is Decision.ALLOW
    rests = judge(text, CreateCustomer(name="A"), declines=2, declined_at=NOW)
    assert (rests.decision, rests.rule) == (Decision.DENY, "breaker")
    assert "until 10:00:00 UTC" in rests.reason


def test_first_of_equally_strict_parts_is_named(judge: Judge) -> None:
    parts = [
        ('[[rule]]\ntool = "delete_trigger"\nthen = "deny"\n', "rule"),
        ('[[protect]]\ntrigger = "*"\n', "protected"),
        ("[budget]\ndestroy = 0\n", "budget"),
        ('[[window]]\neffects = "destroy"\nopen = "Sun 08:00-09:00 UTC"\n', "window"),
    ]
    while parts:
        text = "".join(text for text, _ in reversed(parts))
        assert f": {parts[0][1]}" in judge(text, DeleteTrigger(trigger_id="t")).rule
        parts = parts[1:]


OWN_KEY = (
    "This is the key that this server itself uses, or Fastn does not show enough to rule that out."
    " A person can revoke it in the dashboard."
)
DELETION, CHAT = DeleteCustomer(customer_id="c"), AiChat(message="m")


class DecisionCase(NamedTuple):
    call: Call
    decision: str
    rule: str
    reason: str = ""
    text: str = ""
    mode: Mode = "guarded"
    facts: Mapping[str, Any] = {}


@pytest.mark.parametrize(
    "case",
    [
        DecisionCase(ListCustomers(), "allow", "reads", "Reads are always allowed."),
        DecisionCase(
            DELETION, "deny", "mode read-only: destroy", "The mode read-only allows only reads.", mode="read-only"
        ),
        DecisionCase(DELETION, "deny", "own key", OWN_KEY, text=ALLOWS, facts={"own_key": True}),
        DecisionCase(
            CreateCustomer(name="A"),
            "deny",
            "breaker",
            "5 declines in a row: only reads are sent until 09:10:00 UTC.",
            facts={"declines": 5, "declined_at": NOW.astimezone(timezone(timedelta(hours=2)))},
        ),
        DecisionCase(
            CreateCustomer(name="A"),
            "deny",
            "breaker",
            "6 declines in a row: only reads are sent until 09:10:00 UTC at the latest.",
            facts={"declines": 6},
        ),
        DecisionCase(
            DELETION,
            "confirm",
            "mode guarded: destroy, nothing depends on it",
            "The customer has no connections and no runs.",
            facts={"dependents": 0},
        ),
        DecisionCase(DELETION, "typed", "mode guarded: destroy", "", facts={"dependents": 1}),
        DecisionCase(CreateCustomer(name="A"), "confirm", "mode guarded: external", facts={"effect": Effect.EXTERNAL}),
        DecisionCase(DeleteConnector(connector_id="c"), "typed", "mode guarded: destroy", "", facts={"dependents": 0}),
        DecisionCase(CHAT, "confirm", "mode guarded: spend, no budget"),
        DecisionCase(
            CHAT,
            "confirm",
            "policy.toml line 2: default spend",
            "3 of 3 spend calls are left today (UTC).",
            text='[defaults]\nspend = "confirm"\n[budget]\nspend = 3',
        ),
        DecisionCase(
            CHAT,
            "allow",
            "mode guarded: spend, within budget",
            "2 of 3 spend calls are left today (UTC).",
            text="[budget]\nspend = 3",
            facts={"spent": {TODAY: 1}},
        ),
        DecisionCase(
            CHAT,
            "allow",
            "mode guarded: spend, within budget",
            "1 of 3 spend calls are left in this run.",
            text="[budget.run]\nspend = 3",
            facts={"spent": {"run": 2}},
        ),
        DecisionCase(
            CHAT,
            "confirm",
            "policy.toml line 1: budget",
            "The budget is used up: 0 of 2 spend calls left in this run.",
            text="[budget]\nspend = 9\n[budget.run]\nspend = 2",
            facts={"spent": {TODAY: 8, "run": 2}},
        ),
        DecisionCase(
            DELETION,
            "confirm",
            "mode guarded: destroy, nothing depends on it",
            "The customer has no connections and no runs. 7 of 9 destroy calls are left today (UTC).",
            text="[budget]\ndestroy = 9",
            facts={"dependents": 0, "spent": {TODAY: 2}},
        ),
        DecisionCase(
            CreateApiKey(name="A"),
            "deny",
            "no plan",
            "Nobody is asked (mode unattended: access), and no plan covers this call.",
            text="[budget]\naccess = 9",
            mode="unattended",
        ),
        DecisionCase(
            CreateCustomer(name="A"),
            "deny",
            "policy.toml line 1: budget",
            "The list needs more than the 3 of 5 write calls left until 2026-11-26 00:00 UTC.",
            text="[budget]\nwrite = 5",
            facts={"spent": {TODAY: 5}, "in_list": {Effect.WRITE: 3}},
        ),
        DecisionCase(
            CreateCustomer(name="A"),
            "deny",
            "policy.toml line 1: budget",
            "The budget is used up: 0 of 1 write calls left until 2026-11-26 00:00 UTC.",
            text="[budget]\nwrite = 1",
            facts={"spent": {TODAY: 2}},
        ),
        DecisionCase(
            CHAT,
            "allow",
            "mode unattended: spend, within budget",
            "3 of 3 spend calls are left today (UTC).",
            text="[budget]\nspend = 3",
            mode="unattended",
        ),
        DecisionCase(
            CreateCustomer(name="A"),
            "allow",
            "mode guarded: write",
            "1 of 9 write calls are left today (UTC).",
            text="[budget]\nwrite = 9\n[budget.run]\nwrite = 4",
            facts={"spent": {TODAY: 8, "run": 2}},
        ),
        DecisionCase(
            DELETION,
            "typed",
            "mode guarded: destroy",
            "7 more deletions can be approved in the next 5 minutes.",
            facts={"destroyed": 3},
        ),
        DecisionCase(
            DELETION,
            "typed",
            "mode guarded: destroy",
            "0 more deletions can be approved in the next 5 minutes.",
            facts={"destroyed": 12},
        ),
        DecisionCase(
            DELETION,
            "deny",
            "no plan",
            "Nobody is asked (mode unattended: destroy), and no plan covers this call.",
            mode="unattended",
            facts={"destroyed": 3},
        ),
    ],
    ids=lambda case: f"{case.mode}-{case.call.tool_name()}-{case.rule}",
)
def test_decision_names_its_rule_and_reason(judge: Judge, case: DecisionCase) -> None:
    expected = PolicyDecision(Decision(case.decision), case.rule, case.reason)
    assert judge(case.text, case.call, case.mode, **case.facts) == expected


def test_days_and_times_are_utc(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Pacific/Kiritimati")  # UTC+14
        time.tzset()
        rests = judge("", CreateCustomer(name="A"), declines=5).reason
        used_up = judge(
            "[budget]\nwrite = 1", CreateCustomer(name="A"), now=NOW.replace(hour=12), spent={TODAY: 1}
        ).reason
    time.tzset()
    assert rests.endswith("until 09:10:00 UTC at the latest.")
    assert used_up.endswith("left until 2026-11-26 00:00 UTC.")


@pytest.mark.parametrize("mode", ["guarded", "unattended"])
@pytest.mark.parametrize(
    ("decision", "signers", "spares"),
    [("confirm", 1, True), ("typed", 1, True), ("four_eyes", 1, False), ("four_eyes", 2, True), ("deny", 2, False)],
)
def test_plan_entry_counts_as_many_approvers_as_signers(
    judge: Judge, mode: Mode, decision: str, signers: int, spares: bool
) -> None:
    text = f'[[rule]]\ntool = "delete_customer"\nthen = "{decision}"\nreason = "why"' if decision != "confirm" else ""
    facts: dict[str, Any] = {"dependents": 0} if decision == "confirm" else {}
    permit = Permit(name="plan p line 1", budget="b", tool="delete_customer", targets=("c",), count=3, signers=signers)
    verdict = judge(text, DELETION, mode, permit=permit, **facts)
    if spares:
        assert (verdict.decision, verdict.rule, verdict.permit) == (Decision.ALLOW, "plan p line 1", permit)
        assert verdict.reason == ("why" if text else "The customer has no connections and no runs.")
    elif mode == "unattended" and decision == "four_eyes":
        why = "It needs two people (policy.toml line 1: rule delete_customer), and only one has signed the plan."
        assert verdict == PolicyDecision(Decision.DENY, "no plan", why)
    else:
        assert verdict == PolicyDecision(Decision(decision), "policy.toml line 1: rule delete_customer", "why")
    if mode == "unattended":
        used_up = judge("", DELETION, mode, used_up=permit)
        assert used_up == PolicyDecision(
            Decision.DENY, "no plan", "All calls that plan p line 1 allows have been made (count = 3)."
        )


@pytest.mark.parametrize(
    ("text", "call", "needed"),
    [
        (ACME, UpdateCustomer(customer_id="c", plan="p"), True),
        (ACME, CreateTrigger(name="A", type="scheduler", routes=[], status="Disabled"), False),
        ('[[rule]]\ntarget = "x"\nthen = "deny"', UpdateCustomer(customer_id="c", plan="p"), True),
        (
            '[[rule]]\ntool = "delete_*"\ntarget = "x"\nthen = "deny"',
            CreateTrigger(name="A", type="scheduler", routes=[], status="Disabled"),
            False,
        ),
        ('[[rule]]\nwhen = {dependents={min=1}}\nthen = "deny"', UpdateCustomer(customer_id="c", plan="p"), True),
        (
            '[[rule]]\nwhen = {timezone = "UTC"}\nthen = "deny"',
            CreateTrigger(name="A", type="scheduler", routes=[], status="Disabled", timezone="UTC"),
            False,
        ),
        ('[defaults]\ndestroy = "allow"', DeleteTrigger(trigger_id="t"), True),
        (ACME, GetCustomer(customer_id="c"), False),
    ],
)
def test_target_is_read_if_the_file_may_depend_on_it(tmp_path: Path, text: str, call: Call, needed: bool) -> None:
    policy = Policy("guarded", rules_of(tmp_path, text))
    assert (policy.needs_facts(call) or policy.needs_records(resolved(call))) is needed


@pytest.mark.parametrize("operation", CHANGING_TOOLS, ids=lambda operation: operation.tool_name())
def test_possible_effects_include_every_effect_of_a_tool(operation: AnyOperation) -> None:
    values: dict[str, st.SearchStrategy[Any]] = {name: st.sampled_from([None, "x"]) for name in operation.model_fields}
    values |= {"status": STATUSES, "extra": st.sampled_from([None, {"enabled": True}]), "schedule": SCHEDULES}
    values |= dict.fromkeys(
        ("routes", "auth_methods"), st.sampled_from([None, [{"type": "x"}], [{"status": "Active"}]])
    )
    values["context"] = st.sampled_from([None, {"customerId": "c"}, {"sessionId": "s"}])
    given_values = st.fixed_dictionaries({name: values[name] for name in operation.model_fields})
    targets = st.none() | st.builds(record, id=st.just("x"), status=STATUSES, schedule=SCHEDULES)

    @given(given_values, targets, st.sampled_from([None, 0, 3]))
    def check(fields: dict[str, Any], target: FastnObject | None, dependents: int | None) -> None:
        call = operation.model_construct(**fields)
        assert {call.effective, call.effect_on(target, dependents)} <= possible_effects(operation)

    check()


STATUSES = st.sampled_from([None, "Active", "Disabled", "draft"])
SCHEDULES = st.sampled_from([None, "* * * * *", "0 0 * * *", "never"])


decisions = st.sampled_from(Decision)
CALLS: list[Call] = [
    DeleteTrigger(trigger_id="t1"),
    DeleteWorkflow(workflow_id="w1"),
    RunWorkflow(workflow_id="w1", environment="live"),
    CreateSecret(name="A", value="v"),
    AiChat(message="m"),
    CreateCustomer(name="A"),
]
any_rules = st.lists(
    st.builds(
        PolicyRule,
        name=st.text(max_size=3),
        tools=st.none() | st.frozensets(st.sampled_from([call.tool_name() for call in CALLS]), min_size=1),
        effects=st.none() | st.frozensets(st.sampled_from([e for e in Effect if e is not Effect.READ]), min_size=1),
        targets=st.sampled_from([(), (Glob("t*"),), (Glob("*1"),)]),
        dependents=st.sampled_from([None, UserCount(1, None), UserCount(None, 0)]),
        conditions=st.just({}),
        then=decisions,
    ),
    max_size=6,
)
EMPTY = FileRules()


def situation_of(call: Call, known: bool, dependents: int | None) -> Situation:
    target = record(id=call.target) if known and call.target else None
    return make_situation(call, call.effective, NOW, target, dependents)


situations = st.builds(situation_of, st.sampled_from(CALLS), st.booleans(), st.sampled_from([None, 0, 2]))
modes = st.sampled_from(list(MODES))


@given(modes, any_rules, situations, st.randoms())
def test_order_of_rules_does_not_matter(
    mode: Mode, rules: list[PolicyRule], situation: Situation, order: random.Random
) -> None:
    shuffled = order.sample(rules, len(rules))
    first, second = (Policy(mode, replace(EMPTY, rules=tuple(r))).decide(situation) for r in (rules, shuffled))
    assert first.decision is second.decision


@given(modes, any_rules, situations)
def test_rules_without_allow_never_loosen_the_mode(mode: Mode, rules: list[PolicyRule], situation: Situation) -> None:
    strict = tuple(rule for rule in rules if rule.then is not Decision.ALLOW)
    default = Policy(mode).decide(situation).decision
    assert Policy(mode, replace(EMPTY, rules=strict)).decide(situation).decision.rank >= default.rank


@given(modes, any_rules, situations)
def test_unknown_facts_never_loosen(mode: Mode, rules: list[PolicyRule], situation: Situation) -> None:
    policy = Policy(mode, replace(EMPTY, rules=tuple(rules)))
    unknown = replace(situation, resolved=replace(situation.resolved, target=None, dependents=None))
    assert policy.decide(unknown).decision.rank >= policy.decide(situation).decision.rank


@given(any_rules, situations, decisions)
def test_no_rule_overrides_read_only_own_key_or_breaker(
    rules: list[PolicyRule], situation: Situation, default: Decision
) -> None:
    defaults = {("", effect): PolicyDecision(default, "default") for effect in Effect}
    file = replace(EMPTY, rules=tuple(rules), defaults=defaults)
    assert Policy("read-only", file).decide(situation).decision is Decision.DENY
    for held in (replace(situation, own_key=True), replace(situation, declines=5)):
        assert Policy(rules=file).decide(held).decision is Decision.DENY
    assert Policy("read-only", file).decide(replace(situation, effect=Effect.READ)).decision is Decision.ALLOW


@given(modes, any_rules, situations, st.sampled_from([d for d in Decision if d is not Decision.ALLOW]))
def test_no_rule_overrides_a_protection_or_budget(
    mode: Mode, rules: list[PolicyRule], situation: Situation, then: Decision
) -> None:
    file = replace(EMPTY, rules=tuple(rules))
    every = tuple(Glob(glob) for glob in ("*",))
    kinds = {"workflow": every, "trigger": every, "secret": every, "customer": every}
    protected = Policy(mode, replace(file, protected=(Protected("p", kinds, then),))).decide(situation)
    assert isinstance(situation.resolved.call, AiChat) or protected.decision.rank >= then.rank
    used_up = Policy(mode, replace(file, limits={("day", situation.effect): 0})).decide(situation)
    least = Decision.CONFIRM if situation.effect is Effect.SPEND else Decision.DENY
    assert used_up.decision.rank >= least.rank


@given(modes, any_rules, situations)
def test_no_rule_opens_a_closed_window(mode: Mode, rules: list[PolicyRule], situation: Situation) -> None:
    window = TimeWindow("w", frozenset(Effect), None, (hours("Sun 08:00-09:00 UTC"),), "")
    closed = replace(EMPTY, rules=tuple(rules), windows=(window,))
    assert Policy(mode, closed).decide(situation).decision is Decision.DENY


PLAN = UpdateCustomer(customer_id="c", plan="Free")
BY_KEY = """[defaults]
write = "confirm"
[defaults.live]
write = "typed"
[defaults.test]
trash = "allow"
[[rule]]
tool = "delete_trigger"
key = "live"
then = "deny"
[[rule]]
tool = "update_customer"
key = "test"
then = "deny"
"""


@pytest.mark.parametrize(
    ("call", "effect", "live", "decision", "rule"),
    [
        (CreateCustomer(name="A"), Effect.WRITE, True, "typed", "policy.toml line 4: default live write"),
        (CreateCustomer(name="A"), Effect.WRITE, False, "confirm", "policy.toml line 2: default write"),
        (DeleteWorkflow(workflow_id="w"), Effect.TRASH, True, "typed", "mode guarded: trash, live key"),
        (DeleteWorkflow(workflow_id="w"), Effect.TRASH, False, "allow", "policy.toml line 6: default test trash"),
        (DeleteTrigger(trigger_id="t"), Effect.DESTROY, True, "deny", "policy.toml line 7: rule delete_trigger"),
        (DeleteTrigger(trigger_id="t"), Effect.DESTROY, False, "typed", "mode guarded: destroy"),
        (PLAN, Effect.WRITE, True, "typed", "policy.toml line 4: default live write"),
        (PLAN, Effect.WRITE, False, "deny", "policy.toml line 11: rule update_customer"),
    ],
)
def test_file_distinguishes_live_and_test_keys(
    tmp_path: Path, call: Call, effect: Effect, live: bool, decision: str, rule: str
) -> None:
    policy = Policy("guarded", rules_of(tmp_path, BY_KEY), live=live)
    verdict = policy.decide(make_situation(call, effect, NOW))
    assert (verdict.decision.value, verdict.rule) == (decision, rule)


def test_every_part_of_a_policy_file_is_described_in_words(tmp_path: Path) -> None:
    rules = rules_of(
        tmp_path,
        """
[defaults]
access = "four_eyes"
[defaults.live]
write = "confirm"
[defaults.test]
trash = "allow"
[[protect]]
customer = ["acme-*", "globex"]
api_key = "key_1"
then = "typed"
reason = "our largest customers."
[[protect]]
secret = "S*"
then = "four_eyes"
[[rule]]
tool = ["delete_trigger", "delete_secret"]
target = ["test_*", "tmp_*"]
key = "test"
when = { dependents = { max = 2 } }
then = "allow"
[[rule]]
tool = "run_workflow"
target = "nightly"
when = { environment = ["live", ""], dependents = { min = 1, max = 5 } }
then = "four_eyes"
reason = "in production of X..."
[[rule]]
tool = "create_api_key"
who = { group = ["a", "b"], client = "c" }
unless = { person = "0001" }
then = "four_eyes"
[[rule]]
tool = "create_workflow"
when = { timeout_ms = [4, 5] }
then = "deny"
[[window]]
effects = ["DESTROY", "trash"]
open = ["Mon-Thu 08:00-17:00 Europe/Berlin", "Sat 10:00-12:00 UTC"]
reason = "somebody is there."
[[window]]
tools = ["delete_workflow", "delete_trigger"]
effects = "trash"
open = "Sun 10:00-12:00 UTC"
[budget]
spend = 10
destroy = 3
[budget.run]
spend = 2
write = 4
[breaker]
declined = 3
rest = "90s"
""",
    )
    assert list(rules.words()) == [
        "Default for access: four_eyes.",
        "Default for write with a live key: confirm.",
        "Default for trash with a test key: allow.",
        (
            "policy.toml line 8: protected customer acme-* or globex; api_key key_1: typed, whatever the rules allow."
            " Reason: our largest customers."
        ),
        ("policy.toml line 13: protected secret S*: four_eyes, whatever the rules allow."),
        (
            "policy.toml line 16: rule delete_trigger, delete_secret"
            " with target id test_* or tmp_*, dependents at most 2, a test key: allow."
        ),
        (
            "policy.toml line 22: rule run_workflow"
            " with target nightly, dependents at least 1 and at most 5, environment live or not given: four_eyes."
            " Reason: in production of X."
        ),
        ("policy.toml line 28: rule create_api_key by group a or b and client c unless by person 0001: four_eyes."),
        "policy.toml line 33: rule create_workflow with timeout_ms 4 or 5: deny.",
        (
            "policy.toml line 37: window destroy, trash: refused"
            " except Mon-Thu 08:00-17:00 Europe/Berlin or Sat 10:00-12:00 UTC. Reason: somebody is there."
        ),
        (
            "policy.toml line 41: window delete_workflow, delete_trigger: trash by delete_trigger, delete_workflow:"
            " refused except Sun 10:00-12:00 UTC."
        ),
        "Budget: 10 spend calls a day, then a person is asked.",
        "Budget: 3 destroy calls a day, then none.",
        "Budget: 4 write calls a run, then none.",
        "Budget: 2 spend calls a run, then a person is asked.",
        "Budget: 10 approved deletions in 5 minutes, then none.",
        "Breaker: after 3 declines in a row, no change is sent for 1.5 minutes.",
    ]


@pytest.mark.parametrize("condition", ["name", "new_name"])
def test_rule_matches_an_update_without_a_name(judge: Judge, condition: str) -> None:
    text = f'[[rule]]\ntool = "update_customer"\nwhen = {{ {condition} = "" }}\nthen = "deny"\n'
    target = record(id="c1", name="Acme")
    assert judge(text, UpdateCustomer(customer_id="c1", name="X"), target=target).decision is not Decision.DENY
    assert judge(text, UpdateCustomer(customer_id="c1", admin_email="a@b.c"), target=target).decision is Decision.DENY


def test_allow_rule_compares_the_new_name(judge: Judge) -> None:
    text = '[[rule]]\ntool = "update_customer"\nwhen = { new_name = "test-*" }\nthen = "allow"\n'
    for name, decision in (("test-1", Decision.ALLOW), ("Acme", Decision.CONFIRM)):
        call = UpdateCustomer(customer_id="c1", name=name)
        verdict = judge(text, call, target=record(id="c1", name="test-0"), effect=Effect.EXTERNAL)
        assert verdict.decision is decision, name
