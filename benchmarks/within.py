"""This project between a caller and an upstream that costs nothing, all in this process: the rest is our own work."""

import json
from pathlib import Path

from fastn_mcp.account.answer_reads import SharedReads
from fastn_mcp.account.snapshot import AccountSnapshot
from fastn_mcp.audit.log import AuditFile
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import Answer
from fastn_mcp.config.model import Settings
from fastn_mcp.guard.approval.obtain import Approvals
from fastn_mcp.guard.budgets import Budgets
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities
from fastn_mcp.guard.guard import Guard
from fastn_mcp.guard.guarded_account import GuardedAccount
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.judge import Judge
from fastn_mcp.guard.key_files import CallSecrets, SecretValues, TypedSecrets
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.guard.seal import Seal
from fastn_mcp.guard.stops import Stops
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.runtime import System
from fastn_mcp.tools.operation import Request

ACCOUNT = "bench"


class Rows:
    """An upstream with so many rows of each kind. Where it `ignores` the limit, one page holds them all."""

    def __init__(self, size: int, *, ignores: bool = False) -> None:
        self.size = size
        self.requests = 0
        self._ignores = ignores
        self._pages: dict[tuple[str, int, int], bytes] = {}

    async def __call__(self, request: Request) -> Answer:
        self.requests += 1
        kind = request.path.rstrip("/").rsplit("/", 1)[-1].removesuffix("s")
        if request.method == "POST":
            return Answer(201, {}, b'{"data":{"id":"c1","name":"Initech"}}')
        if "limit" not in request.query:
            return Answer(200, {}, b'{"data":{"id":"c1","name":"Initech"}}')
        page = kind, int(str(request.query.get("offset") or 0)), int(str(request.query["limit"]))
        if page not in self._pages:
            self._pages[page] = self._page(*page)
        return Answer(200, {}, self._pages[page])

    def _page(self, kind: str, start: int, limit: int) -> bytes:
        numbers = range(self.size) if self._ignores else range(start, min(start + limit, self.size))
        rows = [
            {
                "id": f"{kind}_{number:06d}",
                "name": f"{kind} {_name(number)}",
                "slug": f"{kind}-{number}",  # a create would have to ask whether it overwrites a row without one
                "status": "Active",
            }
            for number in numbers
        ]
        return json.dumps({"data": rows, "total": self.size}, separators=(",", ":")).encode()

    async def aclose(self) -> None:
        pass


def _name(number: int) -> str:
    """As many words as accounts have: few at first, and then no new ones."""
    return (
        f"{('Norfield', 'Casmont', 'Halwick', 'Oakport')[number % 4]} {('Foods', 'Labs', 'Group')[number % 3]} {number}"
    )


def client_of(upstream: Rows) -> FastnClient:
    return FastnClient(Settings(base_url="http://localhost", api_key="k"), upstream, System())


class Elsewhere(Channel):
    """A channel where nobody looks."""

    name = "elsewhere"

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities()

    async def ask(self, request: ApprovalRequest) -> Announcement:  # noqa: ARG002
        return Announcement(("elsewhere",))


def within(
    client: FastnClient,
    ledger: Ledger,
    folder: Path,
    policy: Policy | None = None,
    channel: Channel | None = None,
    snapshot_seconds: float = 0,
) -> Dispatcher:
    """Dispatch, guard and client, with an audit in `folder`."""
    system = System()
    recorder = Recorder(AuditFile(folder / "audit.jsonl", system), ACCOUNT, system)
    journalling = ChangeJournal(ledger, ACCOUNT, system)
    policy = policy or Policy()
    guarded, budgets = GuardedAccount(ACCOUNT, lambda _: False), Budgets(policy, ledger, system, ACCOUNT)
    stops = Stops(ledger, system)
    judge = Judge(guarded, policy, budgets, ledger, journalling, stops, system, client.send)
    secrets = SecretValues({}, [])
    typed = TypedSecrets(ledger, lambda: Seal(["bench"], system), system)
    approvals = Approvals(judge, ledger, journalling, recorder, system, channel, typed, stops)
    shared = SharedReads(client, AccountSnapshot(system, snapshot_seconds), system)
    client.changed = shared.snapshot.forget
    filled = CallSecrets(secrets, typed, None)
    guard = Guard(judge, approvals, recorder, journalling, client, filled, system)
    return Dispatcher(shared, guard, recorder, journalling, secrets)
