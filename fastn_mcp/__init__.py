"""Administer Fastn from an agent, safely."""

__version__ = "0.1.0"

IS_PUBLISHED = False
"""Whether the package registry has `fastn-mcp`. Decides what tells people to fetch it by that name: links and `--uvx`,
the hint of `server.json`, commands that install an extra, and the README (`make surface`)."""


def install_extra(name: str) -> str:
    """The command that installs an extra of this package."""
    return (
        f"pip install 'fastn-mcp[{name}]'" if IS_PUBLISHED else f"pip install '.[{name}]' in a clone of the repository"
    )
