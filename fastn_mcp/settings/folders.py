"""The user's own folders. Never the working directory: a cloned repository must not loosen anything."""

from collections.abc import Mapping
from pathlib import Path

TENANTS = "tenants"
"""The folder in that of the state that holds a folder for each tenant."""

CONFIG = "config.toml"
"""The file of settings in the configuration folder."""


def config_dir(environment: Mapping[str, str]) -> Path:
    """Where settings, policies and kept keys are."""
    if named := environment.get("FASTN_CONFIG_DIR"):
        return Path(named)
    from platformdirs import user_config_path  # only where a default is asked for

    return user_config_path("fastn-mcp")


def state_dir(environment: Mapping[str, str]) -> Path:
    """Where grants and the audit are kept."""
    if named := environment.get("FASTN_STATE_DIR"):
        return Path(named)
    from platformdirs import user_state_path  # only where a default is asked for

    return user_state_path("fastn-mcp")
