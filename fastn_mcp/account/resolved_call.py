"""What a call will do: the values that its request will have, and every record that it touches.

`resolve.resolve` makes a `ResolvedCall` by fresh reads, once per evaluation. Policy, binding, label, sentences, preview
and records derive from it. What could not be read is unknown, and unknown is the stricter case.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.account.dependence import Dependence
from fastn_mcp.account.typed_argument import TypedArgument
from fastn_mcp.errors import FastnError, Forbidden, NotFound
from fastn_mcp.records.formats import kind_in_words
from fastn_mcp.records.labels import Label, Names, label_of
from fastn_mcp.records.rows import FastnObject, Row, key_of, row_of
from fastn_mcp.records.states import State, trigger_state
from fastn_mcp.redaction import REDACTED, quote, redact, texts_in
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import HARMLESS_EXTRA, UNKNOWN, Call, Create, RefusedValue, plain
from fastn_mcp.tools.related_reads import kind_of, own_label
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.triggers import UpdateTrigger


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A kind of resource: the tools that act on it, and the fields in which others refer to it.

    Names of fields are as `plain` returns them. `arguments` refer to it in a call only; `texts` are compared with its
    ids, names and slugs in a call, and not read.
    """

    toolset: str
    fields: frozenset[str] = frozenset()
    arguments: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()


KINDS: Mapping[str, ResourceKind] = {
    "customer": ResourceKind(
        "customers",
        frozenset({"customer", "customers", "customerid", "customerids", "endorg", "endorgid"}),
        frozenset({"endorgs", "endorgids", "orgid", "tenant", "tenantid", "xendorgid", "xorgid"}),
    ),
    "connector": ResourceKind(
        "connectors",
        frozenset({"connector", "connectorid"}),
        frozenset({"connectorids"}),
        frozenset({"connectors", "connectorslug", "connectorslugs"}),
    ),
    "connection": ResourceKind("connections", frozenset({"connection", "connectionid"}), frozenset({"connectionids"})),
    "workflow": ResourceKind("workflows", frozenset({"workflow", "workflowid", "routeid"}), frozenset({"workflowids"})),
    "trigger": ResourceKind("triggers", frozenset({"trigger", "triggerid"}), frozenset({"triggerids"})),
    "api_key": ResourceKind("api_keys", frozenset({"apikeyid"})),
    "secret": ResourceKind("secrets", frozenset({"secretid"})),
    "role": ResourceKind(
        "roles", arguments=frozenset({"role", "roles", "roleid", "roleids", "rolename", "parent", "parentid"})
    ),
}

_CUSTOMER_BY_REFERENCE = frozenset(
    {"customerref", "endorgref", "xendorgref", "externalref", "installationid", "xinstallationid"}
)
"""Names of undocumented fields, as `plain` returns them, from which Fastn may derive a customer."""

REFERENCE_NAMES = frozenset(name for kind in KINDS.values() for name in kind.fields | kind.arguments)
"""Names, as `plain` returns them, of fields and arguments that refer to a record."""

FOR_ALL_WITHOUT = {"create_api_key": "customers", "create_secret": "customer_id"}
"""Arguments that name customers, by tool: without one, what is created is for all of them."""

IDENTITY = ("id", "slug", "name")
"""Fields by which a record is recognised."""

_FIRES_BY = ("type", "routes", "schedule", "timezone", "events", "authentication", "connectorId", "connectionId")
"""Fields of a trigger that decide what it starts, and when."""

_ADDRESS = ("domain", "protocol", "visibility", "authMethods")
"""Fields of a connector that say where credentials go."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Settings of this server that calls depend on."""

    environment: str | None = None
    """Sent with every request as `x-fastn-env`."""
    key_folder: str | None = None
    """Folder of this machine where new API keys are written; None if they are returned."""
    customer: str | None = None
    """Id of the customer that is sent with every request as `x-end-org-id`."""


