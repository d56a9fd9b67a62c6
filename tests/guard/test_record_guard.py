"""The recorder, by which two versions of the guard are compared."""

import json
from typing import Any

import pytest
from support.record_guard import COURSES, POLICIES, normalized, record_situation, situations
from support.recorded_calls import recorded_calls

CALLS = dict(recorded_calls())


def outcomes(line: dict[str, Any]) -> list[str]:
    return [answer[0] for answer in line["answers"]]


async def test_recording_is_the_same_each_time() -> None:
    first = await record_situation("approved", "guarded", CALLS["list deletions"])
    second = await record_situation("approved", "guarded", CALLS["list deletions"])
    assert json.dumps(first) == json.dumps(second)
    assert outcomes(first) == ["approval_required", "done"]
    assert [request[0] for request in first["requests"] if request[0] != "GET"] == ["DELETE"] * 3
    assert [entry["event"] for entry in first["audit"]].count("intent") == 3


async def test_recording_has_the_question_and_the_evaluation() -> None:
    line = await record_situation("asked", "guarded", CALLS["delete_customer of Acme"])
    assert line["evaluation"]["decisions"] == [["destroy", "typed", "mode guarded: destroy", ""]]
    assert line["questions"][0]["expected"] == "Acme Corp"
    assert {request[0] for request in line["requests"]} == {"GET"}


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ("declined", ["approval_required", "declined"]),
        ("stopped and allowed", ["approval_required", "approval_required"]),
        ("renamed", ["approval_required", "target_changed"]),
        ("form at once", ["approval_required", "approval_required"]),
        ("lost", ["approval_required", "unknown_outcome", "not_found"]),
    ],
)
async def test_course_of_a_call_is_recorded(course: str, expected: list[str]) -> None:
    assert outcomes(await record_situation(course, "guarded", CALLS["delete_customer"])) == expected


def test_every_tool_is_recorded_in_every_course_and_policy() -> None:
    seen = list(situations())
    assert {course for course, *_ in seen} == set(COURSES)
    assert {policy for _, policy, *_ in seen} == POLICIES.keys()
    assert len({each[:3] for each in seen}) == len(seen) > 2_000


def test_ids_digests_and_times_are_normalized() -> None:
    value = {"a": "chg_p1-7 p1-2", "b": "f" * 64, "c": "2026-11-25T09:00:00Z", "d": "p1-2 in /x/y"}
    assert normalized(value, "/x") == {
        "a": "<id 1> <id 2>",
        "b": "<digest>",
        "c": "<time>",
        "d": "<id 2> in <folder>/y",
    }
