"""Who is calling, as headers. Pure.

Fastn's pages disagree: the specification names x-fastn-api-key, its newer documentation a bearer token, and older pages
want a space and a tenant as well. All of it is therefore a setting.
"""

from fastn_mcp import __version__
from fastn_mcp.client.account import Account
from fastn_mcp.key_kinds import kind_of


def headers(account: Account) -> dict[str, str]:
    """The headers of every request."""
    key = account.api_key
    sent = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # so that the cap on a body is a cap on what it unpacks to
        "User-Agent": f"fastn-mcp/{__version__}",
    }
    sent |= {"Authorization": f"Bearer {key}"} if account.auth == "bearer" else {"x-fastn-api-key": key}
    if account.test_mode == "on" or (account.test_mode == "auto" and kind_of(key) == "test"):
        sent["X-fastn-Test-Mode"] = "true"
    optional = {
        "x-fastn-space-id": account.space_id,
        "x-fastn-space-tenantid": account.tenant_id,
        "x-end-org-id": account.end_org_id,
        "x-fastn-env": account.env,
    }
    return sent | {name: value for name, value in optional.items() if value}
