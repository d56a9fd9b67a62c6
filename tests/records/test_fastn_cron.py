"""Schedules in words."""

import pytest

from fastn_mcp.records.cron import words


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("* * * * *", "every minute"),
        ("*/1 * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("*/30 * * * *", "every 30 minutes"),
        ("0 * * * *", "every hour"),
        ("0 */2 * * *", "every 2 hours"),
        ("0 */12 * * *", "every 12 hours"),
        ("0 15 * * *", "daily at 15:00"),
        ("5 7 * * *", "daily at 07:05"),
        ("59 23 * * *", "daily at 23:59"),
        ("30 9 * * 1", "on Mondays at 09:30"),
        ("30 9 * * 0", "on Sundays at 09:30"),
        ("30 9 * * 7", "on Sundays at 09:30"),
        ("30 9 * * 1-5", "on weekdays at 09:30"),
        ("0 6 1 * *", "on day 1 of each month at 06:00"),
        ("0 6 31 * *", "on day 31 of each month at 06:00"),
    ],
)
def test_simple_schedule_is_described(schedule: str, said: str) -> None:
    assert words(schedule) == said


@pytest.mark.parametrize(
    "schedule",
    [
        "", "@daily", "* * * *", "* * * * * *", "*/7 * * * *", "*/45 * * * *", "*/0 * * * *", "*/60 * * * *",
        "5 * * * *", "0 */5 * * *", "0 */24 * * *", "5 */2 * * *", "60 9 * * *", "0 24 * * *", "0 9 1 * 1",
        "0 9 * 1 *", "0 9 32 * *", "0 9 * * 8", "0 9 * * MON", "0 9 * * 1,2", "0 9 L * *", "0 9-17 * * *",
        "0,30 9 * * *", "\u0661 9 * * *", "001 9 * * *", "*/15 9 * * *", "* 9 * * *", "0 * 1 * *",
        "0 9 */2 * *",
    ],
)  # fmt: skip
def test_complex_schedule_is_not_described(schedule: str) -> None:
    assert words(schedule) is None
