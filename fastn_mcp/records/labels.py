"""Labels of resources, the same in approval requests, lists, receipts, plans and records."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fastn_mcp.records.rows import (
    Row,
    connection_refers,
    key_of,
    objects,
    owner_of,
    short,
    started_workflows,
    text,
    value,
    word,
)
from fastn_mcp.redaction import is_redacted, redact_text

Names = Mapping[str, Mapping[str, str]]
"""Names by kind and id."""

NO_NAMES: Names = {}

ACCOUNT = "your own account"
"""Owner of a resource that belongs to no customer."""

MAX_TYPED = 60
"""Maximum number of characters that a person types to confirm an approval."""

_ANSWERS = ("y", "yes", "n", "no", "approve", "decline")
"""What people type to answer. As the name of a target, the same word would approve a call in place of declining it."""

_TYPED_TAIL = 12
"""Number of trailing characters to type of an id that is too long."""

_MAX_NAMED = 2
"""Maximum number of workflows, and of events, in the label of a trigger."""

_UNTYPED = re.compile(r"[^\w\s!#$%&'()*+,./:;<=>?@\[\]^{|}~-]")
_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_LETTERS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
"""Alphabets whose letters look alike."""


class Detail(NamedTuple):
    """What tells a row from others of its name: under a heading, and in words as part of its label."""

    heading: str
    value: str
    words: str


@dataclass(frozen=True, slots=True)
class Label:
    """A name, and details that tell it from others of that name: `Paid orders (Globex Exports, on orders/paid)`."""

    name: str
    details: tuple[Detail, ...] = ()
    also: tuple[str, ...] = ()
    """Shorter names: slug, email address."""

    def __str__(self) -> str:
        words = ", ".join(detail.words for detail in self.details)
        return f"{self.name} ({words})" if words else self.name

    def typed(self, id_: str | None) -> str | None:
        """Return what a person types to confirm: its name, or else a shorter one, or (the end of) its id."""
        typeable = next((name for name in (self.name, *self.also) if _is_typeable(name)), None)
        return typeable or (typed_id(id_) if id_ else None)


def typed_id(id_: str) -> str:
    """Return the part of an id that a person types."""
    return id_ if len(id_) <= MAX_TYPED else id_[-_TYPED_TAIL:]


def label_of(kind: str, row: Row, names: Names = NO_NAMES) -> Label | None:
    """Return the label of a row; None if it has no name. `names` are the names of the resources that it refers to."""
    label = _LABELS.get(kind, _by_name)(row, names)
    return label if label.name else None


def details_of(kind: str, row: Row, label: Label) -> list[tuple[str, str]]:
    """Return what tells a row from others of its name, each value under a heading."""
    return [(detail.heading, detail.value) for detail in _details(kind, row, label)]


def distinction(kind: str, row: Row, label: Label) -> str:
    """Return the same on one line, without headings."""
    return ", ".join(detail.words for detail in _details(kind, row, label))


def _details(kind: str, row: Row, label: Label) -> list[Detail]:
    """Return the details of the label, slug, owner, environment and state of a row."""
    slug = _redacted(row, "slug")
    is_just_name = slug in (label.name, _NOT_SLUG.sub("-", label.name.casefold()).strip("-"))
    is_own = owner_of(row) is None and any(name in row for name in ("endOrgId", "customerId"))
    environments = _environments(kind, row)
    details = (
        *label.details,
        _detail("Slug", "" if is_just_name else slug, "slug {}"),
        Detail("Customer", "none", ACCOUNT) if is_own and kind in ("secret", "trigger") else None,
        _detail("Environment", environments, "in {}"),
        _detail("Status", word(row, "status")),
    )
    return [detail for detail in details if detail is not None]


def _detail(heading: str, value: str, words: str = "{}") -> Detail | None:
    """Return a detail, redacted, whose value stands in `words`; None if it has no value."""
    redacted = redact_text(value)
    return Detail(heading, redacted, words.format(redacted)) if value else None


def _environments(kind: str, row: Row) -> str:
    """Return the environments of a row; empty if it names none. A secret without one is for both."""
    own = text({**connection_refers(key_of(row)), **row}, "environment")
    routes = [text(route, "environment") for route in objects(row, "routes")]
    both = ["test", "live"] if kind == "secret" and "environment" in row else []
    environments = dict.fromkeys(filter(None, [own] if own else routes or both))
    return " and ".join(environments)


def references(kind: str, row: Row) -> dict[str, list[str]]:
    """Return the ids, by kind, of the resources that the label of a row names and the row itself does not."""
    ids: dict[str, list[str]] = {}
    owner = owner_of(row)
    if kind in ("connection", "trigger", "secret") and owner and not text(row, *_OWNER_NAMES):
        ids["customer"] = [owner]
    if kind == "connection" and not text(row, *_APP_NAMES) and (connector := text(row, "connectorId")):
        ids["connector"] = [connector]
    if kind == "trigger" and (workflows := started_workflows(row)[:_MAX_NAMED]):
        ids["workflow"] = workflows
    return ids


def name_of(row: Row) -> str:
    """Return the row's own name, or else its id, on one line."""
    return short(text(row, "name", "slug", "email", "id"))


