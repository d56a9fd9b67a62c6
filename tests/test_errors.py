"""Every error says what happened, what is known of the effect, and what to do next."""

from collections.abc import Iterator

import pytest

from fastn_mcp.errors import (
    NOTHING_CHANGED,
    NOTHING_SENT,
    FastnError,
    Incomplete,
    NoKey,
    NotSent,
    SettingsError,
    UnknownOutcome,
    closest,
)


def _below(kind: type[FastnError]) -> Iterator[type[FastnError]]:
    for sub in kind.__subclasses__():
        if sub.__module__ == "fastn_mcp.errors":
            yield sub
            yield from _below(sub)


EVERY = [FastnError, *_below(FastnError)]


def test_error_has_the_same_text_in_words_and_data() -> None:
    error = NotSent("It rained.", "Wait.", facts={"status": 7})
    assert str(error) == "It rained. Nothing was sent. Wait."
    assert error.data() == {
        "outcome": "not_sent", "message": "It rained. Nothing was sent.", "next": "Wait.", "status": 7,
    }  # fmt: skip


def test_missing_parts_leave_no_gap() -> None:
    assert str(FastnError("It rained.")) == "It rained."
    assert FastnError("It rained.").data() == {"outcome": "failed", "message": "It rained."}


def test_error_can_state_its_certainty_more_exactly() -> None:
    """One class of error may know more, or less, in a single case."""
    assert str(UnknownOutcome("It rained.", certainty="It was wet.")) == "It rained. It was wet."
    assert str(UnknownOutcome("It rained.", certainty="")) == "It rained."


def test_facts_are_copied() -> None:
    facts: dict[str, str] = {"a": "b"}
    error = NotSent("x", facts=facts)
    facts["a"] = "c"
    assert error.facts == {"a": "b"}


OPTIONS = ("--exclude-tools", "--http", "--mode", "--approval-minutes", "--policy", "--profile", "--tenant")
TOOLS = ("delete_customer", "create_customer", "list_customers", "update_connector", "run_workflow")
KEYS = ("api_key", "customer_id", "environment", "external_ref", "name")


@pytest.mark.parametrize(
    ("name", "known", "suggestion"),
    [
        ("--exclude-tool", OPTIONS, "--exclude-tools"),
        ("--Approval_Minutes", OPTIONS, "--approval-minutes"),
        ("--polcy", OPTIONS, "--policy"),
        ("--moed", OPTIONS, "--mode"),
        ("--nonsense", OPTIONS, None),
        ("--verbose", OPTIONS, None),
        ("--remove", OPTIONS, None),
        ("list-customer", TOOLS, "list_customers"),
        ("remove_customer", TOOLS, "create_customer"),
        ("search", TOOLS, None),
        ("customerId", KEYS, "customer_id"),
        ("environ", KEYS, "environment"),
        ("key", KEYS, None),
        ("org_id", KEYS, None),
        ("nmae", KEYS, "name"),
    ],
)
def test_closest_name_is_suggested_only_if_it_is_likely_meant(
    name: str, known: tuple[str, ...], suggestion: str | None
) -> None:
    assert closest(name, known) == suggestion


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_states_what_is_known_of_the_effect(kind: type[FastnError]) -> None:
    assert kind.__doc__ or kind.__mro__[1].__doc__
    assert kind.outcome.islower()
    if kind in (FastnError, SettingsError, NoKey):
        return
    assert kind.certainty
    # A list that stopped is given again as it was: what was made is not made twice.
    if kind.certainty not in (NOTHING_SENT, NOTHING_CHANGED, Incomplete.certainty):
        assert "Do not repeat it" in kind.certainty


def test_each_outcome_has_one_class() -> None:
    """One class for each thing that a caller would do differently."""
    leaves = [kind.outcome for kind in EVERY if "outcome" in vars(kind) and kind is not FastnError]
    assert len(leaves) == len(set(leaves))
    assert set(leaves) >= {
        "not_sent", "refused", "declined", "approval_required", "unauthorized", "forbidden", "not_found", "conflict",
        "invalid", "rate_limited", "quota_exceeded", "failed", "timeout", "unknown_outcome", "applied_unreadable",
        "too_large",
    }  # fmt: skip
