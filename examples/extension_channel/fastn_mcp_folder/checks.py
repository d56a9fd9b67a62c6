"""What `fastn-mcp doctor` checks."""

from fastn_mcp.build.check import Check, CheckGroup
from fastn_mcp.build.extensions import CheckedAccount
from fastn_mcp_folder.channel import check_settings


async def check(account: CheckedAccount) -> list[Check]:
    check_settings(account.settings, account.issuer)
    return [CheckGroup.SETTINGS.ok("folder", "Only its owner can answer in it.")]
