"""Machines of the team file: callers without a person, each for one tenant and under one signed plan.

A machine has a token by client credentials at the team's provider, or a workload token from an issuer of its own.
"""

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from typing_extensions import override

from fastn_mcp.config.addresses import plain_address
from fastn_mcp.config.model import Settings
from fastn_mcp.config.strict_toml import ConfigError, Key
from fastn_mcp.errors import nearest
from fastn_mcp.guard.caller import ALL_SCOPES
from fastn_mcp.hosted.claim_match import Match, Scopes, Text, require
from fastn_mcp.hosted.tokens import client_of, is_machines, login_names, person_name
from fastn_mcp.redaction import quote

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")

_PROJECT_CLAIMS = ("repository", "repository_id", "project_path", "project_id")
"""Claims of GitHub and GitLab, of which one names a single project."""

_NOBODY_ASKED = dict.fromkeys(
    ("plan", "webhook_url", "slack_app_token", "slack_bot_token", "notify_url", "remind_after")
)


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
        """Return the settings of its tenant for this machine: nobody is asked. A tenant that is read-only stays so."""
        files = {name: Path(path) for name in ("plan", "plan_keys") if (path := getattr(self, name)) is not None}
        is_read_only = "mode" in tenant.model_fields_set and tenant.reads_only
        mode = {} if is_read_only else {"mode": "unattended"}
        return tenant.model_copy(update=_NOBODY_ASKED | files | mode)

    def narrowed(self, scopes: Collection[str]) -> frozenset[str]:
        """Return its scopes. A token that names some of them narrows them."""
        return frozenset(self.scopes).intersection(frozenset(scopes).intersection(ALL_SCOPES) or ALL_SCOPES)


def machine_of(
    machines: Sequence[MachineIdentity], claims: Mapping[str, Any], groups_claim: str, *, is_machine: bool
) -> MachineIdentity | None:
    """Return which of an issuer's machines a verified token signs in; None if it is a person's.

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