def app_of(row: Row, names: Names = NO_NAMES) -> str:
    """Return the name of a connection's connector. The connection's own name is mostly "default"."""
    connector = text(row, "connectorId")
    named = text(row, *_APP_NAMES) or names.get("connector", {}).get(connector, "")
    return short(named or text(row, "connector.slug", "connectorSlug", "connectorId", "name")) or "an app"


def owner_name(row: Row, customers: Mapping[str, str]) -> str:
    """Return the name, or else the id, of the customer that owns a row. `customers` maps ids to names."""
    owner = owner_of(row)
    return short(text(row, *_OWNER_NAMES) or customers.get(owner, owner)) if owner else ACCOUNT


_OWNER_NAMES = ("customer.name", "endOrg.name", "customerName")
_APP_NAMES = ("connector.name", "connectorName")


def _by_name(row: Row, _: Names) -> Label:
    slug = _redacted(row, "slug")
    return Label(_redacted(row, "name", "slug", "email"), also=(slug,) if slug else ())


def _connection(row: Row, names: Names) -> Label:
    if not any(text(row, *fields) for fields in (_APP_NAMES, ("connector.slug", "connectorSlug", "connectorId", "id"))):
        return _by_name(row, names)
    app = redact_text(app_of(row, names))
    own = _redacted(row, "name")
    is_telling = own not in ("", "default", app, key_of(row))
    details = _present(_detail("Name", own if is_telling else ""))
    return Label(f"{app} of {redact_text(owner_name(row, names.get('customer', {})))}", details)


def _trigger(row: Row, names: Names) -> Label:
    workflows = names.get("workflow", {})
    started = [workflows.get(key, key) for key in started_workflows(row)[:_MAX_NAMED]]
    on = value(row, "events")
    events = [str(event) for event in on[:_MAX_NAMED]] if isinstance(on, list) else []
    kind = word(row, "type")
    schedule = text(row, "schedule", "cron")
    timing = f"{schedule} {text(row, 'timezone')}".rstrip() if schedule else ""
    details = _present(
        _detail("Customer", owner_name(row, names.get("customer", {})) if owner_of(row) else ""),
        _detail("Schedule", timing, "schedule {}"),
        _detail("Events", ", ".join(events), "on {}"),
        _detail("Type", "webhook" if kind == "webhook" else ""),
        _detail("Starts", ", ".join(started), "starts {}"),
    )
    name = _redacted(row, "name") or (f"{kind or 'trigger'} of {started[0]}" if started else "")
    return Label(name, details)


def _api_key(row: Row, _: Names) -> Label:
    last = text(row, "last4")
    permissions = word(row, "permissions.preset", "permissions", "preset")
    details = _present(
        _detail("Ends in", last, "…{}"), _detail("Mode", word(row, "mode")), _detail("Role", permissions)
    )
    number = key_of(row)
    name = _redacted(row, "name") or (f"key {number}" if number else "")
    return Label(name, details)


def _secret(row: Row, names: Names) -> Label:
    owner = redact_text(owner_name(row, names.get("customer", {}))) if owner_of(row) else ""
    return Label(_redacted(row, "name"), _present(_detail("Customer", owner)))


def _user(row: Row, _: Names) -> Label:
    name = _redacted(row, "name")
    email = _redacted(row, "email", "userEmail")
    return Label(name, _present(_detail("E-mail", email)), (email,)) if name and email else Label(name or email)


def _present(*details: Detail | None) -> tuple[Detail, ...]:
    """Return the details that have a value."""
    return tuple(detail for detail in details if detail is not None)


_LABELS: Mapping[str, Callable[[Row, Names], Label]] = {
    "connection": _connection,
    "trigger": _trigger,
    "api_key": _api_key,
    "secret": _secret,
    "user": _user,
}
"""Label functions by kind. Other kinds use `_by_name`."""


def _redacted(row: Row, *fields: str) -> str:
    """Return the first of these fields that is non-blank text, redacted."""
    values = (value(row, field) for field in fields)
    return next((redact_text(item) for item in values if isinstance(item, str) and item.strip()), "")


def _is_typeable(name: str) -> bool:
    """Return whether a name is short, plain, no answer, and free of letters from two alphabets that look alike."""
    if not name.strip() or len(name) > MAX_TYPED or is_redacted(name) or _UNTYPED.search(name):
        return False
    if name.casefold() in _ANSWERS:
        return False
    alphabets = {unicodedata.name(letter, "").partition(" ")[0] for letter in name if letter.isalpha()}
    is_plain = unicodedata.is_normalized("NFKC", name) and name.isprintable() and " ".join(name.split()) == name
    return is_plain and len(alphabets.intersection(_LETTERS)) <= 1
