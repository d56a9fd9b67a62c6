"""What people call a resource: one label for each kind, in approval requests, lists, receipts, plans and records."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastn_mcp.fastn.rows import Row, key_of, owner_of, short, started_workflows, text, timestamp, value, word
from fastn_mcp.redaction import is_redacted, redact_text

Names = Mapping[str, Mapping[str, str]]
"""Names by kind and id."""

NO_NAMES: Names = {}

ACCOUNT = "the account itself"
"""Who owns what belongs to no customer."""

LONGEST_TYPED = 60
"""Characters that a person types to approve something."""

_TAIL = 12
"""Characters of an id that is too long to be typed whole."""

_MOST = 2
"""Workflows of a trigger, and events, that its label names."""

_UNTYPED = re.compile(r"[^\w\s!#$%&'()*+,./:;<=>?@\[\]^{|}~-]")
_LETTERS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
"""Alphabets whose letters look alike."""


@dataclass(frozen=True, slots=True)
class Label:
    """`Paid orders (Globex Exports, on orders/paid)`: what it is called, and what tells it from others of that name."""

    name: str
    details: str = ""
    also: tuple[str, ...] = ()
    """Shorter names of the same: slug, e-mail address."""

    def __str__(self) -> str:
        return f"{self.name} ({self.details})" if self.details else self.name

    def typed(self, id_: str | None) -> str | None:
        """What a person types to say that they mean it: its name, or else a shorter one, or (the end of) its id."""
        said = next((name for name in (self.name, *self.also) if _is_typeable(name)), None)
        return said or (typed_id(id_) if id_ else None)


def typed_id(id_: str) -> str:
    """An id as a person types it."""
    return id_ if len(id_) <= LONGEST_TYPED else id_[-_TAIL:]


def label_of(kind: str, row: Row, names: Names = NO_NAMES) -> Label | None:
    """The label of a row; None where nothing in it says what it is called. `names` are of what it refers to."""
    label = _LABELS.get(kind, _by_name)(row, names)
    return label if label.name else None


def example_name(kinds: str, row: Row, names: Names = NO_NAMES) -> str:
    """A row among others of its `kinds`, as `connections`: in short, or by its id where nothing says what it is."""
    label = label_of(kinds.removesuffix("s"), row, names)
    if label is None:
        return key_of(row)
    return str(label) if kinds == "executions" else short(label.name)


def references(kind: str, row: Row) -> dict[str, list[str]]:
    """The ids, by kind, of what a row refers to without a name, and what its label names."""
    found: dict[str, list[str]] = {}
    owner = owner_of(row)
    if kind in ("connection", "trigger", "secret") and owner and not text(row, *_OWNER_NAMES):
        found["customer"] = [owner]
    if kind == "connection" and not text(row, *_APP_NAMES) and (connector := text(row, "connectorId")):
        found["connector"] = [connector]
    if kind == "trigger" and (workflows := started_workflows(row)[:_MOST]):
        found["workflow"] = workflows
    return found


def name_of(row: Row) -> str:
    """What a row calls itself, or else its id, on one line."""
    return short(text(row, "name", "slug", "email", "id"))


def app_of(row: Row, names: Names = NO_NAMES) -> str:
    """What people call the connector of a connection; the connection's own name is mostly "default"."""
    connector = text(row, "connectorId")
    named = text(row, *_APP_NAMES) or names.get("connector", {}).get(connector, "")
    return short(named or text(row, "connector.slug", "connectorSlug", "connectorId", "name")) or "an app"


def owner_name(row: Row, customers: Mapping[str, str]) -> str:
    """The customer that it belongs to, by name where that is known. `customers` are names by id."""
    owner = owner_of(row)
    return short(text(row, *_OWNER_NAMES) or customers.get(owner, owner)) if owner else ACCOUNT


