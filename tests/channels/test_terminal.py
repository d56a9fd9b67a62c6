"""Approval at a terminal: no value can imitate our text, and a pipe cannot answer."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import anyio
import pytest
from rich.cells import cell_len
from support.questions import a_question
from support.stores import grant
from support.terminal import Person, sitting

from fastn_mcp.channels.terminal import Terminal, wrapped
from fastn_mcp.guard.approval_form import NoAnswer

pytestmark = pytest.mark.measured

TITLE = 'Delete customer "Acme".'
CALLED = 'delete_customer customer_id="cus_1". Account: default at live.fastn.ai.'
ASK = """
import json, select, sys
import anyio
from fastn_mcp.channels.terminal import Terminal
from fastn_mcp.ledger.approval_request import ApprovalRequest, ShownCall
from fastn_mcp.ledger.question import Question
from fastn_mcp.policy.permit import Permit
terminal = Terminal.here()
ready, *forms = sys.argv[1:]
if terminal is None:
    print("no terminal")
    sys.exit()
if ready:
    print(ready, flush=True)
    select.select([0], [], [])
for form in forms:
    title, then, expected, allows_temporary = json.loads(form)
    permit = Permit(name="temporary approval", tool="delete_customer", targets=(), pattern="p", extent="such calls.")
    request = ApprovalRequest(
        id="g1", principal="local", account="default", tool="delete_customer", target="cus_1", call="call",
        calls={"call 1": ShownCall("binding", {})}, required="typed", expected=expected,
        permit=permit if allows_temporary else None, out_of_band=True,
        question=Question(
            title=title, button="Delete", brief="Delete", then=then, tool="delete_customer",
            arguments={"customer_id": "cus_1"}, account="default at live.fastn.ai",
        ),
        created=0.0, expires=600.0,
    )
    print("answer:", anyio.run(terminal.ask, request), flush=True)
