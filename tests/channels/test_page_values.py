"""Hostile names and values on the page."""

import html
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from support.page_visitor import Visitor
from support.page_world import Desk, deletion_of_customer, update_of_workflow
from support.questions import a_question
from support.stores import add_temporary, empty, with_temporary
from typing_extensions import override

from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.question import FieldChange

HOSTILE = {
    "markup": '"><button name="extent" value="once">Approve all</button><script>alert(1)</script>',
    "attributes": "' onfocus=alert(1) autofocus x='Approve all",
    "entities": "&lt;b&gt;Approve all&lt;/b&gt;&#10;",
    "escapes": "\x1b[2K\x1b[31mApprove all\x1b]8;;http://evil.example\x07",
    "bidi": "\u202eApprove all\u2066\u200f\u061c",
    "lines": "Approve all\n\nYour decision\r\nApprove all\u2028Approve all\u2029\x85",
    "invisible": "Approve\u200b all\ufeff\U000e0041\U000e0042\u3164\u2800",
    "marks": "Approve all" + "\u0301" * 200,
    "template": "{{ token('approve', 'grant-1') }}{% raw %}Approve all",
    "zero": "Approve all\x00\x7f\x9b",
    "surrogate": "Approve all \\ud800",
}


class Structure(HTMLParser):
    """Parser of a page's elements and of the elements that contain a text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(sorted(name for name, _ in attrs))))
        if tag not in ("meta", "link", "img", "input", "br"):
            self._open.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))


def structure(page: str) -> Structure:
    read = Structure()
    read.feed(page)
    return read


def filled(grant: ApprovalRequest, value: str, id_: str, **changes: Any) -> ApprovalRequest:
    """Return a request with `value` in every place for data of Fastn or the agent."""
    question = a_question(
        tool=grant.tool,
        arguments={"name": value, "input": {"text": [value]}},
        account=value,
        target=value,
        name=value,
        changes=(FieldChange(value, value, [value]),),
        used_by=({"kind": "connections", "count": 2, "examples": [{"name": value}, {"name": value, "state": value}]},),
        not_checked=({"what": value, "why": value},),
        pending=(value, {"plan": value}),
        defaults={"environment": value},
    )
    values: dict[str, Any] = {
        "principal": value,
        "account": value,
        "target": value,
        "question": question,
    }
    return replace(grant, id=id_, **(values | changes))


async def fill(desk: Desk, value: str) -> None:
    now = desk.clock.now().timestamp()
    await desk.ask(
        filled(deletion_of_customer(), value, "grant-1", expected=value),
        filled(update_of_workflow(), value, "grant-2"),
        filled(deletion_of_customer("grant-3"), value, "grant-3"),
    )
    await desk.becomes("grant-3", RequestState.DECLINED, by=value, note=value)
    await add_temporary(desk.ledger, with_temporary(filled(update_of_workflow(), value, "grant-4"), now + 900))


async def filled_page(desk: Desk, visitor: Visitor, value: str) -> str:
    """Return the page of an otherwise empty ledger with `value` in every place."""
    empty(desk.ledger)
    await fill(desk, value)
    return await visitor.look()


async def test_values_cannot_add_elements(desk: Desk, visitor: Visitor) -> None:
    harmless = structure(await filled_page(desk, visitor, "Harmless"))
    for kind, value in HOSTILE.items():
        page = await filled_page(desk, visitor, value)
        read = structure(page)
        assert read.elements == harmless.elements, kind
        # Separate from our own text: an isolated value, the text to type, or a field name.
        assert {element for element, text in read.texts if "Approve all" in text} <= {"bdi", "kbd", "code"}, kind
        hidden = [letter for letter in page if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp")]
        assert set(hidden) == {"\n"}, kind
        assert "\u0301" * 4 not in page  # some scripts need combining marks; too many cover other lines
        assert not {"\u3164", "\u2800"} & set(page), kind
        for element, text in read.texts:
            assert element not in ("kbd", "code") or "\n" not in text, kind


async def test_values_are_quoted_beside_our_own_text(desk: Desk, visitor: Visitor) -> None:
    await fill(desk, "Approve all")
    read = structure(await visitor.look())
    values = [text for element, text in read.texts if element == "bdi" and "Approve all" in text]
    assert len(values) > 20
    # The requester, the account and the unchecked kinds are our own text; a preview quotes its own lines.
    assert {text for text in values if '"' not in text} == {"Approve all"}
    assert "Approve all" not in " ".join(
        text for element, text in read.texts if element in ("p", "h2", "span", "button")
    )


async def test_hostile_input_is_returned_as_text(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(expected="Globex"))
    typed = '"><script>alert(1)</script>'
    answer = await visitor.decide("approve", "grant-1", name=typed)
    assert typed not in answer.text
    assert f'value="{html.escape(typed)}"'.replace("&quot;", "&#34;") in answer.text
