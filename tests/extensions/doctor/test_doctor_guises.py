"""`fastn-mcp doctor` on accounts that differ: it finds each difference, and its proposal works."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from support.command_line import run_command
from support.doctor_runs import (
    HOST,
    VARIANTS,
    Proxy,
    account,
    check_only_safe_requests,
    run_proxy,
    sandbox_in,
    serve_sandbox,
)
from support.faulty_sandbox import FaultySandbox

from fastn_mcp.config.model import TOOLSETS
from fastn_mcp.extensions.sandbox.auth import VIEWER_PERMISSIONS
from fastn_mcp.extensions.sandbox.resource import ENDPOINTS
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.tool import Effect

_OURS = ("FASTN_", "SSL_CERT", "NODE_EXTRA")
_FOREIGN = ("_PROXY", "_proxy", "CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO")


def program(*arguments: str, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run fastn-mcp without any setting of this machine."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(_OURS) and not n.endswith(_FOREIGN)}
    return run_command(arguments, {**inherited, "COLUMNS": "200", **env})


def report(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.stdout, done.stderr
    return cast("dict[str, Any]", json.loads(done.stdout))


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in report["checks"]}


def rows(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return cast("list[dict[str, Any]]", json.loads(done.stdout)["data"])


def _is_permitted(operation: AnyOperation) -> bool:
    return ENDPOINTS[operation].permission in (None, *VIEWER_PERMISSIONS)


def _created(env: Mapping[str, str], sandbox: FaultySandbox) -> None:
    done = program("call", "create-customer", "--name", "Initech", env=env)
    assert done.returncode == 0, done.stderr
    (request,) = [request for request in sandbox.requests if request.method == "POST"]
    assert request.path == "/api/v1/orgs"
    assert "Initech" in {row["name"] for row in rows(program("call", "list-customers", env=env))}


def _renamed(env: Mapping[str, str], sandbox: FaultySandbox) -> None:
    first = rows(program("call", "list-customers", env=env))[0]
    done = program("call", "update-customer", "--customer-id", first["id"], "--name", "Initech", env=env)
    assert done.returncode == 0, done.stderr
    (request,) = [request for request in sandbox.requests if request.method == "PUT"]
    assert isinstance(request.body, dict)
    assert request.body["title"] == "Initech"
    assert not {"name", "id"} & request.body.keys()
    assert rows(program("call", "list-customers", "--search", "Initech", env=env))[0]["id"] == first["id"]


def _listed(env: Mapping[str, str], sandbox: FaultySandbox) -> None:  # noqa: ARG001
    assert rows(program("call", "list-workflows", env=env))


_FORBIDDEN = [
    operation
    for operation in CATALOG
    if operation.effect is Effect.READ and not operation.route.parameters and not _is_permitted(operation)
]
"""Reads without an id that the viewer's key may not make."""
_EXPECTED: dict[str, tuple[set[str], str, Callable[[Mapping[str, str], FaultySandbox], None]]] = {
    "bearer": ({"authentication"}, 'auth = "bearer"', _listed),
    "paths": (
        set(VARIANTS["paths"].routes),
        'run_workflow = "POST /api/v1/workflows/{workflow_id}/execute"',
        _created,
    ),
    "fields": (
        {o.tool_name() for o in CATALOG if o.effect.value == "read" and o.toolset() != "billing"},
        '[fields.customers]\nid = "_id"\nname = "title"',
        _renamed,
    ),
    "scopes": (
        {operation.tool_name() for operation in _FORBIDDEN},
        f"exclude_tools = {json.dumps([name for name in TOOLSETS if name in {o.toolset() for o in _FORBIDDEN}])}",
        _listed,
    ),
}


@pytest.mark.parametrize("guise", _EXPECTED)
def test_doctor_finds_each_difference_and_its_proposal_works(guise: str, tmp_path: Path) -> None:
    differing, proposed, works = _EXPECTED[guise]
    sandbox = sandbox_in(guise)
    file = tmp_path / "config.toml"
    with serve_sandbox(sandbox) as port:
        env = account(port, guise, tmp_path)
        first = program("doctor", "--json", env=env)
        assert first.returncode == 1, first.stderr
        found = report(first)
        assert {name for name, verdict in verdicts(found).items() if verdict in ("differs", "failed")} == differing
        assert proposed in found["proposal"]
        assert all(check["next"] for check in found["checks"] if check["verdict"] != "ok")
        check_only_safe_requests(sandbox)
        file.write_text(f'mode = "guarded"\n{found["proposal"]}')
        second = program("doctor", "--json", env=env)
        again = report(second)
        assert {name for name, verdict in verdicts(again).items() if verdict not in ("ok", "skipped")} == set(), again
        assert (second.returncode, again["proposal"]) == (0, None)
        check_only_safe_requests(sandbox)
        works(env, sandbox)