def counted(count: int, noun: str, *, at_least: bool = False, plural: str = "") -> str:
    """`1 key`, `3 keys`, `at least 100 keys`."""
    said = f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
    return f"at least {said}" if at_least else said


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


_OWNER_NAMES = ("customer.name", "endOrg.name", "customerName")
_APP_NAMES = ("connector.name", "connectorName")


def _by_name(row: Row, _: Names) -> Label:
    slug = _said(row, "slug")
    return Label(_said(row, "name", "slug", "email"), also=(slug,) if slug else ())


def _connection(row: Row, names: Names) -> Label:
    if not any(text(row, *fields) for fields in (_APP_NAMES, ("connector.slug", "connectorSlug", "connectorId", "id"))):
        return _by_name(row, names)
    app = redact_text(app_of(row, names))
    own = _said(row, "name")
    details = "" if own in ("", "default", app, key_of(row)) else own
    return Label(f"{app} of {redact_text(owner_name(row, names.get('customer', {})))}", details)


def _trigger(row: Row, names: Names) -> Label:
    workflows = names.get("workflow", {})
    started = [workflows.get(key, key) for key in started_workflows(row)[:_MOST]]
    on = value(row, "events")
    events = [str(event) for event in on[:_MOST]] if isinstance(on, list) else []
    kind, schedule = word(row, "type"), text(row, "schedule", "cron")
    details = (
        owner_name(row, names.get("customer", {})) if owner_of(row) else "",
        f"schedule {schedule} {text(row, 'timezone')}".rstrip() if schedule else "",
        f"on {', '.join(events)}" if events else "",
        "webhook" if kind == "webhook" else "",
        f"starts {', '.join(started)}" if started else "",
    )
    name = _said(row, "name") or (f"{kind or 'trigger'} of {started[0]}" if started else "")
    return Label(name, redact_text(", ".join(filter(None, details))))


def _api_key(row: Row, _: Names) -> Label:
    last, permissions = text(row, "last4"), word(row, "permissions.preset", "permissions", "preset")
    details = (f"…{last}" if last else "", word(row, "mode"), permissions)
    number = key_of(row)
    name = _said(row, "name") or (f"key {number}" if number else "")
    return Label(name, redact_text(", ".join(filter(None, details))))


def _secret(row: Row, names: Names) -> Label:
    owner = redact_text(owner_name(row, names.get("customer", {}))) if owner_of(row) else ""
    return Label(_said(row, "name"), owner)


def _user(row: Row, _: Names) -> Label:
    name, email = _said(row, "name"), _said(row, "email", "userEmail")
    return Label(name, email, (email,)) if name and email else Label(name or email)


def _execution(row: Row, _: Names) -> Label:
    at = timestamp(row, "startedAt", "createdAt")
    return Label(_said(row, "workflowName", "workflowSlug", "name"), f"{at:%Y-%m-%d %H:%M} UTC" if at else "")


_LABELS: Mapping[str, Callable[[Row, Names], Label]] = {
    "connection": _connection,
    "trigger": _trigger,
    "api_key": _api_key,
    "secret": _secret,
    "user": _user,
    "execution": _execution,
}
"""By kind; what is not named here goes by its own name."""


def _said(row: Row, *fields: str) -> str:
    """The first of these fields that is a text which says something."""
    found = (value(row, field) for field in fields)
    return next((redact_text(said) for said in found if isinstance(said, str) and said.strip()), "")


def _is_typeable(name: str) -> bool:
    """Whether it is short, and of letters that a keyboard has and that no other letters look like."""
    if not name.strip() or len(name) > LONGEST_TYPED or is_redacted(name) or _UNTYPED.search(name):
        return False
    alphabets = {unicodedata.name(letter, "").partition(" ")[0] for letter in name if letter.isalpha()}
    is_plain = unicodedata.is_normalized("NFKC", name) and name.isprintable() and " ".join(name.split()) == name
    return is_plain and len(alphabets.intersection(_LETTERS)) <= 1
