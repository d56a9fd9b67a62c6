"""What agents need for 67 jobs: success, calls, requests, tokens (o200k_base) and seconds, on the large account.

Each job is done by its script (jobs.py) with a real client over stdio, on an account of 400 connectors, 2,000 customers
and 200,000 executions. The account begins anew for each job, and so does the server. The judge looks at what reached
Fastn, at the rows afterwards and at what was answered. Beside it stand the first thirty jobs through FastMCP's OpenAPI
bridge (bridge.py, with `--fastmcp PYTHON`), and all by a model (model.py), if `AGENT_URL` and `AGENT_MODEL` are set.
With `--write`, the tables go into docs/contributing/measured.md.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import anyio
import bridge
import model
from account import Account, serving
from jobs import JOBS, MAX_CALLS, MAX_REQUESTS, MEDIAN_CALLS, MEDIAN_TOKENS, THIRTY
from report import put
from scripted import Outcome, do, price, server_on
from support.server_process import Person, approving

MAX_SECONDS = 2.0
MAX_OF_THE_LIST = 6_200

Outcomes = Mapping[int, Outcome]


async def ours(account: Account, chosen: Sequence[int], agent: model.Model | None) -> tuple[dict[str, int], Outcomes]:
    """Return the price of each tool, and the outcome of each job: by its script, or by a model.

    Each job has a server of its own: the account begins anew for it, and nothing of the one before may be kept.
    """
    person, listed, outcomes = Person(approving), dict[str, int](), dict[int, Outcome]()
    for job in JOBS:
        if job.number in chosen:
            async with server_on(account, person) as client:
                listed = listed or {tool.name: price(tool) for tool in (await client.list_tools()).tools}
                by = do(client, person, job, account) if agent is None else agent.do(client, person, job, account)
                outcomes[job.number] = await by
    return listed, outcomes


def jobs_table(columns: Mapping[str, Outcomes]) -> str:
    """Return a row for each job, with calls, requests, tokens and seconds of each column; medians, and totals."""
    heads = "".join(f" {name}: calls | requests | tokens | s |" for name in columns)
    lines = [f"| | what the person says |{heads}", f"|--:|---|{'--:|' * 4 * len(columns)}"]
    for job in JOBS:
        cells = [_cells(outcomes.get(job.number)) for outcomes in columns.values()]
        if any(job.number in outcomes for outcomes in columns.values()):
            lines.append(f"| {job.number} | {job.prompt} | {' | '.join(cells)} |")
    done = f"median; done: {', '.join(map(_done, columns.values()))}"
    medians = [_summary(outcomes.values(), statistics.median, ".1f") for outcomes in columns.values()]
    totals = [_summary(outcomes.values(), sum, ",.0f") for outcomes in columns.values()]
    return "\n".join([*lines, f"| | *{done}* | {' | '.join(medians)} |", f"| | *total* | {' | '.join(totals)} |"])


def _summary(outcomes: Collection[Outcome], of: Callable[[list[float]], float], counts: str) -> str:
    calls, requests, used = (of([getattr(one, name) for one in outcomes]) for name in ("calls", "requests", "tokens"))
    return f"{calls:{counts}} | {requests:{counts}} | {used:,.0f} | {of([one.seconds for one in outcomes]):.2f}"


def _cells(outcome: Outcome | None) -> str:
    if outcome is None:
        return "| | | "
    calls = f"{outcome.calls}{' (not done)' if outcome.problems else ''}"
    return f"{calls} | {outcome.requests:,} | {outcome.tokens:,} | {outcome.seconds:.2f}"


def _done(outcomes: Outcomes) -> str:
    return f"{sum(not outcome.problems for outcome in outcomes.values())} of {len(outcomes)}"


def list_table(listed: Mapping[str, int]) -> str:
    """Return the price of the tool list in a sentence."""
    cells = [f"`{name}` {cost}" for name, cost in sorted(listed.items(), key=lambda cost: -cost[1])]
    return f"{len(listed)} tools, {sum(listed.values()):,} tokens: {', '.join(cells)}."


def missed(listed: Mapping[str, int], outcomes: Outcomes) -> list[str]:
    """Return what is not as the project promises."""
    problems = [
        f"job {number}: {'; '.join(outcome.problems)}" for number, outcome in outcomes.items() if outcome.problems
    ]
    problems += [f"job {number}: {one.calls} calls" for number, one in outcomes.items() if one.calls > MAX_CALLS]
    problems += [f"job {number}: {one.seconds:.1f} s" for number, one in outcomes.items() if one.seconds > MAX_SECONDS]
    if sum(listed.values()) > MAX_OF_THE_LIST:
        problems.append(f"the tool list: {sum(listed.values())} tokens")
    if sum(one.requests for number, one in outcomes.items() if number <= len(THIRTY)) > MAX_REQUESTS:
        problems.append(f"requests of the first {len(THIRTY)}")
    if statistics.median(outcome.calls for outcome in outcomes.values()) > MEDIAN_CALLS:
        problems.append("calls at the median")
    if statistics.median(outcome.tokens for outcome in outcomes.values()) > MEDIAN_TOKENS:
        problems.append("tokens at the median")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="*", help="only these")
    parser.add_argument("--fastmcp", type=Path, help="the Python of an environment with FastMCP, for the bridge")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/contributing/measured.md")
    options = parser.parse_args()
    chosen: list[int] = options.jobs or [job.number for job in JOBS]
    with serving() as account:
        listed, scripted = anyio.run(ours, account, chosen, None)
        of_bridge: Mapping[str, int] = {}
        columns: dict[str, Outcomes] = {"fastn-mcp": scripted}
        if options.fastmcp is not None:
            of_bridge, columns["bridge"] = anyio.run(bridge.done, account, chosen, options.fastmcp)
        if (agent := model.of_environment(os.environ)) is not None:
            columns[agent.name] = anyio.run(ours, account, chosen, agent)[1]
    table = jobs_table(columns)
    tools = list_table(listed)
    if of_bridge:
        tools += f" The bridge's: {len(of_bridge)} tools, {sum(of_bridge.values()):,} tokens."
    print(f"{table}\n\n{tools}")
    for name, outcomes in columns.items():
        for number, outcome in outcomes.items():
            if outcome.problems:
                print(f"{name}, job {number}: {'; '.join(outcome.problems)}")
    if options.write:
        put("jobs", table)
        put("tools", tools)
    over = missed(listed, scripted)
    print("\nWithin what is promised." if not over else f"\nMISSED: {'; '.join(over)}")
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