def test_account_as_declared_is_fine(tmp_path: Path) -> None:
    sandbox = sandbox_in("usual")
    with serve_sandbox(sandbox) as port:
        done = program("doctor", "--json", env=account(port, "usual", tmp_path))
    assert (done.returncode, report(done)["proposal"]) == (0, None)
    assert {name for name, verdict in verdicts(report(done)).items() if verdict != "ok"} == set()
    assert not any(name in done.stdout for name in ("startedBy", "elapsed", "lastAction"))  # columns that we add
    check_only_safe_requests(sandbox)
    asked = {request.tool for request in sandbox.requests}
    assert {o.tool_name() for o in CATALOG if o.effect.value == "read"} <= asked
    assert max(sum(h.tool == o.tool_name() for h in sandbox.requests) for o in CATALOG) <= 4


def behind(proxy: Proxy, port: int, ca: trustme.CA, folder: Path, **more: str) -> dict[str, str]:
    file = folder / "company-ca.pem"
    ca.cert_pem.write_to_path(file)
    env = account(port, "usual", folder, HTTPS_PROXY=proxy.url, **more)
    return {**env, "FASTN_BASE_URL": f"https://{HOST}:{port}"}


def test_doctor_names_the_certificates_of_a_company_proxy(ca: trustme.CA, tmp_path: Path) -> None:
    """The proxy sees hosts only; the key goes through TLS alone."""
    sandbox = sandbox_in("usual")
    with serve_sandbox(sandbox, ca.issue_cert(HOST), tmp_path) as port, run_proxy(Proxy()) as proxy:
        env = behind(proxy, port, ca, tmp_path)
        refused = report(program("doctor", "--json", env=env))
        tls = refused["checks"][-1]
        assert (refused["exit"], tls["name"], tls["verdict"]) == (2, "connection", "failed")
        assert "FASTN_CA_FILE" in tls["next"]
        assert not sandbox.requests
        lost = program("call", "list-workflows", env=env)
        assert lost.returncode == 1
        assert "its certificate is not trusted" in lost.stdout + lost.stderr

        env["NODE_EXTRA_CA_CERTS"] = str(tmp_path / "company-ca.pem")
        named = program("doctor", "--json", env=env)
        assert "NODE_EXTRA_CA_CERTS" in report(named)["checks"][-1]["next"]
        assert str(tmp_path) not in named.stdout  # a path of the machine is for the terminal alone
        env["FASTN_CA_FILE"] = env.pop("NODE_EXTRA_CA_CERTS")
        second = program("doctor", "--json", env=env)
        assert (second.returncode, set(verdicts(report(second)).values())) == (0, {"ok"})
        check_only_safe_requests(sandbox)
        assert rows(program("call", "list-workflows", env=env))
        assert set(proxy.asked) == {f"CONNECT {HOST}:{port}"}
        assert not any("fsk_" in head for head in proxy.heads)


def test_doctor_names_a_proxy_without_its_password(ca: trustme.CA, tmp_path: Path) -> None:
    sandbox = sandbox_in("usual")
    with (
        serve_sandbox(sandbox, ca.issue_cert(HOST), tmp_path) as port,
        run_proxy(Proxy(password="jane:C4N4RY")) as proxy,
    ):
        env = behind(proxy, port, ca, tmp_path, SSL_CERT_FILE=str(tmp_path / "company-ca.pem"))
        with_password = proxy.url.replace("http://", "http://jane:C4N4RY@")
        env |= {"HTTPS_PROXY": "", "ALL_PROXY": with_password}
        done = program("doctor", env=env)
        assert done.returncode == 2
        assert "ALL_PROXY" in done.stdout
        assert "C4N4RY" not in done.stdout + done.stderr
        wrong = program("doctor", "--json", env=env | {"FASTN_PROXY": proxy.url})
        assert (wrong.returncode, report(wrong)["checks"][-1]["name"]) == (2, "connection")
        assert "407" in report(wrong)["checks"][-1]["finding"]
        assert program("doctor", "--json", env=env | {"FASTN_PROXY": with_password}).returncode == 0
        call = program("call", "list-workflows", env=env | {"FASTN_PROXY": with_password, "FASTN_LOG_LEVEL": "debug"})
        assert rows(call)
        assert "C4N4RY" not in call.stdout + call.stderr
        unsaid = program("call", "list-workflows", env=env | {"FASTN_PROXY": proxy.url})
        assert "requires a user name and password (407)" in unsaid.stdout + unsaid.stderr
