"""Labels of each kind of resource, which a person recognises and can type."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.values import not_none

from fastn_mcp.records.formats import counted
from fastn_mcp.records.labels import MAX_TYPED, Label, distinction, label_of, references, typed_id

NAMES = {"customer": {"c1": "Katana"}, "connector": {"k1": "TikTok Shop"}, "workflow": {"w1": "Sync orders"}}
TIKTOK = {"slug": "tiktokShop", "name": "TikTok Shop"}
ROUTES = [{"routeId": "w1", "environment": "live"}]

LABELS: list[tuple[str, dict[str, Any], str]] = [
    ("customer", {"name": "Globex Exports", "slug": "globex"}, "Globex Exports"),
    ("customer", {"name": " ", "slug": "globex"}, "globex"),
    ("connector", {"name": {"en": "x"}, "slug": "gamma"}, "gamma"),
    ("role", {"name": "Support"}, "Support"),
    ("workflow", {"id": "w1", "name": "Sync orders"}, "Sync orders"),
    ("connection", {"id": "u", "name": "default", "connector": TIKTOK, "endOrgId": "c1"}, "TikTok Shop of Katana"),
    ("connection", {"name": "eu", "connectorId": "k1", "endOrgId": "c1"}, "TikTok Shop of Katana (eu)"),
    ("connection", {"connectorId": "k9", "endOrgId": "c9"}, "k9 of c9"),
    ("connection", {"connector": TIKTOK, "customer": {"id": "c2", "name": "Acme"}}, "TikTok Shop of Acme"),
    ("connection", {"id": "u", "connector": TIKTOK}, "TikTok Shop of your own account"),
    (
        "trigger",
        {"name": "Nightly", "type": "scheduler", "schedule": "0 2 * * *", "timezone": "UTC", "routes": ROUTES},
        "Nightly (schedule 0 2 * * * UTC, starts Sync orders)",
    ),
    (
        "trigger",
        {"name": "Paid", "type": "app_event", "events": ["orders/paid"], "endOrgId": "c1", "routes": ROUTES},
        "Paid (Katana, on orders/paid, starts Sync orders)",
    ),
    ("trigger", {"type": "webhook", "routes": ROUTES}, "webhook of Sync orders (webhook, starts Sync orders)"),
    (
        "api_key",
        {"id": 4, "name": "CI key", "mode": "Test", "last4": "abcd", "permissions": "Full access"},
        "CI key (…abcd, test, full access)",
    ),
    ("api_key", {"id": 4}, "key 4"),
    ("secret", {"name": "TOKEN"}, "TOKEN"),
    ("secret", {"name": "TOKEN", "customerId": "c1"}, "TOKEN (Katana)"),
    ("user", {"name": "Mei Tanaka", "email": "mei@fastn.example"}, "Mei Tanaka (mei@fastn.example)"),
    ("user", {"name": None, "email": "sam@fastn.example"}, "sam@fastn.example"),
]


@pytest.mark.parametrize(("kind", "row", "label"), LABELS)
def test_label_of_each_kind(kind: str, row: dict[str, Any], label: str) -> None:
    assert str(label_of(kind, row, NAMES)) == label


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in LABELS}))
def test_label_of_a_row_without_a_name_is_none(kind: str) -> None:
    assert label_of(kind, {}) is None


def test_references_hold_only_ids_without_a_name() -> None:
    named: list[dict[str, Any]] = [
        {"connector": TIKTOK, "endOrgId": "c1"},
        {"connectorId": "k1", "customer": {"id": "c1", "name": "Katana"}},
    ]
    assert [references("connection", row) for row in named] == [{"customer": ["c1"]}, {"connector": ["k1"]}]
    trigger: dict[str, Any] = {"endOrgId": "c1", "routes": [{"routeId": f"w{number}"} for number in (1, 1, 2, 3)]}
    assert references("trigger", trigger) == {"customer": ["c1"], "workflow": ["w1", "w2"]}
    assert references("customer", {"id": "c1"}) == references("api_key", {"customers": ["c1"]}) == {}


def test_label_holds_no_secret() -> None:
    key = "fsk_live_" + "a1B2" * 8
    label = label_of("trigger", {"name": key, "schedule": key})
    assert key not in str(label)
    assert label is not None
    assert label.typed("t1") == "t1"


@given(
    name=st.text() | st.text('abc \u0430\u03b1\uff41\u200b\u0301`"\\', min_size=1),
    id_=st.text("ab:", min_size=1, max_size=200),
)
def test_typed_name_is_short_and_plain(name: str, id_: str) -> None:
    typed = not_none(Label(name).typed(id_))
    assert 0 < len(typed) <= MAX_TYPED
    assert typed.isprintable()
    assert not set(typed) & set('"\\`')
    assert typed in (name, typed_id(id_))


@pytest.mark.parametrize("name", ["n", "NO", "y", "Yes", "approve", "Decline"])
def test_answer_is_not_typed_as_a_name(name: str) -> None:
    """Who types it to decline would approve."""
    assert Label(name).typed("c1") == "c1"
    assert Label(name, also=("nope",)).typed("c1") == "nope"


def test_counted_uses_singular_and_plural() -> None:
    assert [counted(n, "key") for n in (0, 1, 2, 1000)] == ["0 keys", "1 key", "2 keys", "1,000 keys"]
    assert counted(1, "key", at_least=True) == "at least 1 key"


LIVE_ID, TEST_ID = (f"ucl:org:{environment}:k1:a1:c1" for environment in ("live", "test"))
DISTINCTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("customer", {"name": "Globex Exports", "slug": "globex-exports", "status": "Active"}, "active"),
    ("customer", {"name": "Globex Exports", "slug": "globex-2"}, "slug globex-2"),
    ("connector", {"name": "Gamma", "slug": "gamma-2"}, "slug gamma-2"),
    ("workflow", {"name": "Sync", "slug": "sync-2", "status": "DRAFT"}, "slug sync-2, draft"),
    ("workflow", {"name": " ", "slug": "sync_2"}, ""),
    ("connection", {"id": LIVE_ID, "connector": TIKTOK, "endOrgId": "c1", "status": "FAILED"}, "in live, failed"),
    ("connection", {"id": TEST_ID, "connector": TIKTOK, "endOrgId": "c1", "name": "eu"}, "eu, in test"),
    ("secret", {"name": "KEY", "customerId": None, "environment": None}, "your own account, in test and live"),
    ("secret", {"name": "KEY", "customerId": "c1", "environment": "test"}, "Katana, in test"),
    ("secret", {"name": "KEY"}, ""),
    ("trigger", {"name": "Hook", "endOrgId": "c1", "routes": ROUTES}, "Katana, starts Sync orders, in live"),
    ("trigger", {"name": "Hook", "endOrgId": None, "status": "Disabled"}, "your own account, disabled"),
    ("api_key", {"id": 4, "name": "BI", "last4": "9f2c", "mode": "Live"}, "…9f2c, live"),
    ("user", {"name": "Ada", "email": "ada@x.example"}, "ada@x.example"),
]


@pytest.mark.parametrize(("kind", "row", "expected"), DISTINCTIONS)
def test_rows_of_one_name_are_told_apart(kind: str, row: dict[str, Any], expected: str) -> None:
    assert distinction(kind, row, not_none(label_of(kind, row, NAMES))) == expected
