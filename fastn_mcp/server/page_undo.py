"""Undo from the approval page: a guarded call of the person who looks at it, like any other change.

Where it needs an approval, its request stands on the page like those of agents. Whoever approves it there makes it,
in whatever process, so that no call has to wait for them.
"""

from dataclasses import dataclass, replace

from fastn_mcp.channels.page.inbox import UNDOES, ChangeUndo
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.batch import Done
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.preview import Shown
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.ledger import ApprovalRequests
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.procedures.undo_change import UndoChange


@dataclass(frozen=True, slots=True)
class PageUndo(ChangeUndo):
    """Undoes changes of one account."""

    dispatch: Dispatcher
    ledger: ApprovalRequests
    tenant: str = ""

    async def preview(self, change: str, principal: str) -> Shown:
        return await self.dispatch.preview(UndoChange(change_id=change), Caller(self._asker(principal, ""), None))

    async def __call__(self, change: str, principal: str, name: str) -> bool:
        caller = Caller(self._asker(principal, name), None, waits=False)
        outcome = await self.dispatch(UndoChange(change_id=change), caller)
        if isinstance(outcome, PendingApproval):
            await self.ledger.change_request(
                outcome.request, lambda request: replace(request, preview={**request.preview, UNDOES: change})
            )
        return isinstance(outcome, Done)

    def _asker(self, principal: str, name: str) -> Asker:
        return Asker(principal, name, tenant=self.tenant)

    async def resume(self, approved: ApprovalRequest) -> bool | None:
        change = approved.preview.get(UNDOES)
        return await self(change, approved.principal, approved.asked_by or "") if isinstance(change, str) else None
