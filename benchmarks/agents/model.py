"""The jobs by a real model, at any address that speaks the Anthropic Messages API or OpenAI's Chat Completions API.

    AGENT_URL    its address, up to and without /v1
    AGENT_MODEL  its name there
    AGENT_API    anthropic or openai; the default is anthropic if the address says so, else openai
    AGENT_KEY    its key, if it needs one

The model gets the server's instructions and tools, and the sentence of the job. A person approves whatever is asked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import httpx2
from account import Account
from job import Job
from mcp import Client
from mcp.types import TextContent, Tool
from scripted import Meter, Outcome
from support.server_process import Person

MAX_TURNS = 20
_ANSWER_TOKENS = 2_000
_SECONDS = 120.0

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model wants."""

    id: str
    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model said, and the message to repeat to it."""

    text: str
    calls: Sequence[ToolCall]
    message: Json


@dataclass(frozen=True, slots=True)
class Model:
    """A model at an address."""

    api: Literal["anthropic", "openai"]
    url: str
    name: str
    key: str = ""

    async def do(self, client: Client, person: Person, job: Job, account: Account) -> Outcome:
        """Let the model do a job on a fresh account, and judge it by the account and by what it says in the end."""
        account.reset()
        meter, tools = Meter(client, person), (await client.list_tools()).tools
        messages: list[Json] = [{"role": "user", "content": job.prompt}]
        answer, problems = "", list[str]()
        async with httpx2.AsyncClient(timeout=_SECONDS) as http:
            for _ in range(MAX_TURNS):
                try:
                    turn = await self._ask(http, client.instructions or "", tools, messages)
                except (httpx2.HTTPError, LookupError, ValueError) as error:
                    problems.append(f"the model did not answer ({type(error).__name__}: {error})")
                    break
                answer = turn.text
                if not turn.calls:
                    break
                messages.append(turn.message)
                messages += self._results([(call, await _made(meter, call)) for call in turn.calls])
            else:
                problems.append(f"it was not done after {MAX_TURNS} turns")
        judged = job.problems(account.sent(), account.rows, answer)
        return meter.outcome([*problems, *judged], account.requests())

    async def _ask(
        self, http: httpx2.AsyncClient, instructions: str, tools: Sequence[Tool], messages: Sequence[Json]
    ) -> Turn:
        body: Json = {"model": self.name, "max_tokens": _ANSWER_TOKENS}
        if self.api == "anthropic":
            path, headers = "/v1/messages", {"x-api-key": self.key, "anthropic-version": "2023-06-01"}
            of_tools = [
                {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}
                for tool in tools
            ]
            body |= {"system": instructions, "messages": [*messages], "tools": of_tools}
        else:
            path, headers = "/v1/chat/completions", {"authorization": f"Bearer {self.key}"} if self.key else {}
            of_tools = [
                {
                    "type": "function",
                    "function": {"name": tool.name, "description": tool.description, "parameters": tool.input_schema},
                }
                for tool in tools
            ]
            body |= {"messages": [{"role": "system", "content": instructions}, *messages], "tools": of_tools}
        answer = await http.post(f"{self.url.rstrip('/')}{path}", headers=headers, json=body)
        answer.raise_for_status()
        return _anthropic(answer.json()) if self.api == "anthropic" else _openai(answer.json())

    def _results(self, results: Sequence[tuple[ToolCall, str]]) -> list[Json]:
        if self.api == "openai":
            return [{"role": "tool", "tool_call_id": call.id, "content": text} for call, text in results]
        blocks = [{"type": "tool_result", "tool_use_id": call.id, "content": text} for call, text in results]
        return [{"role": "user", "content": blocks}]


async def _made(meter: Meter, call: ToolCall) -> str:
    try:
        result = await meter.call(call.name, call.arguments)
    except Exception as error:  # as a client tells its model of a protocol error
        return f"{type(error).__name__}: {error}"
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def _anthropic(answer: Json) -> Turn:
    blocks = cast("list[Json]", answer["content"])
    calls = [ToolCall(one["id"], one["name"], one["input"]) for one in blocks if one["type"] == "tool_use"]
    text = "\n".join(one["text"] for one in blocks if one["type"] == "text")
    return Turn(text, calls, {"role": "assistant", "content": blocks})


def _openai(answer: Json) -> Turn:
    message = cast(Json, answer["choices"][0]["message"])
    calls = [
        ToolCall(one["id"], one["function"]["name"], json.loads(one["function"]["arguments"] or "{}"))
        for one in cast("list[Json]", message.get("tool_calls") or [])
    ]
    return Turn(message.get("content") or "", calls, message)


def of_environment(environment: Mapping[str, str]) -> Model | None:
    """Return the configured model, if there is one. Raises `SystemExit` if the settings are incomplete."""
    url, name = environment.get("AGENT_URL", ""), environment.get("AGENT_MODEL", "")
    if not url:
        return None
    api = environment.get("AGENT_API") or ("anthropic" if "anthropic" in url else "openai")
    if not name or api not in ("anthropic", "openai"):
        raise SystemExit("AGENT_URL is set: name a model in AGENT_MODEL, and anthropic or openai in AGENT_API")
    return Model(api, url, name, environment.get("AGENT_KEY", ""))
