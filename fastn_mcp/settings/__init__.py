"""Flags, environment and configuration file become `Settings`, once, at the edge. Nothing else reads the environment.

A setting that is missing or wrong ends with one line that names it and says how to set it, and never shows its value.
"""

from fastn_mcp.proxies import is_loopback
from fastn_mcp.settings.folders import config_dir, state_dir
from fastn_mcp.settings.loading import Resolved, ledger_setting, load, resolve
from fastn_mcp.settings.model import DEFAULT_BASE_URL, TOOLSETS, Mode, Settings, is_shared
from fastn_mcp.settings.sources import FLAGS, SOURCES, Source

__all__ = [
    "DEFAULT_BASE_URL",
    "FLAGS",
    "SOURCES",
    "TOOLSETS",
    "Mode",
    "Resolved",
    "Settings",
    "Source",
    "config_dir",
    "is_loopback",
    "is_shared",
    "ledger_setting",
    "load",
    "resolve",
    "state_dir",
]
