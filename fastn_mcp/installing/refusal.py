"""Why a client's configuration was left as it is."""

from fastn_mcp.errors import NOTHING_CHANGED, FastnError


class NotInstalled(FastnError):
    """Nothing was written. Says what stood in the way, and what to do about it."""

    outcome = "not_installed"
    certainty = NOTHING_CHANGED