"""


@dataclass(frozen=True)
class Form:
    """What a person is asked."""

    expected: str | None = None
    allows_temporary: bool = False
    title: str = TITLE
    then: str = ""

    def argument(self) -> str:
        return json.dumps([self.title, self.then, self.expected, self.allows_temporary])


@contextmanager
def asked(*forms: Form, ready: str = "") -> Generator[Person]:
    """A person who is asked by each form in turn, by default by one."""
    with sitting(["-c", ASK, ready, *(form.argument() for form in forms or [Form()])]) as person:
        yield person
        person.leaves()


def answer(person: Person) -> str:
    person.sees("answer: ")
    return person.sees("\n").strip()


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


def test_wide_letter_is_left_in_a_single_column() -> None:
    assert wrapped("客客", 1, indent=0) == "客客"


def test_commands_are_not_wrapped() -> None:
    """The terminal wraps them, and they are copied in one piece."""
    command = "/opt/fastn-mcp/bin/fastn-mcp"
    assert wrapped(f"Run: {command} now", 12, whole_words=True) == f"Run:\n  {command}\n  now"


APPROVALS = [
    ("y", Form(), "Approve(typed=None, is_temporary=False)"),
    ("  YES  ", Form(), "Approve(typed=None, is_temporary=False)"),
    ("15", Form(allows_temporary=True), "Approve(typed=None, is_temporary=True)"),
    ("Acme & Söhne", Form("Acme & Söhne"), "Approve(typed='Acme & Söhne', is_temporary=False)"),
    ("Ac\\u{200b}me", Form("Ac\u200bme"), "Approve(typed='Ac\\u200bme', is_temporary=False)"),
]


def test_person_approves() -> None:
    with asked(*(form for _, form, _ in APPROVALS)) as person:
        for typed, form, approval in APPROVALS:
            question = person.sees("decline > ")
            assert question.startswith(f"\n{TITLE}\n{CALLED}\n")
            assert ("y = approve" in question) is (form.expected is None)
            assert ("15 = approve, and the same for 15 minutes" in question) is form.allows_temporary
            person.types(f"{typed}\r")
            assert answer(person) == approval


DECLINES = [
    ("n", Form(), "not on a Friday, bitte ☂"),
    ("no", Form(), ""),
    ("", Form(), ""),
    ("n", Form("Acme"), "not on a Friday, bitte ☂"),
    ("n", Form("n"), ""),
    ("", Form(" "), ""),
]


def test_person_declines() -> None:
    with asked(*(form for _, form, _ in DECLINES)) as person:
        for typed, _, note in DECLINES:
            person.answers("decline > ", typed)
            person.answers("A note for the agent, or Enter > ", note)
            assert answer(person) == f"Decline(note={note!r})"


def test_invalid_choice_or_wrong_name_is_asked_again() -> None:
    with asked(Form(), Form("Acme")) as person:
        for slip in ("ja", "15", "true", "1", "approve all"):
            person.answers("decline > ", slip)
            person.sees("That is not one of the choices.")
        person.answers("decline > ", "y")
        assert answer(person) == "Approve(typed=None, is_temporary=False)"

        person.answers("decline > ", "y")
        person.sees("That is not the name. Type it again, or n to decline.")
        person.answers("decline > ", "Acme")
        assert answer(person) == "Approve(typed='Acme', is_temporary=False)"


def test_input_typed_before_the_request_is_dropped() -> None:
    with asked(ready="ready") as person:
        person.answers("ready\n", "y")
        person.answers("decline > ", "")
        person.answers("or Enter > ", "")
        assert answer(person) == "Decline(note='')"


def test_ctrl_d_declines() -> None:
    with asked() as person:
        person.sees("decline > ")
        person.types("\x04")
        assert answer(person) == "Decline(note='')"


async def test_closed_terminal_is_no_answer() -> None:
    screen, device = os.openpty()
    shown = b""

    async def close_when_asked() -> None:
        nonlocal shown
        while b"decline > " not in shown:
            await anyio.wait_readable(screen)
            shown += os.read(screen, 4096)
        os.close(screen)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close_when_asked)
            assert await Terminal(device).ask(replace(grant(), expected=None, question=a_question())) == NoAnswer(
                "the terminal was closed"
            )
    os.close(device)


def test_ctrl_c_exits_at_once_without_an_answer() -> None:
    with asked() as person:
        person.sees("decline > ")
        person.types("\x03")
        code, shown = person.leaves()
    assert code != 0
    assert "answer:" not in shown


def test_request_text_is_sanitized() -> None:
    hostile = "\x1b[2K\x1b[1A\x07\u202eApprove all\u2066\u200b\U000e0041\x9b"
    with asked(Form(title=f"Delete it.\nApprove this one call?{hostile}", then=hostile)) as person:
        shown = person.answers("decline > ", "y")
        person.leaves()
    escaped = "\\u{1b}[2K\\u{1b}[1A\\u{7}\\u{202e}Approve all\\u{2066}\\u{200b}\\u{e0041}\\u{9b}"
    title = f"Delete it.\\u{{a}}Approve this one call?{escaped}"
    lines = [line for line in shown.split("\n") if line and not line.startswith("  ")]
    assert " ".join(shown.split()).startswith(" ".join([title, escaped, CALLED, "Approve this one call?"]))
    assert [line.split()[0] for line in lines[:4]] == ["Delete", escaped.split()[0], "delete_customer", "Approve"]


REDIRECTED = """
import subprocess, sys
program = [sys.executable, "-c", *sys.argv[1:]]
subprocess.run(program, input=b"y\\n")
subprocess.run(program, stderr=subprocess.DEVNULL)
subprocess.run(program, start_new_session=True)
subprocess.run(program, process_group=0)
"""


def test_redirected_or_background_process_has_no_terminal() -> None:
    with sitting(["-c", REDIRECTED, ASK, "", Form().argument()]) as person:
        assert person.leaves() == (0, "no terminal\n" * 4)


def test_ci_has_no_terminal() -> None:
    """CI runners give terminals to programs that nobody watches."""
    with sitting(["-c", ASK, "", Form().argument()], {"CI": "true"}) as person:
        assert person.leaves() == (0, "no terminal\n")
