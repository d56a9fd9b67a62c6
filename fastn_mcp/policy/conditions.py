"""Patterns, bounds and values that policy rules and plans compare a call with."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import cast
from urllib.parse import urlsplit

from fastn_mcp.account.resolved_call import Effective, ResolvedCall
from fastn_mcp.policy.asker import LOCAL, Asker
from fastn_mcp.redaction import name_as_read, quote
from fastn_mcp.tools.operation import plain


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern of `*`, `?` and `[...]`."""

    text: str

    def __call__(self, value: object, *, exact: bool) -> bool:
        """Return whether the pattern matches a text, or an id that is a number.

        Rules that allow match exactly. Rules that refuse or ask match any text that reads the same: case, width,
        invisible characters and surrounding blanks are ignored. A value with `*` and without blanks is a pattern
        itself, such as the permission `users:*`, and matches if both cover the same text.
        """
        if isinstance(value, bool) or not isinstance(value, str | int):
            return False
        text = str(value)
        if exact:
            return fnmatchcase(text, self.text)
        as_read = name_as_read(text)
        pattern = name_as_read(self.text)
        is_name = as_read == pattern  # a name may have brackets
        if is_name or fnmatchcase(text.casefold(), self.text.casefold()) or fnmatchcase(as_read, pattern):
            return True
        if "*" not in as_read or any(map(str.isspace, as_read)):
            return False
        return len(as_read) > _MAX_PATTERN or _overlap(pattern, as_read)

    def is_word(self, value: object) -> bool:
        """Return whether the pattern matches a documented value, however it is written: `FULL_ACCESS`."""
        pattern = self.text.casefold() if "[" in self.text else _joined(self.text)
        return isinstance(value, str) and fnmatchcase(_joined(value), pattern)

    def __str__(self) -> str:
        return self.text


_MAX_PATTERN = 256
"""Maximum length of a value that is compared as a pattern. A longer one counts as a match."""

_ANY_OF = re.compile(r"\[!?\]?[^\]]*\]")


def _overlap(rule: str, value: str) -> bool:
    """Return whether a text can match both the pattern of a rule and a value in which `*` is any text."""
    rule = _ANY_OF.sub("?", rule)
    # `matches[n]`: whether what was read of the rule can match the first n characters of the value.
    matches = [not value[:n].strip("*") for n in range(len(value) + 1)]
    for expected in rule:
        before = matches
        matches = [matches[0] and expected == "*"]
        for n, each in enumerate(value, 1):
            if "*" in (expected, each):
                matches.append(before[n] or matches[n - 1])
            else:
                matches.append(before[n - 1] and expected in (each, "?"))
    return matches[-1]


def _joined(text: str) -> str:
    """Return a text as it reads, without separators."""
    return plain(name_as_read(text)).replace(" ", "")


@dataclass(frozen=True, slots=True)
class UserCount:
    """Bounds on the number of dependents of the target."""

    least: int | None
    most: int | None

    def hold(self, dependents: int | None, *, if_unknown: bool) -> bool:
        if dependents is None:
            return if_unknown
        return (self.least is None or dependents >= self.least) and (self.most is None or dependents <= self.most)

    def __str__(self) -> str:
        parts = [f"{word} {n}" for word, n in (("at least", self.least), ("at most", self.most)) if n is not None]
        return f"dependents {' and '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Allowed values of an argument. An empty text matches an argument that was not given."""

    options: tuple[Glob | int, ...]

    def __call__(self, value: object, *, exact: bool) -> bool:
        """Return whether the value matches: every item of a list if `exact`, else any item, as it reads."""
        if value is None or (value == [] and not exact):
            return any(isinstance(option, Glob) and not option.text for option in self.options)
        if isinstance(value, list):
            items = [part for item in cast("list[object]", value) for part in _parts(item, exact)]
            fits = [self._one(item, exact) for item in items]
            return bool(fits) and (all(fits) if exact else any(fits))
        return self._one(value, exact)

    def is_word(self, value: object) -> bool:
        """Return whether the value, or an item of a list, is one of the options, however it is written."""
        items: list[object] = [value]
        if isinstance(value, list):
            items = cast("list[object]", value)
        return any(option.is_word(item) for option in self.options if isinstance(option, Glob) for item in items)

    def _one(self, value: object, exact: bool) -> bool:
        return any(
            option(value, exact=exact) if isinstance(option, Glob) else type(value) is int and option == value
            for option in self.options
        )

    def __str__(self) -> str:
        return " or ".join(str(option) or "not given" for option in self.options)


def _parts(item: object, exact: bool) -> list[object]:
    """Return the items of a list that one text of it may be to a server. Spaces around them count if `exact`."""
    if not isinstance(item, str):
        return [item]
    parts = item.split(",")
    return [*parts] if exact else [part.strip() for part in parts]


def host_of(domain: object) -> str | None:
    """Return the host of a domain that may be written as a URL; None if there is none."""
    with suppress(ValueError):
        text = _SCHEME.sub("//", str(domain or "").replace("\\", "/"))  # as a URL parser reads it
        return (urlsplit(text).hostname or "").rstrip(".") or None
    return None


def is_host(domain: object) -> bool:
    """Return whether a domain is nothing but a host, to whatever parses it."""
    return domain is None or (domain == host_of(domain) and _HOST.fullmatch(str(domain)) is not None)


_SCHEME = re.compile(r"^\s*(?:https?:|[a-z][a-z\d+.-]*:(?=/))?/*", re.IGNORECASE)
"""What precedes the host: a scheme, with any number of slashes."""

_HOST = re.compile(r"[\w.-]+")


DERIVED: Mapping[str, Callable[[ResolvedCall], Effective]] = {
    "environment": lambda resolved: resolved.environment,
    "customer_id": lambda resolved: resolved.customer,
}
"""Conditions of `when` that hold for the value that a request will have, wherever it comes from, by the argument."""

NAME = "name"
NEW_NAME = "new_name"
"""Conditions of `when` on the name of the target, or of what is created, and on the name that an update gives."""


@dataclass(frozen=True, slots=True)
class Who:
    """Conditions on who asks with which client, by the names of `FACTS`: one pattern of each has to match."""

    facts: Mapping[str, tuple[Glob, ...]] = field(default_factory=dict[str, tuple[Glob, ...]])

    def match(self, asker: Asker, *, exact: bool) -> str | None:
        """Return what fulfils the conditions, in words; None if they do not hold.

        If `exact`, for what loosens, only verified values count; else an unknown fact fulfils its condition.
        """
        fulfilled: list[str] = []
        for fact, globs in self.facts.items():
            values = asker.values(fact, verified=exact)
            value = next((each for each in values for glob in globs if glob(each, exact=exact)), None)
            if (value) is not None:
                fulfilled.append(f"the {fact.replace('_', ' ')} is {quote(value)}")
                continue
            # A principal is known wherever there is a sign-in, whatever names that has.
            is_principal = fact == "person" and all("|" in glob.text for glob in globs) and asker.principal != LOCAL
            if exact or is_principal or asker.knows(fact):
                return None
            why = ", because there is no sign-in" if asker.principal == LOCAL and fact != "client_name" else ""
            fulfilled.append(f"the {fact.replace('_', ' ')} is not known{why}")
        return "; ".join(fulfilled)

    def __str__(self) -> str:
        return " and ".join(f"{fact} {' or '.join(map(str, globs))}" for fact, globs in self.facts.items())


ANYBODY = Who()
