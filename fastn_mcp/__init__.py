"""MCP server to administer Fastn safely from an agent."""

__version__ = "0.1.0"

IS_PUBLISHED = False
"""Whether `fastn-mcp` is in the package registry. Decides whether it is fetched by that name: in links and `--uvx`,
the hint of `server.json`, commands that install an extra, and the README (`make surface`)."""


def install_extra(name: str) -> str:
    """Return the command that installs an extra of this package."""
    return (
        f"pip install 'fastn-mcp[{name}]'" if IS_PUBLISHED else f"pip install '.[{name}]' in a clone of the repository"
    )
