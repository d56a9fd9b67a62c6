"""Record what the guard does in thousands of situations, to compare two versions of it.

    cd tests && python -m support.record_guard OUT.jsonl [PART OF A NAME]

Run it in both clones and compare the files. Each line is one situation: the evaluation, the questions, the requests to
Fastn, the audit log and the answers. Ids, digests and times are replaced by numbers and names, so that they can be
compared.
"""

import asyncio
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastn_mcp.errors import FastnError
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.undo_change import UndoChange
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.tool import Effect
from support.faulty_sandbox import Status
from support.guard_machine.process import Form, asker_of
from support.guard_machine.records import AgentAnswer, FormAnswer, FormChoice
from support.guard_machine.simulation import APPROVED, Simulation, Vote
from support.guard_machine.vocabulary import ALL_SCOPES, ISSUER, TENANTS, PolicyCase, ToolCall
from support.guard_machine.wire import FastnFault
from support.recorded_calls import recorded_calls

PRINCIPAL = "anna"


_POLICIES = (
    PolicyCase("guarded"),
    PolicyCase("unattended", mode="unattended"),
    PolicyCase("read-only", mode="read-only"),
    PolicyCase("four eyes", '[defaults]\nwrite = "confirm"\nexternal = "four_eyes"\ndestroy = "four_eyes"\n'),
    PolicyCase("strict", '[defaults]\nexternal = "out_of_band"\naccess = "deny"\ntrash = "typed"\n'),
    PolicyCase(
        "rules",
        '[[protect]]\ncustomer = "acme*"\nthen = "typed"\nreason = "It pays."\n'
        '[[rule]]\ntool = "invite_*"\nthen = "allow"\n'
        '[[rule]]\neffects = ["destroy"]\nwhen = { dependents = { min = 3 } }\nthen = "deny"\n'
        "[budget]\nwrite = 1\nspend = 1\n",
    ),
)

POLICIES: Mapping[str, PolicyCase] = {policy.name: policy for policy in _POLICIES}

# --- courses -------------------------------------------------------------------------------------------------------


class Recording:
    """One call in one situation, and the answers to its agent."""

    def __init__(self, simulation: Simulation, wanted: ToolCall) -> None:
        self.simulation = simulation
        self.wanted = wanted
        self.answers: list[list[Any]] = []

    async def make(
        self, wanted: ToolCall | None = None, *, form: Form = None, scopes: frozenset[str] = ALL_SCOPES
    ) -> AgentAnswer:
        """Make the call, or another one, and record its answer."""
        answer = await self.simulation.make(0, PRINCIPAL, wanted or self.wanted, form=form, scopes=scopes)
        self.answers.append([answer.outcome, answer.text, answer.data])
        return answer

    async def vote(self, votes: Sequence[Vote] = APPROVED) -> None:
        """Have people vote on all that waits."""
        for record in await self.simulation.waiting():
            for person, choice in votes:
                await self.simulation.vote(record.id, person, choice)


Course = Callable[[Recording], Awaitable[None]]


async def _asked(recording: Recording) -> None:
    await recording.make()


async def _form_shown(recording: Recording) -> None:
    await recording.make(form="later")


def _with_form(choice: FormChoice, seconds: float = 5.0) -> Course:
    async def course(recording: Recording) -> None:
        await recording.make(form=FormAnswer(choice, seconds))
        await recording.make(form="later")

    return course


async def _declined(recording: Recording) -> None:
    await recording.make()
    await recording.vote([("kim", "decline")])
    await recording.make()


async def _stopped(recording: Recording) -> None:
    await recording.simulation.stop("everybody", voids=True)
    await recording.make()


async def _fewer_scopes(recording: Recording) -> None:
    await recording.make(scopes=frozenset({"fastn:read", "fastn:write"}))


async def _unreadable_records(recording: Recording) -> None:
    for path in ("/api/v1/customers*", "/api/v1/triggers*"):
        fault = Status(status=403, method="GET", path=path, times=None)
        recording.simulation.deployment.sandbox.faults.add(fault)
    await recording.make()


