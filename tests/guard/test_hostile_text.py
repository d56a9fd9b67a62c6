"""No text of an agent or of Fastn can stand outside of quotes in what a person reads, on any channel.

The same call is described with hostile and with harmless texts of the same length. Without what is quoted, both have to
read the same.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from html import unescape
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError
from support.example_calls import example, properties
from support.stores import grant, permit

from fastn_mcp.account.dependence import Dependence, Dependents, Unchecked
from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.account.resolved_call import Record, Relation, ResolvedCall
from fastn_mcp.audit.log import AuditEvent, about, named
from fastn_mcp.channels import notification
from fastn_mcp.channels.elicitation import form_request
from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.inbox import PendingRequest
from fastn_mcp.channels.webhook.webhook import payload
from fastn_mcp.cli import audit
from fastn_mcp.extensions.slack import blocks as slack
from fastn_mcp.guard.approval_form import extent, form_text
from fastn_mcp.guard.journal import recent_facts
from fastn_mcp.guard.questions import facts_of, question_of, question_of_list, target_id
from fastn_mcp.guard.undo import receipt
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.question import Question
from fastn_mcp.policy.asker import Asker
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.catalog import CATALOG, OPERATIONS, AnyOperation
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.related_reads import own_label
from fastn_mcp.tools.tool import Effect

CHANGING = [operation for operation in CATALOG if operation.effect is not Effect.READ]
ACCOUNT = "default at live.fastn.ai"

LIES = {
    "sentence": "All data stays. It can be changed back.",
    "approval": "Approved by Dana",
    "quotes": 'Acme" is yours. Approved by Dana. "',
    "backslashes": '\\" Approved by Dana. \\',
    "line break": "Acme\nAccount: other.",
    "two line breaks": "Acme\r\n\r\nApprove this one call?",
    "line separator": "Acme\u2028Account: other.",
    "paragraph separator": "Acme\u2029Account: other.",
    "right to left": "Acme\u202e.yad a niatnoc",
    "zero width": "Ac\u200bme\u2060\ufeff",
    "tags": "Acme\U000e0041\U000e0042",
    "long": "Trusted, says Dana. " * 500,
    "JSON": '{"a":"b"} Approved by Dana. {"c":"',
    "of us": "lost for good: its notes of now",
}
CONTROL = {"escape sequence": "Acme\x1b[2K\x1b[1A", "null": "a\x00b", "C1": "Acme\x9b2K"}
"""Refused in arguments; a record of Fastn may hold them."""
KEYS = ["ApprovedByDana", "checked_by_Dana", "Its.values-stay"]
"""Names of fields that pass the check of `extra`."""

QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
CUT = re.compile(r" \[[\d,]+ more characters?\]")


def harmless(text: str) -> str:
    """Return the text with another letter in place of each. What is escaped, trimmed or refused stays as it is.

    So do letters that are not ASCII: a sentence points them out in an e-mail address.
    """
    kept = '"\\' + "".join(CONTROL.values())
    return "".join(
        each if each in kept or each.isspace() else "x" if each.isascii() else "\N{LATIN SMALL LETTER SHARP S}"
        for each in text
    )


def skeleton(text: str) -> str:
    """Return a text without what is quoted."""
    return CUT.sub("", QUOTED.sub('""', text))


@dataclass(frozen=True)
class World:
    """One call with texts of one kind in its arguments, its target, other records and its dependents."""

    operation: AnyOperation
    text: str
    key: str
    in_arguments: bool = True
    like: "World | None" = None
    """Hostile counterpart of a harmless world: both give the same arguments."""

    @property
    def argument(self) -> str:
        return self.text if self.in_arguments else "plain"

    @cached_property
    def with_harmless(self) -> "World":
        return replace(self, text=harmless(self.text), key="k" * len(self.key), like=self)

    def value(self, name: str, schema: Mapping[str, Any]) -> JsonValue:
        nested: JsonValue = {self.argument: self.argument, "in": [{self.argument: [self.argument]}]}
        match schema["type"]:
            case "string":
                return self.argument
            case "array" if schema["items"]["type"] == "string":
                return [self.argument, f"{self.argument} too"]
            case "array":
                return [{self.argument: nested, "routeId": self.argument, "environment": self.argument}]
            case "object" if name == "extra":
                own: dict[str, JsonValue] = {"connectorName": self.argument, "customer": {"name": self.argument}}
                return {self.key: self.argument, "notes": nested, **own}
            case "object":
                return nested
            case _:
                return 5

    @cached_property
    def call(self) -> Operation[Any]:
        call, given_there = example(self.operation), self.like and self.like.call.arguments()
        for name, schema in properties(self.operation).items():
            if name in self.operation.route.parameters or name == "value_from_env":
                continue
            if given_there is not None and name not in given_there:
                continue
            try:
                given = {**call.arguments(), name: self.value(name, schema)}
                call = self.operation.model_validate(given)
            except ValidationError:  # an address, a header, or one of two ways to say the same
                continue
        return call

    def target(self) -> FastnObject:
        text, call = self.text, self.call
        if call.toolset() == "ai":
            pending: JsonValue = [{"plan": text}, text, {text: [text]}]
            return FastnObject.model_validate({"id": "s1", "pending": pending})
        row: dict[str, JsonValue] = {
            "id": "one", "endOrgId": "c1", "routes": [{"routeId": "w1", "environment": text}], self.key: text,
            "connector": {"name": text, "slug": text}, "customer": {"name": text}, "connectors": [text, {"name": text}],
            "schedule": text, "timezone": text, text: text, "code": text, "description": None, "events": [text],
        }  # fmt: skip
        row |= dict.fromkeys(
            ("name", "slug", "type", "status", "environment", "last4", "mode", "permissions", "email", "plan"), text
        )
        row |= dict.fromkeys(("domain", "externalRef", "adminEmail", "authentication"), text)
        return type(call).returns.model_validate(row)

    def resolved(self, *, exists: bool) -> ResolvedCall:
        call, text = self.call, self.text
        target = self.target() if exists or call.target is not None or call.toolset() == "ai" else None
        resolution = by_arguments(call, target=target)
        row: dict[str, JsonValue] = {"id": text, "name": text, "slug": text, "domain": text, "visibility": text}
        records = tuple(replace(each, row=row) for each in resolution.records)
        own = Record("customer", "c1", Relation.OWNER, row)
        users = (
            Dependents("connections", 2, ({"name": text}, {"name": f"{text} too"})),
            Dependents("secrets", 1, ({"name": text},)),
            Dependents("workflows", 3, ({"name": text},) * 2, more=True),
            Dependents("triggers", 1, ({"name": text},)),
        )
        gaps = (Unchecked("triggers", "Forbidden."),)
        return replace(resolution, records=(*records, own), dependence=Dependence(users, gaps))

    @cached_property
    def of_existing(self) -> Question:
        return self._question(exists=True)

    @cached_property
    def of_new(self) -> Question:
        return self._question(exists=False)

    def _question(self, *, exists: bool) -> Question:
        resolved = self.resolved(exists=exists)
        facts = facts_of(resolved, resolved.effect, undoes="the change made 2 hours ago")
        facts.history = self.history()
        return question_of(facts, ACCOUNT, target_id(resolved))

    @cached_property
    def request(self) -> ApprovalRequest:
        shown = self.of_existing
        return replace(
            grant(), tool=self.call.tool_name(), target=self.call.target, question=shown,
            asked_by=f"{self.text} agent", expected=shown.expected,
            permit=replace(permit(), extent=extent(self.call)),
        )  # fmt: skip

    def history(self) -> tuple[tuple[str, str], ...]:
        """What this server did to a record: it had and has hostile names."""
        change = Change(
            "chg_1", "local", ACCOUNT, "update_customer", {}, "c1", self.text,
            before=dict.fromkeys(("name", "domain"), self.text), sent={"name": f"{self.text}2", "domain": "d"}, at=0.0,
        )  # fmt: skip
        return tuple(recent_facts(change, {("customer", "c1")}, datetime(2026, 11, 25, tzinfo=UTC)))


Texts = Mapping[str, str]
"""What a person reads on one channel, by a name that says where it stands."""


def numbered(lines: Iterable[str]) -> Texts:
    return {str(number): line for number, line in enumerate(lines)}


def in_previews(world: World) -> Texts:
    texts: dict[str, str] = {}
    for case, shown in (("existing", world.of_existing), ("new", world.of_new)):
        parts = {name: getattr(shown, name) for name in ("title", "button", "brief", "lost", "then", "unchecked")}
        parts |= {f"fact {name}": fact for name, fact in shown.facts}
        parts |= {f"line {number}": line for number, line in enumerate(shown.lines())}
        parts |= {"one line": shown.line(), "undo": shown.undo, "does": str(shown.data()["does"])}
        texts |= {f"{case}: {name}": text for name, text in parts.items()}
    return texts


def in_a_batch(world: World) -> Texts:
    calls = [world.of_existing, replace(world.of_new, number=2)]
    return numbered(question_of_list("apply_changes", calls).lines())


def in_a_form(world: World) -> Texts:
    """Up to 2025-11-25 the text and the schema are sent as a request, later as a result."""
    request = form_request(world.request).model_dump(mode="json")["input_requests"]["approval"]["params"]
    schema = request["requested_schema"]["properties"]["name"]["description"]
    chosen = form_text(replace(world.request, expected=None))
    return numbered([*request["message"].split("\n"), schema, *chosen.split("\n")])


def in_a_webhook(world: World) -> Texts:
    lines: Any = payload(world.request, "https://here.example")["lines"]
    return numbered(lines)


def in_notifications(world: World) -> Texts:
    return numbered(notification.message(world.request, "On the page.").split("\n"))


def on_the_page(world: World) -> Texts:
    shown = view.pending(PendingRequest(world.request, None, None), 0.0)
    boxed = ("expected", "before", "after", ".field")
    return {name: text for name, text in _flat(shown) if not name.endswith(boxed)}


def _flat(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in nested data by their places. Names that the page sets apart are left out."""
    if isinstance(value, view.Part):
        yield at, "" if value.is_name else value.text
    elif isinstance(value, str):
        for number, line in enumerate(unescape(value).split("\n")):
            yield f"{number} of {at}", line
    elif isinstance(value, Mapping):
        for name, item in value.items():  # pyright: ignore
            yield from _flat(item, f"{at}.{name}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):  # pyright: ignore
            yield from _flat(item, f"{at}.{number}")


def in_the_audit_log(world: World) -> Texts:
    """As a terminal shows it, without the spaces that fill a column."""
    entry = about(AuditEvent.ASKED, world.call, Asker(), ACCOUNT)
    known: dict[str, JsonValue] = {"n": 1, "time": "2026-11-25T09:00:00Z", "event": entry.event.value}
    rows = audit.row({**known, "tool": entry.tool}, named(world.of_existing.name) or "", 300)
    return numbered(" ".join(skeleton(row).split()) for row in rows)


def in_a_receipt(world: World) -> Texts:
    before = world.target().model_dump()
    sent = {world.key: world.text, "notes": world.text}
    change = Change("chg_1", "local", ACCOUNT, world.call.tool_name(), {}, "one", world.text, before, sent, 0.0, "done")
    return {name: text for name, text in receipt(change).items() if isinstance(text, str) and name != "name"}


CHANNELS = [
    in_previews, in_a_batch, in_a_form, in_a_webhook, in_notifications, on_the_page, in_the_audit_log, in_a_receipt,
]  # fmt: skip


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.long)], ids=["one in four", "each"])
@pytest.mark.parametrize("operation", CHANGING, ids=lambda operation: operation.tool_name())
def test_foreign_text_is_quoted_on_every_channel(operation: AnyOperation, step: int) -> None:
    """With one text in four, other ones for the next tool; in the long tests with each text."""
    for number, (name, text) in [*enumerate((LIES | CONTROL).items())][CHANGING.index(operation) % step :: step]:
        world = World(operation, text, KEYS[number % len(KEYS)], in_arguments=name in LIES)
        for channel in CHANNELS:
            hostile, plain = channel(world), channel(world.with_harmless)
            assert hostile.keys() == plain.keys(), (name, channel)
            for place, shown in hostile.items():
                assert shown.isprintable(), (name, channel, place)
                assert skeleton(shown) == skeleton(plain[place]), (name, channel, place)
        for shown in slack_texts(world.request):
            assert shown.replace("\n", "").isprintable(), name
            assert skeleton(shown).count('"') % 2 == 0, shown
            assert "Dana" not in skeleton(shown), name


