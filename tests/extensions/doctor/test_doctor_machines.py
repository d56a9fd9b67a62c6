"""What doctor says of a team's machines: plans, keys of their issuers, and tokens. See docs/machines.md."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from support.clock import Clock
from support.doctor_runs import by_name
from support.machine_world import MachineWorld
from support.team_world import TENANTS

from fastn_mcp.build.check import Check, CheckResult
from fastn_mcp.extensions.team.checks import check_provider, check_settings, check_token
from fastn_mcp.runtime import System

KEYS = "keys of token.actions.githubusercontent.com"


def _machine(world: MachineWorld) -> Check:
    return {check.name: check for check in check_settings(world.world.opening)}["machine nightly-report"]


def test_machine_with_a_signed_plan_is_fine(tmp_path: Path) -> None:
    clock = Clock()
    world = MachineWorld(tmp_path, system=System(now=clock.now))
    world.sign(until=clock.at + timedelta(hours=3))
    check = _machine(world)
    assert (check.verdict, check.finding) == (CheckResult.OK, "Its plan is signed, and valid for 3 hours more.")
    assert check.here == "By dana."


def test_plan_that_cannot_be_used_fails_with_its_reason(tmp_path: Path) -> None:
    clock = Clock()
    world = MachineWorld(tmp_path, system=System(now=clock.now))
    world.sign(until=clock.at)
    check = _machine(world)
    assert check.verdict is CheckResult.FAILED
    assert "has expired: it was valid until" in check.here
    assert str(tmp_path) not in check.finding
    (tmp_path / "nightly.toml.sig").unlink()
    assert "There is no file of signatures" in _machine(world).here


def test_plan_of_a_tenant_that_only_reads_differs(tmp_path: Path) -> None:
    check = _machine(MachineWorld(tmp_path, tenants=TENANTS.replace('"guarded"', '"read-only"', 1)))
    assert (check.verdict, check.finding) == (
        CheckResult.DIFFERS,
        "Its tenant is read-only, so its plan allows nothing.",
    )


def test_machine_without_a_plan_is_said_to_read(tmp_path: Path) -> None:
    machine = '[[machine]]\nname = "nightly-report"\nclient_id = "a"\ntenant = "acme"\n'
    assert _machine(MachineWorld(tmp_path, machines=machine)).finding == "It has no plan: it only reads."


async def test_keys_of_each_other_issuer_are_read(tmp_path: Path) -> None:
    world = MachineWorld(tmp_path)
    checks = await by_name(check_provider(world.world.opening, world.world.keys))
    assert checks[KEYS].verdict is CheckResult.OK


async def test_issuer_without_keys_fails(tmp_path: Path) -> None:
    world = MachineWorld(tmp_path)
    world.github.down = True
    check = (await by_name(check_provider(world.world.opening, world.world.keys)))[KEYS]
    assert (check.verdict, check.finding) == (CheckResult.FAILED, "Its keys cannot be read: no token can be verified.")


TOKENS: dict[str, tuple[Callable[[MachineWorld], str], CheckResult, str]] = {
    "workload": (lambda world: world.workload(), CheckResult.OK, "nightly-report"),
    "client": (lambda world: world.client(), CheckResult.OK, "billing"),
    "another branch": (lambda world: world.workload(ref="r"), CheckResult.FAILED, 'its ref is "r"'),
    "another client": (lambda world: world.client("x"), CheckResult.FAILED, 'its client_id is "x"'),
    "a person": (lambda world: world.person(azp="billing-agent"), CheckResult.FAILED, "This is a person's token"),
}


async def test_token_is_said_to_be_of_a_machine_or_why_not(tmp_path: Path) -> None:
    world = MachineWorld(tmp_path)
    for what, (make, verdict, words) in TOKENS.items():
        checks = await by_name(check_token(world.world.opening, world.world.keys, make(world)))
        assert (checks["token machine"].verdict, words in checks["token machine"].here) == (verdict, True), what
        assert "token issuer" not in checks
        assert "token tenant" not in checks


async def test_token_of_a_person_has_a_tenant_and_no_machine(tmp_path: Path) -> None:
    world = MachineWorld(tmp_path)
    checks = await by_name(check_token(world.world.opening, world.world.keys, world.person()))
    assert "token machine" not in checks
    assert checks["token tenant"].verdict is CheckResult.OK
