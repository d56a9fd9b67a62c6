"""What people are asked about each changing tool, and what the agent is answered, in each state of the question."""

import json
from collections.abc import Iterator, Mapping
from textwrap import indent
from typing import Any

import pytest
from support.golden import check_golden, check_no_other
from support.guard_machine.vocabulary import ToolCall
from support.record_guard import record_situation
from support.recorded_calls import recorded_calls

from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.tool import Effect

CALLS: Mapping[str, ToolCall] = dict(recorded_calls())
TOOLS = sorted(name for name, operation in OPERATIONS.items() if operation.effect is not Effect.READ)

STATES = {
    "form shown": "A client with forms",
    "approved": "A client without forms; people approve it elsewhere, and the agent calls again",
    "form declined": "A person declined it in the form",
    "declined": "A person declined it outside the client",
    "withdrawn": "A person withdrew their approval",
    "renamed": "Its records were renamed while people decided",
    "stopped": "Changes are stopped",
    "lost": "The answer was lost after it was approved",
    "undone": "It is undone",
}
"""Courses of the recorder, in words."""

STATES_OF_VARIANTS = ("form shown",)
OWN_RESULTS = ("undone", "calls")
"""Facts that tell a result of this server from one of Fastn."""


def calls_of(tool: str) -> Iterator[tuple[str, ToolCall]]:
    """Yield the recorded calls of one tool, with what is special about each."""
    for name, wanted in CALLS.items():
        if wanted.tool == tool:
            yield name.removeprefix(tool).strip(), wanted


def answer_text(outcome: str, text: str, data: dict[str, Any]) -> str:
    """Return an answer as it is reviewed: a form as people read it, an error in words, a result as JSON."""
    if outcome == "form":
        return f"The person reads:\n{indent(text, '    ')}"
    if text:
        return f"The agent reads ({outcome}):\n{indent(text, '    ')}"
    if not any(name in data for name in OWN_RESULTS):
        return f"The agent reads ({outcome}) what Fastn answers."
    result = json.dumps(data, indent=2, ensure_ascii=False, sort_keys=True)
    return f"The agent reads ({outcome}):\n{indent(result, '    ')}"


async def sections(wanted: ToolCall, variant: str, states: tuple[str, ...]) -> list[str]:
    """Return the texts of a call in each of these states."""
    texts: list[str] = []
    for state in states:
        recorded = await record_situation(state, "guarded", wanted)
        answers = [answer_text(*answer) for answer in recorded["answers"]]
        texts.append("\n".join([f"## {variant}{STATES[state]}", *answers]))
    return texts


@pytest.mark.parametrize("tool", TOOLS)
async def test_questions_and_answers_are_the_golden_ones(tool: str) -> None:
    texts = [f"# {tool}"]
    for variant, wanted in calls_of(tool):
        if variant:
            texts += await sections(wanted, f"{variant[:1].upper()}{variant[1:]}. ", STATES_OF_VARIANTS)
        else:
            texts += await sections(wanted, "", tuple(STATES))
    check_golden(f"questions/{tool}.txt", "\n\n".join(texts) + "\n")


async def test_questions_about_lists_are_the_golden_ones() -> None:
    texts = ["# apply_changes"]
    for variant, wanted in calls_of("apply_changes"):
        if "named" not in variant:
            texts += await sections(wanted, f"{variant[:1].upper()}{variant[1:]}. ", ("form shown", "approved"))
    check_golden("questions/apply_changes.txt", "\n\n".join(texts) + "\n")


def test_every_golden_question_is_of_a_tool() -> None:
    check_no_other("questions", {f"{tool}.txt" for tool in (*TOOLS, "apply_changes")})
