"""Comparison of a new name with the slugs and names that exist. How Fastn makes a slug of a name is not documented."""

import unicodedata
from fnmatch import fnmatchcase
from functools import lru_cache

_SEPARATORS = frozenset(" -_.")
"""Characters that a slug drops or replaces by a hyphen."""


def same_name(new: str, existing: str) -> bool | None:
    """Return whether Fastn may take a new name or slug for an existing one; None if that is not known.

    Case, separators and forms of letters (`²`, `é`) are ignored. Characters beyond ASCII letters, digits and
    separators may become any text in a slug, or none.
    """
    if not _readings(new).isdisjoint(_readings(existing)):
        return True
    may_become = _may_become(_certain(new), "".join(_certain(existing)))
    return None if may_become else False


def _may_become(parts: tuple[str, ...], slug: str) -> bool:
    """Return whether a name of these certain parts may become a slug. Any text, or none, may stand between them."""
    if len(parts) == 1:
        return slug != "" and slug == parts[0]
    return fnmatchcase(slug, "*".join(parts))


@lru_cache(4096)
def _readings(name: str) -> frozenset[str]:
    """Return what a slug may be, without hyphens: all letters, only ASCII letters, or their ASCII forms."""
    plain = unicodedata.normalize("NFKD", name)
    readings = {_alphanumeric(text) for text in (name.casefold(), plain.casefold())}
    readings |= {_alphanumeric(text.encode("ascii", "ignore").decode().lower()) for text in (name, plain)}
    return frozenset(readings - {""})


def _alphanumeric(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


@lru_cache(4096)
def _certain(name: str) -> tuple[str, ...]:
    """Return the ASCII letters and digits of a name, split where another character may become any text."""
    parts = [""]
    for letter in name:
        if letter.isascii() and letter.isalnum():
            parts[-1] += letter.lower()
        elif letter not in _SEPARATORS:
            parts.append("")
    return tuple(parts)
