"""The MCP conformance suite against this server on HTTP, with the sandbox behind it: `run.py FOLDER_WITH_NODE_MODULES`.

Once as it serves one person, and once as it serves a team, where only what is about HTTP is run again. The suite can
send no token, so it goes through a door that adds one. Of authorization the suite has scenarios for clients and
for identity providers, and none for a server like this one; tests/extensions/team and tests/end_to_end/test_team.py
have them.

Only scenarios that need no fixtures: most of the suite is written for an example server that offers tools, resources
and prompts by the names of what they test. So is `completion-complete`: it wants values for a prompt of the suite's
own, where the specification asks for an error.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.identity_provider import Provider, listening  # noqa: E402 - beside the other tests, and no package
from support.openid_provider import node  # noqa: E402
from support.ports import free_port  # noqa: E402
from support.server_process import started  # noqa: E402

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
    "sep-2640-skills-enumeration",
    "sep-2640-skills-manifest",
    "sep-2640-skills-directory",  # optional, and not offered for a skill of one file
)
OF_A_TEAM = (
    "server-initialize",
    "ping",
    "tools-list",
    "dns-rebinding-protection",
    "server-session-lifecycle",
    "server-stateless",
    "caching",
    "http-header-validation",
)
TOKEN = "a-token-of-the-suite-that-nobody-guesses"
COLOUR = re.compile(r"\x1b\[\d*m")


def passes(folder: Path, address: str, scenario: str) -> bool:
    """Runs one scenario, and says what it counted; its whole output, if it failed."""
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
    output = COLOUR.sub("", ended.stdout + ended.stderr)
    counted = re.search(r"Passed: .*", output)
    passed = ended.returncode == 0 and counted is not None
    print(f"{'ok    ' if passed else 'FAILED'} {scenario}: {counted[0] if counted else 'no result'}", flush=True)
    if not passed:
        print(output)
    return passed


def served(state: Path, port: int, *more: str) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """The server, on the sandbox."""
    env = {"FASTN_CONFIG_DIR": str(state), "FASTN_STATE_DIR": str(state), "KEY": "fsk_test_sandbox"}
    env |= {"FASTN_HTTP_TOKEN": TOKEN, "FASTN_APPROVAL_WAIT_SECONDS": "0", "FASTN_CONFIG": os.devnull}
    return started("--sandbox", "--http", f"127.0.0.1:{port}", *more, port=port, env=env)


def adding(token: str, to: str, door: str | None = None) -> Starlette:
    """The door: whatever comes goes on as it is, and signed in. What names the `door` names the server behind it."""
    client = httpx2.AsyncClient(base_url=f"http://{to}", timeout=30)

    async def passed(request: Request) -> Response:
        headers = [(name, value.strip()) for name, value in request.headers.raw if name != b"content-length"]
        if door is not None:
            headers = [(name, _renamed(value, door, to)) for name, value in headers]
        headers.append((b"authorization", f"Bearer {token}".encode()))
        body = await request.body()
        try:
            answer = await client.request(request.method, request.url.path, content=body, headers=headers)
        except httpx2.TransportError:  # the server ended, with a stream open
            return Response(status_code=502)
        kept = {name: value for name, value in answer.headers.items() if name not in ("content-length", "date")}
        return Response(answer.content, answer.status_code, kept)

    return Starlette(routes=[Route("/{path:path}", passed, methods=["GET", "POST", "PUT", "DELETE", "OPTIONS"])])


def _renamed(value: bytes, door: str, to: str) -> bytes:
    """The value of Host or Origin, as of somebody who asks the server itself."""
    return {f"{scheme}{door}".encode(): f"{scheme}{to}".encode() for scheme in ("", "http://")}.get(value, value)


@contextmanager
def team(state: Path) -> Generator[str]:
    """The server of a team, by the address of the door."""
    port, login, entrance = (free_port() for _ in range(3))
    door = f"127.0.0.1:{entrance}"
    provider = Provider(f"http://127.0.0.1:{login}", f"http://{door}/mcp")
    file = state / "team.toml"
    file.write_text(
        f'url = "http://{door}/mcp"\nissuer = "http://127.0.0.1:{login}"\nhosts = ["{door}"]\n'
        '[[tenant]]\nname = "suite"\nsubjects = ["suite"]\napi_key_env = "KEY"\nmode = "guarded"\n'
    )
    file.chmod(0o600)
    token = provider.token(sub="suite", scope="fastn:read fastn:write fastn:destroy fastn:admin")
    with (
        listening(provider.app, login),
        listening(adding(token, f"127.0.0.1:{port}"), entrance),
        served(state, port, "--team", str(file)),
    ):
        yield door


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    port, entrance = free_port(), free_port()
    door = f"127.0.0.1:{entrance}"
    with tempfile.TemporaryDirectory() as state:
        # The server knows one Host: the door's. The suite asks there, and the door adds the token.
        with served(Path(state), port), listening(adding(TOKEN, f"127.0.0.1:{port}", door), entrance):
            failed = [scenario for scenario in SCENARIOS if not passes(folder, door, scenario)]
        print("For a team:", flush=True)
        with team(Path(state)) as door:
            failed += [f"{scenario} (team)" for scenario in OF_A_TEAM if not passes(folder, door, scenario)]
    if failed:
        sys.exit(f"{len(failed)} of {len(SCENARIOS) + len(OF_A_TEAM)} scenarios failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
