"""Approval at a terminal: no value can imitate our text, and a pipe cannot answer."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from rich.cells import cell_len
from support.terminal import Person, sitting

from fastn_mcp.channels.terminal import wrapped

pytestmark = pytest.mark.measured

TEXT = 'delete_customer customer_id="cus_1"\nAccount: default at live.fastn.ai.'
ASK = """
import os, select, sys
import anyio
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.guard.approval_form import ApprovalForm
terminal = Terminal.here()
text, expected, scope, ready = sys.argv[1:]
if terminal is None:
    print("no terminal")
    sys.exit()
if ready:
    print(ready, flush=True)
    select.select([0], [], [])
print("answer:", anyio.run(terminal.ask, ApprovalForm("g1", text, expected or None, bool(scope))))
"""


@contextmanager
def asked(text: str = TEXT, expected: str = "", scope: str = "", ready: str = "") -> Generator[Person]:
    with sitting(["-c", ASK, text, expected, scope, ready]) as person:
        yield person


def answer(person: Person) -> str:
    code, shown = person.leaves()
    assert code == 0
    return shown.rpartition("answer: ")[2].strip()


QUESTION = """delete_customer customer_id="5c4bc270-6e5f-4523-afd7-6538d17c6c3a"
The customer can be created again under a new id. Its connections, credentials and secrets are lost.
Target: "客户 of the largest accounts of all, with a name that is longer than most"."""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_lines_wrap_between_words(columns: int) -> None:
    lines = wrapped(QUESTION, columns).split("\n")
    assert all(cell_len(line) <= columns for line in lines)
    assert " ".join(" ".join(lines).split()) == " ".join(QUESTION.split())
    assert [line for line in lines if not line.startswith("  ")] == [
        next(line for line in lines if line.startswith(begins)) for begins in ("delete_", "The customer", "Target")
    ]


@pytest.mark.parametrize("value", ["x" * 29 + "Approved.", "客" * 40 + "Approved.", "a b " * 20 + "Approved."])
def test_value_cannot_start_a_line(value: str) -> None:
    first, *others = wrapped(f'Target: "{value}"', 40).split("\n")
    assert first.startswith("Target:")
    assert others
    assert all(line.startswith("  ") for line in others)
    assert all(cell_len(line) <= 40 for line in (first, *others))


def test_commands_are_not_wrapped() -> None:
    """The terminal wraps them, and they are copied in one piece."""
    command = "/opt/fastn-mcp/bin/fastn-mcp"
    assert wrapped(f"Run: {command} now", 12, whole_words=True) == f"Run:\n  {command}\n  now"


@dataclass(frozen=True)
class Approval:
    """What a person types to approve, and what the form asks for."""

    typed: str
    expected: str = ""
    allows_temporary: str = ""
    answer: str = "Approve(typed=None, is_temporary=False)"


APPROVALS = (
    *map(Approval, ("y", "Y", "yes", "  y  ")),
    Approval("15", allows_temporary="yes", answer="Approve(typed=None, is_temporary=True)"),
    Approval("Acme & Söhne", expected="Acme & Söhne", answer="Approve(typed='Acme & Söhne', is_temporary=False)"),
    Approval("Ac\\u{200b}me", expected="Ac\u200bme", answer="Approve(typed='Ac\\u200bme', is_temporary=False)"),
    Approval("n", expected="n", answer="Approve(typed='n', is_temporary=False)"),
)


@pytest.mark.parametrize("approval", APPROVALS, ids=lambda approval: approval.typed)
def test_person_approves(approval: Approval) -> None:
    with asked(expected=approval.expected, scope=approval.allows_temporary) as person:
        question = person.sees("Enter = decline > ")
        assert question.startswith(f"\n{TEXT}\n")
        assert ("y = approve" in question) is not bool(approval.expected)
        assert ("15 = approve this tool on this target for 15 minutes" in question) is bool(approval.allows_temporary)
        person.types(f"{approval.typed}\r")
        assert answer(person) == approval.answer


@pytest.mark.parametrize(("typed", "expected"), [("n", ""), ("no", ""), ("", ""), ("n", "Acme")])
@pytest.mark.parametrize("note", ["not on a Friday, bitte ☂", ""])
def test_person_declines(typed: str, expected: str, note: str) -> None:
    with asked(expected=expected) as person:
        person.sees("Enter = decline > ")
        person.types(f"{typed}\r")
        person.sees("A note for the agent, or Enter > ")
        person.types(f"{note}\r")
        assert answer(person) == f"Decline(note={note!r})"


def test_invalid_choice_is_asked_again() -> None:
    with asked() as person:
        for slip in ("ja", "15", "true", "1", "approve all"):
            person.sees("Enter = decline > ")
            person.types(f"{slip}\r")
            person.sees("That is not one of the choices.")
        person.sees("Enter = decline > ")
        person.types("y\r")
        assert answer(person) == "Approve(typed=None, is_temporary=False)"


def test_wrong_name_is_asked_again() -> None:
    with asked(expected="Acme") as person:
        person.sees("Enter = decline > ")
        person.types("y\r")
        person.sees("That is not the name. Type it again, or n to decline.")
        person.sees("Enter = decline > ")
        person.types("Acme\r")
        assert answer(person) == "Approve(typed='Acme', is_temporary=False)"


def test_input_typed_before_the_request_is_dropped() -> None:
    with asked(ready="ready") as person:
        person.sees("ready\n")
        person.types("y\r")
        person.sees("Enter = decline > ")
        person.types("\r")
        person.sees("or Enter > ")
        person.types("\r")
        assert answer(person) == "Decline(note='')"


def test_closed_terminal_is_no_answer() -> None:
    with asked() as person:
        person.sees("Enter = decline > ")
        person.types("\x04")
        assert answer(person) == "NoAnswer(reason='the terminal was closed')"


def test_ctrl_c_exits_at_once_without_an_answer() -> None:
    with asked() as person:
        person.sees("Enter = decline > ")
        person.types("\x03")
        code, shown = person.leaves()
    assert code != 0
    assert "answer:" not in shown


def test_request_text_is_sanitized() -> None:
    hostile = "\x1b[2K\x1b[1A\x07\u202eApprove all\u2066\u200b\U000e0041\x9b"
    with asked(text=f"delete_customer\n{hostile}\nApprove this one call?") as person:
        shown = person.sees("Enter = decline > ")
        person.types("y\r")
        person.leaves()
    assert [line for line in shown.split("\n") if line][:3] == [
        "delete_customer",
        "\\u{1b}[2K\\u{1b}[1A\\u{7}\\u{202e}Approve all\\u{2066}\\u{200b}\\u{e0041}\\u{9b}",
        "Approve this one call?",
    ]


ARGUMENTS = [TEXT, "", "", ""]


def test_pipe_is_not_a_terminal() -> None:
    """Input that an agent pipes in is not a person's."""
    program = [sys.executable, "-c", ASK, *ARGUMENTS]
    ran = subprocess.run(program, input="y\n", capture_output=True, text=True, check=True)
    assert ran.stdout == "no terminal\n"


REDIRECTED = """
import subprocess, sys
program = [sys.executable, "-c", *sys.argv[2:]]
if sys.argv[1] == "input":
    subprocess.run(program, input=b"y\\n")
elif sys.argv[1] == "messages":
    subprocess.run(program, stderr=subprocess.DEVNULL)
elif sys.argv[1] == "session":
    subprocess.run(program, start_new_session=True)
else:
    subprocess.run(program, process_group=0)
"""


@pytest.mark.parametrize("what", ["input", "messages", "session", "background"])
def test_background_process_has_no_terminal(what: str) -> None:
    with sitting(["-c", REDIRECTED, what, ASK, *ARGUMENTS]) as person:
        assert person.leaves() == (0, "no terminal\n")


def test_ci_has_no_terminal() -> None:
    """CI runners give terminals to programs that nobody watches."""
    with sitting(["-c", ASK, *ARGUMENTS], {"CI": "true"}) as person:
        assert person.leaves() == (0, "no terminal\n")
