"""The place Activity: rows joined from an audit log and the ledger, searched and paged without reading all of it."""


import pytest
from support.long_log import write_log
from support.page_visitor import words
from support.page_world import Desk, Visitor

pytestmark = pytest.mark.anyio


async def test_x(desk: Desk, visitor: Visitor) -> None:
    for path in ("activity", "activity?q=foo", "limits", "change?entry=3"):
        answer = await visitor.http.get(visitor.room + path)
        print(answer.status_code, words(answer.text)[:600])
    write_log(desk.audit, 300)
    for path in ("activity", "activity?q=customer+9", "activity?q=foo", "activity?outcome=Refused", "change?entry=3"):
        answer = await visitor.http.get(visitor.room + path)
        print(answer.status_code, words(answer.text)[:1800])
