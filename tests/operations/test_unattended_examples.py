"""`examples/unattended`: what each scheduler would execute, with a signed plan and the variables that it sets."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from operations.conftest import Shell, signed_in
from support.server_process import KEY, Upstream
from support.terminal import sitting

EXAMPLES = Path(__file__).parents[2] / "examples" / "unattended"
CALLS = (
    '{"tool": "run_workflow", "arguments": {"workflow_id": "wf_0d93ee5b1f62"}}\n'
    '{"tool": "delete_customer", "arguments": {"customer_id": "5c4bc270-6e5f-4523-afd7-6538d17c6c3a"}}\n'
)
CHANGES = [
    "POST /api/v1/workflows/wf_0d93ee5b1f62/run",
    "DELETE /api/v1/customers/5c4bc270-6e5f-4523-afd7-6538d17c6c3a",
]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, sandbox_process: Upstream) -> Path:
    """A folder with calls, a plan that a person has signed for them, and the public key."""
    sandbox_process.reset()  # another test may have revoked the key
    shell = signed_in(tmp_path_factory.mktemp("signer"), sandbox_process)
    (shell.folder / "calls.jsonl").write_text(CALLS)
    shell.does("fastn-mcp plan new calls.jsonl --name nightly --output nightly.toml")
    env = {"PATH": shell.path, "HOME": str(shell.folder), "COLUMNS": "200"}
    with sitting(
        ["-m", "fastn_mcp", "plan", "approve", str(shell.folder / "nightly.toml"), "--as", "dana"], env
    ) as dana:
        assert "In total, at most: run 1, delete 1." in dana.sees("type the name of the plan (nightly): ")
        dana.types("nightly\r")
        dana.sees("New passphrase for it: ")
        dana.types("correct horse battery\r")
        dana.sees("Repeat for confirmation: ")
        dana.types("correct horse battery\r")
        assert dana.leaves()[0] == 0
    return shell.folder


@pytest.fixture
def nightly(shell: Shell, signed: Path) -> Path:
    """The folder of the signed plan in the home of `shell`, whose configuration has the public key."""
    folder = shell.folder / "nightly"
    folder.mkdir()
    for name in ("calls.jsonl", "nightly.toml", "nightly.toml.sig"):
        shutil.copy(signed / name, folder)
    shutil.copy(signed / ".config" / "fastn-mcp" / "plan-keys.toml", shell.config)
    return folder


def done(report: Path, upstream: Upstream) -> None:
    """Check that both calls were made once, and are in the report and its readable copy."""
    assert json.loads(report.read_text())["counts"]["done"] == 2
    assert "nightly" in report.with_name(f"{report.name}.md").read_text()
    assert upstream.changes() == CHANGES


def test_crontab_line_runs_with_crons_variables(shell: Shell, nightly: Path, upstream: Upstream) -> None:
    (line,) = [line for line in (EXAMPLES / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    command = line.split(maxsplit=5)[5]
    assert "%" not in command
    cron = {"HOME": str(shell.folder), "LOGNAME": "ann", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    ran = shell.run(command, cron)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    done(nightly / "night.json", upstream)
    again = shell.run(command, cron)
    assert "refused" in again.stdout  # for cron's mail
    assert upstream.changes() == CHANGES


def test_without_home_the_variables_to_set_are_named(shell: Shell, nightly: Path, upstream: Upstream) -> None:
    command = f"{shell.folder}/.local/bin/fastn-mcp --mode unattended --plan nightly.toml run calls.jsonl"
    ran = shell.run(command, {}, cwd=nightly)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "fastn-mcp: HOME is not set, so the folder of your settings is unknown. Set HOME; or FASTN_CONFIG_DIR"
        " (settings) and FASTN_STATE_DIR (approvals and the audit log).\n"
    )
    settings = {"FASTN_CONFIG_DIR": str(shell.config)}
    assert (
        "the folder of your approvals and the audit log is unknown" in shell.run(command, settings, cwd=nightly).stderr
    )
    assert upstream.changes() == []
    state = {"FASTN_STATE_DIR": str(shell.folder / "state")}
    assert shell.run(command, settings | state, cwd=nightly).returncode == 0
    assert upstream.changes() == CHANGES


def unit() -> dict[str, list[str]]:
    """Return the settings of the service section, each with its values in order."""
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
    text = (EXAMPLES / "fastn-nightly.service").read_text()
    parser.read_string(text)
    section = text.partition("[Service]\n")[2].partition("\n[")[0]
    values: dict[str, list[str]] = {name: [] for name in parser["Service"]}
    for name, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        values[name].append(value)
    return values


def test_systemd_service_runs_with_its_own_variables(shell: Shell, nightly: Path, upstream: Upstream) -> None:
    etc, lib = shell.folder / "etc", shell.folder / "lib"
    shutil.copytree(nightly, etc)
    shutil.copy(shell.config / "plan-keys.toml", etc)
    (etc / "key.env").write_text(f"FASTN_API_KEY={KEY}\nFASTN_BASE_URL={upstream.url}\n")
    service = unit()

    def here(text: str) -> str:
        text = text.replace("/etc/fastn-nightly", str(etc)).replace("%S", str(lib))
        return text.replace("/usr/local/bin/fastn-mcp", f"{shell.folder}/.local/bin/fastn-mcp")

    (start,) = service["ExecStart"]
    assert not set("%$") & set(start.replace("%S", ""))
    (lib / service["StateDirectory"][0]).mkdir(parents=True, mode=0o700)
    assigned = [word for value in service["Environment"] for word in shlex.split(here(value))]
    (file,) = service["EnvironmentFile"]
    variables = dict(line.split("=", 1) for line in [*assigned, *Path(here(file)).read_text().split()])
    ran = shell.run(here(start), variables, cwd=Path(here(service["WorkingDirectory"][0])))
    assert ran.returncode == 0, ran.stderr
    done(lib / "fastn-nightly" / "night.json", upstream)
    # Only a ledger that stays knows that the plan is used up.
    assert shell.run(here(start), variables, cwd=etc).returncode == 1
    assert upstream.changes() == CHANGES


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_accepts_service_and_timer(tmp_path: Path) -> None:
    for name in ("fastn-nightly.service", "fastn-nightly.timer"):
        text = (EXAMPLES / name).read_text().replace("/usr/local/bin/fastn-mcp", "/bin/true")
        (tmp_path / name).write_text(text.replace("/etc/fastn-nightly", str(tmp_path)))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = [line for line in checked.stderr.splitlines() if "fastn-nightly" in line]
    assert found == [], checked.stderr


def test_github_workflow_runs_its_step(shell: Shell, nightly: Path, upstream: Upstream) -> None:
    workflow: Any = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    steps: list[Any] = workflow["jobs"]["run"]["steps"]
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in steps if "uses" in step)
    (step,) = [step for step in steps if "env" in step]
    temp = shell.folder / "temp"
    temp.mkdir()
    known = {
        "secrets.FASTN_API_KEY": KEY,
        "secrets.FASTN_LEDGER": "",
        "vars.FASTN_PLAN_KEYS": (shell.config / "plan-keys.toml").read_text(),
        "runner.temp": str(temp),
    }
    env = {
        name: re.sub(r"\$\{\{ (.+?) \}\}", lambda match: known[match[1]], value) for name, value in step["env"].items()
    }
    ambient = {"PATH": shell.path, "HOME": str(shell.folder / "other"), "RUNNER_TEMP": str(temp), "CI": "true"}
    ran = shell.run(step["run"], ambient | env | {"FASTN_BASE_URL": upstream.url}, cwd=nightly)
    assert ran.returncode == 0, ran.stderr
    done(temp / "night.json", upstream)
    kept = steps[-1]["with"]["path"].replace("${{ runner.temp }}", str(temp)).split()
    assert {file.name for pattern in kept for file in temp.glob(str(Path(pattern).relative_to(temp)))} == {
        "night.json", "night.json.md", "audit.jsonl",
    }  # fmt: skip
