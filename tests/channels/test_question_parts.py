"""Every channel shows the same parts of a question: of each changing tool, its variants, and lists."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from support.guard_machine.simulation import Simulation
from support.guard_machine.vocabulary import PolicyCase, ToolCall
from support.page_visitor import words
from support.page_world import Desk, let_in
from support.record_guard import PRINCIPAL
from support.recorded_calls import recorded_calls

from fastn_mcp.channels.elicitation import form_request
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.channels.webhook.webhook import payload
from fastn_mcp.extensions.slack.blocks import message
from fastn_mcp.guard.approval_form import form_text
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.question import Question
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.tool import Effect


def asked_calls() -> Iterator[Any]:
    """Yield the recorded calls that a person is asked about."""
    for name, wanted in recorded_calls():
        operation = OPERATIONS.get(wanted.tool)
        is_refused = name.endswith(("of nothing", "without limits"))
        if not is_refused and (operation is None or operation.effect is not Effect.READ):
            yield pytest.param(wanted, id=name)


ASKS = PolicyCase("asks about everything", '[defaults]\nwrite = "confirm"\nspend = "confirm"\n')


async def asked_request(wanted: ToolCall) -> ApprovalRequest:
    """Make a call without a form. Return the request that people are asked."""
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(Path(folder), f"memory:{folder}", (ASKS, ASKS))
        try:
            await simulation.make(0, PRINCIPAL, wanted)
            requests = await simulation.deployment.requests()
        finally:
            await simulation.aclose()
    return requests[0]


def plain(text: str) -> str:
    """Return the letters of a text, without quotes, punctuation, spaces and line breaks: channels differ in these."""
    return "".join(re.findall(r"\w+", text))


def parts(question: Question) -> Iterator[str]:
    """Yield each sentence and value of a question that a person has to see.

    What is lost by the calls of a list is said by the questions about them.
    """
    if question.calls:
        yield from (question.title, question.then)
        for call in question.calls:
            yield from parts(call)
        return
    yield from (question.title, question.lost, question.then, question.unchecked, question.because, question.costs)
    yield from question.notes
    for name, fact in question.facts:
        yield name
        yield fact
    for change in question.changes:
        yield json.dumps(change.after, ensure_ascii=False)
    for name, value in question.arguments.items():
        yield name
        yield from _leaves(value)


def _leaves(value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    else:
        yield json.dumps(value, ensure_ascii=False)


def on_terminal(request: ApprovalRequest) -> str:
    """Return what a terminal prints before it waits for the answer."""
    reading, writing = os.pipe()
    try:
        terminal = Terminal(writing)
        terminal.say(form_text(request))
    finally:
        os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as printed:
        return printed.read()


async def on_page(request: ApprovalRequest, folder: Path) -> str:
    """Return the words of the approval page with this one request."""
    desk = Desk(folder / "page.json")
    now = desk.clock.now().timestamp()
    try:
        await desk.ask(replace(request, created=now - 60, expires=now + 600, out_of_band=True))
        visitor = await let_in(desk)
        try:
            return words(await visitor.look())
        finally:
            await visitor.http.aclose()
    finally:
        await desk.aclose()


@pytest.mark.parametrize("wanted", list(asked_calls()))
async def test_channels_show_the_same_parts(wanted: ToolCall, tmp_path: Path) -> None:
    request = await asked_request(wanted)
    texts = {
        "form": str(form_request(request).model_dump()["input_requests"]["approval"]["params"]["message"]),
        "terminal": on_terminal(request),
        "webhook": json.dumps(payload(request, "https://example.com")["lines"], ensure_ascii=False),
        "slack": json.dumps(message(request, [], request.created, "")["blocks"], ensure_ascii=False).replace(
            "&gt;", ">"
        ),
        "page": await on_page(request, tmp_path),
    }
    for channel, text in texts.items():
        shown = plain(text)
        missing = [part for part in parts(request.question) if plain(part) not in shown]
        assert not missing, f"{channel} does not show {missing}:\n{text}"
