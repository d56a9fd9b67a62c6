"""A query and names as words: tokens, joined words and similarity.

A word is like another if it is the same, its beginning, a part of it, or the same but for a few letters; digits are
never misspelt, for `order2` and `order3` are different things.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

LONGEST_NAME = 200
"""Characters of a name that are looked at."""

MOST_WORDS = 12
"""Words of a question that are looked for."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_POSSESSIVE = re.compile(r"['\u2019]s\b")
_BREAK = re.compile(r"[\W_]+")
_PART = re.compile(r"\s[/|>]\s")
_WHEN = re.compile(
    r"\b(last|this|past|previous)\s+(night|morning|afternoon|evening|weekend|week|month|year|day|hour)\b", re.IGNORECASE
)
"""When something happened. Its words may stand in a name, where they mean something else."""

_STOP = """
a an the this that these those of for from in into on at to by with and or is are was were be been do does did not no
why what which who whom whose when where how has have had can could should would will may might it its i me my we us
our you your they their there please show tell give find look see get about called named name id if so any all just
again still
"""
_CIRCUMSTANCES = """
last night yesterday today tomorrow morning evening week month day hour now recent recently latest fail failed fails
failing failure error errors broken broke break breaks stop stopped stuck wrong happened happen problem issue working
work works run runs ran running fix check list up times timed timing timeout out slow slowly hang hangs crash crashed
"""

STOP = frozenset(_STOP.split())
"""Words that say nothing of what is looked for."""

CIRCUMSTANCES = frozenset(_CIRCUMSTANCES.split())
"""Words that tell what happened rather than to what; unless they stand in a name."""

KINDS: dict[str, frozenset[str]] = {
    word: frozenset(kinds.split())
    for word, kinds in {
        "workflow": "workflow",
        "flow": "workflow",
        "sync": "workflow",
        "automation": "workflow",
        "integration": "workflow connector",
        "pipeline": "workflow",
        "job": "workflow",
        "customer": "customer",
        "tenant": "customer",
        "account": "customer",
        "client": "customer",
        "company": "customer",
        "connector": "connector",
        "app": "connector",
        "connection": "connection",
        "credential": "connection",
        "trigger": "trigger",
        "schedule": "trigger",
        "scheduler": "trigger",
        "webhook": "trigger",
        "cron": "trigger",
        "user": "user",
        "person": "user",
        "colleague": "user",
        "member": "user",
        "role": "role",
        "permission": "role",
        "key": "api_key",
        "secret": "secret",
        "token": "secret",
    }.items()
}
"""Words that name a kind. They are looked for in names all the same."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is looked for. `words` hold no stop words; `whole` is everything, run together."""

    words: tuple[str, ...]
    whole: frozenset[str]

    def hint(self, place: int) -> frozenset[str]:
        """The kinds that a word names."""
        return kinds(self.words[place])


def kinds(word: str) -> frozenset[str]:
    return KINDS.get(word) or KINDS.get(word.removesuffix("s")) or frozenset()


def question(text: str, in_names: frozenset[str]) -> SearchQuery:
    """What `text` asks for; `in_names` are the words of all names. No words where it holds none."""
    said = [word for part in parts(_WHEN.sub(" ", text)) or parts(text) for word in part]
    telling = [word for word in said if word not in STOP]
    kept = [word for word in telling if word not in CIRCUMSTANCES or word in in_names]
    words = tuple((kept or telling or said)[:MOST_WORDS])
    return SearchQuery(words, frozenset({"".join(said), "".join(words)}))


@lru_cache(maxsize=32_768)
def parts(text: str) -> tuple[tuple[str, ...], ...]:
    """The words of each part of a name, without case and accents: `Acme Corp / HubSpot` is (acme corp) (hub spot)."""
    plain = "".join(
        letter for letter in unicodedata.normalize("NFKD", text[:LONGEST_NAME]) if not unicodedata.combining(letter)
    )
    split = (_words(part) for part in _PART.split(_POSSESSIVE.sub("", plain)))
    return tuple(part for part in split if part)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in _BREAK.split(_CAMEL.sub(" ", text)) if word)


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


JOINED = 3
"""Words that may be one without their spaces."""

Span = tuple[int, int]
"""The first word of a question and the one after the last, which are read as one."""

Match = tuple[float, int]
"""How sure it is that a span means words of a name, from 0 to 1, and the bits of these words."""


@lru_cache(maxsize=32_768)
def units(name: str) -> tuple[tuple[str, int], ...]:
    """The words of a name and their joins, each with the bits of the words that it covers."""
    found: list[tuple[str, int]] = []
    offset = 0
    for part in parts(name):
        for first, last in spans_of(part):
            found.append(("".join(part[first:last]), ((1 << last - first) - 1) << offset + first))
        offset += len(part)
    return tuple(found)


def spans_of(words: Sequence[str]) -> list[Span]:
    size = len(words)
    return [(first, last) for first in range(size) for last in range(first + 1, min(first + JOINED, size) + 1)]


def better(spans: dict[Span, Match], span: Span, sure: float, covered: int) -> None:
    if span not in spans or (sure, covered) > spans[span]:
        spans[span] = (sure, covered)


def best_reading(spans: dict[Span, Match], weights: list[float]) -> tuple[float, int, int]:
    """The most that the words of a question say of a name, each read once; the bits of the words that both have."""
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for end in range(1, len(weights) + 1):
        most = best[end - 1]
        for first in range(max(0, end - JOINED), end):
            if (match := spans.get((first, end))) is not None:
                value, covered, read = best[first]
                value += match[0] * sum(weights[first:end])
                most = max(most, (value, covered | match[1], read | (1 << end) - (1 << first)))
        best.append(most)
    return best[-1]
