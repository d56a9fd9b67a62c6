"""Run a job with a client, as an agent would, and count its cost."""

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jobs import Call, Job
from mcp import Client
from mcp.types import TextContent
from server_process import body


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one call."""

    tool: str
    tokens: int
    characters: int
    milliseconds: float


@cache
def _encoding() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it reads its data in a deprecated way
        import bpe_openai  # pyright: ignore[reportMissingTypeStubs]
    return bpe_openai.get_encoding("o200k_base")


def tokens(text: str) -> int:
    """Count the o200k_base tokens of a text."""
    return len(_encoding().encode(text))


async def do(client: Client, job: Job) -> list[Cost]:
    """Make the calls of a job, and of its proof, which is not counted. Raises if an answer lacks what it must say."""
    answers: list[dict[str, Any]] = []
    costs = [await _made(client, call, answers) for call in job.calls]
    for call in job.proof:
        await _made(client, call, answers)
    return costs


async def _made(client: Client, call: Call, answers: list[dict[str, Any]]) -> Cost:
    arguments = call.filled(answers)
    began = time.perf_counter()
    result = await client.call_tool(call.tool, arguments)
    took = time.perf_counter() - began
    (content,) = result.content
    assert isinstance(content, TextContent)
    answer = body(result)
    assert not result.is_error, content.text
    assert json.loads(content.text) == answer
    _says_enough(call, answer)
    answers.append(answer)
    return Cost(call.tool, tokens(content.text), len(content.text), took * 1000)


def _says_enough(call: Call, answer: dict[str, Any]) -> None:
    text = json.dumps(answer, ensure_ascii=False)
    missing = [words for words in call.says if words not in text]
    assert not missing, f"{call.tool} does not say {missing}: {text}"


def total(costs: Sequence[Cost]) -> tuple[int, int, float]:
    """Return the calls, tokens and milliseconds."""
    return len(costs), sum(cost.tokens for cost in costs), sum(cost.milliseconds for cost in costs)
