"""Starts an installed fastn-mcp with its sandbox, over stdio, and makes one call: `smoke.py COMMAND...`.

Standard library only, so that the environment under test holds the package and nothing else.
"""

import json
import subprocess
import sys

program = sys.argv[1:]
print(subprocess.run([*program, "--version"], check=True, capture_output=True, text=True).stdout.strip())
requests = [
    {"id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}}},
    {"method": "notifications/initialized"},
    {"id": 2, "method": "tools/list"},
    {"id": 3, "method": "tools/call", "params": {"name": "list_customers", "arguments": {"limit": 1}}},
]
requests[0]["params"]["clientInfo"] = {"name": "smoke", "version": "1"}  # type: ignore[index]
lines = "".join(json.dumps({"jsonrpc": "2.0", **request}) + "\n" for request in requests)
# The input ends at once: the answers must come all the same, and the server must then end by itself.
ended = subprocess.run([*program, "--sandbox"], input=lines, capture_output=True, text=True, timeout=60, check=False)
replies = {reply["id"]: reply for reply in map(json.loads, ended.stdout.splitlines()) if "id" in reply}
if ended.returncode != 0 or replies.keys() != {1, 2, 3} or any("error" in reply for reply in replies.values()):
    sys.exit(f"code {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
listed = subprocess.run([*program, "tools", "--json"], check=True, capture_output=True, text=True).stdout
tools = replies[2]["result"]["tools"]
called = replies[3]["result"]
if len(tools) != len(json.loads(listed)) or called.get("isError"):
    sys.exit(f"{len(tools)} tools; the call gave {called}")
print(f"It serves {len(tools)} tools, and list_customers answers.")
