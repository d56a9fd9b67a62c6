"""The agent framework examples work, and only a person's approval at the server deletes anything.

Each runs at a terminal in an environment with its framework and without this project, with the framework's test model.
`make examples` builds the environments.
"""

import os
import shlex
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.policy_files import policy_file
from support.server_process import Upstream, environment
from support.terminal import Person, sitting

ENVIRONMENTS = os.environ.get("EXAMPLE_ENVIRONMENTS")

EXAMPLES = Path(__file__).parents[2] / "examples"
AGENTS = ["langgraph", "openai_agents", "pydantic_ai"]
NAME = "Daily TikTok sync"
READING = 1.1
"""Seconds. The guard takes a no within one second for a program's."""

_BECOME = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
_LOOK_AGAIN = "Press Enter once that is decided. "


@dataclass(frozen=True)
class Example:
    """A running example with its user, and the requests that reach Fastn."""

    user: Person
    upstream: Upstream
    env: dict[str, str]

    def looks_again(self) -> None:
        self.user.sees(_LOOK_AGAIN)
        self.user.types("\r")

    def changes(self) -> list[str]:
        """Return the changes of the trigger: PUT pauses it, DELETE deletes it."""
        sent = [change.rpartition("/") for change in self.upstream.changes()]
        assert len({trigger for _, _, trigger in sent}) == 1
        return [change for change, _, _ in sent]

    @contextmanager
    def question(self) -> Generator[Person]:
        """Open the pending request at another terminal."""
        with sitting(["-m", "fastn_mcp", "approvals"], self.env) as person:
            person.sees("waiting > ")
            yield person
            person.leaves()

    def approve(self) -> None:
        with self.question() as person:
            person.types(f"{NAME}\r")
            person.sees("Approved.")

    def rest(self) -> str:
        """Wait for its successful end. Returns what it showed since the last look."""
        code, shown = self.user.leaves()
        assert code == 0, shown
        return shown.strip()


PAUSED = ["PUT /api/v1/triggers"]
PAUSED_AND_DELETED = [*PAUSED, "DELETE /api/v1/triggers"]


@contextmanager
def running_example(name: str, upstream: Upstream, policy: Path | None = None) -> Generator[Example]:
    if not ENVIRONMENTS:
        pytest.skip("each example has an environment of its own: make examples")
    flags = ["--policy", str(policy)] if policy else []
    server = shlex.join([sys.executable, "-m", "fastn_mcp", *flags])
    env = environment(upstream) | {"FASTN_MCP": server, "BROWSER": "true %s"}
    python = Path(ENVIRONMENTS) / name / "bin" / "python"
    with sitting(["-c", _BECOME, str(python), str(EXAMPLES / name / "main.py")], env) as user:
        yield Example(user, upstream, env)


def test_every_example_is_tested() -> None:
    assert sorted(main.parent.name for main in EXAMPLES.glob("*/main.py")) == sorted([*AGENTS, "plain_client"])


@pytest.mark.parametrize("name", AGENTS)
def test_agent_deletes_only_after_a_person_approved(name: str, upstream: Upstream) -> None:
    """Resuming the framework's interrupt approves nothing; the approval at the server does."""
    with running_example(name, upstream) as example:
        for _ in range(2):
            example.looks_again()
        example.user.sees(_LOOK_AGAIN)
        assert example.changes() == PAUSED
        example.approve()
        example.user.types("\r")
        assert example.rest() == f"{NAME} is paused and deleted."
        assert example.changes() == PAUSED_AND_DELETED


@pytest.mark.parametrize("name", AGENTS)
def test_decline_reaches_the_agent_with_its_note(name: str, upstream: Upstream) -> None:
    with running_example(name, upstream) as example:
        example.user.sees(_LOOK_AGAIN)
        with example.question() as person:
            person.types("n\r")
            person.answers("A note for the agent, or Enter > ", "Katana needs it on Monday")
            person.sees("Declined.")
        example.user.types("\r")
        shown = example.rest()
        assert shown.startswith(f"{NAME} is paused, not deleted: A person declined this call.")
        assert shown.endswith("Katana needs it on Monday")
        assert example.changes() == PAUSED


def test_plain_client_deletes_the_typed_name(upstream: Upstream) -> None:
    with running_example("plain_client", upstream) as example:
        assert "Sync TikTok Orders to Cin7 Core failed: " in example.user.sees("can be created again, under a new id.")
        example.user.sees(f'Type "{NAME}" to approve this one call. > ')
        assert example.changes() == PAUSED
        time.sleep(READING)
        example.user.types(f"{NAME}\r")
        assert example.rest().endswith(f"{NAME} is deleted.")
        assert example.changes() == PAUSED_AND_DELETED


@pytest.mark.parametrize("typed", ["", "Daily sync"])
def test_plain_client_deletes_nothing_for_another_answer(typed: str, upstream: Upstream) -> None:
    with running_example("plain_client", upstream) as example:
        example.user.sees(f'Type "{NAME}" to approve this one call. > ')
        time.sleep(READING)
        example.user.types(f"{typed}\r")
        assert "Not deleted: " in example.rest()
        assert example.changes() == PAUSED


def test_plain_client_repeats_an_out_of_band_call(upstream: Upstream, tmp_path: Path) -> None:
    policy = policy_file(tmp_path, '[defaults]\ndestroy = "out_of_band"\n')
    with running_example("plain_client", upstream, policy) as example:
        example.looks_again()
        example.user.sees(_LOOK_AGAIN)
        assert example.changes() == PAUSED
        example.approve()
        example.user.types("\r")
        assert example.rest().endswith(f"{NAME} is deleted.")
        assert example.changes() == PAUSED_AND_DELETED
