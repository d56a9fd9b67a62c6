"""Sign-in of the MCP Inspector's command line at a real OpenID provider: `run.py FOLDER_WITH_NODE_MODULES`.

The Inspector registers dynamically, by a metadata document, or is known; then it steps up. A person's browser goes
through the provider's pages and back to the Inspector, which listens on this machine.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "end_to_end")]

from openid_provider import CLIENT_DOCUMENT, SCOPES, Browser, OpenIDProviders, Shape, node  # noqa: E402 - no package
from ports import free_port  # noqa: E402
from server_process import running  # noqa: E402

FILE = """
url = "{url}"
issuer = "{issuer}"
initial_scopes = {scopes}

[[tenant]]
name = "acme"
groups = ["admins"]
caller_keys = true
mode = "guarded"
approval_wait_seconds = 0
"""
CALLBACK = f"http://127.0.0.1:{free_port()}/oauth/callback"
KNOWN: dict[str, Any] = {
    "client_id": "the-inspector",
    "redirect_uris": [CALLBACK],
    "token_endpoint_auth_method": "none",
}
PEOPLE = {"anna": {"name": "Anna Example", "groups": ["admins"]}}
PATIENCE = 60.0


class Inspector:
    """The Inspector of a person with a fresh home."""

    def __init__(self, modules: Path, home: str, url: str, options: tuple[str, ...]) -> None:
        program = modules / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
        key = ("--header", "x-fastn-api-key: fsk_test_anna")
        self._command = (
            node(),
            str(program),
            "--cli",
            url,
            "--protocol-era",
            "modern",
            "--callback-url",
            CALLBACK,
            *key,
            *options,
        )
        self._environment = {
            **os.environ,
            "HOME": home,
            "BROWSER": "true",  # it opens no browser, but prints the address
            "MCP_AUTO_OPEN_ENABLED": "true",
            "MCP_INSPECTOR_SECRET_STORE": "file",
        }
        self.browser = Browser("anna")

    def call(self, tool: str, *arguments: str) -> str:
        """Call a tool and return what the Inspector printed."""
        command = (*self._command, "--method", "tools/call", "--tool-name", tool, *arguments)
        pipe = subprocess.PIPE
        printed = ""
        with subprocess.Popen(
            command, env=self._environment, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("y\n")  # to step up
            process.stdin.flush()
            for line in process.stdout:
                printed += line
                if found := re.search(r"navigate to: (http://\S+)", line):
                    back = asyncio.run(self.browser.authorize(found[1]))
                    httpx2.get(back, timeout=PATIENCE).raise_for_status()
        return printed


def expect(what: str, holds: bool, seen: object) -> None:
    if not holds:
        sys.exit(f"failed: {what}\n{seen}")
    print(f"ok: {what}", flush=True)


def sign_in(how: str, modules: Path, shape: Shape, *options: str, scopes: tuple[str, ...] = SCOPES[:1]) -> None:
    """Read, and then create a customer, with the Inspector's own sign-in."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    providers = OpenIDProviders()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "team.toml"
        issuer = providers.serve(replace(shape, resource=url))
        file.write_text(FILE.format(url=url, issuer=issuer, scopes=list(scopes)))
        file.chmod(0o600)
        environment = {"FASTN_STATE_DIR": folder, "FASTN_CONFIG": os.devnull, "FASTN_LOG_FILE": f"{folder}/log"}
        serve = ("--sandbox", "--http", f"127.0.0.1:{port}", "--team", str(file))
        with running(*serve, port=port, env=environment):
            inspector = Inspector(modules, folder, url, options)
            printed = inspector.call("list_customers", "--tool-arg", "limit=1")
            asked = [set(scopes)]
            expect(f"{how}: signs in and reads", inspector.browser.requested(shape) == asked, printed)
            expect(f"{how}: gets rows", '"total": 5' in printed, printed)
            printed = inspector.call("create_customer", "--tool-arg", "name=Umbrella")
            if "fastn:write" not in scopes:
                asked.append({*scopes, "fastn:write"})
                expect(f"{how}: steps up", "needs additional scope: fastn:write" in printed, printed)
            expect(f"{how}: requests no more than that", inspector.browser.requested(shape) == asked, printed)
            expect(f"{how}: changes something", '"done": "create_customer"' in printed, printed)
    providers.stop()


def main() -> None:
    modules = Path(sys.argv[1]) / "node_modules"
    shape = Shape("/realms/team", PEOPLE, clients=(KNOWN,), document_redirect=CALLBACK)
    sign_in("known to the provider", modules, shape, "--client-id", KNOWN["client_id"])
    document = replace(shape, has_metadata_documents=True)
    sign_in("by a metadata document", modules, document, "--client-metadata-url", CLIENT_DOCUMENT)
    # With a refresh token, which it registers for, the Inspector cannot step up: so it requests all at first.
    sign_in("registers dynamically", modules, replace(shape, has_registration=True), scopes=SCOPES)


if __name__ == "__main__":
    main()
