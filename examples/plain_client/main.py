"""A plain MCP client: no model, and the server's own question, shown as a form at this terminal.

Finds a workflow that fails, pauses the trigger that starts it, and deletes the trigger, about which a person is asked.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["mcp>=2.3,<3"]
# ///

import asyncio
import os
import shlex
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client import ClientRequestContext
from mcp.types import ElicitRequestParams, ElicitRequestURLParams, ElicitResult

COMMAND, *ARGUMENTS = shlex.split(os.environ.get("FASTN_MCP", "fastn-mcp --sandbox"))
SERVER = StdioServerParameters(command=COMMAND, args=ARGUMENTS, env=dict(os.environ))
# Over HTTP, with the token that `fastn-mcp --http 127.0.0.1:8080` names (docs/clients.md):
# http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {os.environ['FASTN_HTTP_TOKEN']}"})
# SERVER = streamable_http_client("http://127.0.0.1:8080/mcp", http_client=http)


async def ask(_: ClientRequestContext, question: ElicitRequestParams) -> ElicitResult:
    """Show the question and take the answers. The server decides what counts as a yes; nothing typed is a no."""
    print(f"\n{question.message}")
    if isinstance(question, ElicitRequestURLParams):  # the person decides on the page, whatever is answered here
        print(question.url)
        return ElicitResult(action="accept")
    answers: dict[str, Any] = {}
    for name, field in question.requested_schema["properties"].items():
        choices = f" ({', '.join(field['enum'])})" if "enum" in field else ""
        typed = await asyncio.to_thread(input, f"{field.get('description', name)}{choices} > ")
        if not typed.strip():
            return ElicitResult(action="decline")
        answers[name] = typed.strip()
    return ElicitResult(action="accept", content=answers)


async def main() -> None:
    async with Client(SERVER, elicitation_callback=ask) as client:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            return (await client.call_tool(tool, arguments)).structured_content

        failed = (await call("list_executions", status="failed", limit=1))["data"][0]
        print(f"{failed['workflow']} failed: {failed['error']}")
        triggers = (await call("list_triggers", status="Active"))["data"]
        trigger = next(row for row in triggers if failed["workflow"] in row["starts"])
        paused = await call("update_trigger", trigger_id=trigger["id"], status="Disabled")
        print(f"{trigger['name']} is paused: {paused['done']}")

        deleted = await call("delete_trigger", trigger_id=trigger["id"])
        # A policy may want the decision outside the client, and a form that nobody reads is not asked again.
        while deleted.get("status") == "approval_required":
            print(f"\n{deleted['message']}")
            await asyncio.to_thread(input, "Press Enter once that is decided. ")
            deleted = await call("delete_trigger", trigger_id=trigger["id"])
        print(f"{trigger['name']} is deleted." if "done" in deleted else f"Not deleted: {deleted['message']}")


if __name__ == "__main__":
    asyncio.run(main())
