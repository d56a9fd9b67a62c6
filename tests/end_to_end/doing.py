"""Does a job with a client, as an agent would, and counts what that costs."""

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from driving import body
from jobs import Call, Job
from mcp import Client
from mcp.types import TextContent


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call cost."""

    tool: str
    tokens: int
    characters: int
    milliseconds: float


@cache
def _encoding() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it reads its data in an old way
        import bpe_openai  # pyright: ignore[reportMissingTypeStubs]
    return bpe_openai.get_encoding("o200k_base")


def tokens(text: str) -> int:
    """In o200k_base."""
    return len(_encoding().encode(text))


async def do(client: Client, job: Job) -> list[Cost]:
    """Make the calls of a job, and of its proof, which costs nothing. Raises where an answer does not say enough."""
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
    said = json.dumps(answer, ensure_ascii=False)
    missing = [words for words in call.says if words not in said]
    assert not missing, f"{call.tool} does not say {missing}: {said}"


def total(costs: Sequence[Cost]) -> tuple[int, int, float]:
    """Calls, tokens and milliseconds."""
    return len(costs), sum(cost.tokens for cost in costs), sum(cost.milliseconds for cost in costs)