class ValueSource(Enum):
    """Where an effective value comes from."""

    ARGUMENT = "the call"
    SETTING = "this server's settings"
    RECORD = "its record"
    FASTN = "Fastn's choice"
    NONE = "nothing"


@dataclass(frozen=True, slots=True)
class Effective:
    """A value that the request will have. Several values: it may have any of them."""

    values: tuple[str, ...] = ()
    source: ValueSource = ValueSource.NONE
    is_known: bool = True
    """Whether there can be no others."""


class Relation(Enum):
    """Why a record is touched."""

    TARGET = "target"
    """The call acts on it or overwrites it."""
    NAMED = "named"
    """An argument names it: its whole state decides what the call does."""
    OWNER = "owner"
    """The target, a named record, a dependent or a setting leads to it: only its identity matters."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record that a call touches. `row` is None if it could not be read."""

    kind: str
    id: str
    relation: Relation
    row: Row | None = None
    error: FastnError | None = field(default=None, compare=False)
    """Why it could not be read, as far as that is known."""

    @property
    def name(self) -> str:
        """Name, or else the id."""
        label = None if self.row is None else label_of(self.kind, self.row)
        return label.name if label else self.id

    @property
    def is_forbidden(self) -> bool:
        """Whether Fastn refused to show it to this key."""
        return isinstance(self.error, Forbidden)

    def identity(self) -> dict[str, object]:
        """Return its id and names; the given id alone if it could not be read."""
        return {"id": self.id} if self.row is None else {"id": self.id, **identity(self.row)}

    def address(self) -> JsonValue:
        """Return its identity, and where a connector sends credentials, or what a trigger starts and when."""
        row = self.row or {}
        fields = _FIRES_BY if self.kind == "trigger" else _ADDRESS
        return cast(JsonValue, [self.kind, self.identity(), [row.get(name) for name in fields]])

    @property
    def key(self) -> str:
        """Kind and id, as a plan names it. A target is not compared with the whole of a record that is named."""
        return f"{self.kind} {self.id}{' (target)' if self.relation is Relation.TARGET else ''}"

    def fingerprint(self) -> str:
        """Return a digest of its identity and address, to which a plan is bound."""
        return hashlib.sha256(to_json(self.address())).hexdigest()

    def bound(self) -> JsonValue:
        """Return what an approval is bound to."""
        whole = self.relation is Relation.NAMED and self.row is not None
        state = lasting(self.row or {}) if whole else self.identity()
        return [self.kind, self.id, self.relation.value, self.row is not None, cast(JsonValue, state)]


@dataclass(frozen=True, slots=True)
class Mention:
    """A value by which rules recognise a resource that a call touches. `of`: the resource, in words."""

    value: object
    field: str
    of: str

    def __str__(self) -> str:
        return f"its {self.field} {quote(str(self.value))}"


@dataclass(frozen=True, slots=True)
class Touched:
    """The resources of one kind that a call touches. `gap`: why there may be others; empty if there are none."""

    mentions: tuple[Mention, ...] = ()
    gap: str = ""


