"""A person is asked at the terminal, in words that nothing can forge, and no pipe answers. Ours; THREATS T2, T15."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from at_a_terminal import Person, sitting
from rich.cells import cell_len

from fastn_mcp.channels.terminal import wrapped

pytestmark = pytest.mark.measured

TEXT = 'delete_customer customer_id="cus_1"\nAccount: default at live.fastn.ai.'
ASK = """
import os, select, sys
import anyio
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.guard.approval.request import ApprovalForm
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
def test_lines_break_between_words_within_the_width(columns: int) -> None:
    """Ours: at the widths that people have, no word is broken and nothing is lost."""
    lines = wrapped(QUESTION, columns).split("\n")
    assert all(cell_len(line) <= columns for line in lines)
    assert " ".join(" ".join(lines).split()) == " ".join(QUESTION.split())
    assert [line for line in lines if not line.startswith("  ")] == [
        next(line for line in lines if line.startswith(begins)) for begins in ("delete_", "The customer", "Target")
    ]


@pytest.mark.parametrize("value", ["x" * 29 + "Approved.", "客" * 40 + "Approved.", "a b " * 20 + "Approved."])
def test_no_value_can_begin_a_line(value: str) -> None:
    """A name that is as long as it takes still cannot place its own words where our lines begin."""
    first, *others = wrapped(f'Target: "{value}"', 40).split("\n")
    assert first.startswith("Target:")
    assert others
    assert all(line.startswith("  ") for line in others)
    assert all(cell_len(line) <= 40 for line in (first, *others))


def test_a_command_stays_whole_where_it_is_to_be_copied() -> None:
    """Ours: the terminal breaks it, and copies it in one piece."""
    command = "/opt/fastn-mcp/bin/fastn-mcp"
    assert wrapped(f"Run: {command} now", 12, whole_words=True) == f"Run:\n  {command}\n  now"


@pytest.mark.parametrize("typed", ["y", "Y", "yes", "  y  "])
def test_y_approves(typed: str) -> None:
    """Ours: the question is shown whole, with our line last, and y approves this one call."""
    with asked() as person:
        assert person.sees("Enter = decline > ").startswith(f"\n{TEXT}\n")
        person.types(f"{typed}\r")
        assert answer(person) == "Approve(typed=None, minutes=0)"


@pytest.mark.parametrize("typed", ["n", "no", ""])
def test_n_and_enter_decline_with_a_note(typed: str) -> None:
    """DESIGN 5.5: the default is to decline, and the note goes back to the agent."""
    with asked() as person:
        person.sees("Enter = decline > ")
        person.types(f"{typed}\r")
        person.sees("A note for the agent, or Enter > ")
        person.types("not on a Friday, bitte ☂\r")
        assert answer(person) == "Decline(note='not on a Friday, bitte ☂')"


def test_a_decline_needs_no_note() -> None:
    """Ours: Enter is no note."""
    with asked() as person:
        person.sees("Enter = decline > ")
        person.types("n\r")
        person.sees("or Enter > ")
        person.types("\r")
        assert answer(person) == "Decline(note='')"


def test_what_is_no_choice_is_asked_again() -> None:
    """Ours: a slip neither approves nor declines."""
    with asked() as person:
        for slip in ("ja", "15", "true", "1", "approve all"):
            person.sees("Enter = decline > ")
            person.types(f"{slip}\r")
            person.sees("That is not one of the choices.")
        person.sees("Enter = decline > ")
        person.types("y\r")
        assert answer(person) == "Approve(typed=None, minutes=0)"


def test_15_approves_for_a_while_where_that_is_offered() -> None:
    """DESIGN 5.5: this tool on this target, for 15 minutes."""
    with asked(scope="yes") as person:
        assert "15 = approve this tool on this target for 15 minutes" in person.sees("Enter = decline > ")
        person.types("15\r")
        assert answer(person) == "Approve(typed=None, minutes=15)"


def test_the_name_has_to_be_typed_where_it_is_asked_for() -> None:
    """DESIGN 5.5: y is no name."""
    with asked(expected="Acme GmbH & Söhne") as person:
        assert "y = approve" not in person.sees("Enter = decline > ")
        person.types("Acme GmbH & Söhne\r")
        assert answer(person) == "Approve(typed='Acme GmbH & Söhne', minutes=0)"


def test_another_name_is_asked_for_again() -> None:
    """Ours: whoever mistypes sits there, and can correct it."""
    with asked(expected="Acme") as person:
        person.sees("Enter = decline > ")
        person.types("y\r")
        person.sees("That is not the name. Type it again, or n to decline.")
        person.sees("Enter = decline > ")
        person.types("Acme\r")
        assert answer(person) == "Approve(typed='Acme', minutes=0)"


def test_a_name_that_no_keyboard_has_is_typed_as_it_is_shown() -> None:
    """Ours: what holds invisible characters can still be approved, by somebody who saw them."""
    with asked(expected="Ac\u200bme") as person:
        person.sees("Enter = decline > ")
        person.types("Ac\\u{200b}me\r")
        assert answer(person) == "Approve(typed='Ac\\u200bme', minutes=0)"


def test_a_name_that_is_a_choice_is_the_name() -> None:
    """Ours: what is called "n" can be approved."""
    with asked(expected="n") as person:
        person.sees("Enter = decline > ")
        person.types("n\r")
        assert answer(person) == "Approve(typed='n', minutes=0)"


def test_n_declines_where_a_name_is_asked_for() -> None:
    """Ours: declining needs no name."""
    with asked(expected="Acme") as person:
        person.sees("Enter = decline > ")
        person.types("n\r")
        person.sees("or Enter > ")
        person.types("use the test account\r")
        assert answer(person) == "Decline(note='use the test account')"


def test_what_was_typed_before_the_question_is_no_answer_to_it() -> None:
    """Ours: a y that waits in the terminal since earlier approves nothing."""
    with asked(ready="ready") as person:
        person.sees("ready\n")
        person.types("y\r")
        person.sees("Enter = decline > ")
        person.types("\r")
        person.sees("or Enter > ")
        person.types("\r")
        assert answer(person) == "Decline(note='')"


def test_a_closed_terminal_is_nobody() -> None:
    """Ours: the end of the input is no answer."""
    with asked() as person:
        person.sees("Enter = decline > ")
        person.types("\x04")
        assert answer(person) == "NoAnswer(reason='the terminal was closed')"


def test_ctrl_c_ends_it_at_once_without_an_answer() -> None:
    """Ours: whoever interrupts has approved nothing, and need not press Enter to get away."""
    with asked() as person:
        person.sees("Enter = decline > ")
        person.types("\x03")
        code, shown = person.leaves()
    assert code != 0
    assert "answer:" not in shown


def test_nothing_in_a_question_can_speak_for_us() -> None:
    """THREATS T15: what moves the cursor, turns the text or cannot be seen is shown as what it is."""
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


def test_there_is_no_terminal_behind_a_pipe() -> None:
    """THREATS T2: what an agent pipes in is no person."""
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
def test_a_program_that_only_shares_the_terminal_is_not_at_it(what: str) -> None:
    """Ours: with another input, with messages elsewhere, in another session or in the background nobody is asked."""
    with sitting(["-c", REDIRECTED, what, ASK, *ARGUMENTS]) as person:
        assert person.leaves() == (0, "no terminal\n")


def test_nobody_is_asked_where_ci_is_set() -> None:
    """Ours: runners give terminals to programs that nobody watches."""
    with sitting(["-c", ASK, *ARGUMENTS], {"CI": "true"}) as person:
        assert person.leaves() == (0, "no terminal\n")
