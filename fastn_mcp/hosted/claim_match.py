"""Conditions on the claims of a token, by which the team file recognises who signed in."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, Field

from fastn_mcp.config.strict_toml import ONE_OR_MORE, STRICT
from fastn_mcp.errors import nearest
from fastn_mcp.guard.caller import ALL_SCOPES, READ


def pattern_matches(pattern: str, value: object) -> bool:
    """Whether a claim matches a pattern, in which `*` is any text. A boolean claim is `true` or `false`.

    Unlike the policy's patterns, `?` and brackets are literal and case matters.
    """
    text = claim_text(value)
    # Its expressions do not backtrack, since the author of a claim chooses its text.
    return text is not None and fnmatchcase(text, re.sub(r"[?[]", r"[\g<0>]", pattern))


def claim_text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int)) else None


def claim_values(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _any_matches(patterns: list[str], value: object) -> bool:
    return any(pattern_matches(pattern, each) for each in claim_values(value) for pattern in patterns)


def require(holds: Callable[[Any], object], problem: str) -> AfterValidator:
    """Return a validator of what `holds` accepts."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def one_of(kind: str, known: Collection[str]) -> AfterValidator:
    """Return a validator of names of this kind."""

    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}{nearest(name, known)}; use any of {', '.join(known)}")
        return name

    return AfterValidator(check)


NOT_EMPTY = Field(min_length=1)
Text = Annotated[str, require(str.strip, "must be a non-empty text")]
Texts = Annotated[list[Text], ONE_OR_MORE, NOT_EMPTY]
_CAN_READ = require(lambda scopes: READ in scopes, f"must include {READ}, which every call needs")
Scopes = Annotated[list[Annotated[str, one_of("scope", ALL_SCOPES)]], ONE_OR_MORE, _CAN_READ]
_EXACT = require(
    lambda subjects: "*" not in "".join(subjects), 'they are exact; for a pattern, give claims = { sub = "..." }'
)
IndexKey = tuple[str, str]


def has_unverified_email(claims: Mapping[str, Any]) -> bool:
    """Return whether the provider says that it has not verified the email address."""
    return claims.get("email_verified") in (False, "false")


class Match(BaseModel):
    """Conditions on the claims of a token. One value of each given kind has to match, and every kind has to.

    An email address that the provider has not verified never matches, because anyone can enter it.
    """

    model_config = STRICT

    subjects: Annotated[Texts, _EXACT] | None = None
    groups: Texts | None = None
    claims: dict[str, Texts] = {}

    @cached_property
    def digest(self) -> str:
        """Digest of all that is matched and allowed. A changed rule has another."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def is_empty(self) -> bool:
        """Whether it has no conditions, so that everybody matches."""
        return not (self.subjects or self.groups or self.claims)

    def holds(self, claims: Mapping[str, Any], groups_claim: str) -> bool:
        return next(self.mismatches(claims, groups_claim), None) is None

    def mismatches(self, claims: Mapping[str, Any], groups_claim: str) -> Iterator[tuple[str, list[str]]]:
        """Yield the name of each claim that does not match, with its accepted patterns."""
        if self.subjects and claims.get("sub") not in self.subjects:
            yield "sub", self.subjects
        if self.groups and not _any_matches(self.groups, claims.get(groups_claim)):
            yield groups_claim, self.groups
        is_unverified = has_unverified_email(claims)
        for name, patterns in self.claims.items():
            if (name == "email" and is_unverified) or not _any_matches(patterns, claims.get(name)):
                yield name, patterns

    def index_keys(self) -> list[IndexKey | None]:
        """Return index keys, one of which every matching sign-in has. None: any sign-in may match."""
        if self.subjects:
            return [("subject", subject) for subject in self.subjects]
        if self.groups and not any("*" in group for group in self.groups):
            return [("group", group) for group in self.groups]
        return [None]
