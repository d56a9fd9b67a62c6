"""Doctor's check of the audit log's export."""

from datetime import timedelta
from pathlib import Path

from support.audit_entries import INTENT, NOW

from fastn_mcp.audit.log import AuditFile
from fastn_mcp.audit.outbox import Outbox
from fastn_mcp.build.check import CheckResult
from fastn_mcp.build.extensions import SECTIONS, CheckedAccount
from fastn_mcp.build.stores import audit_logs
from fastn_mcp.config.load import load
from fastn_mcp.extensions.telemetry.checks import check
from fastn_mcp.runtime import System


async def test_entries_that_wait_for_the_collector_are_counted_by_their_logs(tmp_path: Path) -> None:
    paths = [tmp_path / "audit.jsonl", tmp_path / "tenants" / "acme" / "audit.jsonl"]
    for path in paths:
        log = AuditFile(path, System(now=lambda: NOW))
        log.record(INTENT)
        log.close()
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "audit.jsonl").write_bytes(paths[0].read_bytes())

    async def seen(mode: str, seconds: float) -> list[tuple[CheckResult, str]]:
        environment = {"FASTN_API_KEY": "fsk_test_x", "FASTN_TELEMETRY_AUDIT_EXPORT": mode}
        settings = load({}, environment, None, sections=SECTIONS)
        account = CheckedAccount(settings, None, audit_logs(tmp_path), NOW + timedelta(seconds=seconds))
        return [(each.verdict, each.finding) for each in await check(account)]

    waits = "Entries of 2 audit logs wait, the oldest for"
    assert await seen("off", 90) == []
    assert await seen("fail-open", 60) == [(CheckResult.OK, f"{waits} 60 seconds (fail-open).")]
    assert await seen("fail-open", 61) == [(CheckResult.DIFFERS, f"{waits} 61 seconds (fail-open).")]
    refused = f"{waits} 61 seconds (fail-closed). Changes are refused."
    assert await seen("fail-closed", 61) == [(CheckResult.DIFFERS, refused)]
    for path in paths:
        with Outbox(path).claimed():
            Outbox(path).accepted(Outbox(path).unsent(1)[0])
    assert await seen("fail-closed", 61) == [(CheckResult.OK, "No entry is waiting (fail-closed).")]
    Outbox(paths[0]).file.unlink()
    Outbox(paths[0]).file.mkdir()
    ((verdict, message),) = await seen("fail-closed", 61)
    assert verdict is CheckResult.FAILED
    assert str(tmp_path) not in message
