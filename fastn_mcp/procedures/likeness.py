"""How much a word that somebody typed is like a word of a name. Pure. The only module that uses rapidfuzz.

A word is like another if it is the same, its beginning, a part of it, or the same but for a few letters; digits are
never misspelt, for `order2` and `order3` are different things.
"""

from collections.abc import Sequence

_LEAST_PART = 4
"""Letters of a word that are looked for inside of others; two where a letter is a word or a syllable."""

_LEAST_LIKE = 0.6


def alike(word: str, others: Sequence[str]) -> dict[str, float]:
    """The words of `others` that `word` may mean, each with how sure that is, from 0 to 1."""
    from rapidfuzz.distance import OSA  # only who looks for something pays for loading it
    from rapidfuzz.process import extract

    found = _holding(word, others)
    digits = _digits(word)
    for other, likeness, _ in extract(
        word, others, scorer=OSA.normalized_similarity, score_cutoff=_LEAST_LIKE, limit=None
    ):
        longer = max(len(word), len(other))
        edits = round((1 - likeness) * longer)
        if not edits:
            found[other] = 1.0
        elif word.rstrip("s") == other.rstrip("s"):
            found[other] = 0.97
        elif edits <= _edits(longer) and digits == _digits(other):
            sure = likeness if word[0] == other[0] else likeness - 0.05
            found[other] = max(found.get(other, 0.0), sure)
    return found


def nearest(text: str, names: Sequence[str], at_most: int) -> list[str]:
    """The names that are a little like `text`, the best first."""
    from rapidfuzz.fuzz import ratio
    from rapidfuzz.process import extract

    best = extract(text, names, scorer=ratio, processor=str.casefold, score_cutoff=55, limit=at_most)
    return [name for name, _, _ in best]


def _holding(word: str, others: Sequence[str]) -> dict[str, float]:
    """Those that begin with `word`, or hold it."""
    size = len(word)
    if size < 2:
        return {}
    least = _LEAST_PART if word.isascii() else 2
    if size < least:
        return {other: _begun(size, other) for other in others if other.startswith(word)}
    return {
        other: _begun(size, other) if other.startswith(word) else 0.5 + 0.3 * size / len(other)
        for other in others
        if word in other
    }


def _begun(size: int, other: str) -> float:
    return 0.65 + 0.3 * size / len(other)


def _edits(letters: int) -> int:
    """How many letters may be wrong, missing, too many or swapped with the next."""
    return 0 if letters < 4 else 1 if letters < 6 else 2 if letters < 10 else 3


def _digits(word: str) -> str:
    return "".join(letter for letter in word if letter.isdigit())
