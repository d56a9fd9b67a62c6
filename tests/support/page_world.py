"""Support for tests of the approval page: a page over an in-memory ledger, a fake clock and a real Chromium."""

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx2

from fastn_mcp.account.typed_argument import TypedArgument, TypedField
from fastn_mcp.audit.log import AuditFile
from fastn_mcp.channels.page import page as key_file
from fastn_mcp.channels.page.inbox import InboxAccount
from fastn_mcp.channels.page.page import ApprovalPage, read_page_file
from fastn_mcp.guard.approval.votes import unrecorded
from fastn_mcp.guard.budgets import Budgets, Limits
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.guard.questions import question_of_list
from fastn_mcp.guard.seal import Seal
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, ShownCall
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.question import FieldChange
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.policy.policy import Policy
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect
from support.decisions import moved
from support.long_log import ACCOUNT
from support.page_visitor import Visitor
from support.questions import a_question
from support.stores import close, grant, permit
from support.values import not_none
from support.world import World

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

DELETION = a_question(
    title='Delete customer "Globex".',
    button='Delete "Globex"',
    brief='Delete customer "Globex"',
    lost='Its connections "Shopify" and "Slack" are permanently lost.',
    then="The customer itself can be created again, under a new id.",
    unchecked="Not checked: triggers.",
    tool="delete_customer",
    arguments={"customer_id": "cus_8fQ2"},
    account=ACCOUNT,
    effect=Effect.DESTROY,
    undo="The customer can be created again under a new id. Its connections, credentials and secrets are lost.",
    target="cus_8fQ2",
    name="Globex",
    expected="Globex",
    used_by=({"kind": "connections", "count": 2, "examples": [{"name": "Shopify"}, {"name": "Slack"}]},),
    not_checked=({"what": "triggers", "why": "Forbidden."},),
)
UPDATE = a_question(
    title='Change 2 fields of workflow "Orders": name and status.',
    button='Change "Orders"',
    brief='Update workflow "Orders"',
    then="It can be changed back.",
    tool="update_workflow",
    arguments={"workflow_id": "wf_31", "name": "Orders v2", "status": "Live"},
    account=ACCOUNT,
    effect=Effect.EXTERNAL,
    undo="It can be changed back; what it was is read before it is sent.",
    target="wf_31",
    name="Orders",
    expected="Orders",
    changes=(FieldChange("name", "Orders", "Orders v2"), FieldChange("status", "Draft", "Live")),
)

CONNECTION = a_question(
    title='Connect "Gamma" for customer "Globex". You enter its credentials.',
    button='Connect "Gamma of Globex"',
    brief='Connect "Gamma of Globex"',
    then="Workflows can use it immediately. It can be deleted afterwards.",
    tool="create_connection",
    arguments={"connector_id": "gamma", "customer_id": "cus_8fQ2"},
    account=ACCOUNT,
    effect=Effect.EXTERNAL,
    target=None,
    name="Gamma of Globex",
    expected="Gamma of Globex",
)
API_KEY = TypedArgument("credentials", (TypedField("apiKey"), TypedField("headerName", False, False)))


@dataclass
class Clock:
    """Wall clock and monotonic clock, moved by tests."""

    passed: float = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds / 10)


def deletion_of_customer(id_: str = "grant-1", **changes: Any) -> ApprovalRequest:
    """Return a pending request to delete a customer."""
    now = datetime.now(UTC).timestamp()
    facts: dict[str, Any] = {
        "target": "cus_8fQ2",
        "calls": {"call 1": ShownCall(f"binding of {id_}", {})},
        "required": "confirm",
        "expected": None,
        "question": DELETION,
    }
    return replace(grant(id_, created=now - 130, expires=now + 470), **(facts | changes))


def connection(id_: str = "grant-c", typed: TypedArgument = API_KEY) -> ApprovalRequest:
    """Return a pending request whose approver types credentials."""
    return deletion_of_customer(id_, tool="create_connection", target=None, question=CONNECTION, typed=typed)


def update_of_workflow(id_: str = "grant-2", **changes: Any) -> ApprovalRequest:
    """Return a pending request that allows a temporary approval."""
    given = {
        "tool": "update_workflow",
        "target": "wf_31",
        "permit": permit("update_workflow", "wf_31"),
        "question": UPDATE,
    }
    return deletion_of_customer(id_, **(given | changes))


def batch(id_: str = "grant-8", **changes: Any) -> ApprovalRequest:
    """Return a pending request for two calls."""
    second = replace(UPDATE, number=2, because="Fastn is asked less often then.")
    question = question_of_list("apply_changes", [DELETION, second])
    given = {"tool": "apply_changes", "target": None, "expected": "Globex", "question": question}
    return deletion_of_customer(id_, **(given | changes))


def made(id_: str, at: float, **facts: Any) -> Change:
    """Return a change: a workflow that was renamed."""
    before, sent = {"name": "Orders"}, {"name": "Orders v2"}
    change = Change(id_, "local", ACCOUNT, "update_workflow", {}, "wf_31", "Orders", before, sent, at)
    return replace(change, **{"outcome": "done", "approved_by": "local_page", **facts})


