"""The texts of the files that a test has left."""

from pathlib import Path


def files(folder: Path) -> dict[str, str]:
    """Return the text of every file in the folder, by its path."""
    return {str(path): path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()}
