"""The account that the sandbox begins with, where it is kept, and when schedules fire."""

import json
import random
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from asking import MORNING, Clock, Fastn
from faulty_sandbox import FaultySandbox

from fastn_mcp.errors import SettingsError
from fastn_mcp.fastn.cron import next_run
from fastn_mcp.sandbox.auth import LIVE_KEY
from fastn_mcp.sandbox.past_runs import INJECTION
from fastn_mcp.sandbox.server import dataset
from fastn_mcp.sandbox.state import SandboxState
from fastn_mcp.tools.account import CreateApiKey
from fastn_mcp.tools.connectors import DeleteConnection
from fastn_mcp.tools.customers import CreateCustomer, ListCustomers
from fastn_mcp.tools.workflows import GetExecution, ListExecutions

TIKTOK = "wf_96d1b3072c5a"


def test_the_account_is_the_same_each_time() -> None:
    """Ours: the same moment and the same seed give the same account, another seed gives other ids."""
    first, second = (dataset(MORNING, random.Random("1")).dump() for _ in range(2))  # noqa: S311

    assert first == second
    assert dataset(MORNING, random.Random("2")).dump() != first  # noqa: S311


@pytest.mark.parametrize(
    "at", [MORNING, datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)]
)
def test_nothing_in_the_account_lies_in_the_future(at: datetime) -> None:
    """Ours: whenever it begins, what is over is over."""
    rows: list[Any] = dataset(at, random.Random(1)).all("executions")  # noqa: S311
    moments = [row[name] for row in rows for name in ("createdAt", "completedAt") if row[name] is not None]

    assert len(rows) >= 250
    assert max(datetime.fromisoformat(moment) for moment in moments) <= at


def test_the_tiktok_sync_has_failed_for_nine_days(fastn: Fastn) -> None:
    """Fastn's documentation: its own example of a failing schedule."""
    runs = fastn(ListExecutions(workflow_id=TIKTOK, limit=100)).data

    assert [row["status"] for row in runs[:10]] == ["failed"] * 9 + ["completed"]
    assert fastn.sandbox.state.named("triggers", "Daily TikTok sync", by="name")["consecutiveFailures"] == 9


def test_one_output_gives_orders_that_nobody_should_obey(fastn: Fastn) -> None:
    """Ours: text from Fastn is data, and a test of that needs some that tries."""
    rows: list[Any] = fastn.sandbox.state.all("executions")
    (row,) = [row for row in rows if row["output"] and row["output"].get("note") == INJECTION]

    assert fastn(GetExecution(execution_id=row["id"])).data["output"]["note"] == INJECTION


def test_the_ids_have_the_documented_formats(fastn: Fastn) -> None:
    """Fastn's documentation and third parties: wf_ and exec_ with 12 hex digits, connections with colons."""
    state = fastn.sandbox.state

    assert all(str(row["id"]).startswith("ucl:org_") for row in state.all("connections"))
    assert all(len(str(row["id"])) == 15 for row in state.all("workflows"))
    assert all(len(str(row["id"])) == 17 for row in state.all("executions"))
    assert [row["id"] for row in state.all("apiKeys")] == [1, 2, 3, 4, 5]
    for row in state.all("connections"):
        assert DeleteConnection(connection_id=str(row["id"])).request().path.endswith(quote(str(row["id"]), safe=""))


def test_a_name_that_the_account_does_not_have_is_an_error(fastn: Fastn) -> None:
    """Ours: a test that names what is not there should not go on."""
    with pytest.raises(KeyError, match="nothing"):
        fastn.id_of("customers", "nothing")


def test_a_file_keeps_the_account(tmp_path: Path, clock: Clock) -> None:
    """Ours: with a file the account outlives the process, keys included, and ids are not given twice."""
    file = tmp_path / "there" / "sandbox.json"
    first = Fastn(FaultySandbox(clock, file=file))
    made = [first(CreateCustomer(name=f"Initech {number}")).data["id"] for number in range(3)]
    key = first(CreateApiKey(name="BI", permissions="Full access")).data["key"]

    second = Fastn(FaultySandbox(clock, file=file), key)

    known = {row["id"] for row in second(ListCustomers(limit=100)).data}
    assert known >= set(made)
    assert second(CreateCustomer(name="Initech 3")).data["id"] not in known


