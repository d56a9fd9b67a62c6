"""MCP server to administer Fastn safely from an agent."""

import sys
from pathlib import PurePath

__version__ = "0.1.0"

IS_PUBLISHED = False
"""Whether `fastn-mcp` is in the package registry. Decides whether it is fetched by that name: in links and `--uvx`,
the hint of `server.json`, commands that install an extra, and the README (`make surface`)."""


def install_extra(name: str, prefix: str = sys.prefix) -> str:
    """Return the command that installs an extra of this package into the environment at `prefix`."""
    package = f"'{'fastn-mcp' if IS_PUBLISHED else '.'}[{name}]'"
    folders = PurePath(prefix).parts
    if "pipx" in folders:
        command = f"pipx install --force {package}"
    elif "uv" in folders and "tools" in folders:
        command = f"uv tool install {package}"
    elif "uv" in folders:
        command = f"uvx --from {package} fastn-mcp"
    else:
        command = f"pip install {package}"
    return command if IS_PUBLISHED else f"{command} in a clone of the repository"
