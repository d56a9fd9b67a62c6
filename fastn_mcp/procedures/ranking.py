"""Rank resources by how well their names match a query.

    score = 100 * coverage * (1 - BREVITY_PENALTY * unasked) - REWORDING_PENALTY, or 100 if the query is the name

- `coverage` is the share of the query that a name has. Each word counts by its rarity among the names, times the
  confidence that it means a word of the name: its own, a part of it, or one that differs in a few letters. Digits do
  not differ: `order2` is not `order3`. Words of its kind, and of what the resource belongs to, count too, but less.
- `unasked` is the share of the name that the query does not have. Each word counts by its rarity.
- A name that the query contains as it is has no REWORDING_PENALTY, and is a match whatever its score.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from fastn_mcp.account.entries import Entry

# Points of the score.
EXACT_MATCH = 100  # the query is the name or id
ID_PART = 90  # the query has a part of an id
MIN_MATCH = 42  # the lowest of a match, unless the query contains the name as it is
MIN_SUGGESTION = 18  # the lowest of a name that is suggested if there is no match
REWORDING_PENALTY = 4
TIE_MARGIN = 3  # below the best: equally good
CUTOFF_MARGIN = 20  # below the best: dropped
BREVITY_PENALTY = 0.16  # share of the points

# Confidence that a word of the query means a resource.
PLURAL = 0.97
KIND = 0.85  # a word for its kind
SIMILAR = 0.7  # the lowest of a misspelt word, or of a part of one
OWNED = 0.7  # a word of what it belongs to
POSSIBLE = 0.5  # a word of what it may belong to

# Weight of a word. It is 1 if a single name has it.
KIND_WEIGHT = 0.4  # at most, of all words for a kind
UNKNOWN_WEIGHT = 0.5  # no name has it

_MAX_WORDS = 12  # of a query
_MAX_JOINED = 3  # words that match as one, without the spaces
_MAX_LETTERS = 200  # of a name that is indexed
_MAX_NEAR = 3  # names that are suggested
_MIN_PART = 4  # letters of a part of a word or id; 2 of a word where a letter is a syllable
_MIN_BEGINNING = 3  # letters of its beginning; 2 likewise

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_POSSESSIVE = re.compile(r"['\u2019]s\b")
_BREAK = re.compile(r"[\W_]+")
_IGNORED = re.compile(
    r"@\S*|\b(last|this|past|previous)\s+(night|morning|afternoon|evening|weekend|week|month|year|day|hour)\b"
    r"|\bapi\s+(?=keys?\b)",
    re.IGNORECASE,
)
"""The domain of an email address, times like "last week", "API" before "key": a name may have the words by chance."""

_EMPTY_WORDS = """
a an the this that these those of for from in into on at to by with and or is are was were be been do does did not no
why what which who whom whose when where how has have had can could should would will may might it its i me my we us
our you your they their there please show tell give find look see get about called named name id if so any all just
again still as whether so but
"""
_CIRCUMSTANCE_WORDS = """
last night yesterday today tomorrow morning evening week month day hour now recent recently latest fail failed fails
failing failure error errors broken broke break breaks stop stopped stuck wrong happened happen problem issue working
work works run runs ran running fix check list up times timed timing timeout out slow slowly hang hangs crash crashed
change changed changes update create delete remove revoke rotate rename replace disable enable activate deactivate start
restart switch turn off set make add invite onboard offboard connect disconnect reconnect build use uses used using need
before after afterwards while first then only arrive arrives arrived arriving come comes coming missing active inactive
disabled expired expire expires expiring soon unused
"""
UNFINISHED = frozenset(["draft", "drafts", "unpublished", "pending", "invited", "activated", "activation"])
"""Words that may mean a workflow that was never published, or a customer that is not active yet."""

_EMPTY = frozenset(_EMPTY_WORDS.split())
"""Words that say nothing about the resource."""

_CIRCUMSTANCES = frozenset(_CIRCUMSTANCE_WORDS.split()) | UNFINISHED
"""Words about what happened, which are ignored unless a name contains them."""

_KIND_WORDS = {
    "customer": "customer tenant account client company",
    "workflow": "workflow flow sync automation integration pipeline job",
    "connector": "connector app integration",
    "connection": "connection credential",
    "trigger": "trigger schedule scheduler webhook cron pause paused resume every",
    "user": "user person colleague member",
    "role": "role permission",
    "api_key": "key apikey",
    "secret": "secret token",
}
"""Words that mean a kind, or are done with it only. If scores are equal, the first kinds come first."""

Words = tuple[str, ...]
Match = tuple[float, Words]
"""Confidence that a word means a resource, and the matching words of its name; none if only an owner's name matches."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Resource that a query may mean; `score` is 0-100."""

    entry: Entry
    score: int
    lacking: Words = ()
    """The words searched for that it lacks, without words that mean a kind or what happened."""
    is_verbatim: bool = True
    """Whether the query contains its name as it is."""

    @property
    def key(self) -> tuple[str, str]:
        return self.entry.kind, self.entry.id or self.entry.name