@dataclass(frozen=True, slots=True)
class ResolvedCall:
    """A call with all that decides what it does. Made by `resolve`, or by `by_arguments` without reads."""

    call: Call
    environment: Effective = Effective()
    customer: Effective = Effective()
    target: FastnObject | None = None
    """Record that it acts on, or that a create may overwrite, or an AI session. `UNKNOWN` if it is not known."""
    records: tuple[Record, ...] = ()
    """Every other record that an argument names, and the owners of all."""
    dependence: Dependence = field(default_factory=Dependence)
    dependents: int | None = None
    """Number of resources that use the target; None if not known."""
    typed: TypedArgument | None = None
    """What a person types with their approval."""
    is_awaited: bool = False
    """Whether an open approval request names its target. The guard adds it."""
    is_missing: bool = field(init=False, compare=False)
    """Whether its target does not exist."""
    effect: Effect = field(init=False, compare=False)
    """Effect on the target. Changing a record that a person is being asked about needs an approval too."""
    names: Names = field(init=False, compare=False)
    """Names of the records by kind and id, for labels and sentences."""
    label: Label | None = field(init=False, compare=False)
    """Label of the target, or of what is created."""

    def __post_init__(self) -> None:
        effect = self.call.effect_on(self.target, self.dependents)
        names: dict[str, dict[str, str]] = {}
        for each in self.records:
            if each.row is not None:
                names.setdefault(each.kind, {})[each.id] = each.name
        label = None
        with suppress(RefusedValue):  # a body that cannot be sent has no label, and is refused later
            label = own_label(self.call, self.target, names)
        object.__setattr__(self, "is_missing", self.target is None and self.call.target is not None)
        object.__setattr__(self, "effect", effect.raised_to(Effect.EXTERNAL) if self.is_awaited else effect)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "label", label)

    @property
    def refers(self) -> bool:
        """Whether it acts on a record or refers to one, so that who it touches has to be read."""
        call = self.call
        return call.target is not None or bool(self.records) or bool(call.unresolved) or any(undocumented_texts(call))

    @property
    def tools(self) -> frozenset[str]:
        """Names of the tools that do what it does: a create that may overwrite a record also updates it."""
        name = self.call.tool_name()
        update = name.replace("create_", "update_")
        overwrites = isinstance(self.call, Create) and self.target is not None and update in OPERATIONS
        return frozenset({name, update} if overwrites else {name})

    def record(self, kind: str, key: str | None = None) -> Record | None:
        """Return the first record of a kind, or that with an id."""
        return next((each for each in self.records if each.kind == kind and key in (None, each.id)), None)

    @property
    def named(self) -> list[Record]:
        """The records that arguments name, besides the target."""
        return [each for each in self.records if each.relation is Relation.NAMED]

    def signed(self, sent: Collection[str]) -> list[Record]:
        """Return the records that the signature of a plan holds for: those that arguments name, what a create
        overwrites, and a trigger, unless the call switches it off. Its fields in `sent` change by the plan itself."""
        call = self.call
        row = {name: value for name, value in row_of(self.target).items() if name not in sent}
        may_fire = isinstance(call, UpdateTrigger) and trigger_state({"status": call.status}) is not State.OFF
        overwrites = isinstance(call, Create) and self.target is not None
        if not may_fire and not overwrites:
            return self.named
        key = key_of(row) or (self.label.name if self.label else "")
        return [*self.named, Record(kind_of(call), key, Relation.TARGET, row)]

    @property
    def unknown_customers(self) -> list[str]:
        """Ids of customers in the arguments that Fastn does not have. By its reference, slugs are not ids."""
        named = {getattr(self.call, "customer_id", None), *(getattr(self.call, "customers", None) or ())}
        customers = (each for each in self.named if each.kind == "customer" and each.id in named)
        return [each.id for each in customers if isinstance(each.error, NotFound)]

    @property
    def changed(self) -> tuple[str, str] | None:
        """Kind and id of the record that it acts on or overwrites, as far as that is known. No AI session is one."""
        key = self.call.toolset() != "ai" and (key_of(row_of(self.target)) or self.call.target)
        return (kind_of(self.call), key) if key else None

    @property
    def references(self) -> list[tuple[str, str]]:
        """Kind and id of the record that it acts on or overwrites, and of every record that an argument names."""
        return [*filter(None, [self.changed]), *((each.kind, each.id) for each in self.named)]

    @property
    def own_mentions(self) -> list[Mention]:
        """Id and names of its target, and the ones that it gives: a create may overwrite what has them."""
        call = self.call
        of = _called(kind_of(call), self.label.name if self.label else call.target or "")
        arguments = call.arguments()
        extra = arguments.pop("extra", None)
        undocumented = {plain(name): value for name, value in (extra if isinstance(extra, dict) else {}).items()}
        new_names = {**identity(undocumented), **identity(arguments)}
        mentions = [Mention(call.target, "id", of)] if call.target is not None else []
        mentions += [Mention(value, name, of) for name, value in identity(row_of(self.target)).items()]
        reference = arguments.get("external_ref")
        if reference is not None:
            mentions.append(Mention(reference, "new external_ref", of))
        return mentions + [Mention(value, f"new {name}", of) for name, value in new_names.items()]

    def touched(self, kind: str) -> Touched:
        """Return the ids and names of all resources of a kind that the call touches."""
        resource = KINDS[kind]
        call = self.call
        mentions = self.own_mentions if call.toolset() == resource.toolset else []
        wanted = resource.fields | resource.arguments | resource.texts
        for fields, content in ((wanted, call.arguments()), (resource.fields, row_of(self.target))):
            mentions += [Mention(value, "id", _called(kind, value)) for value in _mentioned(content, fields)]
        texts = [*undocumented_texts(call), *_shown_texts(pending_in(call, row_of(self.target)))]
        mentions += [Mention(value, "id", _called(kind, value)) for value in texts]
        records = [each for each in self.records if each.kind == kind]
        for each in records:
            of = _called(kind, each.name)
            mentions += [Mention(value, name, of) for name, value in each.identity().items()]
        return Touched(tuple(mentions), self._gap(kind, records))

    def _gap(self, kind: str, records: list[Record]) -> str:
        """Return why not all resources of a kind that the call touches are known; empty if they are."""
        if self.is_missing:
            return "the target of this call could not be read"
        derived = [name for name in self.call.unresolved if plain(name) in KINDS[kind].fields]
        if derived:
            return f"this call leaves its {derived[0]} to Fastn: name it"
        is_told = kind == "customer"  # the operator is told that this key may not read customers
        unread = [each for each in records if each.row is None and not (each.is_forbidden and is_told)]
        if unread:
            return f"{_called(kind, unread[0].id)} could not be read"
        is_pending_known = isinstance(pending_in(self.call, row_of(self.target)), list)
        if self.call.needs_person and not (is_pending_known and getattr(self.call, "approval_mode", "") == "manual"):
            return "the targets of Fastn's AI are unknown: begin a session in manual mode"
        if self.target is UNKNOWN and self.call.toolset() == KINDS[kind].toolset:
            what = "may overwrite" if self.call.target is None else "acts on"
            return f"the {kind.replace('_', ' ')} that this call {what} could not be read"
        return self._customer_gap() if kind == "customer" else ""

    def _customer_gap(self) -> str:
        name = FOR_ALL_WITHOUT.get(self.call.tool_name())
        if name and not getattr(self.call, name):
            return f"this call applies to all customers: name them in {name}"
        reference = customer_reference(self.call)
        if reference is not None:
            return f"this call names a customer by {quote(reference, is_name=True)}: use its id"
        if any(each.kind == "connection" and each.row is None for each in self.records):
            return "a connection that it names could not be read"
        if self.dependence.hides_owners:
            return "not all of its dependents could be read"
        return ""

    def bound(self) -> list[object]:
        """Return all that an approval is bound to besides the arguments."""
        target = None if self.target is None else lasting(self.target.model_dump())
        records = sorted((each.bound() for each in self.records), key=repr)
        return [target, records, self.environment, self.customer, self.typed]

    def fixed(self) -> list[object]:
        """Return what a temporary approval is bound to besides the arguments.

        The environment and the customer, the identity and address of every record, and what a trigger starts and
        when. Those of a trigger that is switched off can be changed without an approval, and the call may switch it
        on. The target's state is left out, since the first use changes it.
        """
        records = sorted((each.address() for each in self.records), key=repr)
        sent = {self.call.wire(name) for name in self.call.arguments()}
        row = row_of(self.target)
        fires = [[name, row.get(name)] for name in _FIRES_BY if name not in sent]
        return [records, self.environment, self.customer, fires]


