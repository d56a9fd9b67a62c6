"""An outside judge: `mcpscore` audits the real server on the sandbox, over stdio, over HTTP, and as a team's server.

    judge.py PATH_OF_MCPSCORE

Every rule that applies must pass, but for those in `exceptions.toml`, each with its reason. An exception that no audit
needs any more fails as well. Needs `tests/` on the path, for the team's identity provider.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXCEPTIONS = Path(__file__).with_name("exceptions.toml")
TIMEOUT = 120.0
"""Seconds for one audit, which takes about five."""

EVERY = "every"
"""The table of exceptions for each audit."""

Report = Mapping[str, Any]
Exceptions = Mapping[str, Mapping[str, str]]


def exceptions() -> Exceptions:
    """Return the reasons by rule, by audit."""
    return tomllib.loads(EXCEPTIONS.read_text(encoding="utf-8"))


def failed_rules(report: Report) -> dict[str, str]:
    """Return the messages of the rules that failed, readiness for the latest version included."""
    results: list[Any] = [*report["results"], *(report["readiness"] or {"results": []})["results"]]
    return {result["rule_id"]: result["message"] for result in results if not result["passed"]}


def problems(reports: Mapping[str, Report], excepted: Exceptions) -> list[str]:
    """Return what has to be mended, by audit: rules that failed, audits of a part, exceptions that nothing needs."""
    failed = {name: failed_rules(report) for name, report in reports.items()}
    messages = [
        f"{name}: {rule}: {message}"
        for name, rules in failed.items()
        for rule, message in rules.items()
        if rule not in {**excepted.get(EVERY, {}), **excepted.get(name, {})}
    ]
    messages += [
        f"{name}: the audit is partial: {report[part]}"
        for name, report in reports.items()
        for part in ("partial_reason", "incomplete_listings", "listing_errors")
        if report[part]
    ]
    everywhere = {rule for rules in failed.values() for rule in rules}
    return messages + [
        f"{name}: {rule} passes: remove it from {EXCEPTIONS.name}"
        for name, rules in excepted.items()
        for rule in rules
        if rule not in (everywhere if name == EVERY else failed.get(name, {}))
    ]


def audit(program: str, environment: Mapping[str, str], *target: str) -> Report:
    """Run one audit and return its report."""
    command = [program, "--no-config", "--json", *target]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if ended.returncode != 0:
        sys.exit(f"mcpscore ended with {ended.returncode}:\n{ended.stderr}")
    return json.loads(ended.stdout)


@contextmanager
def team_server(state: Path) -> Generator[tuple[str, str]]:
    """Serve a team on the sandbox. Yields the address and a token of its identity provider."""
    from conformance.run import free_port, served
    from support.identity_provider import Provider, listening

    port, login = free_port(), free_port()
    address, issuer = f"127.0.0.1:{port}", f"http://127.0.0.1:{login}"
    provider = Provider(issuer, f"http://{address}/mcp")
    file = state / "team.toml"
    file.write_text(
        f'url = "http://{address}/mcp"\nissuer = "{issuer}"\n'
        '[[tenant]]\nname = "judge"\nsubjects = ["judge"]\napi_key_env = "KEY"\nmode = "guarded"\n',
        encoding="utf-8",
    )
    file.chmod(0o600)
    scopes = "fastn:read fastn:write fastn:destroy fastn:admin"
    with (
        listening(provider.app, login),
        served(state, port, "--team", str(file)),
    ):
        yield address, provider.token(sub="judge", scope=scopes)


def audits(program: str) -> dict[str, Report]:
    """Return the reports of stdio, HTTP for one person, and HTTP for a team."""
    from conformance.run import TOKEN, free_port, served

    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTN_")}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        environment |= {"FASTN_CONFIG_DIR": folder, "FASTN_STATE_DIR": folder}
        server = str(Path(sys.executable).with_name("fastn-mcp"))
        dirs = [f"--env={name}={folder}" for name in ("FASTN_CONFIG_DIR", "FASTN_STATE_DIR")]
        reports = {"stdio": audit(program, environment, *dirs, "--stdio", server, "--sandbox")}
        port = free_port()
        with served(state, port):
            reports["http"] = audit(program, environment, f"--token={TOKEN}", f"http://127.0.0.1:{port}/mcp")
        with team_server(state) as (address, token):
            reports["team"] = audit(program, environment, f"--token={token}", f"http://{address}/mcp")
    return reports


def main(arguments: Sequence[str]) -> int:
    (program,) = arguments
    reports, excepted = audits(program), exceptions()
    for name, report in reports.items():
        print(f"{name}: {report['score']} of {report['max_score']} points, {len(report['results'])} rules")
    failed = problems(reports, excepted)
    print(*failed, sep="\n", file=sys.stderr, end="\n" if failed else "")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
