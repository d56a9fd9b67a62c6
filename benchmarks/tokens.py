"""What the tool list costs, and each of the fifteen jobs: calls, tokens of the answers (o200k_base) and milliseconds.

The jobs are those of the tests (tests/end_to_end/jobs.py), done by a real client over stdio on an account of 400
connectors, 2,000 customers and 200,000 executions; each round starts a new server. Beside them stand the plain API
calls that the same answers would take (plain.py). With `--write`, the tables go into docs/measured.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import plain
from job_runner import Cost, do, tokens, total
from jobs import ENVIRONMENT, JOBS, MOST_CALLS, MOST_TOKENS
from large_account import write_account
from mcp import Client, StdioServerParameters
from mcp.types import Tool
from ports import free_port
from server_process import KEY, Person, approving

DOCUMENT = Path(__file__).parent.parent / "docs" / "measured.md"
MOST_SECONDS = 2.0
MOST_OF_THE_LIST = 6_000


def price(tool: Tool) -> int:
    """What a model reads of a tool: its name, description and input schema as JSON."""
    read = {"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema}
    return tokens(json.dumps(read, separators=(",", ":"), ensure_ascii=False))


async def round_() -> tuple[dict[str, int], dict[int, list[Cost]]]:
    """One server: its list, and all jobs in turn."""
    with tempfile.TemporaryDirectory() as state:
        own = {"FASTN_CONFIG": os.devnull, "FASTN_CONFIG_DIR": state, "FASTN_STATE_DIR": state, **ENVIRONMENT}
        arguments = ["-m", "fastn_mcp", "--sandbox-file", str(write_account(Path(state) / "account.json"))]
        server = StdioServerParameters(command=sys.executable, args=arguments, env=own)
        person = Person(approving)
        async with Client(server, mode="2026-07-28", elicitation_callback=person) as client:
            listed = {tool.name: price(tool) for tool in (await client.list_tools()).tools}
            return listed, {job.number: await do(client, job) for job in JOBS}


def plain_calls() -> dict[int, tuple[int, int]]:
    """For each job the number of plain API calls, and the tokens of their answers."""
    with tempfile.TemporaryDirectory() as folder:
        file, port = write_account(Path(folder) / "account.json"), free_port()
        command = [sys.executable, "-m", "fastn_mcp", "sandbox", "--file", str(file), "--port", str(port)]
        found: dict[int, tuple[int, int]] = {}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                plain.waited(f"http://127.0.0.1:{port}/")
                for number, job in plain.JOBS.items():
                    api = plain.Api(f"http://127.0.0.1:{port}", KEY)
                    job(api)
                    api.close()
                    found[number] = len(api.answers), sum(map(tokens, api.answers))
            finally:
                process.terminate()
                process.wait(15)
        return found


def jobs_table(rounds: list[dict[int, list[Cost]]], bridged: dict[int, tuple[int, int]]) -> str:
    lines = [
        "| | what the person says | calls | tokens | ms | plain calls | their tokens |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for job in JOBS:
        costs = [total(measured[job.number]) for measured in rounds]
        calls, spent = costs[-1][:2]
        took = statistics.median(cost[2] for cost in costs)
        theirs, their_tokens = bridged[job.number]
        lines.append(f"| {job.number} | {job.said} | {calls} | {spent:,} | {took:,.0f} | {theirs} | {their_tokens:,} |")
    return "\n".join(lines)


def list_table(listed: dict[str, int]) -> str:
    dear = sorted(listed.items(), key=lambda cost: -cost[1])
    cells = [f"`{name}` {cost}" for name, cost in dear]
    return f"{len(listed)} tools, {sum(listed.values()):,} tokens: {', '.join(cells)}."


def written(text: str, name: str, between: str) -> str:
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{DOCUMENT.name} has no place for {name}")
    return f"{before}{begin}{between}\n{end}{after}"


def missed(listed: dict[str, int], rounds: list[dict[int, list[Cost]]]) -> list[str]:
    """What costs more than was promised."""
    found = [] if sum(listed.values()) <= MOST_OF_THE_LIST else ["the tool list"]
    for job in JOBS:
        costs = [total(measured[job.number]) for measured in rounds]
        took = statistics.median(cost[2] for cost in costs) / 1000
        if max(cost[0] for cost in costs) > MOST_CALLS or max(cost[1] for cost in costs) > MOST_TOKENS:
            found.append(f"job {job.number}: calls or tokens")
        if took > MOST_SECONDS:
            found.append(f"job {job.number}: {took:.1f} s")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="servers; of the times the median is told")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/measured.md")
    options = parser.parse_args()
    outcomes = [anyio.run(round_) for _ in range(options.rounds)]
    listed, rounds = outcomes[0][0], [jobs for _, jobs in outcomes]
    table, tools = jobs_table(rounds, plain_calls()), list_table(listed)
    print(f"{table}\n\n{tools}")
    if options.write:
        text = DOCUMENT.read_text(encoding="utf-8")
        text = written(written(text, "jobs", table), "tools", tools)
        DOCUMENT.write_text(text, encoding="utf-8")
    print("\nWithin what was promised." if not (over := missed(listed, rounds)) else f"\nMISSED: {'; '.join(over)}")


if __name__ == "__main__":
    main()
