"""`make score`: what its gates reject; its sentences and shares are complete. The model and the judge run in CI."""

import re
from pathlib import Path
from typing import Any

import pytest
from score import descriptions, judge

from fastn_mcp.procedures.catalog import TOOLS

ROOT = Path(__file__).parent.parent.parent
RANKS = {f"sentence {number}": 1 if number < 60 else 4 if number < 90 else 9 for number in range(100)}


def report(*failed: str, **facts: Any) -> dict[str, Any]:
    results = [{"rule_id": rule, "message": f"no {rule}", "passed": False} for rule in failed]
    results.append({"rule_id": "good", "message": "", "passed": True})
    whole: dict[str, Any] = {"partial_reason": None, "incomplete_listings": [], "listing_errors": [], "readiness": None}
    return {"results": results} | whole | facts


def test_sentences_cover_every_tool_in_three_languages() -> None:
    languages = descriptions.sentences()
    assert set(languages) == {"english", "german", "spanish"}
    assert min(len(rows) for rows in languages.values()) >= 20
    assert sum(len(rows) for rows in languages.values()) >= 120
    named = {name for rows in languages.values() for expected in rows.values() for name in expected}
    how = "correct benchmarks/score/sentences.toml, then run: make score ARGS=--write"
    assert named == set(TOOLS), f"{', '.join(sorted(named ^ set(TOOLS)))}: {how}"
    assert all(expected for rows in languages.values() for expected in rows.values())


def test_committed_ranks_are_of_the_sentences_and_the_page_has_their_shares() -> None:
    ranks = descriptions.committed_ranks()
    assert list(ranks) == [text for rows in descriptions.sentences().values() for text in rows]
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "contributing" / "measured.md").read_text(encoding="utf-8"))
    first, first_five = (descriptions.share(ranks, worst) for worst in descriptions.SHARES.values())
    assert f"first for {first:.1f} % of {len(ranks)} sentences and among the first five for {first_five:.1f} %" in page


@pytest.mark.parametrize("lost", [0, 3])
def test_a_share_may_fall_by_three_points(lost: int) -> None:
    assert descriptions.problems(RANKS, RANKS | {f"sentence {number}": 2 for number in range(lost)}) == []


@pytest.mark.parametrize(
    ("lost", "rank", "shares"),
    [(range(4), 2, ["first"]), (range(60, 64), 6, ["first five"]), (range(4), 6, ["first", "first five"])],
)
def test_a_larger_fall_names_the_sentences(lost: range, rank: int, shares: list[str]) -> None:
    messages = descriptions.problems(RANKS, RANKS | {f"sentence {number}": rank for number in lost})
    assert [message.partition(":")[0] for message in messages] == shares
    for message in messages:
        named = re.findall(r"(\d+) -> (\d+): (.*)", message)
        assert named == [(str(RANKS[f"sentence {n}"]), str(rank), f"sentence {n}") for n in lost]


def test_changed_sentences_need_new_ranks() -> None:
    (message,) = descriptions.problems(RANKS, RANKS | {"another": 1})
    assert "make score ARGS=--write" in message


def test_judge_rejects_a_failed_rule_without_an_exception() -> None:
    excepted = {"every": {"known": "why"}, "team": {"other": "why"}}
    reports = {"stdio": report("known"), "team": report("known", "other")}
    assert judge.problems(reports, excepted) == []
    assert judge.problems(reports | {"http": report("other")}, excepted) == ["http: other: no other"]


def test_judge_counts_readiness_for_the_latest_version() -> None:
    readiness = {"results": [{"rule_id": "late", "message": "no late", "passed": False}]}
    assert judge.problems({"stdio": report(readiness=readiness)}, {}) == ["stdio: late: no late"]


@pytest.mark.parametrize(
    "facts", [{"partial_reason": "401"}, {"incomplete_listings": ["tools"]}, {"listing_errors": {"tools": "-32603"}}]
)
def test_judge_rejects_a_partial_audit(facts: dict[str, Any]) -> None:
    (message,) = judge.problems({"http": report(**facts)}, {})
    assert message.startswith("http: the audit is partial: ")


def test_judge_rejects_an_exception_that_nothing_needs() -> None:
    excepted = {"every": {"mended": "why"}, "http": {"known": "why"}}
    messages = judge.problems({"stdio": report("known"), "http": report()}, excepted)
    assert [message.partition(" passes")[0] for message in messages] == [
        "stdio: known: no known",
        "every: mended",
        "http: known",
    ]


def test_each_exception_has_a_reason() -> None:
    excepted = judge.exceptions()
    assert set(excepted) == {"every", "http", "team"}
    assert all(reason.endswith(".") for rules in excepted.values() for reason in rules.values())
