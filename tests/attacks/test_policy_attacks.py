"""Policies and plans are read from regular files only, and apply whatever a customer is called by."""

import os
import subprocess
from pathlib import Path

import pytest
from support.forkserver import forked
from support.policy_files import rules_of
from support.scripted_client import each_version, session
from support.world import World

from fastn_mcp.config.paths import read_regular
from fastn_mcp.policy.policy import Policy


@pytest.mark.skipif(os.name != "posix", reason="devices and pipes are of POSIX")
@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "huge"])
@pytest.mark.parametrize("words", [("policy", "check"), ("plan", "show"), ("--config",)], ids=" ".join)
def test_policy_and_plan_files_must_be_regular_files(tmp_path: Path, kind: str, words: tuple[str, ...]) -> None:
    """Reading a device would never end, and a pipe would never answer."""
    path = tmp_path / "file.toml"
    match kind:
        case "device":
            path = Path("/dev/zero")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            with path.open("wb") as file:
                file.truncate(1 << 40)
    command = forked(*words, str(path), *(["profiles"] if words == ("--config",) else []))
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert done.returncode in (1, 2)
    assert path.name in done.stderr
    assert "Traceback" not in done.stderr


def test_regular_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link", 100)[0] == b"x" * 100
    with pytest.raises(OSError, match="Larger than"):
        read_regular(path, 99)


@each_version
@pytest.mark.parametrize("named", [{"customer_ref": "crm-1001"}, {"installation_id": "inst_5d20c1e97ab4"}])
async def test_protection_holds_for_other_identifiers(tmp_path: Path, version: str, named: dict[str, str]) -> None:
    acme = World(tmp_path).sandbox.state.named("customers", "acme-corp")["id"]
    rules = f'[[protect]]\ncustomer = "{acme}"\n[[rule]]\ntool = "run_workflow"\nthen = "allow"\n'
    world = World(tmp_path, Policy(rules=rules_of(tmp_path, rules)))
    async with session(world, version) as call:
        reply = await call("run_workflow", workflow_id="wf_3a8e47d19b60", **named)
        other = await call("run_workflow", workflow_id="wf_3a8e47d19b60", customer_id=acme)
    assert (reply["outcome"], other["outcome"]) == ("refused", "refused")
    assert "are protected" in reply["message"]
    assert world.changes == []
