"""Run a call: as one request, or as the procedure that it needs."""

from typing import Any, cast

from fastn_mcp.procedures.ai import build, chat
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.tables import listed
from fastn_mcp.procedures.wait_for_execution import run_and_wait
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import FastnObject, Tool
from fastn_mcp.tools.workflows import RunWorkflow


async def perform(call: Tool[Any], means: ProcedureContext) -> FastnObject:
    """What came of `call`. Raises a `FastnError`."""
    match call:
        case Procedure():
            return await cast("Procedure[FastnObject]", call).run(means)
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
