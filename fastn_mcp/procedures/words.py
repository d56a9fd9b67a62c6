"""Names and questions as words. Pure: no I/O, no clock."""

import re
import unicodedata
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
class Question:
    """What is looked for. `words` hold no stop words; `whole` is everything, run together."""

    words: tuple[str, ...]
    whole: frozenset[str]

    def hint(self, place: int) -> frozenset[str]:
        """The kinds that a word names."""
        return kinds(self.words[place])


def kinds(word: str) -> frozenset[str]:
    return KINDS.get(word) or KINDS.get(word.removesuffix("s")) or frozenset()


def question(text: str, in_names: frozenset[str]) -> Question:
    """What `text` asks for; `in_names` are the words of all names. No words where it holds none."""
    said = [word for part in parts(_WHEN.sub(" ", text)) or parts(text) for word in part]
    telling = [word for word in said if word not in STOP]
    kept = [word for word in telling if word not in CIRCUMSTANCES or word in in_names]
    words = tuple((kept or telling or said)[:MOST_WORDS])
    return Question(words, frozenset({"".join(said), "".join(words)}))


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
