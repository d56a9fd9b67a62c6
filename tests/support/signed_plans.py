"""Signed plans for the tenants of a team."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fastn_mcp.policy.plan import PlanAccount
from fastn_mcp.policy.plan_file import new_key, public, sign, signatures_of, with_key, written

_DANA = new_key()
_MONTH = timedelta(days=30)


def plan_text(
    account: str, allow: str, until: datetime | None = None, begins: datetime | None = None, name: str = "night"
) -> str:
    """Return a plan. By default it is valid for a month."""
    ends = (until or datetime.now(UTC) + _MONTH).isoformat().replace("+00:00", "Z")
    starts = f"begins = {begins.isoformat().replace('+00:00', 'Z')}\n" if begins else ""
    return f'name = "{name}"\naccount = "{account}"\n{starts}until = {ends}\n{allow}'


def sign_plan(file: Path, text: str, account: PlanAccount, records: Mapping[str, str] | None = None) -> None:
    """Write a plan and dana's signature of it, and her public key into `plan-keys.toml` beside it."""
    file.write_text(text)
    keys = file.with_name("plan-keys.toml")
    keys.write_text(with_key("", "dana", public(_DANA)))
    signature = sign(text.encode(), "dana", datetime(2026, 11, 25, tzinfo=UTC), account, records or {}, _DANA)
    signatures_of(file).write_bytes(written((signature,)))
    for each in (file, keys, signatures_of(file)):
        each.chmod(0o600)
