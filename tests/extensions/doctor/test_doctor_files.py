"""Files of doctor: reports without data, and proposed settings that keep the rest of the file."""

import json
import subprocess
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.behaviour import Accepts, Behaviour
from support.clock import Clock
from support.doctor_runs import VARIANTS, account, examine_sandbox, sandbox_in, serve_sandbox
from support.faulty_sandbox import FaultySandbox, Status

from fastn_mcp.config.load import load
from fastn_mcp.extensions.doctor.machine import check_settings
from fastn_mcp.extensions.doctor.operations import DECLARED_NAMES, FieldNames, envelope_of, fields_of
from fastn_mcp.extensions.doctor.proposal import Proposal
from fastn_mcp.extensions.doctor.runner import document, markdown
from fastn_mcp.tools.access import ListRoles, ListUsers

Run = Callable[..., "subprocess.CompletedProcess[str]"]
NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)


def texts_of(sandbox: FaultySandbox) -> set[str]:
    """Return every name, id, address and other text of the account that cannot be a word of our own."""
    values: set[str] = set()
    waiting: list[Any] = list(sandbox.state.rows.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += cast("dict[str, Any]", value).values()
        elif isinstance(value, list):
            waiting += cast("list[Any]", value)
        elif isinstance(value, str) and (any(letter.isdigit() for letter in value) or " " in value or "@" in value):
            values.add(value)
    return {text for text in values if len(text) > 5}


@pytest.mark.parametrize("guise", VARIANTS)
async def test_reports_hold_no_data_of_the_account(guise: str) -> None:
    clock = Clock()
    sandbox = sandbox_in(guise, clock)
    for collection in ("customers", "workflows", "users"):
        for row in sandbox.state.all(collection):
            row |= {"name": f"C4N4RY {row['id']}", "slug": "canary_slug", "email": "canary@example.com"}
            row |= {"canary_slug": 1, "Canary Corp": 2, "Canary": 3, "canary9f3ab12": 4, "canary@example.com": 5}
            row |= {f"x{'canary' * 9}": 6}
    sandbox.faults.add(Status(status=403, message="C4N4RY lacks canary:read", path=ListUsers.route.path, times=None))
    sandbox.faults.add(Status(status=500, message="C4N4RY", path=ListRoles.route.path, times=None))
    examined = await examine_sandbox(
        sandbox, clock, api_key=VARIANTS[guise].key, profile="canary", tenant_id="canary-tenant"
    )
    report = document(examined, NOW)
    for written in (json.dumps(report), markdown(report)):
        assert "canary" not in written.casefold().replace("c4n4ry", "canary")
        assert VARIANTS[guise].key not in written
        assert {text for text in texts_of(sandbox) if text in written} <= {
            "API key",
            "API keys",
        }  # quotas are called so


async def test_field_names_that_could_be_data_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    sandbox = FaultySandbox(clock.now, behaviour=Behaviour(fields={"byCustomer": "acme-corp", "apiCalls": "Acme"}))
    report = await examine_sandbox(sandbox, clock)
    usage = document(report, NOW)["answers"]["get_usage"]
    assert usage["names_not_told"] == 2
    assert {"events", "executions"} <= usage["fields"].keys()
    assert "and 2 that could be data" in markdown(document(report, NOW))
    assert capsys.readouterr().out == ""


@given(st.text(min_size=1))
def test_field_name_that_is_a_value_is_not_reported(text: str) -> None:
    names = FieldNames()
    names.learn([{"x": [text, 1, None]}])
    assert not names.is_reportable(text) or text in DECLARED_NAMES


def test_shapes_hold_no_values() -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "b": None, "c": [1]}, {"a": 1.5, "b": "x", "d": {"y": 1}, "e": True}]
    assert fields_of(rows) == {
        "a": ("integer", "number"),
        "b": ("null", "string"),
        "c": ("array",),
        "d": ("object",),
        "e": ("boolean",),
    }
    envelopes: list[tuple[Any, str]] = [
        ([], "bare"),
        ({"id": 1, "data": {}}, "bare"),
        ({"data": []}, "data"),
        ({"data": {"data": {"id": 1}}}, "data.data"),
        ({"results": [], "total": 0}, "results"),
        ({"data": {"items": []}}, "data.items"),
        ({"acme": {}}, "bare"),
        (None, "bare"),
    ]
    for body, envelope in envelopes:
        assert envelope_of(body) == envelope


def test_proposal_is_valid_settings(tmp_path: Path) -> None:
    proposal = Proposal(
        {"auth": "bearer", "exclude_tools": ["customers", "workflows"]},
        {"run_workflow": "POST /api/v1/workflows/{workflow_id}/execute"},
        {"customers": {"id": "_id"}, "workflows": {"name": "title"}},
        {"auth": "FASTN_AUTH overrides this: remove it", "run_workflow": "not verified"},
    )
    file = tmp_path / "config.toml"
    file.write_text(proposal.toml())
    settings = load({}, {"FASTN_API_KEY": "k"}, file)
    assert (settings.auth, settings.exclude_tools, settings.fields) == (
        "bearer",
        ["customers", "workflows"],
        proposal.fields,
    )
    assert str(settings.routes["run_workflow"]) == proposal.routes["run_workflow"]
    assert "# FASTN_AUTH overrides this: remove it" in file.read_text()
    assert not Proposal()


