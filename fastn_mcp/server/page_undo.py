"""Undo from the approval page: a guarded call of the person who looks at it, like any other change.

Where it needs an approval, its request stands on the page like those of agents. Whoever approves it there makes it,
in whatever process, so that no call has to wait for them.
"""

from dataclasses import dataclass

from fastn_mcp.channels.page.inbox import ChangeUndo
from fastn_mcp.guard.batch import Done
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.preview import Shown
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.procedures.undo_change import UndoChange


@dataclass(frozen=True, slots=True)
class PageUndo(ChangeUndo):
    """Undoes changes of one account."""

    dispatch: Dispatcher

    async def preview(self, change: str, asker: Asker) -> Shown:
        return await self.dispatch.preview(UndoChange(change_id=change), Caller(asker, None))

    async def __call__(self, change: str, asker: Asker) -> bool:
        caller = Caller(asker, None, undoes=change)
        return isinstance(await self.dispatch(UndoChange(change_id=change), caller), Done)