@dataclass
class Desk:
    """A page over a ledger, with the addresses that its opener was given."""

    page_file: Path
    clock: Clock = field(default_factory=Clock)
    ledger: Ledger = field(default_factory=lambda: Ledger(SqliteStore(":memory:")))
    opened: list[str] = field(default_factory=list[str])
    opens: bool = True
    policy: Policy = field(default_factory=Policy)
    name: str | None = None
    """Account of the page; None for every account in its ledger."""

    def __post_init__(self) -> None:
        self.system = System(now=self.clock.now, monotonic=self.clock.monotonic, sleep=self.clock.sleep)
        self.typed = TypedSecrets(self.ledger, lambda: Seal(["a key of this test"], self.system), self.system)
        self.audit = self.page_file.parent / "audit.jsonl"
        budgets = Budgets(self.policy, self.ledger, self.system, self.name or "")
        limits = Limits(self.policy, budgets, AuditFile(self.audit, self.system))
        self.account = InboxAccount(self.name, self.ledger, unrecorded, self.typed, limits=limits)
        self.page = ApprovalPage(self.ledger, self.system, self.open, self.page_file)
        self.page.connect(self.account)

    async def aclose(self) -> None:
        await self.page.aclose()
        close(self.ledger)

    def open(self, url: str) -> bool:
        self.opened.append(url)
        return self.opens

    async def ask(self, *requests: ApprovalRequest) -> None:
        for request in requests:
            await self.ledger.open(request)

    async def becomes(
        self, id_: str, state: RequestState, *, at: float | None = None, by: str | None = None, note: str | None = None
    ) -> None:
        """Bring an open request to a state, behind the page's back."""
        now = self.clock.now().timestamp() if at is None else at
        assert await moved(self.ledger, id_, [RequestState.OPEN], state, now, by=by, note=note)

    async def announce(self, id_: str) -> str:
        """Show a request on the page, and return where it is decided."""
        request = await self.ledger.find(id_) or deletion_of_customer(id_)
        return (await self.page.ask(request)).sentence(request)

    async def key(self) -> tuple[str, str]:
        """Return the page's address and a one-time key from the page file."""
        await self.announce("any")
        return not_none(read_page_file(self.page_file))

    async def file(self) -> str:
        """Return the address of a key file, as `fastn-mcp approvals --open` writes it."""
        url, key = await self.key()
        return key_file.write(self.page_file.parent / "browser", url, key, self.clock.now().timestamp())

    async def request(self, id_: str) -> ApprovalRequest:
        return not_none(await self.ledger.find(id_))

    async def snapshot(self) -> list[object]:
        """Return everything in the ledger that a decision would change."""
        now = self.clock.now().timestamp()
        return [
            await self.ledger.waiting(now),
            await self.ledger.decided(100),
            await self.ledger.temporary_approvals(now),
            await self.ledger.declines("local"),
            await self.ledger.stops(),
        ]


def desk_of(world: World, folder: Path) -> Desk:
    """Return the page of a world's account, with its guard behind it."""
    desk = Desk(folder / "page" / "page.json", ledger=world.ledger)
    desk.system = replace(desk.system, now=world.clock.now)
    desk.page = ApprovalPage(world.ledger, desk.system, desk.open, desk.page_file)
    desk.page.connect(
        InboxAccount(
            world.journalling.account,
            world.ledger,
            world.recorder.decided,
            world.typed,
            limits=Limits(world.policy, world.judge.budgets, world.audit),
            dispatch=world.dispatch,
            presence=world.guard.decisions.presence,
        )
    )
    desk.clock.now = world.clock.now
    return desk


async def enter(http: httpx2.AsyncClient, url: str, key: str, **headers: str) -> httpx2.Response:
    """Post a key to the page at `url`, like a browser that opened a key file."""
    return await http.post(f"{url}/enter", data={"key": key}, headers={"Origin": "null"} | headers)


def room_of(answer: httpx2.Response) -> str:
    """Return the path to which a browser is sent after entering."""
    assert answer.status_code == 200
    return not_none(re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text))[1]


async def let_in(desk: Desk) -> Visitor:
    """Return a new visitor that used a key."""
    url, key = await desk.key()
    http = httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30)
    return Visitor(http, url, room=room_of(await enter(http, url, key)))


async def entered(browser: "Browser", desk: Desk, **options: Any) -> "Page":
    """Open a tab with a session by a key file. Errors in its console fail the test."""
    context = await browser.new_context(reduced_motion="reduce", **options)
    context.set_default_timeout(10_000)
    tab, complaints = await context.new_page(), list[str]()
    tab.on("console", lambda message: complaints.append(message.text))
    await tab.goto(await desk.file())
    if not options.get("java_script_enabled", True):
        await tab.get_by_role("button").click()  # the file's form needs a script to submit itself
    await tab.get_by_role("navigation", name="Places").wait_for()
    assert complaints == []
    return tab
