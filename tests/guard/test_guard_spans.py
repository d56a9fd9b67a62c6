"""What the guard tells a span of its decision: the facts that traces and metrics are made of."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.world import FormLater, World, batch_of

from fastn_mcp.errors import Refused
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.policy import Policy
from fastn_mcp.runtime import SpanFacts, System
from fastn_mcp.tools.customers import CreateCustomer


class Spans:
    """Keeps the facts of each span, by kind and subject."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str, SpanFacts]] = []

    def watching(self, system: System) -> System:
        return replace(system, span=self._span)

    @contextmanager
    def _span(self, kind: str, subject: str, facts: SpanFacts) -> Generator[SpanFacts]:
        self.ended.append((kind, subject, facts))
        yield facts

    def of(self, kind: str, subject: str) -> SpanFacts:
        (ended,) = [facts for each, about, facts in self.ended if (each, about) == (kind, subject)]
        return ended


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def world(spans: Spans, tmp_path: Path) -> World:
    return World(tmp_path, watching=spans.watching)


async def test_span_of_an_approved_call_names_the_approver(spans: Spans, world: World) -> None:
    await world.expect(Done, world.deletion(), world.form())
    facts = spans.of("guard", "delete_customer")
    assert facts == {
        "operation": "delete_customer",
        "effect": "destroy",
        "decision": "typed",
        "rule": "mode guarded: destroy",
        "outcome": "admitted",
        "approved_by": "client_form",
        "asked": None,
    }
    assert spans.of("ask", "client_form")["is_answered"] is True
    (request,) = await world.ledger.decided(1)
    assert (request.approvers, request.by) == (["client_form"], "client_form")


async def test_span_of_a_later_round_names_its_form(spans: Spans, world: World) -> None:
    await world.asked_in_form(world.deletion(), FormLater())
    assert spans.of("guard", "delete_customer")["outcome"] == "approval_required"
    assert spans.of("ask", "client_form")["is_answered"] is False


async def test_span_of_a_refusal_has_no_consent(spans: Spans, tmp_path: Path) -> None:
    world = World(tmp_path, Policy("read-only"), watching=spans.watching)
    await world.expect(Refused, CreateCustomer(name="Initech"))
    facts = spans.of("guard", "create_customer")
    assert (facts["decision"], "approved_by" in facts) == ("deny", False)


async def test_span_of_a_batch_counts_calls_and_decisions(spans: Spans, world: World) -> None:
    call = batch_of(CreateCustomer(name="Initech"), CreateCustomer(name="Umbrella"))
    await world.expect(Done, call, world.form())
    assert spans.of("guard", "apply_changes")["calls"] == 2
    inner = [facts for kind, about, facts in spans.ended if (kind, about) == ("guard", "create_customer")]
    assert [(facts["effect"], facts["rule"], facts["outcome"]) for facts in inner] == [
        ("write", "mode guarded: write", "admitted")
    ] * 2
    assert "calls" not in inner[0]
