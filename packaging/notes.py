"""The notes of a release, which are its section of the changelog: `notes.py TAG`. Refuses what is not ready."""

import re
import sys
from datetime import date
from pathlib import Path

from fastn_mcp import __version__

CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"
HEADING = re.compile(r"^## \[(?P<version>[^\]\n]+)\](?: - (?P<date>\S+))?[ \t]*$", re.MULTILINE)


def notes(changelog: str, version: str) -> str:
    """The section of a version, without its heading. Raises `ValueError`, which says what to do."""
    sections = list(HEADING.finditer(changelog))
    released = [section for section in sections if section["version"] != "Unreleased"]
    matching = [section for section in released if section["version"] == version]
    if len(matching) != 1:
        raise ValueError(f"it has {len(matching) or 'no'} sections [{version}]; name what is under [Unreleased] so")
    section = matching[0]
    if section != released[0]:
        raise ValueError(f"[{released[0]['version']}] stands above [{version}]; the newest has to come first")
    try:
        date.fromisoformat(section["date"] or "")
    except ValueError:
        raise ValueError(f"[{version}] has no date; write: ## [{version}] - YEAR-MONTH-DAY") from None
    following = next((other.start() for other in sections if other.start() > section.end()), len(changelog))
    text = changelog[section.end() : following].strip()
    if not re.search(r"^- ", text, re.MULTILINE):
        raise ValueError(f"[{version}] says nothing")
    return text + "\n"


def main(tag: str) -> None:
    if tag != f"v{__version__}":
        sys.exit(f"The tag {tag} is not that of the package: v{__version__}. Set it in fastn_mcp/__init__.py.")
    try:
        text = notes(CHANGELOG.read_text(encoding="utf-8"), __version__)
    except ValueError as error:
        sys.exit(f"CHANGELOG.md: {error}.")
    sys.stdout.write(text)


if __name__ == "__main__":
    main(sys.argv[1])