async def _nothing(simulation: Simulation) -> None:
    """Nothing happens between the approval and the call."""


async def _withdraw(simulation: Simulation) -> None:
    for record in (await simulation.deployment.approvals()).values():
        if record.state == "approved":
            await simulation.withdraw(record.id)


async def _expire(simulation: Simulation) -> None:
    simulation.deployment.clock.pass_(601)


async def _stop_and_allow(simulation: Simulation) -> None:
    await simulation.stop("everybody", voids=False)
    simulation.deployment.clock.pass_(1)
    await simulation.allow()


async def _rename(simulation: Simulation) -> None:
    for kind in ("customers", "connectors", "workflows", "triggers", "secrets"):
        for row in simulation.deployment.sandbox.state.all(kind):
            row["name"] = f"{row['name']} 2"


def _approved(happens: Callable[[Simulation], Awaitable[None]] = _nothing, calls: int = 1) -> Course:
    """People approve the call, something happens, and the agent makes it so many times."""

    async def course(recording: Recording) -> None:
        await recording.make()
        await recording.vote()
        await happens(recording.simulation)
        for _ in range(calls):
            await recording.make()

    return course


def _failing(fault: FastnFault) -> Course:
    """Fastn fails while an approved call is made, and once more when it is repeated."""

    async def course(recording: Recording) -> None:
        await recording.make()
        await recording.vote()
        recording.simulation.deployment.fastn_faults[:] = [fault] * 3
        await recording.make()
        await recording.make()

    return course


async def _undone(recording: Recording) -> None:
    await _approved()(recording)
    for change in await recording.simulation.deployment.changes():
        undo = ToolCall("undo_change", {"change_id": change.id})
        await recording.make(undo)
        await recording.vote()
        await recording.make(undo)


COURSES: Mapping[str, Course] = {
    "asked": _asked,
    "approved": _approved(),
    "form approved": _with_form("approve"),
    "form shown": _form_shown,
    "form declined": _with_form("decline"),
    "form cancelled": _with_form("cancel"),
    "form malformed": _with_form("malformed"),
    "form at once": _with_form("approve", 0.1),
    "temporary": _with_form("temporary"),
    "declined": _declined,
    "withdrawn": _approved(_withdraw),
    "expired": _approved(_expire),
    "stopped": _stopped,
    "stopped and allowed": _approved(_stop_and_allow),
    "renamed": _approved(_rename),
    "made twice": _approved(calls=2),
    "fewer scopes": _fewer_scopes,
    "500": _failing("500"),
    "lost": _failing("lost applied"),
    "refused connection": _failing("refused"),
    "unreadable records": _unreadable_records,
    "undone": _undone,
}

_COURSES_EVERYWHERE = ("asked", "approved", "form approved")
_COURSES_OF_READS = ("asked", "stopped")


def situations() -> Iterator[tuple[str, str, str, ToolCall]]:
    """Yield the name of a course, of a policy and of a call, and the call."""
    for name, wanted in recorded_calls():
        is_read = wanted.tool != "apply_changes" and OPERATIONS[wanted.tool].route.method == "GET"
        for policy in POLICIES:
            is_in_full = policy == "guarded" and not name.endswith("of nothing")
            courses = tuple(COURSES) if is_in_full else _COURSES_EVERYWHERE
            for course in _COURSES_OF_READS if is_read else courses:
                yield course, policy, name, wanted


# --- what is recorded ----------------------------------------------------------------------------------------------


async def record_situation(course: str, policy: str, wanted: ToolCall) -> dict[str, Any]:
    """Return what happens in one situation."""
    case = POLICIES[policy]
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(Path(folder), f"memory:{folder}", (case, case))
        deployment = simulation.deployment
        try:
            evaluation = await _evaluation(simulation, wanted) if course == "asked" else None
            judging = len(deployment.sandbox.requests)
            recording = Recording(simulation, wanted)
            await COURSES[course](recording)
            requests = deployment.sandbox.requests[judging:]
            whole = {
                "evaluation": evaluation,
                "answers": recording.answers,
                "questions": [_question(request) for request in await deployment.requests()],
                "requests": [[each.method, each.path, dict(each.query), each.body] for each in requests],
                "audit": [_without_chain(entry) for entry in deployment.audit_entries()],
                "changes": [[change.tool, change.outcome] for change in await deployment.changes()],
            }
        finally:
            await simulation.aclose()
    return normalized(whole, folder)


