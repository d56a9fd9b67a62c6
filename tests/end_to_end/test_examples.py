"""The examples for agent frameworks do their job, and only a person's decision at the server lets them delete. Issue 6.

Each runs as its user runs it, at a terminal, in an environment with the framework and without this project; its model
is the framework's own for tests. `make examples` makes the environments.
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
from at_a_terminal import Person, sitting
from driving import Upstream, environment

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
    """An example that runs, its user before it, and what reaches Fastn."""

    user: Person
    upstream: Upstream
    env: dict[str, str]

    def looks_again(self) -> None:
        self.user.sees(_LOOK_AGAIN)
        self.user.types("\r")

    def changes(self) -> list[str]:
        """What was changed on the one trigger: PUT pauses it, DELETE deletes it."""
        sent = [change.rpartition("/") for change in self.upstream.changes()]
        assert len({trigger for _, _, trigger in sent}) == 1
        return [change for change, _, _ in sent]

    @contextmanager
    def question(self) -> Generator[Person]:
        """Somebody at another terminal, before what the server asks."""
        with sitting(["-m", "fastn_mcp", "approvals"], self.env) as person:
            person.sees("Enter = leave it waiting > ")
            yield person
            person.leaves()


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


def test_each_example_is_tested() -> None:
    """Ours: an example that nobody runs is wrong before long."""
    assert sorted(main.parent.name for main in EXAMPLES.glob("*/main.py")) == sorted([*AGENTS, "plain_client"])


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_deletes_once_a_person_approved_and_not_before(name: str, upstream: Upstream) -> None:
    """Ours (issue 6): resuming the framework's interrupt approves nothing; the person's yes at the server does."""
    with running_example(name, upstream) as example:
        for _ in range(2):
            example.looks_again()
        example.user.sees(_LOOK_AGAIN)
        assert example.changes() == PAUSED
        with example.question() as person:
            person.types(f"{NAME}\r")
            person.sees("Approved.")
        example.user.types("\r")
        code, shown = example.user.leaves()
        assert code == 0, shown
        assert shown.strip() == f"{NAME} is paused and deleted."
        assert example.changes() == PAUSED_AND_DELETED


@pytest.mark.parametrize("name", AGENTS)
def test_a_persons_no_reaches_the_agent_with_its_note(name: str, upstream: Upstream) -> None:
    """Ours (issue 6): declined is an answer that the model reads, and no failure of the run."""
    with running_example(name, upstream) as example:
        example.user.sees(_LOOK_AGAIN)
        with example.question() as person:
            person.types("n\r")
            person.sees("A note for the agent, or Enter > ")
            person.types("Katana needs it on Monday\r")
            person.sees("Declined.")
        example.user.types("\r")
        code, shown = example.user.leaves()
        assert code == 0, shown
        assert shown.strip().startswith(f"{NAME} is paused, not deleted: A person declined this call.")
        assert shown.strip().endswith("Katana needs it on Monday")
        assert example.changes() == PAUSED


def test_a_plain_client_shows_the_question_and_deletes_what_is_typed(upstream: Upstream) -> None:
    """Ours: the form is the client's; the name that it brings is the consent."""
    with running_example("plain_client", upstream) as example:
        assert "Sync TikTok Orders to Cin7 Core failed: " in example.user.sees("can be created again under a new id.")
        example.user.sees(f'"{NAME}" > ')
        assert example.changes() == PAUSED
        time.sleep(READING)
        example.user.types(f"{NAME}\r")
        code, shown = example.user.leaves()
        assert code == 0, shown
        assert shown.strip().endswith(f"{NAME} is deleted."), shown
        assert example.changes() == PAUSED_AND_DELETED


@pytest.mark.parametrize("typed", ["", "Daily sync"])
def test_a_plain_client_deletes_nothing_for_another_answer(typed: str, upstream: Upstream) -> None:
    """Ours: nothing typed is a no, and so is another text."""
    with running_example("plain_client", upstream) as example:
        example.user.sees(f'"{NAME}" > ')
        time.sleep(READING)
        example.user.types(f"{typed}\r")
        code, shown = example.user.leaves()
        assert code == 0, shown
        assert "Not deleted: " in shown
        assert example.changes() == PAUSED


def test_a_plain_client_goes_on_where_the_policy_wants_another_way(upstream: Upstream, tmp_path: Path) -> None:
    """Ours (DESIGN 5.5): out of band, no form is used; the same call is made again once it was decided."""
    policy = tmp_path / "policy.toml"
    policy.write_text('[defaults]\ndestroy = "out_of_band"\n')
    policy.chmod(0o600)
    with running_example("plain_client", upstream, policy) as example:
        example.looks_again()
        example.user.sees(_LOOK_AGAIN)
        assert example.changes() == PAUSED
        with example.question() as person:
            person.types(f"{NAME}\r")
            person.sees("Approved.")
        example.user.types("\r")
        code, shown = example.user.leaves()
        assert code == 0, shown
        assert shown.strip().endswith(f"{NAME} is deleted."), shown
        assert example.changes() == PAUSED_AND_DELETED