def test_the_file_is_for_its_owner_alone_and_holds_no_key(tmp_path: Path, clock: Clock) -> None:
    """Ours: what is kept are digests; mode 0600, in a directory of 0700."""
    file = tmp_path / "there" / "sandbox.json"
    made = Fastn(FaultySandbox(clock, file=file))(CreateApiKey(name="BI")).data

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {path.name for path in file.parent.iterdir()} == {"sandbox.json", ".sandbox.json.lock"}
    text = file.read_text()
    assert made["key"] not in text
    assert LIVE_KEY not in text


def test_a_read_does_not_write_the_file(tmp_path: Path, clock: Clock) -> None:
    """Ours: only a change is written."""
    file = tmp_path / "sandbox.json"
    fastn = Fastn(FaultySandbox(clock, file=file))
    file.unlink()

    fastn(ListCustomers())

    assert not file.exists()


def test_a_draft_that_was_left_behind_does_no_harm(tmp_path: Path, clock: Clock) -> None:
    """Ours: a process that died while writing leaves the old file whole, and the next one goes on."""
    file = tmp_path / "sandbox.json"
    fastn = Fastn(FaultySandbox(clock, file=file))
    fastn(CreateCustomer(name="Initech"))
    (tmp_path / ".sandbox.json.0123456789abcdef").write_text("half")
    before = sorted(tmp_path.iterdir())

    fastn(CreateCustomer(name="Initrode"))

    assert "Initrode" in file.read_text()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"serial": "x", "rows": {}}', b"\xff", b"[" * 100_000])
def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path, clock: Clock, content: bytes) -> None:
    """Ours: the sandbox does not overwrite what it does not know."""
    file = tmp_path / "sandbox.json"
    file.write_bytes(content)

    with pytest.raises(SettingsError, match=r"sandbox\.json"):
        FaultySandbox(clock, file=file)

    assert file.read_bytes() == content


def test_resetting_begins_again(tmp_path: Path, clock: Clock) -> None:
    """Ours: fresh data, in the file too."""
    file = tmp_path / "sandbox.json"
    fastn = Fastn(FaultySandbox(clock, file=file))
    fastn(CreateCustomer(name="Initech"))

    fastn.sandbox.reset()

    assert fastn.sandbox.requests == []
    assert fastn.sandbox.state.first("customers", "name", "Initech") is None
    assert "Initech" not in file.read_text()


def test_a_state_comes_back_as_it_was(fastn: Fastn) -> None:
    """Ours: what is dumped is JSON, and reads back the same."""
    dumped = fastn.sandbox.state.dump()

    again = SandboxState.load(json.loads(json.dumps(dumped)), random.Random)

    assert again.dump() == dumped


@pytest.mark.parametrize(
    ("schedule", "timezone", "expected"),
    [
        ("0 * * * *", "UTC", "2026-10-06T10:00"),
        ("*/15 * * * *", "utc", "2026-10-06T09:45"),
        ("30 9 * * *", "UTC", "2026-10-07T09:30"),
        ("0 15 * * *", "Europe/Berlin", "2026-10-06T13:00"),
        ("0 8 * * 1-5", "UTC", "2026-10-07T08:00"),
        ("0 8 * * 7", "UTC", "2026-10-11T08:00"),
        ("0 0 1 * *", "UTC", "2026-11-01T00:00"),
        ("0 0 29 2 *", "UTC", "2028-02-29T00:00"),
        ("0 0 13 * 5", "UTC", "2026-10-09T00:00"),
        ("5,10 3/6 * 10-12 *", "UTC", "2026-10-06T15:05"),
    ],
)
def test_a_schedule_fires_when_cron_says(schedule: str, timezone: str, expected: str) -> None:
    """cron(5): five fields; where both days are restricted, either will do."""
    assert next_run(schedule, timezone, MORNING).isoformat()[:16] == expected


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("0 * * *", "five fields"),
        ("60 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("x * * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 0 30 2 *", "day-of-month"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(schedule: str, problem: str) -> None:
    """cron(5)."""
    with pytest.raises(ValueError, match=problem):
        next_run(schedule, "UTC", MORNING)


@pytest.mark.parametrize("timezone", ["Mars/Base", "", "../etc/passwd"])
def test_a_time_zone_that_does_not_exist_is_refused(timezone: str) -> None:
    """Fastn's documentation: the time zone is required; its names are IANA's."""
    with pytest.raises(ValueError, match="time zone"):
        next_run("0 * * * *", timezone, MORNING)
