"""The guard between a caller and a sandbox, all in this process: time stands still unless a test moves it."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

import pytest
from pydantic import JsonValue

from fastn_mcp.account.answer_reads import AnswerReads, SharedReads
from fastn_mcp.account.resolved_call import Surroundings
from fastn_mcp.account.snapshot import AccountSnapshot
from fastn_mcp.audit.log import AuditFile
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import Exchange, headers
from fastn_mcp.config.model import Mode, Settings
from fastn_mcp.errors import FastnError
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.sandbox.server import Dataset, InProcess, dataset
from fastn_mcp.guard.approval.obtain import Approvals
from fastn_mcp.guard.approval.votes import NotCounted, TypedValue, count_vote
from fastn_mcp.guard.approval_form import (
    APPROVE,
    APPROVE_TEMPORARILY,
    VERIFIED,
    Answer,
    Approve,
    Decline,
    NoAnswer,
    PendingApproval,
    SubmittedForm,
)
from fastn_mcp.guard.budgets import Budgets
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.guard.guard import Guard
from fastn_mcp.guard.guarded_account import GuardedAccount
from fastn_mcp.guard.journal import ChangeJournal, Delivery
from fastn_mcp.guard.judge import Judge
from fastn_mcp.guard.key_files import CallSecrets, KeyFileWriter, SecretValues, TypedSecrets
from fastn_mcp.guard.permission import Permission, new_change
from fastn_mcp.guard.recorder import Recorder, Watch
from fastn_mcp.guard.result import Done
from fastn_mcp.guard.seal import Seal
from fastn_mcp.guard.stops import Stops
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.change_start import StartResult
from fastn_mcp.ledger.identity import bound_account
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision, PolicyDecision
from fastn_mcp.policy.permit import Permit
from fastn_mcp.policy.plan import Plan
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.runtime import System, no_progress
from fastn_mcp.server.rendering import render
from fastn_mcp.tools.customers import DeleteCustomer
from fastn_mcp.tools.operation import Operation, Send
from fastn_mcp.tools.selection import EnabledTools
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.workflows import RunWorkflow
from support.audit_entries import entries
from support.clock import Clock
from support.decisions import moved
from support.faulty_sandbox import FaultySandbox, HeardRequest, Status
from support.policy_files import rules_of

Call = Operation[Any]
T = TypeVar("T")


@dataclass
class Desk(Channel):
    """Where questions are put that no form asks."""

    name = "desk"
    shown: list[str] = field(default_factory=list[str])
    identifies_people: bool = False
    takes_secrets: bool = True
    notifies: bool = True
    url: str | None = None
    is_in_view: bool = False

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(self.identifies_people, self.notifies, self.takes_secrets, page=self.url)

    async def ask(self, request: ApprovalRequest) -> Announcement:
        self.shown.append(request.id)
        return Announcement(("on the desk",), is_in_view=self.is_in_view)


@dataclass
class FormNow(Channel):
    """A form that is answered in the middle of a call, after `seconds`."""

    reply: Callable[[ApprovalRequest], Answer]
    clock: Clock
    seconds: float = 5.0
    asked: list[ApprovalRequest] = field(default_factory=list[ApprovalRequest])
    name: str = "client_form"
    is_terminal: bool = False

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(takes_secrets=self.is_terminal, is_terminal=self.is_terminal)

    async def ask(self, request: ApprovalRequest) -> Answer:
        self.asked.append(request)
        self.clock.pass_(self.seconds)
        return self.reply(request)


def _as_response(answer: Answer) -> tuple[str, dict[str, Any] | None]:
    """Return the response by which a client says this: its action and its content."""
    match answer:
        case Approve(typed=str(text)):
            return "accept", {"name": text}
        case Approve(is_temporary=True):
            return "accept", {"decision": APPROVE_TEMPORARILY}
        case Approve():
            return "accept", {"decision": APPROVE}
        case Decline(note):
            return "decline", {"note": note}
        case NoAnswer():
            return "cancel", None


Reply = Answer | tuple[str, dict[str, Any] | None]
"""An answer, or a client's unchecked response to the form: its action and its content."""


@dataclass
class FormLater(Channel):
    """A form that ends the call. `submitted`: the request that the next call answers, and the answer."""

    submitted: tuple[str, Reply] | None = None
    asked: list[ApprovalRequest] = field(default_factory=list[ApprovalRequest])
    name: str = "client_form"

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities()

    @property
    def response(self) -> SubmittedForm | None:
        """The client's response to the form."""
        if self.submitted is None:
            return None
        approval_id, reply = self.submitted
        action, content = reply if isinstance(reply, tuple) else _as_response(reply)
        return SubmittedForm(approval_id, action, content)

    async def ask(self, request: ApprovalRequest) -> None:
        self.asked.append(request)


