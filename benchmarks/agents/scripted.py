"""Do a job with a client by its script, as a sensible agent would, and judge it by the account afterwards."""

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # noqa: F401 # pyright: ignore[reportUnusedImport] - or the first call would wait for the client to import it
from account import KEY, Account
from job import Job
from jobs import ENVIRONMENT
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, TextContent, Tool
from support.server_process import ERAS, Person, body

BROWSER = f"{sys.executable} {Path(__file__).with_name('typing_person.py')} %s &"
"""The command that opens the approval page: a person there approves, and types the secret."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job cost, and why it was not done, if it was not."""

    calls: int
    argument_tokens: int
    answer_tokens: int
    seconds: float
    """Of the calls, without the time that the person took to answer forms."""
    largest: int
    """Characters of the largest answer."""
    requests: int
    """Requests that reached Fastn."""
    problems: Sequence[str] = field(default=())

    @property
    def tokens(self) -> int:
        return self.argument_tokens + self.answer_tokens


@cache
def _encoding() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it reads its data in a deprecated way
        import bpe_openai  # pyright: ignore[reportMissingTypeStubs]
    return bpe_openai.get_encoding("o200k_base")


def tokens(text: str) -> int:
    """Count the o200k_base tokens of a text."""
    return len(_encoding().encode(text))


def price(tool: Tool) -> int:
    """Return the tokens that a model reads of a tool: its name, description and input schema as JSON."""
    read = {"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema}
    return tokens(json.dumps(read, separators=(",", ":"), ensure_ascii=False))


class Meter:
    """A client whose calls are counted."""

    def __init__(self, client: Client, person: Person) -> None:
        self.client = client
        self._person = person
        self._seconds = 0.0
        self.arguments: list[str] = []
        self.texts: list[str] = []

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        asked, began = len(self._person.asked), time.perf_counter()
        result = await self.client.call_tool(tool, arguments)
        waited = self._person.reading * (len(self._person.asked) - asked)
        self._seconds += time.perf_counter() - began - waited
        self.arguments.append(json.dumps(arguments, separators=(",", ":"), ensure_ascii=False))
        self.texts.append("\n".join(part.text for part in result.content if isinstance(part, TextContent)))
        return result

    def outcome(self, problems: Sequence[str], requests: int) -> Outcome:
        arguments, answered = (sum(map(tokens, texts)) for texts in (self.arguments, self.texts))
        largest = max(map(len, self.texts), default=0)
        return Outcome(len(self.texts), arguments, answered, self._seconds, largest, requests, problems)


@asynccontextmanager
async def server_on(account: Account, person: Person) -> AsyncGenerator[Client]:
    """Start the server under test, with a state folder of its own, as for one session of an agent."""
    with tempfile.TemporaryDirectory() as state:
        own = {"FASTN_CONFIG": os.devnull, "FASTN_CONFIG_DIR": state, "FASTN_STATE_DIR": state, **ENVIRONMENT}
        env = {**own, "FASTN_BASE_URL": account.url, "FASTN_API_KEY": KEY, "BROWSER": BROWSER}
        server = StdioServerParameters(command=sys.executable, args=["-m", "fastn_mcp"], env=env)
        async with Client(server, mode=ERAS["2026-07-28"], elicitation_callback=person) as client:
            await client.list_tools()  # as an agent does; else the client does it within the first call
            yield client


async def do(client: Client, person: Person, job: Job, account: Account) -> Outcome:
    """Make the calls of a job on a fresh account. Stops where an answer does not let a sensible agent continue."""
    account.reset()
    meter, answers = Meter(client, person), list[dict[str, Any]]()
    problems: list[str] = []
    for call in job.calls:
        try:
            arguments = call.filled(answers)
        except (LookupError, TypeError, StopIteration) as error:
            problems.append(f"{call.tool}: the answers before give no arguments ({type(error).__name__})")
            break
        result = await meter.call(call.tool, arguments)
        answers.append(body(result))
        missing = [words for words in call.says if words not in json.dumps(answers[-1], ensure_ascii=False)]
        if bool(result.is_error) is not call.is_refused or missing:
            problems.append(f"{call.tool} does not say {missing}: {meter.texts[-1][:1500]}")
            break
    answered = "\n".join(meter.texts)
    problems += [f"not answered: {text}" for text in job.texts(account.rows) if text not in answered]
    judged = job.problems(account.sent(), account.rows, answered)
    return meter.outcome([*problems, *judged], account.requests())
