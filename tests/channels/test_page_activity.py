"""The place Activity: rows joined from an audit log and the ledger, searched and paged without reading all of it."""

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from support.long_log import ACCOUNT, START, call, write_entries, write_log
from support.page_visitor import Visitor, words
from support.page_world import Desk, batch, deletion_of_customer, let_in, made

from fastn_mcp.audit.log import AuditEvent, LogEntry
from fastn_mcp.channels.page.activity import MAX_ENTRIES, LogPage, Row, Search, read_page
from fastn_mcp.ledger.approval_request import RequestState

ASKED, APPROVED, INTENT, OUTCOME = AuditEvent.ASKED, AuditEvent.APPROVED, AuditEvent.INTENT, AuditEvent.OUTCOME


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "state" / "page.json", name=ACCOUNT)
    yield desk
    await desk.aclose()


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A log of 100,000 entries in three files, and the number of calls in it."""
    log = tmp_path_factory.mktemp("long") / "audit.jsonl"
    return log, write_log(log, 100_000, per_file=40_000)


def read(log: Path, below: int | None = None, **search: str) -> LogPage:
    wanted = Search(**search)
    return read_page(log, wanted.matches, wanted, below)


def targets(rows: Iterable[Row]) -> list[int]:
    return [int(str(row.calls[0].target).removeprefix("cus_")) for row in rows]


async def rows(visitor: Visitor, query: str = "") -> list[str]:
    """Return the words of each row of the page."""
    page = await visitor.look(f"activity?{query}")
    return [words(row) for row in re.findall(r"<li(?: class=\"gap\")?>.*?</li>", page, re.DOTALL)]


async def details(visitor: Visitor, number: int = 0) -> str:
    """Return the words of the page of a row."""
    links = re.findall(r'<li><a href="([^"]+)"', await visitor.look("activity"))
    return words((await visitor.http.get(unescape(links[number]))).text)


AT = START.timestamp()

# --- joining ----------------------------------------------------------------------------------------------------------

DONE = (call(1, event=INTENT, approved_by="policy"), call(1, event=OUTCOME, of="intent", outcome="done"))
OF_ONE_CALL: dict[str, tuple[list[LogEntry], str]] = {
    "allowed by the policy": ([*DONE], 'Done Delete customer Customer 1 allowed by the policy'),
    "by a temporary approval": (
        [replace(entry, approved_by="temporary_approval", grant="temp") for entry in DONE],
        "Done Delete customer Customer 1 allowed by a temporary approval",
    ),
    "by a plan": (
        [replace(entry, approved_by="plan", rule="plan nightly.toml line 5") for entry in DONE],
        "Done Delete customer Customer 1 plan nightly.toml line 5",
    ),
    "answer lost": (
        [DONE[0]],
        (
            "Unknown Delete customer Customer 1 allowed by the policy"
            " The change may or may not have been made. Check in Fastn before you repeat it."
        ),
    ),
    "failed": (
        [DONE[0], replace(DONE[1], outcome="invalid", message="The API key is wrong. Nothing was changed.")],
        (
            "Failed Delete customer Customer 1 allowed by the policy"
            " The API key is wrong. Nothing was changed."
        ),
    ),
    "refused": (
        [call(1, event=AuditEvent.REFUSED, outcome="refused", message="No.")],
        "Refused Delete customer Customer 1 refused by the policy",
    ),
    "target changed": (
        [call(1, event=AuditEvent.REFUSED, outcome="target_changed")],
        "Void Delete customer Customer 1",
    ),
    "expired, and asked again": (
        [call(1, grant="a"), call(1, event=AuditEvent.EXPIRED, grant="a")],
        "Expired Delete customer Customer 1 nobody answered",
    ),
    "approved, and not repeated": (
        [call(1, grant="a"), call(1, event=APPROVED, grant="a", approved_by="local_page")],
        (
            "Not used Delete customer Customer 1 approved by you"
            " Approved, but the agent never repeated the call."
        ),
    ),
    "declined, and repeated": (
        [
            call(1, grant="a"),
            call(1, event=AuditEvent.DECLINED, grant="a", approved_by="local_page", message="Not now."),
            call(1, event=AuditEvent.DECLINED, outcome="declined"),
        ],
        "Declined Delete customer Customer 1 declined by you",
    ),
    "an invitation": (
        [
            call(
                1, event=AuditEvent.REFUSED, tool="invite_user", target=None, name=None, effect="access",
                arguments={"email": "kim@x.example"}, outcome="refused",
            )
        ],
        "Refused Invite user kim@x.example refused by the policy",
    ),
}  # fmt: skip


async def test_entries_of_one_call_are_one_row(desk: Desk, visitor: Visitor) -> None:
    for case, (entries, expected) in OF_ONE_CALL.items():
        desk.audit.unlink(missing_ok=True)
        write_entries(desk.audit, entries)
        assert await rows(visitor) == [f"00:00 {expected}"], case


async def test_sign_says_what_is_lost_or_given(desk: Desk, visitor: Visitor) -> None:
    effects = ("destroy", "trash", "access", "spend", "write")
    write_entries(desk.audit, [call(n, event=INTENT, effect=effect) for n, effect in enumerate(effects)])
    page = await visitor.look("activity")
    labels = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert labels == ["Spends AI credits:", "Gives access:", "Cannot be fully undone:"]  # nothing is lost in Trash


async def test_new_request_after_an_expired_one_is_a_new_row(desk: Desk, visitor: Visitor) -> None:
    expired = [call(1, grant="a"), call(1, event=AuditEvent.EXPIRED, grant="a")]
    write_entries(desk.audit, [*expired, call(1, grant="b"), call(1, event=INTENT, grant="b", approved_by="terminal")])
    assert [row.split()[1] for row in await rows(visitor)] == ["Unknown", "Expired"]


STATES = [
    (RequestState.OPEN, "Waiting", "Delete customer Globex mcp"),
    (RequestState.APPROVED, "Not used yet", "Delete customer Globex mcp , approved by you"),
    (RequestState.DECLINED, "Declined", "Delete customer Globex mcp , declined by you Note: Ask Dana."),
    (RequestState.STALE, "Void", "Delete customer Globex mcp"),
    (RequestState.UNANSWERED, "Expired", "Delete customer Globex mcp , nobody answered"),
]


@pytest.mark.parametrize(("state", "outcome", "words"), STATES)
async def test_row_of_a_request_says_what_the_ledger_knows(
    state: RequestState, outcome: str, words: str, desk: Desk, visitor: Visitor
) -> None:
    request = deletion_of_customer(asked_by="mcp")
    entries = [call(1, grant="grant-1", target="cus_8fQ2")]
    if state is RequestState.APPROVED:
        entries.append(call(1, event=APPROVED, grant="grant-1", approved_by="local_page"))
    write_entries(desk.audit, entries)
    await desk.ask(request)
    if state is not RequestState.OPEN:
        await desk.becomes("grant-1", state, note="Ask Dana." if state is RequestState.DECLINED else None)
    assert await rows(visitor) == [f"00:00 {outcome} {words}"]


async def test_declined_call_has_no_approver(desk: Desk, visitor: Visitor) -> None:
    declined = call(1, event=AuditEvent.DECLINED, grant="grant-1", approved_by="four_eyes")
    write_entries(desk.audit, [call(1, grant="grant-1"), declined])
    page = await details(visitor)
    assert "Approved by" not in page
    assert "Decided by an authenticated person" in page


async def test_request_of_another_account_lends_no_words(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(account="another at live.fastn.ai"))
    write_entries(desk.audit, [call(1, grant="grant-1")])
    assert await rows(visitor) == ["00:00 Expired Delete customer Customer 1 nobody answered"]


async def test_approved_batch_is_one_row(desk: Desk, visitor: Visitor) -> None:
    (shown,) = deletion_of_customer().calls.values()
    await desk.ask(batch(calls={"call 1": shown, "call 2": shown}))
    both = {"grant": "grant-8", "tool": "apply_changes", "target": None, "name": None, "digest": "list"}
    calls = [
        call(3, event=INTENT, grant="grant-8.1", approved_by="local_page"),
        call(3, event=OUTCOME, grant="grant-8.1", of="3", outcome="done"),
        call(4, event=INTENT, grant="grant-8.2", approved_by="local_page"),
        call(4, event=OUTCOME, grant="grant-8.2", of="5", outcome="invalid", message="The workflow is gone."),
    ]
    agreed = call(2, event=AuditEvent.AGREED, approved_by="local_page", arguments=None, **both)
    write_entries(desk.audit, [call(2, **both), agreed, *calls])
    said = "Make 2 changes local , approved by you The workflow is gone."
    assert await rows(visitor) == [f"00:00 1 of 2 done {said}".replace("local , ", "")]


async def test_undone_change_says_so(desk: Desk, visitor: Visitor) -> None:
    write_entries(desk.audit, [replace(DONE[0], change="chg_1"), DONE[1]])
    await desk.ledger.begin(made("chg_1", AT, undone_at=AT))
    assert await rows(visitor) == ["00:00 Undone Delete customer Customer 1 allowed by the policy"]
    assert "It has been undone." in await details(visitor)


async def test_change_that_is_in_no_log_here_comes_from_the_journal(desk: Desk, visitor: Visitor) -> None:
    """Of another server on the same ledger, or of a log that is gone."""
    write_entries(desk.audit, [replace(DONE[0], change="chg_1"), DONE[1]])
    await desk.ledger.begin(made("chg_1", AT, approved_by="policy"))
    await desk.ledger.begin(made("chg_2", AT + 3600, approved_by="verified: Dana"))
    assert await rows(visitor) == [
        "01:00 Done Update workflow Orders approved by you",
        "00:00 Done Delete customer Customer 1 allowed by the policy",
    ]
    assert len(await rows(visitor, "q=wf+31")) == 1
    page = await details(visitor)
    assert 'name "Orders" → "Orders v2"' in page


async def test_page_of_a_row_that_is_not_there_says_so(desk: Desk, visitor: Visitor) -> None:
    write_entries(desk.audit, [*DONE])
    for query in (
        "entry=2",
        "entry=99",
        "entry=1&tenant=acme",
        "change=chg_1",
        f"entry={'9' * 40}&change=",
    ):
        assert "Change not found" in await visitor.look(f"activity?{query}", 404), query


async def test_hostile_names_are_escaped_and_visible(desk: Desk, visitor: Visitor) -> None:
    name = f"<script>\u202e\x1b[2J\u200b{'W' * 200}"
    hostile = call(1, event=AuditEvent.REFUSED, name=name, message=name, rule=name, arguments={name: name})
    write_entries(desk.audit, [replace(hostile, tool=name, account=name, outcome=name)])
    (link,) = re.findall(r'<li><a href="([^"]+)"', await visitor.look("activity"))
    for page in (await visitor.look("activity"), (await visitor.http.get(unescape(link))).text):
        assert "<script>" not in page
        assert not re.search("[\u202e\x1b\u200b]", page)
        assert "&lt;script&gt;\\u{202e}\\u{1b}[2J\\u{200b}" in page


# --- searching and paging ---------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_page_of_a_long_log_reads_its_own_part_only(long_log: tuple[Path, int]) -> None:
    log, calls = long_log
    newest = read(log)
    assert newest.read <= 1_000
    assert targets(newest.rows) == list(range(calls, calls - 50, -1))
    middle = read(log, 50_000)
    assert middle.read <= 1_500
    assert len(middle.rows) == 50
    assert all(49_500 < row.number < 50_000 for row in middle.rows)
    oldest = read(log, until="2026-01-01")
    assert oldest.read <= 1_000
    assert [row.time[:10] for row in oldest.rows] == ["2026-01-01"] * 50
    assert oldest.rows[0].time > "2026-01-01T23:59"


@pytest.mark.long
async def test_search_stops_after_a_bounded_number_of_entries_and_can_go_on(long_log: tuple[Path, int]) -> None:
    log, calls = long_log
    found: list[int] = []
    below: int | None = None
    pages = 0
    while pages == 0 or below is not None:
        page = read(log, below, q="Customer 777", outcome="Done")
        assert page.read <= MAX_ENTRIES
        assert page.before is None or page.since
        found += targets(page.rows)
        below, pages = page.before, pages + 1
    assert pages >= 100_000 // MAX_ENTRIES
    done = [n for n in range(calls, 0, -1) if n % 7 in (3, 4, 5) and str(n).startswith("777")]
    assert found == done


FILTERS = [
    ({"outcome": "Done"}, {3, 4, 5}),
    ({"outcome": "Failed or unknown"}, {6}),
    ({"outcome": "Not approved or ended"}, {1, 2}),
    ({"outcome": "Refused"}, {0}),
    ({"outcome": "Waiting or not used"}, set[int]()),
    ({"effect": "Delete, revoke"}, {0, 1, 2, 3, 4}),
    ({"effect": "Gives access"}, set[int]()),
    ({"effect": "made up"}, set[int]()),
]


async def test_filter_shows_what_it_names(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    calls = write_log(log, 100)
    for search, stories in FILTERS:
        wanted = Search(**search)
        rows = read_page(log, wanted.matches, wanted).rows
        assert targets(rows) == [n for n in range(calls, 0, -1) if n % 7 in stories], search


@pytest.mark.long
async def test_search_page_says_how_far_it_looked(long_log: tuple[Path, int], desk: Desk, visitor: Visitor) -> None:
    desk.audit.symlink_to(long_log[0])
    page = await visitor.look("activity?q=nowhere")
    assert "No change matches <bdi>nowhere</bdi>" in page
    assert "Searched back to Friday, 2 January." in words(page)
    assert re.search(r'href="[^"]+q=nowhere[^"]+before=\d+">Search further</a>', page)


async def test_every_call_of_a_long_log_is_on_one_of_the_pages_that_lead_to_each_other(
    desk: Desk, visitor: Visitor
) -> None:
    calls = write_log(desk.audit, 600, per_file=250)
    found, path = list[str](), "activity"
    while path:
        page = await visitor.look(path)
        on_this_page = re.findall(r"Customer (\d+)<", page)
        assert len(on_this_page) <= 50
        found += on_this_page
        following = re.search(rf'href="{visitor.room}([^"]+)">Older changes', page)
        path = unescape(following[1]) if following else ""
    assert found == [str(n) for n in range(calls, 0, -1)]


# --- bad logs ---------------------------------------------------------------------------------------------------------


async def test_damaged_lines_are_shown_as_a_gap(desk: Desk, visitor: Visitor) -> None:
    write_entries(desk.audit, [replace(entry, digest=str(n)) for n in range(3) for entry in DONE])
    lines = desk.audit.read_bytes().splitlines(keepends=True)
    lines[2:2] = [b"\0\0\0\n", b"[" * 90_000 + b"\n", b'{"event"\n', b"[]\n"]
    desk.audit.write_bytes(b"".join(lines))
    seen = await rows(visitor)
    assert [row.split()[1] for row in seen] == ["Done", "Done", "line", "Done"]
    assert len(await rows(visitor, "outcome=Done")) == 3


async def test_entries_of_strange_types_do_no_harm(desk: Desk, visitor: Visitor) -> None:
    desk.audit.parent.mkdir(exist_ok=True)
    desk.audit.write_text(
        '{"event":1,"n":"x","hash":5}\n{"event":"intent","n":true,"hash":"h","tool":[],"time":{}}\n'
        '{"event":"intent","n":3,"hash":"h","arguments":7,"effect":{},"tool":"delete_customer","time":"soon"}\n'
    )
    assert [row.split()[0] for row in await rows(visitor)] == ["Unknown", "Unknown"]


async def test_unreadable_log_is_named_and_the_journal_shown(desk: Desk, visitor: Visitor) -> None:
    desk.audit.mkdir(parents=True)
    await desk.ledger.begin(made("chg_1", AT))
    assert len(await rows(visitor)) == 1


async def test_line_that_another_process_is_writing_is_not_damage(desk: Desk, visitor: Visitor) -> None:
    write_entries(desk.audit, [*DONE])
    whole = desk.audit.read_bytes()
    desk.audit.write_bytes(whole[:-30])
    assert [row.split()[1] for row in await rows(visitor)] == ["Unknown"]
    desk.audit.write_bytes(whole)
    assert [row.split()[1] for row in await rows(visitor)] == ["Done"]


@pytest.mark.long
async def test_activity_is_shown_beside_10000_open_requests(desk: Desk) -> None:
    write_entries(desk.audit, [*DONE])
    for number in range(10_000):
        await desk.ledger.open(deletion_of_customer(f"g{number}", principal=f"p{number // 30}"))
    visitor = await let_in(desk)
    assert len(await rows(visitor)) == 1
    assert '<span class="count" id="count">10000</span>' in await visitor.look("limits")
    await visitor.http.aclose()
