"""`fastn-mcp stop` and `allow`: what they end, what they say, and who may allow again."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support import stores
from support.state_folder import StateFolder
from support.terminal import sitting

from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.stop import Stop


@pytest.fixture
def machine(tmp_path: Path) -> StateFolder:
    (tmp_path / "home").mkdir()
    return StateFolder(tmp_path / "state")


def stops(machine: StateFolder) -> list[Stop]:
    return machine.do(lambda ledger: ledger.stops())


def words(done: "subprocess.CompletedProcess[str]") -> str:
    return " ".join(done.stdout.split())


def test_stop_without_a_ledger_makes_one(machine: StateFolder) -> None:
    """A server that has stored nothing yet is stopped too."""
    done = machine.run("stop", "--reason", "went wrong")
    assert done.returncode == 0, done.stderr
    (stop,) = stops(machine)
    assert (stop.by, stop.reason, stop.lifted) == ("a person at the terminal", "went wrong", None)
    recorded = machine.recorded("event", "principal", "target", "message")
    assert recorded == [("stopped", "a person at the terminal", "everybody", "went wrong")]
    assert machine.run("stop").returncode == 0
    assert len(stops(machine)) == 1


def test_stop_of_an_approver_does_not_stand_for_one_of_the_operator(machine: StateFolder) -> None:
    """Who ordered it on the page of a team may lift it there."""
    approvers = Stop("s1", time.time(), "Kim Example (https://login.example.com|kim)", is_operators=False)
    machine.do(lambda ledger: ledger.add_stop(approvers))
    assert machine.run("stop").returncode == 0
    assert [stop.is_operators for stop in stops(machine)] == [False, True]


def test_stop_that_held_in_one_store_only_is_new(machine: StateFolder) -> None:
    machine.run("--sandbox", "stop", "--reason", "the first")
    done = words(machine.run("stop", "--reason", "the second"))
    assert done.startswith("A person at the terminal stopped all changes at")
    assert 'Reason: "the second".' in done


def test_stop_of_an_unused_folder_says_so(machine: StateFolder) -> None:
    """The server may have another one."""
    assert f"No server has used {machine.folder} yet." in words(machine.run("stop"))
    assert "No server has used" not in words(machine.run("stop"))


def test_stop_that_holds_nowhere_is_not_called_one(machine: StateFolder) -> None:
    machine.run("stop")
    machine.folder.joinpath("ledger.sqlite").write_bytes(b"no database, but something else" * 100)
    done = machine.run("stop")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fastn-mcp: Not stopped in ")


def test_stop_does_not_print_how_it_is_lifted_into_a_pipe(machine: StateFolder) -> None:
    done = machine.run("stop")
    assert "fastn-mcp allow" not in done.stdout + done.stderr


def test_secret_in_a_reason_is_hidden(machine: StateFolder) -> None:
    machine.run("stop", "--reason", "password=hunter2hunter2")
    assert "hunter2" not in stops(machine)[0].reason


def test_every_store_is_stopped_though_one_fails(machine: StateFolder) -> None:
    """In a folder whose path looks like that of a tenant, too."""
    machine.folder = machine.folder / "tenants" / "acme"
    machine.run("--sandbox", "approvals", "temporary")
    machine.run("--sandbox", "stop")
    machine.folder.joinpath("sandbox", "ledger.sqlite").write_bytes(b"no database, but something else" * 100)
    done = machine.run("stop")
    assert (done.returncode, "Not stopped in" in done.stderr) == (1, True)
    assert words(done).startswith("In the other folders: A person at the terminal stopped all changes at ")
    assert len(stops(machine)) == 1


def test_stop_holds_though_it_cannot_be_audited(machine: StateFolder) -> None:
    machine.folder.mkdir(parents=True)
    machine.folder.chmod(0o700)
    (machine.folder / "audit.jsonl").mkdir()
    done = machine.run("stop")
    assert (done.returncode, "It is in force, but was not recorded in the audit log." in done.stderr) == (0, True)
    assert len(stops(machine)) == 1


def test_stop_ends_what_waits_and_what_is_not_used(machine: StateFolder) -> None:
    now = time.time()

    async def asked(ledger: Ledger) -> None:
        for number, state in enumerate((RequestState.OPEN, RequestState.OPEN, RequestState.APPROVED)):
            request = replace(stores.grant(f"g{number}"), created=now, expires=now + 600, call=f"call {number}")
            await ledger.open(request)
            if state is RequestState.APPROVED:
                await ledger.change_request(request.id, lambda current: replace(current, state=RequestState.APPROVED))
        await stores.add_temporary(ledger, replace(stores.temporary_approval("t1", now + 600), created=now))

    machine.do(asked)
    done = machine.run("stop")
    assert "Ended: 2 waiting calls, 1 unused approval, 1 temporary approval." in words(done)

    async def left(ledger: Ledger) -> tuple[int, set[RequestState], int]:
        decided = await ledger.decided(9)
        temporary = await ledger.temporary_approvals(now)
        return len(await ledger.waiting(now)), {request.state for request in decided}, len(temporary)

    assert machine.do(left) == (0, {RequestState.STOPPED, RequestState.USED}, 0)


@pytest.mark.long
def test_change_that_has_left_is_waited_for_and_named(machine: StateFolder) -> None:
    machine.do(lambda ledger: ledger.begin(replace(stores.change(at=time.time()))))
    done = machine.run("stop")
    assert 'Already being sent, so it cannot be recalled: update_customer "Acme".' in words(done)


def test_person_of_an_unknown_name_is_stopped_and_questioned(machine: StateFolder) -> None:
    done = machine.run("stop", "--person", "Dnaa")
    assert done.returncode == 0
    assert 'stopped the changes of the person "Dnaa" at ' in words(done)
    assert 'No approval has been requested yet by the person "Dnaa". Is the name spelled correctly?' in words(done)
    assert [stop.person for stop in stops(machine)] == ["Dnaa"]


def test_tenant_is_of_a_team_only(machine: StateFolder) -> None:
    done = machine.run("stop", "--tenant", "acme")
    assert done.returncode != 0
    assert "This is not a team server" in done.stderr
    assert stops(machine) == []


def test_two_scopes_are_refused(machine: StateFolder) -> None:
    done = machine.run("stop", "--tenant", "a", "--person", "b")
    assert (done.returncode, "Give either" in done.stderr) == (2, True)


def test_allow_needs_a_person_at_a_terminal(machine: StateFolder) -> None:
    assert words(machine.run("allow")) == "No changes are stopped."
    machine.run("stop")
    done = machine.run("allow")
    assert done.returncode == 1
    assert stops(machine)[0].lifted is None


@pytest.mark.posix
def test_person_at_a_terminal_allows_again(machine: StateFolder) -> None:
    machine.run("stop", "--person", "Claude Code")
    with sitting(["-m", "fastn_mcp", "allow"], machine.env) as person:
        person.answers("type allow", "no")
        assert person.leaves()[0] == 1
    assert stops(machine)[0].lifted is None
    with sitting(["-m", "fastn_mcp", "allow"], machine.env) as person:
        person.answers("type allow", "allow")
        person.sees("agents have to ask again")
        assert person.leaves()[0] == 0
    (stop,) = stops(machine)
    assert stop.lifted is not None
    assert machine.recorded("event") == [("stopped",), ("allowed_again",)]
    assert words(machine.run("allow")) == "No changes are stopped."


@pytest.mark.extension("doctor")
def test_call_and_doctor_say_that_changes_are_stopped(machine: StateFolder) -> None:
    machine.run("--sandbox", "stop")
    done = machine.run("--sandbox", "call", "create-customer", "--name", "Initech")
    assert done.returncode != 0
    assert "stopped all changes at" in done.stdout + done.stderr
    assert "stopped all changes at" in " ".join(machine.run("--sandbox", "doctor").stdout.split())
