"""What each command prints: help, usual output and refusals. `support.normalized` says what is replaced."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from support.client_programs import ClientPrograms
from support.command_line import run_command, run_process
from support.golden import check_golden, check_no_other
from support.normalized import normalized
from support.page_world import deletion_of_customer, update_of_workflow
from support.ports import free_port, running_program
from support.state_folder import StateFolder

from fastn_mcp.cli.help import COMMANDS
from fastn_mcp.cli.program import cli

PROGRAM = Path(sys.executable).with_name("fastn-mcp")
SOURCE = Path(__file__).parents[2]
SANDBOX = "fastn-mcp --sandbox-file sandbox.json"
GLOBEX = "5c4bc270-6e5f-4523-afd7-6538d17c6c3a"
"""Customer of the sandbox, with connections."""

FILES = {
    "calls.jsonl": (
        '{"tool": "create_customer", "arguments": {"name": "Initech"}}\n'
        '{"tool": "list_customers"}\n'
        '{"tool": "delete_customer", "arguments": {"customer_id": "cus_unknown"}}\n'
    ),
    "wrong.jsonl": '{"tool": "create_customer"}\n{\n{"tool": 1}\n{"tol": "list_customers"}\n',
    "policy.toml": (SOURCE / "examples" / "policy.toml").read_text(encoding="utf-8"),
    "wrong.toml": '[[rule]]\ntool = "delete_custmer"\nthen = "four_eyes"\n',
    "cases.toml": (
        '[[case]]\ntool = "delete_secret"\narguments = { secret_id = "sec_1" }\ntarget = { name = "MAIL_PASSWORD" }\n'
        'time = 2026-01-06T10:00:00Z\nexpect = "out_of_band"\n\n'
        '[[case]]\ntool = "delete_connector"\narguments = { connector_id = "con_1" }\ndependents = 3\n'
        'time = 2026-01-06T10:00:00Z\nexpect = "allow"\n'
    ),
    "key": "fsk_test_0123456789abcdef\n",
    "two-keys": "fsk_test_one\nfsk_test_two\n",
}
"""Files in the folder in which the commands run."""


class Machine(StateFolder):
    """Home folder of a user, in which the commands of one golden file run one after the other."""

    @property
    def env(self) -> dict[str, str]:
        """The environment of a user who has set nothing but wants no colours."""
        return {
            "HOME": str(self.home),
            "PATH": os.pathsep.join((str(self.programs), str(PROGRAM.parent), "/usr/bin", "/bin")),
            "COLUMNS": "80",
            "PYTHON_KEYRING_BACKEND": os.environ["PYTHON_KEYRING_BACKEND"],
            "TZ": os.environ["TZ"],
        }

    @property
    def programs(self) -> Path:
        """Folder of further programs in the PATH."""
        return self.home / ".programs"

    @property
    def home(self) -> Path:
        return self.folder.parents[2]

    def make(self, line: str, settings: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command line, whose standard input is the file after `<`, if any."""
        command, _, file = line.partition(" < ")
        stdin = (self.home / file).read_text(encoding="utf-8") if file else ""
        return run_command(shlex.split(command)[1:], {**self.env, **(settings or {})}, self.home, stdin)


def make_machine(folder: Path) -> Machine:
    home = folder / "home"
    home.mkdir(parents=True)
    for name, text in FILES.items():
        (home / name).write_text(text, encoding="utf-8")
        (home / name).chmod(0o600)
    return Machine(home / ".local" / "state" / "fastn-mcp")


def have_codex(machine: Machine) -> None:
    ClientPrograms(machine.programs).create("codex")


def ask(machine: Machine) -> None:
    """Let two calls wait for an approval."""
    for request in (deletion_of_customer("ap_1"), update_of_workflow("ap_2")):
        machine.do(lambda ledger, request=request: ledger.open(request))


