"""Cron schedules that robfig/cron's ``ParseStandard`` accepts and rejects."""

import re

import pytest

from workflows.argo import cron


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *",
        "5 4 * * *",
        "*/15 0,12 1-31/2 JAN-DEC mon-Fri",
        "0 0 ? * SUN",
        "30/5 * * * 6",
        "  0  3 * * 0 ",
        "@yearly",
        "@annually",
        "@monthly",
        "@weekly",
        "@daily",
        "@midnight",
        "@hourly",
        "@every 1h30m10s",
        "CRON_TZ=Asia/Tokyo 30 4 * * *",
        "TZ=UTC @daily",
    ],
)
def test_good(text):
    cron.check(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 fields"),
        ("not a cron", "3 fields"),
        ("0 0 3 * * 0", "6 fields"),
        ("60 * * * *", "minute 60 is not in 0 to 59"),
        ("* 24 * * *", "hour 24"),
        ("* * 0 * *", "day of the month 0"),
        ("* * * 13 *", "month 13"),
        ("* * * FOO *", "`FOO` is not a month"),
        ("* * * * 7", "Sunday is 0"),
        ("5-1 * * * *", "starts after its end"),
        ("*/0 * * * *", "`0` in `*/0` is not a step"),
        ("*/x * * * *", "not a step"),
        ("1-2-3 * * * *", "`1-2-3` is not a minute"),
        ("1//2 * * * *", "is not a minute"),
        ("1, * * * *", "`` is not a minute"),
        ("-1 * * * *", "`` is not a minute"),
        ("² * * * *", "is not a minute"),
        ("@reboot", "is not one of"),
        ("@every 5", "@every 5s"),
        ("@every never", "not a duration"),
        ("CRON_TZ=UTC", "1 fields"),
    ],
)
def test_bad(text, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        cron.check(text)


def test_zone_of_a_schedule():
    assert cron.zone("CRON_TZ=Asia/Tokyo 30 4 * * *") == "Asia/Tokyo"
    assert cron.zone("30 4 * * *") == ""