def policy_from(folder: Path, text: str, mode: Mode = "guarded", plan: Plan | None = None) -> Policy:
    """Return the policy of a file with this text."""
    return Policy(mode, rules_of(folder, text), plan)


def planned(tool: str, count: int = 1, *, targets: tuple[str, ...] = (), line: str = "1") -> Permit:
    """Return the entry of a plan, on this line, for so many calls with any arguments."""
    return Permit(name=f"plan p line {line}", budget=f"plan {line}", tool=tool, targets=targets, count=count, signers=1)


def plan_of(*entries: Permit) -> Plan:
    """Return a plan that dana signed, for the first hour of a clock."""
    return Plan("p", "test", None, Clock().at + timedelta(hours=1), "digest", ("dana",), entries)


def batch_of(*calls: Call, **more: Any) -> ApplyChanges:
    """Return the batch of these calls, as a client sends it."""
    changes = [{"tool": call.tool_name(), "arguments": call.arguments()} for call in calls]
    parsed = parse(TOOLS, "apply_changes", {"changes": changes} | more).call
    assert isinstance(parsed, ApplyChanges)
    return parsed


async def failing(*_: object, **__: object) -> Any:
    """Take the place of a step of the ledger that cannot be taken."""
    raise OSError("disk full")


def yes(form: ApprovalRequest) -> Approve:
    """A person who reads, and types what is asked."""
    return Approve(form.expected)


@dataclass
class OtherReads:
    """Takes the guard's place for a procedure that only reads."""

    send: Send

    async def read(self, call: Call, caller: Caller) -> FastnObject:  # noqa: ARG002
        return await self.send(call)


OPENED: "WeakSet[World]" = WeakSet()
"""Worlds that are closed at the end of the test."""


def called_with(form: FormNow | FormLater | None, delivery: Delivery | None = None) -> Caller:
    """Return the caller of a call that comes with this form."""
    submitted = form.response if isinstance(form, FormLater) else None
    return Caller(Asker(), form, submitted=submitted, delivery=delivery)


