"""Tests of the initial account, its file, and the times of schedules."""

import random
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.clock import Clock
from support.direct_sandbox import MORNING, Fastn
from support.faulty_sandbox import FaultySandbox

from fastn_mcp.errors import SettingsError
from fastn_mcp.extensions.sandbox.auth import LIVE_KEY
from fastn_mcp.extensions.sandbox.executions import INJECTION
from fastn_mcp.extensions.sandbox.server import dataset
from fastn_mcp.records.cron import next_run
from fastn_mcp.tools.access import CreateApiKey
from fastn_mcp.tools.connectors import DeleteConnection
from fastn_mcp.tools.customers import CreateCustomer, ListCustomers
from fastn_mcp.tools.workflows import GetExecution, ListExecutions

TIKTOK = "wf_96d1b3072c5a"


def test_account_is_reproducible() -> None:
    first, second = (dataset(MORNING, random.Random("1")).dump() for _ in range(2))  # noqa: S311

    assert first == second
    assert dataset(MORNING, random.Random("2")).dump() != first  # noqa: S311


@pytest.mark.parametrize(
    "at", [MORNING, datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)]
)
def test_account_has_no_future_times(at: datetime) -> None:
    rows: list[Any] = dataset(at, random.Random(1)).all("executions")  # noqa: S311
    moments = [row[name] for row in rows for name in ("createdAt", "completedAt") if row[name] is not None]

    assert len(rows) >= 250
    assert max(datetime.fromisoformat(moment) for moment in moments) <= at


def test_tiktok_sync_has_failed_for_nine_days(fastn: Fastn) -> None:
    """Fastn's documentation: its example of a failing schedule."""
    runs = fastn(ListExecutions(workflow_id=TIKTOK, limit=100)).data

    assert [row["status"] for row in runs[:10]] == ["failed"] * 9 + ["completed"]
    assert fastn.sandbox.state.named("triggers", "Daily TikTok sync", by="name")["consecutiveFailures"] == 9


def test_one_output_has_a_prompt_injection(fastn: Fastn) -> None:
    rows: list[Any] = fastn.sandbox.state.all("executions")
    (row,) = [row for row in rows if row["output"] and row["output"].get("note") == INJECTION]

    assert fastn(GetExecution(execution_id=row["id"])).data["output"]["note"] == INJECTION


def test_ids_have_the_documented_formats(fastn: Fastn) -> None:
    """Fastn's documentation and third parties: wf_ and exec_ with 12 hex digits, connections with colons."""
    state = fastn.sandbox.state

    assert all(str(row["id"]).startswith("ucl:org_") for row in state.all("connections"))
    assert all(len(str(row["id"])) == 15 for row in state.all("workflows"))
    assert all(len(str(row["id"])) == 17 for row in state.all("executions"))
    assert [row["id"] for row in state.all("apiKeys")] == [1, 2, 3, 4, 5]
    for row in state.all("connections"):
        assert DeleteConnection(connection_id=str(row["id"])).request().path.endswith(quote(str(row["id"]), safe=""))


def test_file_persists_the_account(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "there" / "sandbox.json"
    first = Fastn(FaultySandbox(clock.now, file=file))
    created = [first(CreateCustomer(name=f"Initech {number}")).data["id"] for number in range(3)]
    key = first(CreateApiKey(name="BI", permissions="Full access")).data["key"]

    second = Fastn(FaultySandbox(clock.now, file=file), key)

    known = {row["id"] for row in second(ListCustomers(limit=100)).data}
    assert known >= set(created)
    assert second(CreateCustomer(name="Initech 3")).data["id"] not in known


@pytest.mark.posix
def test_file_is_private_and_contains_no_key(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "there" / "sandbox.json"
    created = Fastn(FaultySandbox(clock.now, file=file))(CreateApiKey(name="BI")).data

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {path.name for path in file.parent.iterdir()} == {"sandbox.json", ".sandbox.json.lock"}
    text = file.read_text()
    assert created["key"] not in text
    assert LIVE_KEY not in text


def test_read_does_not_write_the_file(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "sandbox.json"
    fastn = Fastn(FaultySandbox(clock.now, file=file))
    file.unlink()

    fastn(ListCustomers())

    assert not file.exists()


def test_leftover_temporary_file_is_harmless(tmp_path: Path, clock: Clock) -> None:
    """A process that dies while writing leaves the old file intact, and the next one continues."""
    file = tmp_path / "sandbox.json"
    fastn = Fastn(FaultySandbox(clock.now, file=file))
    fastn(CreateCustomer(name="Initech"))
    (tmp_path / ".sandbox.json.0123456789abcdef").write_text("half")
    before = sorted(tmp_path.iterdir())

    fastn(CreateCustomer(name="Initrode"))

    assert "Initrode" in file.read_text()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"serial": "x", "rows": {}}', b"\xff", b"[" * 100_000])
def test_file_with_other_content_is_not_overwritten(tmp_path: Path, clock: Clock, content: bytes) -> None:
    file = tmp_path / "sandbox.json"
    file.write_bytes(content)

    with pytest.raises(SettingsError, match=r"sandbox\.json"):
        FaultySandbox(clock.now, file=file)

    assert file.read_bytes() == content


def test_reset_creates_a_fresh_account(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "sandbox.json"
    fastn = Fastn(FaultySandbox(clock.now, file=file))
    fastn(CreateCustomer(name="Initech"))

    fastn.sandbox.reset()

    assert fastn.sandbox.requests == []
    assert fastn.sandbox.state.first("customers", "name", "Initech") is None
    assert "Initech" not in file.read_text()


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
def test_next_run_follows_cron(schedule: str, timezone: str, expected: str) -> None:
    """cron(5): five fields; if both days are restricted, either matches."""
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
def test_invalid_schedule_is_refused(schedule: str, problem: str) -> None:
    """cron(5)."""
    with pytest.raises(ValueError, match=problem):
        next_run(schedule, "UTC", MORNING)


@pytest.mark.parametrize("timezone", ["Mars/Base", "", "../etc/passwd"])
def test_unknown_time_zone_is_refused(timezone: str) -> None:
    """Fastn's documentation: the time zone is required, with an IANA name."""
    with pytest.raises(ValueError, match="time zone"):
        next_run("0 * * * *", timezone, MORNING)
