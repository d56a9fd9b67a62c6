"""The fifteen jobs, from the request to its result, on a large account with a real client."""

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from job_runner import do, total
from jobs import ENVIRONMENT, JOBS, LARGEST, MOST_CALLS, MOST_TOKENS, From, Job
from large_account import write_account
from mcp import Client, StdioServerParameters
from server_process import ERAS, Person, approving

Office = tuple[BlockingPortal, Client]


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Generator[Office]:
    """A server with a large account for all jobs, which do not touch each other's data."""
    state = tmp_path_factory.mktemp("state")
    arguments = ["-m", "fastn_mcp", "--sandbox-file", str(write_account(state / "account.json"))]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment(state))
    with start_blocking_portal() as portal:
        client = Client(server, mode=ERAS["2026-07-28"], elicitation_callback=Person(approving))
        with portal.wrap_async_context_manager(client) as connected:
            yield portal, connected


def environment(state: Path) -> dict[str, str]:
    own = {"FASTN_CONFIG": os.devnull, "FASTN_CONFIG_DIR": str(state), "FASTN_STATE_DIR": str(state)}
    return own | ENVIRONMENT


@pytest.mark.long
@pytest.mark.parametrize("job", JOBS, ids=str)
def test_job_takes_few_calls_and_tokens(job: Job, office: Office) -> None:
    """Ours: at most four calls and 6,000 tokens of answers, each within the budget."""
    portal, client = office
    costs = portal.call(do, client, job)
    calls, tokens, _ = total(costs)
    print(f"job {job.number}: {calls} calls, {tokens} tokens")  # noqa: T201 shown by pytest -rP
    assert calls <= MOST_CALLS
    assert tokens <= MOST_TOKENS
    assert max(cost.characters for cost in costs) <= LARGEST


def test_fifteen_jobs_use_no_hard_coded_id() -> None:
    """Ours: every id in a script comes from an earlier answer."""
    assert [job.number for job in JOBS] == list(range(1, 16))
    for job in JOBS:
        for call in (*job.calls, *job.proof):
            if isinstance(call.arguments, From):
                continue
            for name, value in call.arguments.items():
                if name == "id" or name.endswith("_id"):
                    assert isinstance(value, From), (job.number, name)