def test_settings_are_named_with_their_sources_and_without_values(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('auth = "header"\nroutes = {}\napi_key_env = "C4N4RY"\n')
    environment = {"FASTN_API_KEY": "fsk_live_C4N4RY", "FASTN_AUTH": "bearer", "HTTPS_PROXY": "http://a:C4N4RY@p:1"}
    settings = load({"mode": "read-only", "env": None}, environment, file)
    check = check_settings(settings, file)
    assert "C4N4RY" not in repr(check)
    sources = "auth (FASTN_AUTH), mode (--mode), proxy (HTTPS_PROXY), routes (the file)"
    assert check.finding == f"Set: api_key (environment FASTN_API_KEY), {sources}."
    assert "base_url https://live.fastn.ai" in check.here
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(0o600)
    file.write_text(f"[profiles.canary]\nauth = 'bearer'\napi_key_file = '{key}'\n")
    check = check_settings(load({"profile": "canary"}, {}, file), file)
    assert check.finding == "Set: api_key (a file), auth (its profile), profile (--profile)."


def test_proposal_for_a_profile_keeps_the_files_tables(tmp_path: Path, fastn: Run) -> None:
    """A profile's table replaces the file's, so it includes it; no report names the profile."""
    file = tmp_path / "config.toml"
    sandbox = sandbox_in("paths")
    sandbox.behaviour = Behaviour(accepts=Accepts.BEARER)
    with serve_sandbox(sandbox) as port:
        file.write_text(
            f'profile = "canary"\n\n[routes]\nlist_roles = "GET /api/v1/roles"\n\n[profiles.canary]\n'
            f'api_key = "fsk_test_sandbox"\nbase_url = "http://127.0.0.1:{port}"\n'
        )
        file.chmod(0o600)
        report = fastn("--config", str(file), "doctor", "--json")
        assert (report.returncode, "canary" in report.stdout) == (1, False), report.stderr
        output = fastn("--config", str(file), "doctor").stdout
    proposed = tomllib.loads(output[output.index("[profiles.canary]") :])["profiles"]["canary"]
    assert proposed["auth"] == "bearer"
    assert {"list_roles", "list_customers"} <= proposed["routes"].keys()


def test_reports_are_written_or_refused_before_anything_is_sent(fastn: Run, tmp_path: Path) -> None:
    report = tmp_path / "doctor.md"
    done = fastn("--sandbox", "doctor", "--report", str(report))
    assert done.returncode == 0, done.stderr
    assert report.read_text().startswith("# Doctor report\n")
    assert "| reads | `list_customers` | ok |" in report.read_text()
    assert fastn("--sandbox", "doctor", "--report", str(tmp_path / "doctor.json")).returncode == 0
    written = json.loads((tmp_path / "doctor.json").read_text())
    assert (written["exit"], written["answers"]["list_customers"]["route"]) == (0, "GET /api/v1/customers")
    for wrong in ("doctor.txt", str(tmp_path), str(tmp_path / "no" / "x.md")):
        refused = fastn("--sandbox", "doctor", "--report", wrong)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert len(refused.stderr.splitlines()) == 1


def test_wrong_setting_is_the_first_check(fastn: Run) -> None:
    done = fastn("doctor", env={"FASTN_API_KEY": "fsk_live_C4N4RY", "FASTN_AUTH": "C4N4RY"})
    assert done.returncode == 2
    assert "FASTN_AUTH" in done.stdout + done.stderr
    assert "C4N4RY" not in done.stdout + done.stderr
    missing = json.loads(fastn("doctor", "--json").stdout)
    assert (missing["exit"], missing["checks"][0]["verdict"]) == (2, "failed")
    assert "FASTN_API_KEY" in missing["checks"][0]["finding"] + missing["checks"][0]["next"]


def test_table_in_a_pipe_is_plain_and_help_lists_exit_codes(fastn: Run) -> None:
    done = fastn("--sandbox", "doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "Everything matches." in done.stdout
    output = fastn("doctor", "--help").stdout
    for expected in ("Exit codes:", "0  everything matches", "2  it cannot work", "OPTIONS"):
        assert expected in output


def test_proposal_notes_a_variable_that_overrides_it(tmp_path: Path, fastn: Run) -> None:
    with serve_sandbox(sandbox_in("bearer")) as port:
        env = dict(account(port, "bearer", tmp_path, FASTN_AUTH="header"))
        done = fastn("doctor", env=env)
    assert "# FASTN_AUTH overrides this: remove it" in done.stdout
    assert tomllib.loads(done.stdout[done.stdout.index("auth =") :])["auth"] == "bearer"