class Ranking(NamedTuple):
    """All resources that a query may mean, best first."""

    candidates: Sequence[Hit]
    words: Mapping[str, bool]
    """The words searched for, without names of kinds, with whether a name has them: the rarest first."""
    is_about_kinds: bool
    """Whether it names kinds and nothing in them, for example `failed workflows`; a mere `workflow` may be a name."""

    def of(self, kinds: Collection[str], least: int = MIN_MATCH) -> list[Hit]:
        """Return the matches of these kinds. `least` is the lowest score of one unless it is verbatim."""
        hits = [hit for hit in self.candidates if hit.entry.kind in kinds]
        hits = [hit for hit in hits if hit.is_verbatim or hit.score >= least]
        return [hit for hit in hits if hit.score >= hits[0].score - CUTOFF_MARGIN]

    def near(self, kinds: Collection[str]) -> list[Entry]:
        """Return resources of these kinds to suggest if none matches."""
        hits = [hit for hit in self.candidates if hit.entry.kind in kinds and hit.score >= MIN_SUGGESTION]
        return [hit.entry for hit in hits[:_MAX_NEAR]]


def _order(hit: Hit) -> tuple[int, bool, int, str, str]:
    item = hit.entry
    return -hit.score, not hit.is_verbatim, [*_KIND_WORDS].index(item.kind), item.name.casefold(), item.id


def leaders(hits: Sequence[Hit]) -> list[Hit]:
    """Return the first hits, which are about equally good."""
    if not hits:
        return []
    best = hits[0].score
    least = best if best >= EXACT_MATCH else best - TIE_MARGIN
    return [*takewhile(lambda it: it.score >= least, hits)]


@lru_cache(maxsize=1024)
def kinds_of(word: str) -> frozenset[str]:
    """Return the kinds that a word names, in the singular or with an s."""
    return frozenset(kind for kind, words in _KIND_WORDS.items() if {word, word.removesuffix("s")} & {*words.split()})


def kinds_in(query: str) -> set[str]:
    """Return the kinds that the words of a query name."""
    return {kind for word in words_of(query) for kind in kinds_of(word)}


@lru_cache(maxsize=32_768)
def words_of(text: str) -> Words:
    """Return the words of a name or a query, without case and accents: `HubSpot of Müller` is (hub spot of muller)."""
    decomposed = unicodedata.normalize("NFKD", text[:_MAX_LETTERS])
    plain = _POSSESSIVE.sub("", "".join(letter for letter in decomposed if not unicodedata.combining(letter)))
    return tuple(word.casefold() for word in _BREAK.split(_CAMEL.sub(" ", plain)) if word)


