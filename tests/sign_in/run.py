"""Sign-in of real MCP clients at a real OpenID provider: `run.py FOLDER_WITH_INSPECTOR FOLDER_WITH_CLIENTS`.

The MCP Inspector, Claude Code and Codex are known to the provider, or by their metadata document, or they register. A
person's browser goes through the provider's pages and back to the client, which listens on this machine.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.openid_provider import CLIENT_DOCUMENT, SCOPES, Browser, OpenIDProviders, Shape, node  # noqa: E402 - no package
from support.ports import free_port  # noqa: E402
from support.server_process import running  # noqa: E402

FILE = """
url = "{url}"
issuer = "{issuer}"
initial_scopes = {scopes}

[[tenant]]
name = "acme"
groups = ["admins"]
api_key_env = "ACME_KEY"
mode = "guarded"
approval_wait_seconds = 0
"""
PORT = free_port()
INSPECTOR = f"http://127.0.0.1:{PORT}/oauth/callback"
LOOPBACK = ("http://localhost/callback", "http://127.0.0.1/callback")
KNOWN = "known-by-hand"
DOCUMENTS: dict[str, tuple[str, ...]] = {
    CLIENT_DOCUMENT: (INSPECTOR,),
    "https://claude.ai/oauth/claude-code-client-metadata": LOOPBACK,
    "https://chatgpt.com/oauth/codex/client.json": LOOPBACK,
}
"""Redirect addresses in the documents that Claude Code and Codex name; of the Inspector it is told which."""
SHAPE = Shape(
    "/realms/team",
    {"anna": {"name": "Anna Example", "groups": ["admins"]}},
    clients=(
        {
            "client_id": KNOWN,
            "redirect_uris": [INSPECTOR, *LOOPBACK],
            "token_endpoint_auth_method": "none",
            "application_type": "native",  # any port
        },
    ),
    documents=DOCUMENTS,
)
KINDS = {
    "known": SHAPE,
    "by document": replace(SHAPE, has_metadata_documents=True),
    "registers": replace(SHAPE, has_registration=True),
}
PATIENCE = 120.0


def expect(what: str, holds: bool, seen: object) -> None:
    if not holds:
        sys.exit(f"failed: {what}\n{seen}")
    print(f"ok: {what}", flush=True)


@dataclass
class Person:
    """Somebody with a fresh home and a browser, and the address of the server."""

    home: Path
    url: str
    browser: Browser

    def run(self, *command: str, typed: str = "") -> str:
        """Run a client and return what it printed. Its authorization address is opened in the browser."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FASTN_", "CLAUDE", "CODEX"))}
        environment = kept | {
            "HOME": str(self.home),
            "CODEX_HOME": str(self.home),
            "PATH": os.pathsep.join([str(Path(node()).parent), os.environ["PATH"]]),
            "BROWSER": "true",  # opens nothing; the address is printed too
            "MCP_AUTO_OPEN_ENABLED": "true",
            "MCP_INSPECTOR_SECRET_STORE": "file",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        printed = ""
        keyboard, terminal = os.openpty()  # without a terminal Claude Code signs nobody in
        with os.fdopen(keyboard, "wb", buffering=0) as keys, os.fdopen(terminal, "rb") as stdin, subprocess.Popen(
            ("timeout", "--foreground", str(PATIENCE), *command), env=environment, cwd=self.home, text=True,
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            keys.write(typed.encode())
            for line in process.stdout:
                printed += line
                if match := re.search(r"(http://\S+/auth\?\S+)", line):
                    back = asyncio.run(self.browser.authorize(match[1]))
                    httpx2.get(back, timeout=PATIENCE).raise_for_status()
                if '"id":2' in line:  # the answer that Codex was asked for
                    process.terminate()
        return printed


@contextmanager
def team(providers: OpenIDProviders, shape: Shape, scopes: tuple[str, ...]) -> Generator[Person]:
    """Serve a team on the sandbox whose people sign in at a shape."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    with tempfile.TemporaryDirectory(prefix="fastn-mcp-") as folder:
        file = Path(folder) / "team.toml"
        issuer = providers.serve(replace(shape, resource=url))
        file.write_text(FILE.format(url=url, issuer=issuer, scopes=list(scopes)))
        file.chmod(0o600)
        environment = {
            "ACME_KEY": "fsk_test_acme",
            "FASTN_CONFIG": os.devnull,
            "FASTN_LOG_FILE": f"{folder}/log",
            "FASTN_STATE_DIR": folder,
        }
        with running("--sandbox", "--http", f"127.0.0.1:{port}", "--team", str(file), port=port, env=environment):
            yield Person(Path(folder), url, Browser("anna"))


def inspector(kind: str, person: Person, modules: Path, scopes: tuple[str, ...]) -> None:
    """Read, and create a customer, each in a process of its own."""
    program = modules / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
    options = {"known": ("--client-id", KNOWN), "by document": ("--client-metadata-url", CLIENT_DOCUMENT)}.get(kind, ())
    common = ("--cli", person.url, "--protocol-era", "modern", "--callback-url", INSPECTOR, *options)
    call = (node(), str(program), *common, "--method", "tools/call", "--tool-name")
    read = person.run(*call, "list_customers", "--tool-arg", "limit=1")
    expect(f"the Inspector, {kind}: signs in and reads", '"total": 5' in read, read)
    made = person.run(*call, "create_customer", "--tool-arg", "name=Umbrella", typed="y\n")
    expect(f"the Inspector, {kind}: changes something", '"done": "create_customer"' in made, made)
    asked, first = person.browser.requested(SHAPE), set(scopes)
    steps = [first] if "fastn:write" in first else [first, first | {"fastn:write"}]
    expect(f"the Inspector, {kind}: requests what it needs", asked == steps, asked)


def claude_code(kind: str, person: Person, modules: Path) -> None:
    program = str(modules / ".bin" / "claude")
    options = ("--client-id", KNOWN, "--callback-port", str(PORT)) if kind == "known" else ()
    person.run(program, "mcp", "add", "--transport", "http", *options, "fastn", person.url)
    printed = person.run(program, "mcp", "login", "fastn", "--no-browser")
    expect(f"Claude Code, {kind}: signs in", 'Authenticated with "fastn"' in printed, printed)
    printed = person.run(program, "mcp", "list")
    expect(f"Claude Code, {kind}: connects", "✔ Connected" in printed, printed)


def codex(kind: str, person: Person, modules: Path) -> None:
    program = str(modules / ".bin" / "codex")
    settings = f'mcp_oauth_credentials_store = "file"\n[mcp_servers.fastn]\nurl = "{person.url}"\n'
    if kind == "known":
        callback = f"http://127.0.0.1:{PORT}/callback"
        settings += f'oauth = {{ client_id = "{KNOWN}", callback_port = {PORT}, callback_url = "{callback}" }}\n'
    (person.home / "config.toml").write_text(settings)
    printed = person.run(program, "mcp", "login", "fastn", "--no-browser")
    expect(f"Codex, {kind}: signs in", "Successfully logged in" in printed, printed)
    asked: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "test", "version": "1"}}},
        {"method": "initialized"},
        {"id": 2, "method": "mcpServerStatus/list", "params": {}},
    ]
    printed = person.run(program, "app-server", typed="".join(f"{json.dumps(each)}\n" for each in asked))
    expect(f"Codex, {kind}: lists the tools", '"list_customers"' in printed, printed)


def main() -> None:
    inspectors, clients = (Path(folder).resolve() / "node_modules" for folder in sys.argv[1:3])
    providers = OpenIDProviders()
    for kind, shape in KINDS.items():
        # The Inspector cannot step up if it registered, so it requests all at first.
        scopes = SCOPES if kind == "registers" else SCOPES[:1]
        with team(providers, shape, scopes) as person:
            inspector(kind, person, inspectors, scopes)
        with team(providers, shape, SCOPES[:1]) as person:
            claude_code(kind, person, clients)
        with team(providers, shape, SCOPES[:1]) as person:
            codex(kind, person, clients)
    providers.stop()


if __name__ == "__main__":
    main()