# Fields that Fastn updates by itself, which do not affect an approval.
_TELEMETRY = re.compile(r"(last|next)[A-Z_]\w*|consecutiveFailures|statusHistory|\w+Count")


def lasting(row: Row) -> dict[str, JsonValue]:
    """Return a record without fields that change by themselves."""
    return {name: value for name, value in row.items() if not _TELEMETRY.fullmatch(name)}


def identity(fields: Mapping[str, Any]) -> dict[str, object]:
    """Return the fields by which a record is recognised, as far as it has them."""
    return {name: fields[name] for name in IDENTITY if fields.get(name) is not None}


_DATA = ("payload", "filter")
_OF_ROUTES = (*_DATA, "routeId", "routeType", "environment")


def _undocumented(call: Call) -> list[tuple[JsonValue, Collection[str], Collection[str]]]:
    """Return the objects in a call that may hold more than is documented: `extra`, `context` and routes.

    Each with the names of its fields that are data, and of those that name no resource. The context of a message to
    Fastn's AI names resources.
    """
    arguments = call.arguments()
    routes = arguments.get("routes")
    of_routes = [(route, _DATA, _OF_ROUTES) for route in (routes if isinstance(routes, list) else ())]
    return [(arguments.get("extra"), (), HARMLESS_EXTRA), (arguments.get("context"), (), ()), *of_routes]


