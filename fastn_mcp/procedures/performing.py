"""How a call is carried out: as it is, or as the procedure that it needs. The one list of what is more than a call."""

from typing import Any, cast

from fastn_mcp.offer import Offer, Record
from fastn_mcp.operation import Operation
from fastn_mcp.procedures.building import build, chat
from fastn_mcp.procedures.listing import listed
from fastn_mcp.procedures.procedure import Means, Procedure
from fastn_mcp.procedures.waiting import run_and_wait
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.listing import List
from fastn_mcp.tools.workflows import RunWorkflow


async def perform(call: Offer[Any], means: Means) -> Record:
    """What came of `call`. Raises a `FastnError`."""
    match call:
        case Procedure():
            return await cast("Procedure[Record]", call).run(means)
        case List():
            return await listed(cast("List[Any]", call), means)
        case RunWorkflow() if call.wait_seconds:
            return await run_and_wait(call, means)
        case AiChat():
            return await chat(call, means)
        case AiBuild():
            return await build(call, means)
        case Operation():
            return await means.send(call)
        case _:
            raise TypeError(f"{call.tool_name()} is neither an operation nor a procedure")