@dataclass(frozen=True)
class Scene:
    """Command lines of one golden file, after what is made and run before them without being shown."""

    lines: tuple[str, ...]
    before: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further variables of the environment."""
    prepare: Callable[[Machine], None] = lambda _: None


SCENES: Mapping[str, Scene] = {
    "fastn-mcp": Scene(
        (
            "fastn-mcp --version",
            "fastn-mcp nonsense",
            "fastn-mcp --nonsense",
            "fastn-mcp --mode caerful",
            "fastn-mcp --http 0.0.0.0:8080",
            "fastn-mcp --sandbox --http nonsense",
            "fastn-mcp --team team.toml",
            "fastn-mcp --sandbox --profile acme",
            "fastn-mcp --http 127.0.0.1:8080 tools",
            "fastn-mcp --config missing.toml tools",
            "fastn-mcp --report night.json tools",
        )
    ),
    "call": Scene(
        (
            f"{SANDBOX} call list-customers --limit 2",
            f"{SANDBOX} call create-customer --name Initech",
            f"{SANDBOX} call create-customer --name Hooli --dry-run",
            f"{SANDBOX} call delete-customer --customer-id {GLOBEX}",
            f"{SANDBOX} --mode unattended call delete-customer --customer-id {GLOBEX}",
            f"{SANDBOX} call get-customer --customer-id unknown",
            f"{SANDBOX} call get-customer",
            f"{SANDBOX} call list-customers --limt 2",
            f"{SANDBOX} call lst-customers",
            "fastn-mcp call list-customers",
            "fastn-mcp call delete-customer --help",
        ),
        settings={"FASTN_APPROVAL_WAIT_SECONDS": "1"},
    ),
    "run": Scene(
        (
            f"{SANDBOX} run calls.jsonl --dry-run",
            f"{SANDBOX} run calls.jsonl --keep-going --report night.json",
            f"{SANDBOX} run calls.jsonl --report night.md",
            f"{SANDBOX} run wrong.jsonl",
            f"{SANDBOX} run missing.jsonl",
            f"{SANDBOX} run -",
        )
    ),
    "query": Scene(
        (
            'fastn-mcp --sandbox query "select name, plan from customers order by name limit 3"',
            'fastn-mcp --sandbox query "select name, plan from customers order by name limit 3" --csv',
            "fastn-mcp --sandbox query",
            'fastn-mcp --sandbox query "delete from customers"',
            'fastn-mcp --sandbox query "select nmae from customers"',
        )
    ),
    "tools": Scene(
        (
            "fastn-mcp --sandbox --tools customers tools",
            "fastn-mcp --sandbox --tools custmers tools",
        )
    ),
    "approvals": Scene(
        (
            "fastn-mcp approvals",
            "fastn-mcp approvals --open",
            "fastn-mcp approvals temporary",
            "fastn-mcp approvals revoke unknown",
            "fastn-mcp approvals withdraw",
            "fastn-mcp approvals withdraw unknown",
            "fastn-mcp approvals keygen dana",
            "fastn-mcp approvals keygen dana",
        ),
        prepare=ask,
    ),
    "stop": Scene(
        (
            'fastn-mcp stop --reason "agent went wrong"',
            "fastn-mcp stop",
            "fastn-mcp stop --person ana@example.com",
            "fastn-mcp stop --tenant acme",
            "fastn-mcp stop --tenant acme --person ana@example.com",
        )
    ),
    "allow": Scene(("fastn-mcp allow",), before=('fastn-mcp stop --reason "agent went wrong"',)),
    "policy": Scene(
        (
            "fastn-mcp policy check policy.toml",
            "fastn-mcp policy check wrong.toml",
            "fastn-mcp policy check missing.toml",
            f"fastn-mcp --sandbox policy explain delete_customer customer_id={GLOBEX} --at 2026-11-25T10:00Z",
            "fastn-mcp policy explain delete_customer customer_id=unknown --file policy.toml --at 2026-11-25T10:00Z",
            "fastn-mcp policy explain list_customers --at 2026-11-25T10:00Z",
            "fastn-mcp policy explain delete_custmer",
            "fastn-mcp policy test cases.toml --file policy.toml",
            "fastn-mcp policy test .local/state/fastn-mcp/sandbox/audit.jsonl",
            "fastn-mcp policy test missing.jsonl",
        ),
        before=(f"{SANDBOX} run calls.jsonl --keep-going",),
    ),
    "plan": Scene(
        (
            f"{SANDBOX} plan new calls.jsonl --name night --output plan.toml",
            f"{SANDBOX} plan show plan.toml",
            f"{SANDBOX} plan verify plan.toml",
            f"{SANDBOX} plan approve plan.toml --as dana",
            f"{SANDBOX} plan new wrong.jsonl",
            f"{SANDBOX} plan show missing.toml",
            f"{SANDBOX} --mode unattended --plan plan.toml run calls.jsonl",
        )
    ),
    "audit": Scene(
        (
            "fastn-mcp --sandbox audit tail",
            "fastn-mcp --sandbox audit show 1",
            "fastn-mcp --sandbox audit show 99",
            "fastn-mcp --sandbox audit verify",
            "fastn-mcp --sandbox audit verify --head abc",
            f"fastn-mcp --sandbox audit verify --head {'f' * 64}",
            "fastn-mcp --sandbox audit report",
            "fastn-mcp --sandbox audit report --since noon",
            "fastn-mcp audit tail",
            "fastn-mcp audit report",
        ),
        before=(f"{SANDBOX} run calls.jsonl --keep-going",),
    ),
    "profiles": Scene(
        (
            "fastn-mcp profiles",
            "fastn-mcp --env live login acme --file --stdin --no-check < key",
            "fastn-mcp profiles",
            "fastn-mcp --profile acne whoami",
            "fastn-mcp logout acme",
        )
    ),
    "login": Scene(
        (
            "fastn-mcp login",
            "fastn-mcp login --file",
            "fastn-mcp login --file --stdin --no-check < two-keys",
            "fastn-mcp login --file --stdin --no-check < key",
            "fastn-mcp login acme",
            "fastn-mcp --sandbox login",
        )
    ),
    "logout": Scene(
        ("fastn-mcp logout", "fastn-mcp logout"), before=("fastn-mcp login --file --stdin --no-check < key",)
    ),
    "whoami": Scene(("fastn-mcp --sandbox whoami", "fastn-mcp --sandbox whoami --json", "fastn-mcp whoami")),
    "doctor": Scene(("fastn-mcp --sandbox doctor", "fastn-mcp doctor")),
    "install": Scene(
        (
            "fastn-mcp install codex --sandbox --dry-run",
            "fastn-mcp install codex --sandbox",
            "fastn-mcp install codex --sandbox --yes",
            "fastn-mcp install codex --yes",
            "fastn-mcp install cursor --sandbox --dry-run",
            "fastn-mcp install claude-code --sandbox",
            "fastn-mcp install zed --sandbox",
            "fastn-mcp install curser",
            "fastn-mcp install json --sandbox",
        ),
        prepare=have_codex,
    ),
    "uninstall": Scene(
        (
            "fastn-mcp uninstall codex --dry-run",
            "fastn-mcp uninstall codex --yes",
            "fastn-mcp uninstall cursor",
            "fastn-mcp uninstall curser",
        ),
        prepare=have_codex,
    ),
    "setup": Scene(("fastn-mcp setup --sandbox", "fastn-mcp setup --sandbox --yes"), prepare=have_codex),
    "completion": Scene(("fastn-mcp completion fsh",)),
    "init-team": Scene(
        (
            "fastn-mcp init-team deploy --url https://fastn-mcp.example.com/mcp --issuer https://login.example.com",
            "fastn-mcp init-team deploy",
        )
    ),
    "http-token": Scene(("fastn-mcp http-token",)),
    "health": Scene(("fastn-mcp health 127.0.0.1:1", "fastn-mcp health nonsense")),
    "help": Scene(("fastn-mcp help logout", "fastn-mcp help call fid", "fastn-mcp help nope")),
    "sandbox": Scene(("fastn-mcp sandbox --port 99999",)),
    "demo": Scene(()),
}
"""Command lines of each command. The help of each is added."""


def paths(name: str, command: click.Command) -> Iterator[str]:
    """Yield how a command and its subcommands are called."""
    yield name
    if isinstance(command, click.Group):
        for inner in sorted(command.commands):
            yield from paths(f"{name} {inner}", command.commands[inner])


def help_lines(name: str) -> list[str]:
    """Return the command lines that print the help of a command and of its subcommands."""
    if name == "fastn-mcp":
        return ["fastn-mcp --help"]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return [f"fastn-mcp {path} --help" for path in paths(name, command)]


def indented_json(text: str) -> str:
    """Indent each line that is JSON, which a diff shows field by field."""
    lines = list[str]()
    for line in text.splitlines():
        if line.startswith(('{"', "[{")):
            line = json.dumps(json.loads(line), indent=2, ensure_ascii=False)
        lines.append(line)
    return "\n".join(lines)


def output_text(line: str, done: "subprocess.CompletedProcess[str]") -> str:
    """Return a command line with its outputs, and its exit code unless it is 0."""
    parts = [f"$ {line}"]
    if done.stdout.strip():
        parts.append(indented_json(done.stdout.rstrip()))
    if done.stderr.strip():
        parts.append(f"(stderr)\n{done.stderr.rstrip()}")
    if done.returncode:
        parts.append(f"(exit code {done.returncode})")
    return "\n".join(parts)


def check_texts(name: str, texts: list[str], home: Path) -> None:
    """Compare the outputs of a command with its golden file. Its help is the same in every run."""
    places = {str(home): "<home>", str(PROGRAM): "fastn-mcp", str(SOURCE): "<source>"}
    shown = [text if "\nUsage: " in text else normalized(text, places) for text in texts]
    check_golden(f"commands/{name}.txt", "\n\n".join(shown) + "\n")


SERVING = ("sandbox", "demo")
"""Commands whose usual run is a process of its own."""


def extension_of(name: str) -> "pytest.MarkDecorator":
    """Return the mark of the extension whose command this is; that of all for the program itself, which lists them."""
    if name == "fastn-mcp":
        return pytest.mark.extension()
    (place,) = (group[name].place for group in COMMANDS.values() if name in group)
    return pytest.mark.extension(place.split(".")[1] if place.startswith("extensions.") else "sandbox")


OUTPUTS = [pytest.param(name, marks=extension_of(name)) for name in SCENES if name not in SERVING]


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_a_command_are_the_golden_ones(name: str, tmp_path: Path) -> None:
    scene = SCENES[name]
    machine = make_machine(tmp_path)
    scene.prepare(machine)
    for line in scene.before:
        machine.make(line)
    lines = (*help_lines(name), *scene.lines)
    texts = [output_text(line, machine.make(line, scene.settings)) for line in lines]
    check_texts(name, texts, machine.home)


def test_outputs_of_the_sandbox_are_the_golden_ones(tmp_path: Path) -> None:
    machine = make_machine(tmp_path)
    port = free_port()
    line = f"fastn-mcp sandbox --port {port} --issuer"
    output = machine.home / "output"
    command = f"exec {shlex.join([str(PROGRAM), *line.split()[1:]])} > {output}"
    environment = {"PYTHONUNBUFFERED": "1", **machine.env}
    with running_program(["/bin/sh", "-c", command], port, environment):
        started = subprocess.CompletedProcess(line, 0, output.read_text(encoding="utf-8"), "")
        taken = machine.make(f"fastn-mcp sandbox --port {port}")
    lines = help_lines("sandbox")
    texts = [output_text(each, machine.make(each)) for each in (*lines, *SCENES["sandbox"].lines)]
    texts += [output_text(line.replace(str(port), "<port>"), started)]
    texts += [output_text("fastn-mcp sandbox --port <port>      # which is in use", taken)]
    check_texts("sandbox", [text.replace(str(port), "<port>") for text in texts], machine.home)


ACCOUNT = {"FASTN_API_KEY": "fsk_C4N4RY", "FASTN_BASE_URL": "https://fastn.invalid"}
"""Settings of a person with an account, of which the demo neither shows nor uses anything."""


def test_outputs_of_the_demo_are_the_golden_ones(tmp_path: Path) -> None:
    machine = make_machine(tmp_path)
    texts = [output_text(line, machine.make(line)) for line in help_lines("demo")]
    played = run_process([str(PROGRAM), "demo"], machine.env | ACCOUNT, machine.home)
    texts += [output_text("fastn-mcp demo", played)]
    check_texts("demo", texts, machine.home)


def test_every_command_has_a_golden_file() -> None:
    names = {"fastn-mcp", *(name for group in COMMANDS.values() for name in group)}
    assert set(SCENES) == names
    check_no_other("commands", {f"{name}.txt" for name in names})
