"""docs/hosting.md, "Your team in an afternoon": its lines, run as printed, up to a signed-in call and an approval."""

import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx2
import pytest
import yaml
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from support.command_line import run_command
from support.nginx_proxy import DEPLOY, nginx
from support.openid_provider import Storage, signing_in
from support.page_visitor import Visitor
from support.ports import is_free
from support.team_page import result
from support.valkey_server import valkey_program

from fastn_mcp.cli.program import cli
from fastn_mcp.extensions.team.team_config import load_team

PAGE = (DEPLOY.parent / "docs" / "hosting.md").read_text(encoding="utf-8")


class Chooser:
    """A browser without a screen, in which `person` is chosen."""

    def __init__(self, person: str) -> None:
        self.person = person

    async def authorize(self, url: str) -> str:
        """Open an authorization address and return the redirect address, with its query."""
        async with httpx2.AsyncClient(timeout=30) as http:
            page = await http.get(url)
            assert self.person in re.findall(r'<button name="person" value="(\w+)"', page.text), page.text
            return (await http.post(url, data={"person": self.person})).headers["location"]


def lines_below(heading: str) -> list[str]:
    """Return the commands of all blocks below a heading, up to the next of the same level or a higher one."""
    level = heading.partition(" ")[0]
    (section,) = re.findall(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{2,{len(level)}}} |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    blocks = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


@pytest.mark.extension("doctor", "team")
def test_commands_of_the_page_exist() -> None:
    commands = [
        line[line.index("fastn-mcp ") :] for line in lines_below("## Your team in an afternoon") if "fastn-mcp " in line
    ]
    parsed = 0
    for line in commands:
        words = shlex.split(line.partition(" &")[0].partition(";")[0], comments=True)[1:]
        command: Any = cli.commands.get(words[0]) or cli.get_command(click.Context(cli), words[0]) if words else None
        if command is None or words[0].startswith("-"):
            continue
        command.make_context(
            words[0], words[1:], parent=click.Context(cli, **cli.context_settings), resilient_parsing=False
        )
        parsed += 1
    assert parsed >= 5


def test_compose_file_mounts_what_init_team_makes(tmp_path: Path) -> None:
    assert run_command(["init-team", str(tmp_path / "deploy")], os.environ).returncode == 0
    load_team(tmp_path / "deploy" / "team.toml")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    own = {name: file.read_text() for name in (".env",) if (file := tmp_path / "deploy" / name).exists()}[".env"]
    assert set(re.findall(r"\$\{(\w+):\?", text)) == {line.partition("=")[0] for line in own.splitlines()}
    mounts = {v.partition(":")[0] for s in compose["services"].values() for v in s["volumes"] if v.startswith("./")}
    assert all((tmp_path / "deploy" / name).exists() or (DEPLOY / name).exists() for name in mounts)
    assert {"./team.toml", "./secrets", "./valkey.acl", "./valkey.conf"} <= mounts
    replicas = [name for name in compose["services"] if name.startswith("replica-")]
    assert replicas == re.findall(r"server (replica-\d):8080", (DEPLOY / "replicas.conf").read_text(encoding="utf-8"))
    # The team file's relative paths hold in the container too.
    assert "./secrets:/etc/fastn-mcp/secrets:ro" in compose["services"]["replica-1"]["volumes"]


def _ports() -> tuple[str, dict[str, str]]:
    """Return the first four digits of three free ports, and the ports of the page with those to use here."""
    while True:
        base = str(2000 + secrets.randbelow(1100))
        numbers = [int(base + last) for last in "01234"]
        if all(map(is_free, numbers)):
            return base, {
                "8080": f"{base}0", "8081": f"{base}1", "8082": f"{base}2", "8765": f"{base}3", "6379": f"{base}4",
            }  # fmt: skip


@contextmanager
def followed(folder: Path) -> Generator[tuple[str, str]]:
    """Run the lines without containers. Return the site, and what doctor says."""
    base, ports = _ports()
    site = f"http://127.0.0.1:{ports['8080']}"
    shutil.copytree(
        DEPLOY, folder / "deploy", ignore=shutil.ignore_patterns(".env", "team.toml", "secrets", "valkey.acl")
    )
    (folder / "deploy" / "listen.conf").write_text(f"listen 127.0.0.1:{ports['8080']};\n")
    programs = folder / "programs"
    programs.mkdir()
    for name, place in (
        ("valkey-server", valkey_program()),
        ("nginx", nginx()),
        ("fastn-mcp", str(Path(sys.executable).parent / "fastn-mcp")),
    ):
        (programs / name).symlink_to(place)
    script = ["set -e"]
    for line in lines_below("### The same without containers"):
        if line.startswith(("make ", "alias ")):  # a clone has them; here they are the environment of the tests
            continue
        if line.startswith("sed "):
            text = line.replace(r"127.0.0.1:808\1", rf"127.0.0.1:{base}\1")
        else:
            text = re.sub(r"\b(8080|8081|8082|8765|6379)\b", lambda match: ports[match[1]], line)
        script.append(text)
        if "init-team" in line:  # tests do not wait for people
            script.append("echo 'approval_wait_seconds = 0' >>deploy/team.toml")
    script += ["wait"]
    env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "FASTN_CONFIG_DIR": str(folder / "config")}
    told = folder / "doctor.txt"
    with (
        told.open("wb") as out,
        subprocess.Popen(
            ["/bin/bash", "-c", "\n".join(script)], cwd=folder, env=env, stdout=out, process_group=0
        ) as process,
    ):
        try:
            while "requests, 0 changes" not in (said := told.read_text()):
                assert process.poll() is None, said
            yield site, said
        finally:
            # All of them are processes of the script's group.
            process.send_signal(signal.SIGTERM)
            subprocess.run(["/bin/kill", "-TERM", f"-{process.pid}"], check=False)
            process.wait(20)


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="the lines are for a POSIX shell")
async def test_page_leads_to_a_change_that_one_of_the_two_people_approved(tmp_path: Path) -> None:
    with followed(tmp_path) as (site, said):
        rows = [line.split("\t") for line in said.splitlines() if line.count("\t") == 2]
        assert {row[1] for row in rows[1:]} == {"ok", "skipped"}, said
        assert httpx2.post(f"{site}/mcp", json={}).status_code == 401
        async with (
            httpx2.AsyncClient(auth=signing_in(f"{site}/mcp", Chooser("anna"), Storage()), timeout=30) as http,
            Client(streamable_http_client(f"{site}/mcp", http_client=http)) as agent,
        ):
            customer = (await result(agent, "list_customers", search="Globex"))["data"][0]
            waits = await result(agent, "delete_customer", customer_id=customer["id"])
            assert waits["status"] == "approval_required"
            assert f"{site}/approvals/" in waits["message"]

            async def chosen(url: str, name: str) -> str:
                return await Chooser(name).authorize(url)

            async with httpx2.AsyncClient(base_url=site, timeout=30) as browser:
                dana = Visitor(browser, site, chosen)
                assert (await dana.sign_in("dana")).status_code == 303
                assert customer["name"] in await dana.read()
                assert (await dana.approve(name=customer["name"])).status_code == 303
            done = await result(agent, "delete_customer", customer_id=customer["id"])
            assert done.get("done") == "delete_customer"
