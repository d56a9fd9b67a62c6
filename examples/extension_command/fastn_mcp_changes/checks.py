"""What `fastn-mcp doctor` checks: nothing."""

from fastn_mcp.build.check import Check
from fastn_mcp.build.extensions import CheckedAccount


async def check(account: CheckedAccount) -> list[Check]:
    return []