async def _evaluation(simulation: Simulation, wanted: ToolCall) -> dict[str, Any]:
    """Return what the guard says of a call without making it: effects, decisions and the preview."""
    caller = Caller(asker_of(ISSUER + PRINCIPAL, TENANTS[PRINCIPAL]), None)
    world = simulation.processes[0].world
    try:
        tool: Any = parse(TOOLS, wanted.tool, dict(wanted.arguments)).call
        inner_calls = tool.inner_calls or (tool,)
        has_read = any(call.effect is Effect.READ for call in inner_calls)
        if has_read or isinstance(tool, UndoChange):
            preview = await world.dispatch.preview(tool, caller)
            return {"preview": preview.data_for_agent()}
        judged = await world.guard.preview(tool, caller)
    except FastnError as error:
        return {"error": error.data()}
    if not isinstance(judged, Evaluation):
        return {"made": True}
    decisions = [
        [each.effect.value, each.verdict.decision.value, each.verdict.rule, each.verdict.why] for each in judged.calls
    ]
    return {
        "decisions": decisions,
        "decision": judged.verdict.decision.value,
        "expected": judged.asked.expected,
        "lines": judged.asked.lines(),
        "preview": judged.preview(caller).data_for_agent(),
    }


def _question(request: ApprovalRequest) -> dict[str, Any]:
    """Return what people are asked, as they read it, and what they decided."""
    return {
        "text": request.question.lines(),
        "preview": request.question.data(),
        "expected": request.expected,
        "required": request.required,
        "state": request.state.value,
        "by": request.by,
        "note": request.note,
        "extent": "" if request.permit is None else request.permit.extent,
        "may_be_temporary": request.can_be_temporary,
        "typed": None if request.typed is None else request.typed.name,
    }


_CHAINED = frozenset({"n", "time", "prev", "hash", "digest", "duration_ms", "of", "trace"})
"""Fields of an audit entry that differ each time."""


def _without_chain(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in _CHAINED}


_ID = re.compile(r"\b(?:chg_)?p1-\d+\b|\bperson\d+\b|\bbatch_[0-9a-f]{24}\b")
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


def normalized(value: Any, folder: str) -> dict[str, Any]:
    """Return JSON in which ids are numbered as they occur, and digests, times and the folder are the same for all."""
    ids = dict[str, str]()

    def number(match: re.Match[str]) -> str:
        return ids.setdefault(match[0], f"<id {len(ids) + 1}>")

    text = json.dumps(value, sort_keys=True, default=str).replace(folder, "<folder>")
    for pattern, name in ((_DIGEST, "<digest>"), (_TIME, "<time>")):
        text = pattern.sub(name, text)
    return json.loads(_ID.sub(number, text))


async def record(out: Path, wanted_name: str) -> int:
    """Record the situations whose name has this part. Return their number."""
    count = 0
    with out.open("w") as file:
        for course, policy, name, wanted in situations():
            situation = f"{name} | {policy} | {course}"
            if wanted_name in situation:
                line = {"situation": situation, **await record_situation(course, policy, wanted)}
                file.write(json.dumps(line, sort_keys=True) + "\n")
                count += 1
    return count


def main() -> None:
    logging.disable(logging.CRITICAL)
    out = Path(sys.argv[1])
    wanted_name = sys.argv[2] if len(sys.argv) > 2 else ""
    memory = Path("/dev/shm")  # noqa: S108 - a file system in memory, for what is synced to the disk
    if memory.is_dir() and os.access(memory, os.W_OK):
        tempfile.tempdir = str(memory)
    count = asyncio.run(record(out, wanted_name))
    sys.stdout.write(f"{count} situations in {out}\n")


if __name__ == "__main__":
    main()
