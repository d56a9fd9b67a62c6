"""A team: accepted sign-ins, and which account serves whom.

The first tenant whose every condition holds serves a sign-in; where none does, nothing does.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from fastn_mcp.config.load import load
from fastn_mcp.config.model import SOURCES, Settings
from fastn_mcp.errors import SettingsError
from fastn_mcp.hosted.tokens import Trust

if TYPE_CHECKING:
    from fastn_mcp.hosted.inbox import Approvals

SECRETS = ("api_key", "webhook_secret")
"""What stands in no team file: it says where they are, as `api_key_file` or `api_key_env`."""

_PLACEHOLDER = "brought-by-the-caller"
_LONGEST_SECRET = 4096


def origin_of(url: str) -> str:
    """The scheme, the host and the port of an address, as a browser says where a page is from."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where the operator keeps a secret: a file, or a variable of the environment."""

    file: Path | None
    variable: str | None

    def read(self, environment: Mapping[str, str]) -> str:
        """The secret. Raises `SettingsError`, which says where it was looked for."""
        if self.file is None:
            variable = self.variable or ""
            if not (found := environment.get(variable, "")):
                raise SettingsError(f"The variable {variable} is not set.")
            return found
        try:
            with self.file.open(encoding="utf-8") as file:
                found = file.read(_LONGEST_SECRET).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{self.file} cannot be read: {type(error).__name__}.") from None
        if not found:
            raise SettingsError(f"{self.file} is empty.")
        return found


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text letter by letter, in which `*` is any text. Not the policy's: there `?`, brackets and case are lenient."""

    text: str
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        first, *rest = map(re.escape, self.text.split("*"))
        # Each part where it comes first, for good: whoever writes a claim chooses the text, and no search goes back.
        parts = [first, *(f"(?>.*?{part})" for part in rest[:-1]), *(f".*{part}" for part in rest[-1:])]
        object.__setattr__(self, "_pattern", re.compile("".join(parts), re.DOTALL))

    def __call__(self, value: object) -> bool:
        """Whether a claim is that; a flag is `true` or `false`."""
        text = _text(value)
        return text is not None and self._pattern.fullmatch(text) is not None


def _text(value: object) -> str | None:
    """A claim as patterns are held against it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int)) else None


@dataclass(frozen=True, slots=True)
class Match:
    """Whom a tenant serves. Of each kind one has to hold, and of every kind that is given."""

    subjects: frozenset[str]
    groups: tuple[Pattern, ...]
    claims: Mapping[str, tuple[Pattern, ...]]

    def holds(self, claims: Mapping[str, Any], groups_claim: str) -> bool:
        """Whether it is this sign-in that is meant, by the claims of its token."""
        if self.subjects and claims.get("sub") not in self.subjects:
            return False
        if self.groups and not _any(self.groups, claims.get(groups_claim)):
            return False
        return all(_any(wanted, claims.get(name)) for name, wanted in self.claims.items())

    def needs(self) -> "list[_Word | None]":
        """Words of which a sign-in has one, wherever this holds; None where no such words can be told."""
        if self.subjects:
            return [("subject", subject) for subject in self.subjects]
        if self.groups and not any("*" in group.text for group in self.groups):
            return [("group", group.text) for group in self.groups]
        return [None]


_Word = tuple[str, str]


def _any(wanted: tuple[Pattern, ...], value: object) -> bool:
    return any(pattern(one) for one in _several(value) for pattern in wanted)


def _several(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


@dataclass(frozen=True, slots=True)
class Tenant:
    """One account, and whom it serves. With `caller_keys` each of them brings the key of an account of their own."""

    name: str
    match: Match
    caller_keys: bool
    profile: str | None
    values: Mapping[str, object]
    """Settings, as the file has them."""
    secrets: Mapping[str, SecretRef]

    def settings(self, environment: Mapping[str, str], file: Path | None, key: str | None = None) -> Settings:
        """Its settings, with the key, which is `key` where callers bring it. Raises `SettingsError`.

        Settings in the environment count for none: what one variable says cannot be meant for every tenant. Where
        nothing says otherwise it only reads.
        """
        own = {source.variable for source in SOURCES}
        rest = {name: value for name, value in environment.items() if name not in own}
        values = dict(self.values)
        try:
            values |= {name: kept.read(environment) for name, kept in self.secrets.items()}
            if self.caller_keys:
                values["api_key"] = key or _PLACEHOLDER
            if self.profile is not None:
                values["profile"] = self.profile
            settings = load(values, rest, None if self.profile is None else file)
        except SettingsError as error:
            raise SettingsError(f"The tenant {self.name} cannot be served. {error.what}", error.next_step) from None
        if not {"mode", "read_only"} & settings.model_fields_set:
            settings = settings.model_copy(update={"mode": "read-only"})
        return settings if self.profile is not None else settings.model_copy(update={"profile": self.name})


@dataclass(frozen=True, slots=True)
class TeamLimits:
    """How much is taken in, and how much is done at once."""

    body: int = 1024 * 1024
    """Bytes of a request."""
    head: int = 16 * 1024
    """Bytes of its headers."""
    connections: int = 1000
    calls: int = 8
    """Calls of one tenant at the same time."""
    queue: int = 32
    """Calls of one tenant that wait for that."""
    patience: float = 30.0
    """Seconds that they wait."""
    tenants: int = 256
    """Accounts that are open at the same time."""
    idle: float = 900.0
    """Seconds after which one that nobody calls is closed."""
    drain: float = 0.0
    """Seconds between being told to stop, when it is no longer ready, and taking no more requests."""
    grace: float = 20.0
    """Seconds that calls in flight have from then on."""

    @property
    def requests(self) -> int:
        """Requests of one tenant at the same time: its calls, those that wait, and as many that are neither."""
        return 2 * (self.calls + self.queue)


@dataclass(frozen=True, slots=True)
class Team:
    """All that the team file says."""

    url: str
    """The address by which clients reach MCP here: what tokens are for."""
    trust: Trust
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    groups_claim: str
    bounds: TeamLimits
    tenants: tuple[Tenant, ...]
    approvals: "Approvals | None" = None
    _places: Mapping[_Word | None, list[int]] = field(init=False, repr=False, compare=False)
    """The tenants that need a word: a request looks at those of its own words, however many others there are."""

    def __post_init__(self) -> None:
        places: defaultdict[_Word | None, list[int]] = defaultdict(list)
        for number, tenant in enumerate(self.tenants):
            for word in tenant.match.needs():
                places[word].append(number)
        object.__setattr__(self, "_places", dict(places))

    def tenant_of(self, claims: Mapping[str, Any]) -> Tenant | None:
        """Who serves a sign-in."""
        words: list[_Word | None] = [None, ("subject", str(claims.get("sub")))]
        words += [("group", str(_text(group))) for group in _several(claims.get(self.groups_claim))]
        likely = sorted({number for word in words for number in self._places.get(word, ())})
        found = (self.tenants[number] for number in likely)
        return next((tenant for tenant in found if tenant.match.holds(claims, self.groups_claim)), None)

    def named(self, name: str) -> Tenant | None:
        """The tenant of this name."""
        return next((tenant for tenant in self.tenants if tenant.name == name), None)
