"""Schedules in words."""

import pytest

from fastn_mcp.records.cron import words


@pytest.mark.parametrize(
    ("schedule", "in_words"),
    [
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15th minute"),
        ("0 * * * *", "at the start of every hour"),
        ("0 15 * * *", "at 15:00 every day"),
        ("0 6 11,22,31 * *", "at 06:00 on the 11th, the 22nd, and the 31st day of month"),
        ("30 9 * * 1-5", "at 09:30 on Monday through Friday"),
        ("0 6 1 * *", "at 06:00 on the first day of every month"),
    ],
)
def test_schedule_is_described(schedule: str, in_words: str) -> None:
    assert words(schedule) == in_words


@pytest.mark.parametrize(
    "schedule",
    [
        "", "@daily", "* * * *", "* * * * * *", "*/0 * * * *", "60 9 * * *", "0 24 * * *", "0 9 1 * 1", "0 9 32 * *",
        "0 9 * * MON", "0 9 L * *", "\u0661 9 * * *", f"{'1,' * 20}1 9 * * *",
    ],
)  # fmt: skip
def test_schedule_that_dialects_read_differently_is_not_described(schedule: str) -> None:
    assert words(schedule) is None
