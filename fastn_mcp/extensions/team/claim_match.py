"""Conditions on the claims of a token, by which the team file recognises who signed in, and machines.

A machine is a caller without a person, for one tenant and under one signed plan. It has a token by client credentials
at the team's provider, or a workload token from an issuer of its own.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, Field
from typing_extensions import override

from fastn_mcp.config.addresses import plain_address
from fastn_mcp.config.model import Settings
from fastn_mcp.config.strict_toml import ONE_OR_MORE, STRICT, ConfigError, Key
from fastn_mcp.errors import nearest
from fastn_mcp.extensions.team.tokens import client_of, has_unverified_email, is_machines, login_names, person_name
from fastn_mcp.guard.caller import ALL_SCOPES, READ
from fastn_mcp.redaction import quote


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
    """Return a validator of what `holds` accepts. Its error names a text, which may be one of several."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(f"{value!r} {problem}" if isinstance(value, str) else problem)
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


log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")

_PROJECT_CLAIMS = ("repository", "repository_id", "project_path", "project_id")
"""Claims in tokens of GitHub and GitLab. Each names the project that a job runs for."""

_NOBODY_ASKED: Mapping[str, object] = {"plan": None, "webhook_url": None, "notify": None, "extensions": {}}


class WrongMachine(Exception):
    """A token of the wrong kind, or of a machine that is not in the team file. The message is for its sender."""


class MachineIdentity(Match):
    """A machine, recognised by the claims of its token."""

    name: Annotated[str, require(_NAME.fullmatch, "must be at most 64 letters, digits and ._/-")]
    tenant: str
    issuer: Annotated[str, AfterValidator(plain_address)] | None = None
    """Issuer of its tokens, if it is not the team's."""
    client_id: Text | None = None
    plan: str | None = None
    """Plan that allows its changes. Without one it only reads."""
    plan_keys: str | None = None
    scopes: Scopes = Field(list(ALL_SCOPES))

    @override
    def mismatches(self, claims: Mapping[str, Any], groups_claim: str) -> Iterator[tuple[str, list[str]]]:
        if self.client_id not in (None, client_of(claims)):
            yield "client_id", [str(self.client_id)]
        yield from super().mismatches(claims, groups_claim)

    def settings(self, tenant: Settings) -> Settings:
        """Return the tenant's settings for this machine: no person is asked, and a read-only tenant stays read-only."""
        paths = {"plan": self.plan, "plan_keys": self.plan_keys}
        files = {name: Path(path) for name, path in paths.items() if path is not None}
        is_read_only = "mode" in tenant.model_fields_set and tenant.reads_only
        mode = {} if is_read_only else {"mode": "unattended"}
        return tenant.model_copy(update={**_NOBODY_ASKED, **files, **mode})

    def narrowed(self, scopes: Collection[str]) -> frozenset[str]:
        """Return its scopes. A token that names some of them narrows them."""
        return frozenset(self.scopes).intersection(frozenset(scopes).intersection(ALL_SCOPES) or ALL_SCOPES)


def machine_of(
    machines: Sequence[MachineIdentity], claims: Mapping[str, Any], groups_claim: str, *, is_machine: bool
) -> MachineIdentity | None:
    """Return which of an issuer's machines a verified token signs in; None if it is a person's.

    `claims` are as the issuer signed them, with the token's own `sub`: another claim may be chosen by who has it.

    Raises `WrongMachine` if it is a machine's and matches none, or a person's and matches one.
    """
    mismatches = [list(machine.mismatches(claims, groups_claim)) for machine in machines]
    missing = min(mismatches, key=len) if mismatches else []
    if [] in mismatches:
        machine = machines[mismatches.index([])]
        # Exact subjects tell what the claims do not, unless they are about a person.
        if is_machine or (machine.subjects and not (person_name(claims) or login_names(claims))):
            return machine
        why = "This is a person's token, and its client belongs to a machine. Sign in with another client,"
        raise WrongMachine(f"{why} or have the machine use client credentials. Nothing was sent.")
    if not is_machine:
        return None
    log.warning("no machine of the team file matches %s|%s", claims.get("iss"), claims.get("sub"))
    # What would be accepted is not told: anybody can have a token of a public issuer.
    own_claims = {**claims, "client_id": client_of(claims)}
    held = [f"{name} is {quote(own_claims.get(name, ''))}" for name, _ in missing]
    why = f"its {', '.join(held)}" if held else "none has its issuer"
    message = "This is a machine's token, and no [[machine]] of the team file matches it"
    raise WrongMachine(f"{message}: {why}. Nothing was sent. Ask the operator.")


def signs_in_machine(machines: Sequence[MachineIdentity], claims: Mapping[str, Any], client: str) -> bool:
    """Whether an ID token for a client is about that client itself, or about one of the issuer's machines."""
    clients = (client, *(machine.client_id for machine in machines))
    # An ID token has no scp anyway, so its lack says nothing.
    is_client = any(is_machines({**claims, "azp": each, "scp": ""}) for each in clients)
    return is_client or any(claims.get("sub") in (machine.subjects or ()) for machine in machines)


def machine_errors(
    at: Key, machine: MachineIdentity, tenants: Collection[str], *, is_workload: bool
) -> Iterator[ConfigError]:
    """Yield what is wrong with a machine of the team file. `tenants` have an API key."""
    if machine.tenant not in tenants:
        near = nearest(machine.tenant, tenants)
        yield ConfigError((*at, "tenant"), f"tenant: there is no tenant {machine.tenant!r} with a key{near}")
    exact = any(name in _PROJECT_CLAIMS and "*" not in "".join(texts) for name, texts in machine.claims.items())
    if is_workload and not (machine.subjects or exact):
        why = "since its issuer signs for others too"
        yield ConfigError(
            at, f"the machine {machine.name} needs subjects, or an exact {' or '.join(_PROJECT_CLAIMS)}, {why}"
        )
    if not is_workload and not (machine.subjects or machine.client_id):
        yield ConfigError(at, f"the machine {machine.name} needs client_id or subjects: which client it is")