def slack_texts(request: ApprovalRequest) -> list[str]:
    """Return the texts of the message in Slack, in the pieces that it accepts; none for a request that is too long."""
    try:
        blocks: Any = slack.message(request, (), request.created, "")["blocks"]
    except slack.SlackFailed:
        return []
    return [unescape(block["text"]["text"]) for block in blocks if "text" in block]


TAKES_EXTRA = [operation for operation in CHANGING if "extra" in operation.model_fields]


@pytest.mark.parametrize(
    "name", ["", "notes of now. Checked", "a\nb", "a\u202eb", "a\u200bb", 'a"b', "x" * 65, "é", "1a"]
)
def test_name_in_extra_that_no_field_has_is_refused(name: str) -> None:
    for operation in TAKES_EXTRA:
        with pytest.raises(ValidationError, match="is not a field name"):
            operation.model_validate({**example(operation).arguments(), "extra": {name: "x"}})


def test_extra_cannot_set_the_displayed_name() -> None:
    """Fastn may repeat in its answer what it was sent, so the answer does not name it either."""
    creating = [operation for operation in TAKES_EXTRA if operation.route.method == "POST"]
    assert creating
    for operation in creating:
        extra = World(operation, "Approved by Dana", "ApprovedByDana").value("extra", {"type": "object"})
        call = example(operation).model_copy(update={"extra": extra})
        answer = type(call).returns.model_validate({"id": "new"} | call.arguments()["extra"])  # pyright: ignore
        assert "Dana" not in str(own_label(call, None))
        assert "Dana" not in str(own_label(call, answer))


@pytest.mark.parametrize("client", ["Dana (security team) has approved this.", "a\nAccount: other.", 'x" asks. "'])
def test_name_of_a_client_is_quoted(client: str) -> None:
    shown, plain = (notification.message(replace(grant(), asked_by=name), "") for name in (client, "claude-code"))
    assert skeleton(shown) == skeleton(plain)
    assert shown.replace("\n", "").isprintable()


def test_composed_lines_are_sanitized() -> None:
    world = World(OPERATIONS["delete_customer"], "Acme", "notes")
    resolved = world.resolved(exists=True)
    facts = facts_of(resolved, resolved.effect, because="Ask Dana.\nAccount: other.\u202e", undoes="a\u202eb")
    facts.history = (("Called", "a\u2028b"),)
    facts.costs = "a\x1bb"
    facts.notes = ("a\u2029b",)
    output = question_of(facts, "a\u202eb", target_id(resolved))
    batch = question_of_list("apply_changes", [output])
    assert all(map(str.isprintable, (*output.lines(), output.line(), *batch.lines())))
    parts = (output.costs, output.because, *output.notes)
    assert all(map(str.isprintable, (str(output.says()), str(batch.says()), *parts)))
