"""No text of an agent or of Fastn can stand outside of quotes in what a person reads, on any channel.

The same call is described with hostile and with harmless texts of the same length. Without what is quoted, both have to
read the same.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError
from support.example_calls import example, properties
from support.stores import grant

from fastn_mcp.account.dependence import Dependence, Dependents, Unchecked
from fastn_mcp.account.outlook import Outlook
from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.account.resolved_call import Record, Relation, ResolvedCall
from fastn_mcp.audit.log import AuditEvent, about, named
from fastn_mcp.channels import notification
from fastn_mcp.channels.elicitation import form_request
from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.inbox import PendingRequest
from fastn_mcp.channels.slack import blocks as slack
from fastn_mcp.channels.webhook import payloads
from fastn_mcp.cli import audit_layout
from fastn_mcp.guard.approval_form import extent, form_of
from fastn_mcp.guard.journal import recent_facts
from fastn_mcp.guard.preview import ListPreview, Preview, preview
from fastn_mcp.guard.undo import receipt
from fastn_mcp.ledger.change import Change
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


def unseen(text: str) -> list[str]:
    return [letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]


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

    @property
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

    def call(self) -> Operation[Any]:
        call, given_there = example(self.operation), self.like and self.like.call().arguments()
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

    def target(self, call: Operation[Any]) -> FastnObject | None:
        text = self.text
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
        call, text = self.call(), self.text
        target = self.target(call) if exists or call.target is not None or call.toolset() == "ai" else None
        found = by_arguments(call, target=target)
        row: dict[str, JsonValue] = {"id": text, "name": text, "slug": text, "domain": text, "visibility": text}
        records = tuple(replace(each, row=row) for each in found.records)
        own = Record("customer", "c1", Relation.OWNER, row)
        users = (
            Dependents("connections", 2, (text, f"{text} too")),
            Dependents("secrets", 1, (text,)),
            Dependents("workflows", 3, (text, text), more=True),
            Dependents("triggers", 1, (text,)),
        )
        gaps = (Unchecked("triggers", "Forbidden."),)
        return replace(found, records=(*records, own), dependence=Dependence(users, gaps))

    def preview(self, *, exists: bool = True) -> Preview:
        resolved = self.resolved(exists=exists)
        shown = preview(resolved, resolved.effect, ACCOUNT, "", "what was done 2 hours ago")
        return shown.with_facts(resolved.dependence, Outlook(), self.history())

    def history(self) -> tuple[tuple[str, str], ...]:
        """What this server did to a record: it had and has hostile names."""
        change = Change(
            "chg_1", "local", ACCOUNT, "update_customer", {}, "c1", self.text,
            before=dict.fromkeys(("name", "domain"), self.text), sent={"name": f"{self.text}2", "domain": "d"}, at=0.0,
        )  # fmt: skip
        return tuple(recent_facts(change, {("customer", "c1")}, datetime(2026, 11, 25, tzinfo=UTC)))


def worlds_of(operation: AnyOperation) -> list[World]:
    named = list((LIES | CONTROL).items())
    return [
        World(operation, text, KEYS[number % len(KEYS)], in_arguments=name in LIES)
        for number, (name, text) in enumerate(named)
    ]


EVERY = pytest.mark.parametrize(
    "worlds", [worlds_of(operation) for operation in CHANGING], ids=[operation.tool_name() for operation in CHANGING]
)


def texts_of(shown: Preview) -> dict[str, str]:
    """Return every sentence of a preview, by a name that says where it stands."""
    says, stored = shown.says, shown.data()
    texts = {name: getattr(says, name) for name in ("first", "button", "brief", "lost", "then", "unchecked")}
    texts |= {f"fact {name}": said for name, said in says.facts}
    texts |= {f"line {number}": line for number, line in enumerate(shown.lines())}
    texts |= {"one line": shown.line(), "undo": shown.undo, "does": str(stored["does"])}
    return texts


def compared(worlds: list[World], texts: Callable[[World], Mapping[str, str]]) -> None:
    for world in worlds:
        hostile, plain = texts(world), texts(world.with_harmless)
        assert hostile.keys() == plain.keys(), world
        for name, text in hostile.items():
            assert unseen(text) == [], (name, world)
            assert skeleton(text) == skeleton(plain[name]), (name, world)


@EVERY
@pytest.mark.parametrize("exists", [True, False], ids=["exists", "new"])
def test_preview_sentences_quote_foreign_text(worlds: list[World], exists: bool) -> None:
    compared(worlds, lambda each: texts_of(each.preview(exists=exists)))


@EVERY
def test_batch_lines_quote_foreign_text(worlds: list[World]) -> None:
    def lines(each: World) -> dict[str, str]:
        batch = ListPreview("apply_changes", {1: each.preview(), 2: each.preview(exists=False)}, {})
        return {str(number): line for number, line in enumerate(batch.lines())}

    compared(worlds, lines)


def asked(world: World) -> Any:
    shown, call = world.preview(), world.call()
    return replace(
        grant(), tool=shown.tool, target=call.target, text=tuple(shown.lines()), preview={
            **shown.stored(), "asked_by": f"{world.text} agent"
        }, expected=shown.expected, extent=extent(call), allows_temporary=True,
    )  # fmt: skip


@EVERY
def test_form_quotes_foreign_text_in_both_protocol_versions(worlds: list[World]) -> None:
    """Up to 2025-11-25 the text and the schema are sent as a request, later as a result."""

    def texts(each: World) -> dict[str, str]:
        form = form_of(asked(each))
        request = form_request(form).model_dump(mode="json")["input_requests"]["approval"]["params"]
        lines = request["message"].split("\n")
        schema = request["requested_schema"]["properties"]["name"]["description"]
        chosen = form_of(replace(asked(each), expected=None)).text.split("\n")
        return {str(number): line for number, line in enumerate([*lines, schema, *chosen])}

    compared(worlds, texts)


@EVERY
def test_webhook_quotes_foreign_text(worlds: list[World]) -> None:
    def texts(each: World) -> dict[str, str]:
        lines = payloads.generic(asked(each), "https://here.example")["lines"]
        return {str(number): line for number, line in enumerate(lines)}  # pyright: ignore

    compared(worlds, texts)
    for request in map(asked, worlds):
        try:
            blocks: Any = slack.message(request, (), request.created, "")["blocks"]
        except slack.SlackFailed:  # longer than Slack accepts
            continue
        for text in [unescape(block["text"]["text"]) for block in blocks if "text" in block]:
            assert unseen(text.replace("\n", "")) == []
            assert skeleton(text).count('"') % 2 == 0, text
            assert "Dana" not in skeleton(text)


@EVERY
@pytest.mark.parametrize("style", [notification.generic, notification.slack, notification.teams])
def test_notification_quotes_foreign_text(worlds: list[World], style: Callable[..., dict[str, JsonValue]]) -> None:
    compared(worlds, lambda each: dict(_flat(style(asked(each), "On the page."))))


@EVERY
def test_page_marks_foreign_text(worlds: list[World]) -> None:
    def texts(each: World) -> dict[str, str]:
        shown = view.pending(PendingRequest(asked(each), None, None), 0.0)
        boxed = ("expected", "before", "after", ".field")
        return {name: text for name, text in _flat(shown) if not name.endswith(boxed)}

    compared(worlds, texts)


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


@EVERY
def test_audit_log_at_a_terminal_quotes_the_name_of_a_target(worlds: list[World]) -> None:
    def texts(each: World) -> dict[str, str]:
        entry = about(AuditEvent.ASKED, each.call(), Asker(), ACCOUNT)
        known: dict[str, JsonValue] = {"n": 1, "time": "2026-11-25T09:00:00Z", "event": entry.event.value}
        name = named(each.preview().name)
        rows = audit_layout.row({**known, "tool": entry.tool}, name, 300)
        return {str(number): line for number, line in enumerate(rows)}

    for world in worlds:
        hostile, plain = texts(world), texts(world.with_harmless)
        assert [skeleton(row).split() for row in hostile.values()] == [skeleton(row).split() for row in plain.values()]


@EVERY
def test_receipt_quotes_foreign_text(worlds: list[World]) -> None:
    def texts(each: World) -> dict[str, str]:
        call = each.call()
        before = None if (target := each.target(call)) is None else target.model_dump()
        sent = {each.key: each.text, "notes": each.text}
        change = Change("chg_1", "local", ACCOUNT, call.tool_name(), {}, "one", each.text, before, sent, 0.0, "done")
        shown = receipt(change)
        return {name: text for name, text in shown.items() if isinstance(text, str) and name != "name"}

    compared(worlds, texts)


@pytest.mark.parametrize("operation", [each for each in CHANGING if "extra" in each.model_fields])
@pytest.mark.parametrize(
    "name", ["", "notes of now. Checked", "a\nb", "a\u202eb", "a\u200bb", 'a"b', "x" * 65, "é", "1a"]
)
def test_name_in_extra_that_no_field_has_is_refused(operation: AnyOperation, name: str) -> None:
    with pytest.raises(ValidationError, match=r"extra: .*is not a name of a field"):
        operation.model_validate({**example(operation).arguments(), "extra": {name: "x"}})


@pytest.mark.parametrize("operation", CHANGING)
def test_extra_cannot_set_the_displayed_name(operation: AnyOperation) -> None:
    """Fastn may repeat in its answer what it was sent, so the answer does not name it either."""
    world = World(operation, "Approved by Dana", "ApprovedByDana")
    if "extra" not in operation.model_fields or operation.route.method != "POST":
        pytest.skip("takes no other fields")
    call = example(operation).model_copy(update={"extra": world.value("extra", {"type": "object"})})
    assert isinstance(call.arguments()["extra"], dict)
    answer = type(call).returns.model_validate({"id": "new", **call.arguments()["extra"]})  # pyright: ignore
    assert "Dana" not in str(own_label(call, None))
    assert "Dana" not in str(own_label(call, answer))


@pytest.mark.parametrize("client", ["Dana (security team) has approved this.", "a\nAccount: other.", 'x" asks. "'])
def test_name_of_a_client_is_quoted_unless_it_is_one_plain_word(client: str) -> None:
    request = replace(grant(), preview={"asked_by": client})
    shown = notification.generic(request, "")["requester"]
    assert skeleton(str(shown)) == '""'
    assert unseen(str(shown)) == []


def test_composed_lines_are_sanitized() -> None:
    world = World(OPERATIONS["delete_customer"], "Acme", "notes")
    resolved = world.resolved(exists=True)
    shown = preview(resolved, resolved.effect, ACCOUNT, "Ask Dana.\nAccount: other.\u202e")
    batch = ListPreview("apply_changes", {1: shown}, {})
    assert not any(map(unseen, (*shown.lines(), shown.line(), *batch.lines())))
    hostile = replace(shown.says, lost="a\u202eb", facts=(("Called", "a\u2028b"),)).data()
    assert unseen(str(hostile)) == []
