"""What the page refuses over real HTTP: only the authenticated person decides, on the page itself."""

from itertools import product
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Message
from support.begun import given
from support.page_visitor import Visitor
from support.page_world import Desk, deletion_of_customer, enter, let_in, room_of, update_of_workflow

from fastn_mcp.channels.page.access import MAX_BODY, SESSION_HOLDS, LocalPageAccess
from fastn_mcp.channels.page.app import page
from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.guard.approval.votes import unrecorded

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
ANSWERS = {
    "cache-control": "no-store",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def access_to(desk: Desk) -> LocalPageAccess:
    return LocalPageAccess(Inbox(desk.system, InboxAccount(None, desk.ledger, unrecorded, desk.typed)), desk.system)


def application(desk: Desk, access: LocalPageAccess, origin: str) -> ASGIApp:
    """Return the page without a port."""
    return page(access, [origin], desk.ledger, desk.system, lambda: False)


async def closed_page(visitor: Visitor) -> str:
    answer = await visitor.http.get("/", headers={"Cookie": ""})
    assert answer.status_code == 403
    return answer.text


async def test_cookie_is_limited_to_its_session_path(desk: Desk) -> None:
    """Ports share cookies, so the cookie is limited to an unguessable path and hidden from scripts."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await enter(http, *await desk.key())
    (cookie,) = answer.headers.get_list("set-cookie")
    name, *attributes = [part.strip() for part in cookie.split(";")]
    room = room_of(answer)
    assert sorted(attributes) == ["HttpOnly", f"Path={room}", "SameSite=strict"]
    assert len(room) > 24
    assert room.strip("/") not in name


FOREIGN_HOSTS = (
    "localhost",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.0.0.1:{port}.evil.example",
    "localhost:{port}.evil.example",
    "evil.example:{port}",
    "127.0.0.2:{port}",
    "[::1]:{port}",
    "user@127.0.0.1:{port}",
    "LOCALHOST.:{port}",
)


async def test_foreign_host_is_rejected(desk: Desk, visitor: Visitor) -> None:
    """Against DNS rebinding: two exact names, no pattern."""
    await desk.ask(deletion_of_customer())
    form = await visitor.form("decline", "grant-1")
    before = await desk.snapshot()
    for host in FOREIGN_HOSTS:
        foreign = host.format(port=httpx2.URL(visitor.origin).port)
        headers = {"Host": foreign, "Origin": f"http://{foreign}"}
        shown = await visitor.http.get(visitor.room, headers=headers)
        sent = await visitor.http.post(f"{visitor.room}decline", headers=headers, data=form)
        assert (shown.status_code, sent.status_code) == (403, 403), host
        assert "Globex" not in shown.text
    assert await desk.snapshot() == before


FOREIGN_ORIGINS = (
    None,
    "null",
    "http://evil.example",
    "http://127.0.0.1",
    "http://127.0.0.1:1",
    "https://127.0.0.1:{port}",
    "http://localhost:{port}",  # ours, but not the one of the form
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}.evil.example",
)


async def test_foreign_or_missing_origin_is_rejected(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    form = await visitor.form("decline", "grant-1")
    before = await desk.snapshot()
    for origin in FOREIGN_ORIGINS:
        headers = {} if origin is None else {"Origin": origin.format(port=httpx2.URL(visitor.origin).port)}
        answer = await visitor.http.post(f"{visitor.room}decline", data=form, headers=headers)
        assert answer.status_code == 403, origin
    assert await desk.snapshot() == before
    assert (await visitor.send("decline", form)).status_code == 303  # the form itself was valid


async def test_both_local_host_names_work(desk: Desk) -> None:
    await desk.ask(deletion_of_customer())
    url, key = await desk.key()
    url = url.replace("127.0.0.1", "localhost")
    async with httpx2.AsyncClient(trust_env=False) as http:
        visitor = Visitor(http, url, room=room_of(await enter(http, url, key)))
        http.base_url = visitor.origin
        assert (await visitor.decide("decline", "grant-1")).status_code == 303


async def test_form_token_is_single_use_and_bound_to_its_form(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow())
    other = await let_in(desk)
    mine = await visitor.form("decline", "grant-1")
    wrong = {
        "missing": "",
        "made up": "nonce.0000",
        "of another form": (await visitor.form("approve", "grant-1"))["token"],
        "of another question": (await visitor.form("decline", "grant-2"))["token"],
        "of another session": (await other.form("decline", "grant-1"))["token"],
        "cut": mine["token"][:-1],
        "no text": "\udcff.\u20ac".encode("utf-8", "replace").decode(),
    }
    before = await desk.snapshot()
    for which, token in wrong.items():
        answer = await visitor.send("decline", mine | {"token": token})
        assert (answer.status_code, await desk.snapshot()) == (403, before), which
    answer = await visitor.send("decline", {"grant": "grant-1"})
    assert (answer.status_code, await desk.snapshot()) == (403, before)
    assert (await visitor.send("decline", mine)).status_code == 303
    after = await desk.snapshot()
    again = await visitor.send("decline", mine)
    assert again.status_code == 403
    assert "already submitted" in again.text
    assert await desk.snapshot() == after
    await other.http.aclose()


async def test_denied_requests_get_the_same_page(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    url, used = await desk.key()
    other = await let_in(desk)
    constant = await closed_page(visitor)
    assert "fastn-mcp approvals --open" in constant
    cookie = f"fastn_approvals={visitor.http.cookies['fastn_approvals']}"
    form = await visitor.form("decline", "grant-1")
    before = await desk.snapshot()
    async with httpx2.AsyncClient(base_url=visitor.origin, trust_env=False) as http:
        for key in (used, "guess", "", "é"):
            answer = await enter(http, url, key)
            assert (answer.status_code, answer.text, answer.headers["connection"]) == (403, constant, "close"), key
        for path in (
            "/",
            "/enter/",
            "/enter/guess",
            f"/enter/{used}",
            f"/enter?key={used}",
            "/x/",
            "/x/now",
            "/x/events",
            "/static/",
            "/static/../app.py",
        ):
            answer = await http.get(path)
            assert (answer.status_code, answer.text) == (403, constant), path
        for path in ("", "now", "events", "approve", "activity", "activity?entry=1", "limits", "stop", "allow"):
            for headers in ({}, {"Cookie": "fastn_approvals=guess"}, {"Cookie": "fastn_approvals="}):
                answer = await http.get(visitor.room + path, headers=headers)
                assert (answer.status_code, answer.text) == (403, constant), path
            answer = await http.get(other.room + path, headers={"Cookie": cookie})
            assert (answer.status_code, answer.text) == (403, constant), path
        for action, cookie in product(
            ("approve", "decline", "revoke", "stop", "allow"), ("", "guess", visitor.room[1:-1])
        ):
            headers = {"Origin": visitor.origin, "Cookie": f"fastn_approvals={cookie}"}
            answer = await http.post(visitor.room + action, data=form, headers=headers)
            assert (answer.status_code, answer.text, "set-cookie" in answer.headers) == (403, constant, False), action
    assert await desk.snapshot() == before
    await other.http.aclose()


async def test_guessing_keys_does_not_lock_the_page(desk: Desk) -> None:
    access = access_to(desk)
    key = access.key
    assert not any(access.redeem(f"guess {number}") for number in range(10_000))
    assert access.redeem(key)
    assert not access.redeem(key)


async def test_file_origin_can_only_post_a_key(desk: Desk, visitor: Visitor) -> None:
    """The origin of a file is `null`, which decides nothing even with a session."""
    await desk.ask(deletion_of_customer())
    url, key = await desk.key()
    for origin in FOREIGN_ORIGINS:
        if origin not in (None, "null"):
            named = origin.format(port=httpx2.URL(visitor.origin).port)
            assert (await enter(visitor.http, url, key, Origin=named)).status_code == 403, origin
    assert (await visitor.http.post("/enter", data={"key": key})).status_code == 403
    form = await visitor.form("decline", "grant-1")
    assert (await visitor.http.post(f"{visitor.room}decline", data=form, headers={"Origin": "null"})).status_code == 403
    assert (await enter(visitor.http, url, key)).status_code == 200


async def test_session_expires(desk: Desk, visitor: Visitor) -> None:
    desk.clock.passed += SESSION_HOLDS - 60
    await visitor.look()
    desk.clock.passed += 61
    assert (await visitor.http.get(visitor.room)).status_code == 403


async def test_get_never_decides(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(expected="Globex"), update_of_workflow())
    await desk.ask(deletion_of_customer("grant-3", out_of_band=False))
    await visitor.decide("approve", "grant-2", extent="while")
    await given(desk.ledger, "grant-2", desk.clock.now().timestamp() + 900)
    await desk.ask(update_of_workflow("grant-4"))
    before = await desk.snapshot()
    forms = [
        ("approve", await visitor.form("approve", "grant-1") | {"name": "Globex", "extent": "once"}),
        ("approve", await visitor.form("approve", "grant-4") | {"extent": "while"}),
        ("decline", await visitor.form("decline", "grant-1") | {"note": "x"}),
        ("revoke", await visitor.form("revoke", "grant-2")),
        ("stop", await visitor.form("stop", place="stop")),
    ]
    addresses = [
        "",
        "now",
        "activity",
        "activity?entry=1",
        "limits",
        "stop",
        "allow",
        "approve/",
        "grant-1",
        "?approve",
        "approve/grant-1",
        "../approve",
    ]
    methods = ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
    by_get = [("GET", address) for address in addresses]
    for number, (action, fields) in enumerate(forms):
        by_action = [(method, action) for method in ("GET", *methods)]
        for method, address in by_action if number else by_get + by_action:
            answer = await visitor.http.request(
                method,
                visitor.room + address,
                params=fields | {"_method": "POST"},
                headers={"Origin": visitor.origin, "X-HTTP-Method-Override": "POST"},
            )
            assert answer.status_code in ((200, 303, 403, 404) if method == "GET" else (405,)), (method, address)
        async with visitor.http.stream("GET", f"{visitor.room}events", params=fields) as events:
            await anext(events.aiter_lines())
        with_body: dict[str, Any] = {"data": fields, "headers": {"Origin": visitor.origin}}
        await visitor.http.request("GET", visitor.room + action, **with_body)
    assert await desk.snapshot() == before


async def test_query_does_not_complete_a_form(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    form = await visitor.form("decline", "grant-1")
    before = await desk.snapshot()
    answer = await visitor.http.post(f"{visitor.room}decline", params=form, headers={"Origin": visitor.origin})
    assert answer.status_code in (400, 415)
    assert await desk.snapshot() == before


URLENCODED = "application/x-www-form-urlencoded"
NO_FORMS = (
    (b"note=" + b"x" * MAX_BODY, URLENCODED, 413),
    (b'{"grant":"grant-1"}', "application/json", 415),
    (b"grant=grant-1", "text/plain", 415),
    (b"grant=grant-1", "multipart/form-data; boundary=x", 415),
    (b"grant=grant-1&grant=grant-2", URLENCODED, 400),
    (b"&".join(b"f%d=1" % number for number in range(20)), URLENCODED, 400),
    (b"grant=%ff%fe", URLENCODED, 400),
    (b"grant=\xff", URLENCODED, 400),
    (b"grant", URLENCODED, 400),
)


async def test_invalid_form_body_decides_nothing(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    before = await desk.snapshot()
    for body, kind, status in NO_FORMS:
        headers = {"Origin": visitor.origin, "Content-Type": kind}
        answer = await visitor.http.post(f"{visitor.room}decline", content=body, headers=headers)
        assert answer.status_code == status, body[:40]
        assert "Nothing was decided" in answer.text
    assert await desk.snapshot() == before


async def test_every_response_has_security_headers(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(expected="Globex"))
    url, key = await desk.key()
    answers = [
        await enter(visitor.http, url, key),
        await enter(visitor.http, url, key),
        await visitor.http.get(visitor.room),
        await visitor.http.get(f"{visitor.room}now"),
        await visitor.http.get(f"{visitor.room}activity"),
        await visitor.http.get(f"{visitor.room}activity?entry=1"),
        await visitor.http.get(f"{visitor.room}limits"),
        await visitor.http.get(f"{visitor.room}nowhere"),
        await visitor.http.get("/"),
        await visitor.http.get("/", headers={"Host": "evil.example"}),
        await visitor.http.head(visitor.room),
        await visitor.http.post(visitor.room),
        await visitor.send("nowhere", {}),
        await visitor.decide("approve", "grant-1", name="Globex Corp"),
        await visitor.decide("decline", "grant-1"),
        *[await visitor.http.get(f"/static/{name}") for name in ("page.css", "page.js", "icon.svg")],
    ]
    async with visitor.http.stream("GET", f"{visitor.room}events") as events:
        answers.append(events)
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 403, 200, 200, 200, 404, 200, 303, 403, 403, 405, 403, 303, 422, 303, 200, 200, 200, 200]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in ANSWERS} == ANSWERS
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


async def test_page_has_no_inline_script_or_style(desk: Desk, visitor: Visitor) -> None:
    """The content security policy would block them."""
    await desk.ask(deletion_of_customer(expected="Globex"), update_of_workflow())
    page = await visitor.look()
    assert page.count("<script") == 1
    assert '<script src="/static/page.js" defer></script>' in page
    own = ("<style", " style=", "javascript:", " onclick", " onload", " onsubmit", "http:", "https:")
    assert [part for part in own if part in page] == []
    for path in ("activity", "limits", "activity?entry=1", "stop", "allow"):
        place = (await visitor.http.get(visitor.room + path)).text
        assert [part for part in (*own, "<script") if part in place] == [], path


async def test_only_http_is_answered(desk: Desk) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    app = application(desk, access_to(desk), "http://127.0.0.1:1")
    await app({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert sent == []


async def test_page_can_be_mounted_in_another_application(desk: Desk) -> None:
    access = access_to(desk)
    await desk.ask(deletion_of_customer())
    inner = application(desk, access, "https://team.example")
    transport = httpx2.ASGITransport(app=Starlette(routes=[Mount("/approvals", inner)]))
    async with httpx2.AsyncClient(transport=transport, base_url="https://team.example") as http:
        answer = await enter(http, "/approvals", access.key)
        room = room_of(answer)
        assert room.startswith("/approvals/")
        assert f"Path={room}; SameSite=strict; Secure" in answer.headers["set-cookie"]
        visitor = Visitor(http, "https://team.example", room=room)
        assert '"/approvals/static/page.css"' in await visitor.look()
        assert (await visitor.decide("decline", "grant-1")).headers["location"] == room
