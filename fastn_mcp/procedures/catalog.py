"""Everything that an agent is offered: the procedures first, for they answer most questions; then the operations."""

from fastn_mcp.offer import AnyOffer
from fastn_mcp.procedures.applying import ApplyChanges
from fastn_mcp.procedures.changes import ListChanges, UndoChange
from fastn_mcp.procedures.diagnosis import DiagnoseWorkflow
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.impact import FindDependents
from fastn_mcp.procedures.overview import GetOverview
from fastn_mcp.procedures.waiting import WaitForExecution
from fastn_mcp.tools import CATALOG

PROCEDURES: tuple[AnyOffer, ...] = (
    Find,
    GetOverview,
    DiagnoseWorkflow,
    WaitForExecution,
    FindDependents,
    ApplyChanges,
    ListChanges,
    UndoChange,
)

OFFERS: tuple[AnyOffer, ...] = (*PROCEDURES, *CATALOG)

BY_NAME: dict[str, AnyOffer] = {offer.tool_name(): offer for offer in OFFERS}