@lru_cache(maxsize=32_768)
def units(words: Words) -> Mapping[str, Words]:
    """Return the words, and neighbours joined to one, each with the words that it is made of."""
    joins = (words[first : first + size] for first in range(len(words)) for size in range(1, _MAX_JOINED + 1))
    return {"".join(joined): joined for joined in joins}


class Index:
    """Index of all names by their words."""

    def __init__(
        self, entries: Sequence[Entry], owners: Callable[[Entry], Mapping[str, bool]] = lambda _: {}, unread: int = 0
    ) -> None:
        """`owners` gives the names of what an entry belongs to, or may belong to, each with whether that is certain.

        `unread` is how many more entries there are in the account.
        """
        self._names: list[tuple[Entry, Words]] = []
        self._holding: defaultdict[str, dict[int, Match]] = defaultdict(dict)
        """By word: numbers of the names that have it, or belong to what has it."""
        self._keys = [(key.casefold(), entry) for entry in entries for key in (entry.id, *entry.emails) if key]
        for entry in entries:
            of = {name: OWNED if is_certain else POSSIBLE for name, is_certain in owners(entry).items()}
            owned = {unit: (sure, ()) for name, sure in of.items() for unit in units(words_of(name))}
            names = [words_of(name) for name in (entry.name, *entry.also)]
            for words in dict.fromkeys(words for words in names if words):
                for unit, match in (owned | {unit: (1.0, parts) for unit, parts in units(words).items()}).items():
                    self._holding[unit][len(self._names)] = match
                self._names.append((entry, words))
        self._vocabulary = [*self._holding]
        self._size = len(entries) + unread
        self.rank = lru_cache(maxsize=16)(self._rank)  # one search ranks the same words several times

    def _rank(self, query: str) -> Ranking:
        """Rank the resources that `query` may mean."""
        words = self._searched(words_of(_IGNORED.sub(" ", query)) or words_of(query))
        weights: dict[str, float] = {}
        matches: defaultdict[int, dict[str, Match]] = defaultdict(dict)
        for unit, parts in units(words).items():
            meanings = _meanings(unit, self._vocabulary, is_joined=len(parts) > 1)
            if len(parts) == 1:
                weights[unit] = self._weight(unit, meanings)
            elif unit in self._holding:  # the words of one name share its weight
                weights |= dict.fromkeys(parts, self._rarity([unit]) / len(parts))
            for meaning, likeness in meanings.items():
                for number, (sure, covered) in self._holding[meaning].items():
                    match = likeness * sure, covered
                    for part in parts:
                        matches[number][part] = max(matches[number].get(part, match), match, key=lambda it: it[0])
        kinds_named = [kinds_of(word) for word in weights]
        named = Counter(kinds for kinds in kinds_named if kinds)
        weights = {word: weight / named.get(kinds_of(word), 1) for word, weight in weights.items()}
        by_name = (self._hit(query, weights, *self._names[number], match) for number, match in matches.items())
        hits: dict[tuple[str, str], Hit] = {}
        by_id = [*self._by_id(query)]
        is_email = any(query.strip().casefold() in map(str.casefold, hit.entry.emails) for hit in by_id)
        for hit in sorted(by_id if is_email else (*by_id, *by_name), key=_order):
            if hit.score >= EXACT_MATCH or not is_email:  # names only share letters with it
                hits.setdefault(hit.key, hit)
        searched = {word: word in self._holding for word in weights if not kinds_of(word)}
        is_about_kinds = bool(named) and not searched and not all(map(kinds_of, words_of(query)))
        by_rarity = sorted(searched.items(), key=lambda it: (it[1], -weights[it[0]]))
        return Ranking([*hits.values()], dict(by_rarity), is_about_kinds)

    def _searched(self, words: Words) -> Words:
        """Return the words of a query that may say what is meant; all of them if none does."""
        meaningful = tuple(word for word in words if word not in _EMPTY)
        subject = tuple(word for word in meaningful if word not in _CIRCUMSTANCES or word in self._holding)
        return (subject or meaningful or words)[:_MAX_WORDS]

    def _weight(self, word: str, meanings: Mapping[str, float]) -> float:
        """Return the weight of a word of the query: the rarity of what it most surely means."""
        surest = max(meanings.values(), default=0.0)
        likely = [unit for unit, sure in meanings.items() if sure == surest]
        weight = self._rarity(likely) if likely else UNKNOWN_WEIGHT
        return min(weight, KIND_WEIGHT) if kinds_of(word) else weight

    def _rarity(self, words: Iterable[str]) -> float:
        count = sum(len(self._holding[word]) for word in words)
        return math.log(1 + self._size / count) / math.log(1 + self._size)

    def _hit(
        self, query: str, weights: Mapping[str, float], entry: Entry, name: Words, matches: Mapping[str, Match]
    ) -> Hit:
        asked = words_of(query)
        sure = {word: KIND for word in weights if entry.kind in kinds_of(word)}
        sure |= {word: max(sure.get(word, 0.0), confidence) for word, (confidence, _) in matches.items()}
        coverage = sum(weights[word] * confidence for word, confidence in sure.items()) / sum(weights.values())
        is_verbatim = f" {' '.join(name)} " in f" {' '.join(asked)} "
        covered = {*name} if is_verbatim else {word for _, parts in matches.values() for word in parts}
        rarities = {word: self._rarity([word]) for word in name}
        unasked = sum(rarity for word, rarity in rarities.items() if word not in covered) / sum(rarities.values())
        score = round(EXACT_MATCH * coverage * (1 - BREVITY_PENALTY * unasked))
        if not is_verbatim:
            score -= REWORDING_PENALTY
        most = EXACT_MATCH if name == asked else EXACT_MATCH - 1
        lacking = (word for word in weights if word not in sure and not kinds_of(word) and word not in _CIRCUMSTANCES)
        return Hit(entry, min(score, most), tuple(lacking), is_verbatim)

    def _by_id(self, query: str) -> Iterable[Hit]:
        """Yield each resource whose id or email, or a part of it, is in the query."""
        typed = [word.strip(".,;!?\"'()").casefold() for word in query.split()]
        # Plain words match many ids by chance.
        parts = [word for word in typed if len(word) >= _MIN_PART and not word.isalpha()]
        for key, entry in self._keys:
            if key in (query.strip().casefold(), *parts):
                yield Hit(entry, EXACT_MATCH)
            elif any(part in key for part in parts):
                yield Hit(entry, ID_PART)