class World:
    """One account behind one guard. Several worlds can share a folder, as processes do."""

    def __init__(
        self,
        folder: Path,
        policy: Policy | None = None,
        clock: Clock | None = None,
        tokens: str = "t",
        watch: Watch | None = None,
        ledger: Ledger | None = None,
        begin: Dataset = dataset,
        watching: Callable[[System], System] = lambda system: system,
        bound: str = "",
        dashboard_url: str | None = None,
        exchange: Callable[[InProcess], Exchange] = lambda inner: inner,
        surroundings: Surroundings | None = None,
        snapshot_seconds: float = 0,
        requests_per_answer: int | None = 1000,
        sandbox: FaultySandbox | None = None,
    ) -> None:
        """`watching` adds spans; `bound` stands for the key, and where it is sent; `exchange` wraps what sends.

        `sandbox`: one that other worlds use too, in place of a new one.

        Without `snapshot_seconds`, each answer reads anew, so that a test may change the sandbox itself.
        """
        OPENED.add(self)
        self.clock = clock or Clock()
        self.system = watching(self.clock.system(tokens))
        self.sandbox = sandbox or FaultySandbox(self.clock.now, begin=begin)
        account = Settings(base_url="http://localhost", api_key=KEY, dashboard_url=dashboard_url)
        self.client = FastnClient(account, exchange(InProcess(self.sandbox, headers(account))), self.system)
        self._snapshot_seconds = snapshot_seconds
        self._snapshots: dict[int, tuple[Send, AccountSnapshot]] = {}
        self.snapshot = AccountSnapshot(self.system, snapshot_seconds)
        self.shared = SharedReads(self.client, self.snapshot, self.system, requests_per_answer)
        self.client.changed = self.snapshot.forget
        self.ledger: Ledger = ledger or Ledger(SqliteStore(str(folder / "ledger.sqlite3")))
        self.audit_path = folder / "audit.jsonl"
        self.audit = AuditFile(self.audit_path, self.system, watch.entry if watch else None)
        self.desk: Any = Desk()
        self.policy = policy or Policy()
        self.bound = bound
        self.surroundings = surroundings or Surroundings(key_folder="keys")
        self.own: Callable[[FastnObject], bool] = lambda _: False
        self.disabled: dict[str, str] = {}
        self.recorder = Recorder(self.audit, "test", self.system, watch)
        self.journalling = ChangeJournal(self.ledger, bound_account("test", bound), self.system)
        self.stops = Stops(self.ledger, self.system)
        self.judge = self.new_judge()
        self.typed = TypedSecrets(self.ledger, lambda: Seal(["a key of this test"], self.system), self.system)
        self.dispatch = self.dispatching(SecretValues({}, []), KeyFileWriter(folder / "keys"))

    @classmethod
    def with_rules(cls, folder: Path, text: str, **options: Any) -> "World":
        """Return a world under a policy file with this text."""
        return cls(folder, policy_from(folder, text), **options)

    async def call(
        self, call: Tool[Any], form: FormNow | FormLater | None = None, delivery: Delivery | None = None
    ) -> Done | PendingApproval | FastnError:
        """Make a call; an error is an answer too."""
        try:
            return await self.dispatch(call, called_with(form, delivery))
        except FastnError as error:
            return error

    def form(self, answer: Answer | Callable[[ApprovalRequest], Answer] = yes, seconds: float = 5.0) -> FormNow:
        """Return a form that a person answers after so many seconds."""
        return FormNow(answer if callable(answer) else lambda _: answer, self.clock, seconds)

    async def expect(self, outcome: type[T], call: Tool[Any], form: FormNow | FormLater | None = None) -> T:
        """Make a call that ends with this kind of result or error."""
        actual = await self.call(call, form)
        assert isinstance(actual, outcome), actual
        return actual

    async def ask(self, call: Tool[Any]) -> dict[str, Any]:
        """Return the fields of the answer to a call that is not asked about."""
        return (await self.expect(Done, call)).result.model_dump()

    async def rendered(self, call: Tool[Any], form: FormNow | FormLater | None = None) -> Any:
        """Return the answer to a call as the model reads it."""
        done = await self.expect(Done, call, form)
        return render(call, done.result, {}, self.dispatch.receipt(done.change), done.notes)

    async def rendered_tool(self, name: str, **arguments: Any) -> Any:
        """Return the answer to a call as a client names it, as the model reads it."""
        call: Any = parse(TOOLS, name, arguments).call
        return await self.rendered(call)

    async def pages(self, name: str, **arguments: Any) -> list[Any]:
        """Return the answers to a tool and to its further pages, as the model reads them."""
        answers: list[Any] = []
        cursor: str | None = None
        for _ in range(200):
            answer = await self.rendered_tool(name, **arguments, cursor=cursor)
            answers.append(answer)
            page = answer if isinstance(answer["data"], list) or "next_cursor" in answer else answer["data"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return answers
        raise AssertionError("the list does not end")

    async def preview(self, call: Tool[Any]) -> Any:
        return await self.dispatch.preview(call, Caller(Asker(), None))

    def behave(self, **behaviour: object) -> None:
        """Change how the sandbox pages, filters or limits from now on."""
        self.sandbox.behaviour = self.sandbox.behaviour.model_copy(update=behaviour)

    def refuse(self, *paths: str, status: int = 403) -> None:
        """Let Fastn refuse all requests of these paths from now on."""
        self.sandbox.faults.add(*(Status(status=status, path=path, times=None) for path in paths))

    async def first_round(self, call: Tool[Any]) -> ApprovalRequest:
        """Make a call that ends with a form, and read the form for five seconds. Return its request."""
        request = await self.asked_in_form(call)
        self.clock.pass_(5)
        return request

    async def asked_in_form(self, call: Tool[Any], form: FormNow | FormLater | None = None) -> ApprovalRequest:
        """Make a call that ends with a form. Return its request."""
        pending = await self.expect(PendingApproval, call, form or FormLater())
        assert not pending.request.out_of_band
        return pending.request

    @property
    def timestamp(self) -> float:
        return self.clock.at.timestamp()

    async def open_request(self) -> ApprovalRequest:
        """Return the only request that waits for a person."""
        (request,) = await self.ledger.waiting(self.timestamp)
        return request

    async def approve_open_request(self) -> ApprovalRequest:
        """Approve the only request that waits, on the local page."""
        request = await self.open_request()
        assert await moved(
            self.ledger, request.id, [RequestState.OPEN], RequestState.APPROVED, self.timestamp, by="local_page"
        )
        return request

    async def approve_outside(self, call: Tool[Any]) -> ApprovalRequest:
        """Make a call that ends with a request outside the client, and approve that request there."""
        await self.expect(PendingApproval, call)
        return await self.approve_open_request()

    async def approve_typed(
        self, request: ApprovalRequest, secret: JsonValue, by: str = "page"
    ) -> ApprovalRequest | NotCounted:
        """Approve a request and type its secret, as on the page."""
        vote = Vote(by, approves=True, at=self.timestamp)
        return await count_vote(vote, request, self.ledger, VERIFIED, typed=TypedValue(self.typed, secret))

    @contextmanager
    def act_before_changes(self, act: Callable[[Call], Awaitable[object]]) -> Generator[None]:
        """Act each time before a change is sent, until the block ends."""
        send: Any = self.client.send

        async def acting(call: Call, *checks: Any) -> Any:
            if call.route.method != "GET":
                await act(call)
            return await send(call, *checks)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.client, "send", acting)
            yield

    async def temporary_approvals(self) -> list[ApprovalRequest]:
        return await self.ledger.temporary_approvals(self.timestamp)

    def id_of(self, collection: str, name: str) -> str:
        """Return the id of the row with this name or slug."""
        rows = self.sandbox.state.all(collection)
        return next(str(row["id"]) for row in rows if name in (row.get("name"), row.get("slug")))

    def run(self) -> RunWorkflow:
        """Return a call that the policy asks about: a run of a live workflow."""
        return RunWorkflow(workflow_id=self.id_of("workflows", "process-new-orders"))

    def deletion(self, name: str = "Globex Exports") -> DeleteCustomer:
        """Return a call that needs the typed name: the deletion of a customer with connections."""
        return DeleteCustomer(customer_id=self.id_of("customers", name))

    def new_judge(self) -> Judge:
        account = GuardedAccount(
            "test", lambda record: self.own(record), self.bound, self.surroundings, EnabledTools(self.disabled)
        )
        budgets = Budgets(self.policy, self.ledger, self.system, bound_account("test", self.bound))
        return Judge(
            account, self.policy, budgets, self.ledger, self.journalling, self.stops, self.system, self.client.send
        )

    def surround(self, surroundings: Surroundings) -> None:
        """Let the guard judge and describe calls with these settings from now on."""
        account = replace(self.judge._account, surroundings=surroundings)  # pyright: ignore[reportPrivateUsage]
        self.judge._account = account  # pyright: ignore[reportPrivateUsage]
        self.judge.questions._account = account  # pyright: ignore[reportPrivateUsage]

    def dispatching(self, secrets: SecretValues, delivery: KeyFileWriter | None) -> Dispatcher:
        self.approvals = Approvals(
            self.judge, self.ledger, self.journalling, self.recorder, self.system, self.desk, self.typed, self.stops
        )
        self.guard = Guard(
            self.judge,
            self.approvals,
            self.recorder,
            self.journalling,
            self.client,
            CallSecrets(secrets, self.typed, delivery),
            self.system,
        )
        return Dispatcher(self.shared, self.guard, self.recorder, self.journalling, secrets)

    async def change_of(
        self, current: Evaluation, permission: Permission, asker: Asker | None = None, *, list_id: str = ""
    ) -> Change:
        """Return the change of a call as it is about to begin."""
        return await new_change(
            current,
            permission,
            list_id=list_id,
            asker=asker or Asker(),
            account=self.journalling.account,
            read=self.client.send,
            deadline=self.client.deadline(current.call),
            system=self.system,
        )

    async def begin(self, current: Evaluation, *, list_id: str = "") -> None:
        """Begin a call that the policy allows, and leave it so, as a process that ends then does."""
        change = await self.change_of(current, Permission("policy"), list_id=list_id)
        assert await self.ledger.begin(change) is StartResult.STARTED

    async def begun(self, current: Evaluation, permission: Permission, asker: Asker | None = None) -> bool:
        """Return whether a call begins by this permission."""
        change = await self.change_of(current, permission, asker)
        begun = await self.approvals.permissions.begin(change, permission, current, current, asker or Asker())
        if begun:
            await self.journalling.end(change, "done")
        return begun

    def context(self, read: Send) -> ProcedureContext:
        """What a procedure is given, with another way to read, which has a snapshot of its own."""
        guard: Any = OtherReads(read)
        _, snapshot = self._snapshots.setdefault(id(read), (read, AccountSnapshot(self.system, self._snapshot_seconds)))
        shared = replace(self.shared, snapshot=snapshot)
        look, caller = AnswerReads(shared, read, lambda _: None), Caller(Asker(), None)
        tools = EnabledTools(self.disabled)
        return ProcedureContext(guard, self.guard, caller, no_progress, self.system, self.journalling, look, tools)

    async def judged(self, call: Call) -> tuple[PolicyDecision, Any]:
        """What the policy says of a call, and what people read about it."""
        seen = await self.judge.questions.with_question(await self.judge.judge_call(call, Asker()))
        return seen.verdict, seen.people_question

    async def decision(self, call: Call) -> Decision:
        return (await self.judged(call))[0].decision

    async def rows(self, listing: Call) -> list[Any]:
        page: Any = await self.client.send(listing)
        return list(map(FastnObject.model_validate, page.rows))

    @property
    def changes(self) -> list[HeardRequest]:
        """What reached Fastn that is no read."""
        return [request for request in self.sandbox.requests if request.method != "GET"]

    def audited(self, event: str) -> list[dict[str, Any]]:
        """Return the entries of the audit log about this event."""
        return [dict(entry) for entry in entries(self.audit_path) if entry["event"] == event]

    async def burnt(self) -> int:
        return sum(grant.state is RequestState.USED for grant in await self.ledger.decided(1000))

    def close(self) -> None:
        if isinstance(self.ledger.store, SqliteStore):
            self.ledger.store.close()
        self.audit.close()
