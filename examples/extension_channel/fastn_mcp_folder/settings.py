"""The table [extensions.folder]."""

from pathlib import Path

from pydantic import Field

from fastn_mcp.config.model import Settings
from fastn_mcp.config.sections import ChannelSection


class FolderSection(ChannelSection):
    path: Path = Field(description="Folder of the requests and answers, which only its owner can open.")


section = FolderSection


def folder_of(settings: Settings) -> Path:
    """Return the folder of an account that uses this channel."""
    folder = settings.extensions["folder"]
    assert isinstance(folder, FolderSection)
    return folder.path.expanduser()