def _meanings(word: str, vocabulary: Collection[str], *, is_joined: bool) -> dict[str, float]:
    """Return the words of `vocabulary` that a word may mean, with the confidence from 0 to 1."""
    from rapidfuzz.distance import OSA  # imported late: only searches need it
    from rapidfuzz.process import extract

    size = len(word)
    digits = _digits(word)
    shortest, shortest_beginning = (_MIN_PART, _MIN_BEGINNING) if word.isascii() else (2, 2)
    parts = (other for other in vocabulary if word in other and (size >= shortest or other.startswith(word)))
    meant = {other: SIMILAR + (1 - SIMILAR) * size / len(other) for other in parts if size >= shortest_beginning}
    # Letters that may be wrong, missing, added or swapped with the next; one of joined words.
    least = max(SIMILAR, 1 - 1 / size) if is_joined else SIMILAR
    for other, likeness, _ in extract(
        word, vocabulary, scorer=OSA.normalized_similarity, score_cutoff=least, limit=None
    ):
        is_plural = word != other and word.rstrip("s") == other.rstrip("s")
        meant[other] = PLURAL if is_plural else max(meant.get(other, 0.0), likeness)
    return {other: sure for other, sure in meant.items() if digits in ("", _digits(other))}


def _digits(word: str) -> str:
    return "".join(filter(str.isdigit, word))