def undocumented_in(call: Call) -> Iterator[Row]:
    """Yield the objects at any depth in what a call says beyond documented fields, without data."""
    for fields, data, _ in _undocumented(call):
        yield from objects_in(_without(fields, data))


def undocumented_texts(call: Call) -> Iterator[str]:
    """Yield the texts in undocumented fields: each may be an id or a name of any resource.

    Secrets are left out, since what matches is shown.
    """
    for fields, _, known in _undocumented(call):
        yield from _shown_texts(_without(fields, known))


def customer_reference(call: Call) -> str | None:
    """Return the name of an undocumented field from which Fastn may derive a customer; None if there is none."""
    names = (name for fields in undocumented_in(call) for name in fields)
    return next((name for name in names if plain(name) in _CUSTOMER_BY_REFERENCE), None)


def _shown_texts(value: JsonValue) -> list[str]:
    return [each for each in texts_in(redact(value)) if REDACTED not in each]


def _without(fields: JsonValue, names: Collection[str]) -> JsonValue:
    return {name: each for name, each in fields.items() if name not in names} if isinstance(fields, dict) else None


def pending_in(call: Call, session: Row) -> JsonValue:
    """Return what is pending where a message to Fastn's AI goes: a list if it is known. None for any other call."""
    return session.get("pending") if call.toolset() == "ai" else None


def customers_mentioned(call: Call, target: Row) -> list[str]:
    """Return what may be ids of customers: texts in undocumented fields, in fields of data that name a customer, and
    in what is pending in a session of Fastn's AI."""
    wanted = KINDS["customer"].fields | KINDS["customer"].arguments
    texts = [*map(str, _mentioned(call.arguments(), wanted)), *undocumented_texts(call)]
    texts += _shown_texts(pending_in(call, target))
    return list(dict.fromkeys(texts))


def objects_in(content: JsonValue) -> Iterator[Row]:
    """Yield a value and those inside it, at any depth, that are objects."""
    if isinstance(content, dict):
        yield content
        content = list(content.values())
    for each in content if isinstance(content, list) else ():
        yield from objects_in(each)


def _called(kind: str, name: object) -> str:
    return f"{kind_in_words(kind)} {quote(str(name))}"


def _mentioned(value: object, fields: frozenset[str], *, refers: bool = False) -> Iterator[object]:
    """Yield the ids and names at any depth in fields that refer to a kind, such as those of a run's input.

    `refers`: whether `value` is the value of such a field.
    """
    if isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _mentioned(inner, fields, refers=refers)
    elif isinstance(value, Mapping):
        mapping = cast("Mapping[str, object]", value)
        if refers:
            yield from identity(mapping).values()
        for name, inner in mapping.items():
            yield from _mentioned(inner, fields, refers=plain(name) in fields)
    elif refers and value is not None:
        yield value
