"""The jobs of the benchmark, from the request to its result, on a large account with a real client."""

import json
import re
import statistics
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import answer_jobs
import anyio
import pytest
from account import Account, serving
from job import Job
from jobs import JOBS, LARGEST, MAX_CALLS, MAX_REQUESTS, MAX_TOKENS, MEDIAN_CALLS, MEDIAN_TOKENS, THIRTY
from model import Model, of_environment
from question_jobs import LIMITS
from scripted import Outcome, do, server_on
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.identity_provider import listening
from support.ports import free_port
from support.server_process import Person, approving

from fastn_mcp.extensions.sandbox.server import Sandbox, dataset


@pytest.fixture(scope="module")
def account() -> Generator[Account]:
    with serving(dataset) as account:
        yield account


async def _outcome(job: Job, account: Account, agent: Model | None = None) -> Outcome:
    """Do a job with a server of its own, by its script or by a model."""
    person = Person(approving)
    async with server_on(account, person) as client:
        by = do(client, person, job, account) if agent is None else agent.do(client, person, job, account)
        return await by


def limits(number: int) -> tuple[int, int]:
    """Return the calls and tokens that a job may take."""
    if any(job.number == number for job in answer_jobs.ANSWERS):
        return answer_jobs.MAX_CALLS, answer_jobs.MAX_TOKENS
    return LIMITS.get(number, (MAX_CALLS, MAX_TOKENS))


@pytest.mark.long
def test_jobs_are_done_in_few_calls_requests_and_tokens() -> None:
    with serving() as account:
        outcomes = {job.number: anyio.run(_outcome, job, account) for job in JOBS}
    assert {number: one.problems for number, one in outcomes.items() if one.problems} == {}
    for number, one in outcomes.items():
        print(f"job {number}: {one.calls} calls, {one.tokens} tokens")  # noqa: T201 shown by pytest -rP
        most_calls, most_tokens = limits(number)
        assert one.calls <= most_calls, number
        assert one.tokens <= most_tokens, number
        assert one.largest <= LARGEST, number
    assert sum(outcomes[job.number].requests for job in THIRTY) <= MAX_REQUESTS
    assert statistics.median(one.calls for one in outcomes.values()) <= MEDIAN_CALLS
    assert statistics.median(one.tokens for one in outcomes.values()) <= MEDIAN_TOKENS


def test_jobs_use_no_hard_coded_id() -> None:
    assert [job.number for job in JOBS] == list(range(1, len(JOBS) + 1))
    for job in JOBS:
        for call in job.calls:
            assert not re.search(r"wf_|exec_|ucl:|ref_|[0-9a-f]{8}-[0-9a-f]{4}", f"{call.arguments}"), (
                job.number,
                call,
            )


def test_judge_rejects_a_job_that_was_not_done() -> None:
    rows = Sandbox(lambda: datetime.now(UTC)).state.all
    for job in JOBS:
        assert job.problems((), rows, ""), job
        assert job.problems((*job.sends, "DELETE roles"), rows, " ".join(job.facts)), job


CONNECTIONS_OF_ACME = replace(next(job for job in JOBS if job.number == 28), facts=("Shopify", "Slack", "Xero"))
"""What is connected on the small account."""


TURNS: list[Callable[[Any], tuple[str, dict[str, Any]]]] = [
    lambda _: ("find", {"query": "Acme Corp", "kind": "customer"}),
    lambda answer: ("list_connections", {"customer_id": answer["data"]["found"][0]["id"]}),
]


async def fake_model(request: Request) -> Response:
    """Speak either API, and make the calls of `TURNS`; then say what the last answer said."""
    body = await request.json()
    is_anthropic = request.url.path == "/v1/messages"
    results = [
        block["content"] if is_anthropic else message["content"]
        for message in body["messages"]
        if message["role"] == "tool" or isinstance(message["content"], list)
        for block in (message["content"] if is_anthropic else [message])
        if block.get("type") == "tool_result" or not is_anthropic
    ]
    assert any("find" in json.dumps(tool) for tool in body["tools"])
    if len(results) < len(TURNS):
        key = f"t{len(results)}"
        name, arguments = TURNS[len(results)](json.loads(results[-1]) if results else None)
        content: Any = [{"type": "tool_use", "id": key, "name": name, "input": arguments}]
        function = {"name": name, "arguments": json.dumps(arguments)}
        message = {"role": "assistant", "content": None, "tool_calls": [{"id": key, "function": function}]}
    else:
        content = [{"type": "text", "text": results[-1]}]
        message = {"role": "assistant", "content": results[-1]}
    return JSONResponse({"content": content} if is_anthropic else {"choices": [{"message": message}]})


@pytest.mark.parametrize("api", ["anthropic", "openai"])
def test_model_at_an_address_does_a_job(api: str, account: Account) -> None:
    with listening(Starlette(routes=[Route("/{path:path}", fake_model, methods=["POST"])])) as url:
        environment = {"AGENT_URL": url, "AGENT_MODEL": "fake", "AGENT_API": api}
        agent = of_environment(environment)
        assert isinstance(agent, Model)
        outcome = anyio.run(_outcome, CONNECTIONS_OF_ACME, account, agent)
    assert (outcome.problems, outcome.calls) == ([], 2)


def test_model_that_does_not_answer_has_not_done_the_job(account: Account) -> None:
    agent = of_environment({"AGENT_URL": f"http://127.0.0.1:{free_port()}", "AGENT_MODEL": "fake"})
    outcome = anyio.run(_outcome, CONNECTIONS_OF_ACME, account, agent)
    assert "the model did not answer" in outcome.problems[0]


def test_model_settings_are_complete_or_refused() -> None:
    assert of_environment({}) is None
    with pytest.raises(SystemExit):
        of_environment({"AGENT_URL": "http://127.0.0.1:1"})
