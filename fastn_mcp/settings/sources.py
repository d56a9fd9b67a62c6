"""Where each setting can come from. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastn_mcp.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Source:
    """Where one setting can come from, besides the file. A key has no flag: flags are seen by every process."""

    field: str
    variable: str
    flag: str | None


FLAGS = (
    *("base_url", "auth", "profile", "env", "mode", "policy", "plan", "read_only", "toolsets", "tools"),
    *("exclude_tools", "update"),
    *("reveal", "report", "log_level", "log_file", "deadline", "approval_minutes"),
)

SOURCES = tuple(
    Source(field, "FASTN_" + field.upper(), "--" + field.replace("_", "-") if field in FLAGS else None)
    for field in Settings.model_fields
    if field not in ("routes", "fields")
)

OF_THE_PROCESS = ("FASTN_CONFIG", "FASTN_CONFIG_DIR", "FASTN_STATE_DIR", "FASTN_HTTP")
"""Variables that are no settings of an account."""

KEY_SETTINGS = ("api_key", "api_key_env", "api_key_file")
"""What names a key in the file: the key itself, the variable that holds it, the file that holds it."""

KEY_HOST = "api_key_host"
"""The host that the key beside it was given for; where it is missing, that of the address in the file."""

FILE_ONLY: Mapping[str, str] = {
    "api_key_env": "Variable that holds the key of this account.",
    "api_key_file": "File that holds the key of this account, which only its owner can read.",
    KEY_HOST: "Only host that the key beside it is sent to, by default that of base_url in the file.",
}
"""What the file alone can say, with what it means."""

SECRETS = tuple(name for name, field in Settings.model_fields.items() if not field.repr)
"""What only the owner of a file may read there."""

PATHS = ("policy", "plan", "plan_keys", "report", "log_file", "approvers", "api_key_file", "ca_file")
"""What names a file. In the configuration file a relative one begins at its folder."""

OF_ONE_ACCOUNT = ("base_url", "space_id", "tenant_id", "end_org_id")
"""Where a key belongs. What the environment says of it is of no profile."""
